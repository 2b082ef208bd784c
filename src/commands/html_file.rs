//! Writing HTML pages to files.

use crate::report::html::Page;
use anyhow::{Context, Result};
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a page to a file, atomically. Writes directly to a path that is not a regular file, such as a pipe.
pub fn write(page: &Page, path: &Path) -> Result<()> {
    let context = || format!("write the page {}", path.display());
    let html = page.render();
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return fs::write(path, html).with_context(context);
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .prefix(".storecache-")
        // Readable and writable for everyone, subject to the umask.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(directory)
        .with_context(context)?;
    file.write_all(html.as_bytes()).with_context(context)?;
    file.persist(path).with_context(context)?;
    Ok(())
}
