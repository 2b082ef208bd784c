//! New files in a directory. A file has no name until it is complete, so that a killed run leaves nothing behind.
//!
//! If the file system does not support files without names, the file has a temporary name that no entry can have, and
//! a lock that ends with the process that created it. The next run removes such a file if it is not locked.

use rustix::fs::{FlockOperation, flock};
use std::io::Result;
use std::sync::Arc;
use storecache_runtime::files::{FileKind, NewFile, OpenDir, TEMPORARY};

pub fn create(directory: &Arc<OpenDir>) -> Result<NewFile<Arc<OpenDir>>> {
    let file = NewFile::create(Arc::clone(directory))?;
    if file.has_name() {
        lock(&file);
    }
    Ok(file)
}

/// Locks a file. Some network file systems have no locks; there, the next run does not remove the file either.
fn lock(file: &NewFile<Arc<OpenDir>>) {
    let _ = flock(file.file(), FlockOperation::NonBlockingLockExclusive);
}

/// Removes the temporary files that dead runs of this user left behind. Files that cannot be opened stay.
pub fn sweep(directory: &OpenDir) {
    let names = directory.names().unwrap_or_default();
    for name in names.iter().filter(|it| it.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())) {
        let ours = directory.facts(name).is_ok_and(|it| {
            it.kind == FileKind::Regular && it.uid == rustix::process::geteuid().as_raw()
        });
        let unlocked = |file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if ours && directory.open_for_lock(name).is_ok_and(unlocked) {
            let _ = directory.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweep_removes_only_files_of_dead_runs() {
        let place = tempfile::tempdir().unwrap();
        let directory = Arc::new(OpenDir::open(place.path()).unwrap());
        let live = NewFile::with_temporary_name(Arc::clone(&directory)).unwrap();
        lock(&live);
        std::fs::write(place.path().join(".storecache-dead"), "half").unwrap();
        std::fs::write(place.path().join("k.20261122T095523.123456Z.tar.zst"), "whole").unwrap();
        sweep(&directory);
        assert_eq!(place.path().read_dir().unwrap().count(), 2);
        drop(live);
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
    }
}
