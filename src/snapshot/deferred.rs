//! What has to wait until every file of an extraction is there.

use super::SnapshotError;
use super::member::Attributes;
use super::place::{finish_file, set_attributes};
use super::targets::Targets;
use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat};
use std::collections::HashMap;
use std::fs::File;

/// Hard links, the attributes of directories, and files in several frames. By archive path.
#[derive(Default)]
pub struct Deferred {
    /// Path and target.
    links: Vec<(Vec<u8>, Vec<u8>)>,
    directories: Vec<(Vec<u8>, Attributes)>,
    long_files: HashMap<Vec<u8>, LongFile>,
}

/// A file in several frames: it is whole when its header was seen and every byte written.
#[derive(Default)]
pub struct LongFile {
    /// Size in bytes.
    pub header: Option<(u64, Attributes)>,
    pub written: u64,
    pub created: bool,
}

impl Deferred {
    pub fn link(&mut self, path: &[u8], target: &[u8]) {
        self.links.push((path.to_vec(), target.to_vec()));
    }

    pub fn directory(&mut self, path: &[u8], attributes: Attributes) {
        self.directories.push((path.to_vec(), attributes));
    }

    pub fn long_file(&mut self, path: &[u8]) -> &mut LongFile {
        self.long_files.entry(path.to_vec()).or_default()
    }

    /// Does all of it.
    pub fn finish(mut self, targets: &Targets) -> Result<()> {
        let shown = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        for (path, long) in self.long_files {
            let damaged = |what| bail!(SnapshotError::damaged(format!("{}: {what}", shown(&path))));
            let Some((size, attributes)) = long.header else {
                return damaged("its beginning is missing");
            };
            let (parent, name) = targets.locate(&path)?;
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(openat(&parent, &name, flags, Mode::empty())?);
            if long.written != size || file.metadata()?.len() != size {
                return damaged("parts of it are missing");
            }
            finish_file(&file, attributes)?;
        }
        for (path, target) in self.links {
            let (from, from_name) = targets.locate(&target)?;
            let (to, to_name) = targets.locate(&path)?;
            linkat(&from, &from_name, &to, &to_name, AtFlags::empty())
                .with_context(|| shown(&path))?;
        }
        // Deepest first: a directory that lost its write bits would refuse what is below it.
        self.directories.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        if let Some(twice) = self.directories.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            bail!(SnapshotError::damaged(format!("{} appears twice", shown(&twice[0].0))));
        }
        for (path, attributes) in self.directories {
            let (parent, name) = targets.locate(&path)?;
            set_attributes(&parent, &name, attributes, true).with_context(|| shown(&path))?;
        }
        Ok(())
    }
}
