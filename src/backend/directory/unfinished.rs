//! A file on its way into a directory: it has no name until it is whole, so that a run that is killed leaves
//! none.
//!
//! Where the file system has no files without a name, it has one that no entry has, and a lock that ends with
//! its maker: the next run removes it.

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, flock, linkat, open};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use tempfile::NamedTempFile;

const PREFIX: &str = ".storecache-";

pub enum Unfinished {
    Unnamed(File),
    Named(NamedTempFile),
}

impl Unfinished {
    pub fn create(directory: &Path) -> Result<Self> {
        sweep(directory);
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match open(directory, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Unfinished::Unnamed(file.into())),
            // What is wrong with the directory, if anything is, the other way tells too.
            Err(_) => Self::named(directory),
        }
    }

    fn named(directory: &Path) -> Result<Self> {
        let file = tempfile::Builder::new().prefix(PREFIX).tempfile_in(directory)?;
        // Some network file systems have no locks, and there the next run takes nothing away either.
        let _ = flock(file.as_file(), FlockOperation::NonBlockingLockExclusive);
        Ok(Unfinished::Named(file))
    }

    pub fn file(&self) -> &File {
        match self {
            Unfinished::Unnamed(file) => file,
            Unfinished::Named(file) => file.as_file(),
        }
    }

    /// Gives it the name, if nothing is called that.
    pub fn call(self, name: &Path) -> Result<()> {
        match self {
            Unfinished::Unnamed(file) => {
                // The way for who is not root (`man 2 open`, O_TMPFILE).
                let link = format!("/proc/self/fd/{}", file.as_raw_fd());
                Ok(linkat(CWD, link, CWD, name, AtFlags::SYMLINK_FOLLOW)?)
            }
            Unfinished::Named(file) => file.persist_noclobber(name).map(drop).map_err(Error::from),
        }
    }
}

/// Removes what dead runs of this user left. What cannot be looked at stays.
fn sweep(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in
        entries.filter(|it| it.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()))
    {
        let path = entry.path();
        let ours = entry
            .metadata()
            .is_ok_and(|it| it.is_file() && it.uid() == rustix::process::geteuid().as_raw());
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let unlocked = |file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        if ours && open(&path, flags, Mode::empty()).is_ok_and(unlocked) {
            let _ = std::fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_name_gets_one_that_is_free() {
        let place = tempfile::tempdir().unwrap();
        let names = || place.path().read_dir().unwrap().count();
        for make in [Unfinished::create, Unfinished::named] {
            let before = names();
            let name = place.path().join(before.to_string());
            let file = make(place.path()).unwrap();
            assert!(matches!(file, Unfinished::Named(_)) || names() == before);
            file.call(&name).unwrap();
            assert!(name.exists());
            assert!(make(place.path()).unwrap().call(&name).is_err(), "never overwritten");
            assert_eq!(names(), before + 1);
        }
    }

    #[test]
    fn files_of_dead_runs_go_and_those_of_live_ones_stay() {
        let place = tempfile::tempdir().unwrap();
        let live = Unfinished::named(place.path()).unwrap();
        std::fs::write(place.path().join(".storecache-dead"), "half").unwrap();
        std::fs::write(place.path().join("k.20261122T095523.123456Z.tar.zst"), "whole").unwrap();
        drop(Unfinished::create(place.path()).unwrap());
        assert_eq!(place.path().read_dir().unwrap().count(), 2);
        drop(live);
        assert_eq!(place.path().read_dir().unwrap().count(), 1);
    }
}
