//! Our roots: direct links that keep restored items from the collector.
//!
//! Both daemons follow every symbolic link below `gcroots` into the store. Links in `gcroots/auto`
//! would not do: the collector removes those whose target is gone.

use super::{ItemName, Layout, Owner};
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::PathBuf;

/// Roots that were added. Dropped before [`Roots::keep`], it removes them again.
#[derive(Default)]
pub struct Roots {
    added: Vec<PathBuf>,
}

impl Roots {
    /// Roots `items`; a link that is there already stays.
    pub fn add(&mut self, layout: &Layout, items: &[ItemName], owner: Owner) -> Result<()> {
        let directory = layout.roots();
        if items.is_empty() {
            return Ok(());
        }
        // Where no daemon has been yet, the one above is missing too, and has to be the daemon's.
        let above = directory.parent().map(PathBuf::from);
        for missing in above.iter().chain([&directory]).filter(|path| !path.exists()) {
            std::fs::DirBuilder::new()
                .mode(0o755)
                .create(missing)
                .with_context(|| missing.display().to_string())?;
            owner.take(missing)?;
            self.added.push(missing.clone());
        }
        for item in items {
            let link = directory.join(item.as_str());
            match symlink(format!("{}/{item}", layout.store_dir), &link) {
                Ok(()) => self.added.push(link.clone()),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                Err(e) => return Err(e).with_context(|| link.display().to_string()),
            }
            owner.take(&link)?;
        }
        Ok(())
    }

    pub fn keep(mut self) {
        self.added.clear();
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        for path in self.added.drain(..).rev() {
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
    }
}
