//! Staging: a hidden directory in which a restore is prepared. It is on the same mount as the items, so that an
//! item is placed by a rename.
//!
//! Staging is normally in the store directory. The daemon treats it as garbage there: only the shared `gc.lock`
//! of the run prevents a collector from removing it. While the lock has to be released, or while the store is
//! read-only, staging is outside the store, in a directory that no collector reads.

use super::Layout;
use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, fstat, mkdir, open, openat};
use std::fs::File;
use std::fs::Permissions;
use std::io::{Error, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use storecache_runtime::retry::insist;
use tracing::debug;

const PREFIX: &str = ".storecache-";

/// A staging directory, removed with all its content when it is dropped.
pub struct Staging {
    path: PathBuf,
    pub directory: Arc<OwnedFd>,
}

impl Staging {
    /// Creates a staging directory in `parent`.
    pub fn create(parent: &Path) -> Result<Self> {
        let path = free(parent);
        mkdir(&path, Mode::RWXU)
            .with_context(|| format!("create the staging directory {}", path.display()))?;
        match open_directory(&path).with_context(|| path.display().to_string()) {
            Ok(directory) => {
                debug!(path = %path.display(), "created staging");
                Ok(Staging { path, directory: Arc::new(directory) })
            }
            Err(e) => {
                let _ = insist(|| std::fs::remove_dir(&path));
                Err(e)
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file into the staging directory itself, under a name that is not valid for an item. It is
    /// opened through the descriptor, because another directory may have the path by now.
    pub(super) fn write_file(&self, name: &str, content: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.directory, name, flags | OFlags::CLOEXEC, mode)?;
        Ok(File::from(file).write_all(content)?)
    }

    /// Moves staging out of the store, if it is there, to a directory that no collector reads.
    ///
    /// # Errors
    /// If no such directory is on the same mount. Staging stays in the store then.
    pub fn step_aside(&mut self, layout: &Layout) -> Result<()> {
        if self.path.parent() != Some(&layout.store()) {
            return Ok(());
        }
        let name = self.path.file_name().context("the staging directory has no name")?;
        for place in aside(layout) {
            let path = place.join(name);
            if std::fs::rename(&self.path, &path).is_ok() {
                self.path = path;
                return Ok(());
            }
        }
        bail!("{} is a separate mount", layout.store().display())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = remove(&self.path);
    }
}

/// A temporary directory for files that are created in several steps and then moved to their place in one. It
/// is removed when it is dropped, or by the next run.
pub(super) struct StagedDir(tempfile::TempDir);

impl StagedDir {
    pub fn create(state: &Path) -> Result<Self, Error> {
        tempfile::Builder::new().prefix(PREFIX).tempdir_in(state).map(StagedDir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        let _ = remove(self.0.path());
    }
}

/// Removes a directory with all its content, if it exists. Items are read-only, so a user other than root has
/// to change their modes first.
pub fn remove(path: &Path) -> Result<(), Error> {
    insist(|| match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            open_up(path)?;
            unless_gone(std::fs::remove_dir_all(path))
        }
        other => unless_gone(other),
    })
}

/// Gives the owner write permission on a directory and all directories below it.
fn open_up(directory: &Path) -> Result<(), Error> {
    std::fs::set_permissions(directory, Permissions::from_mode(0o700))?;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_up(&entry.path())?;
        }
    }
    Ok(())
}

fn unless_gone(removed: Result<(), Error>) -> Result<(), Error> {
    removed.or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })
}

/// Returns a free name in `parent`: staging of a killed run may have to stay for now, and that run may have had
/// the same process ID.
fn free(parent: &Path) -> PathBuf {
    let number = std::process::id();
    let first = parent.join(format!("{PREFIX}{number}"));
    let more = (2..).map(|it| parent.join(format!("{PREFIX}{number}-{it}")));
    [first.clone()].into_iter().chain(more).find(|path| !path.exists()).unwrap_or(first)
}

/// Directories for staging that no collector reads. The first one is on the mount of the store, unless the
/// store is a mount of its own.
pub fn aside(layout: &Layout) -> [PathBuf; 2] {
    let store = layout.store();
    [store.parent().map_or_else(|| layout.root.clone(), Path::to_owned), layout.state()]
}

/// Returns the staging directories that exist although no run is active, sorted. The caller has checked that no
/// process holds the lock that every run holds.
pub fn left_by_dead_runs(layout: &Layout) -> Result<Vec<PathBuf>> {
    let mut left = Vec::new();
    for parent in aside(layout).iter().chain([&layout.store()]).filter(|it| it.read_dir().is_ok()) {
        left.extend(staging_paths(parent)?);
    }
    left.sort_unstable();
    Ok(left)
}

/// Removes the staging directories that killed runs left in `parent`. The caller holds the lock that every run
/// holds.
pub fn clean_stale(parent: &Path) -> Result<()> {
    for staging in AbandonedStaging::all_in(parent)? {
        debug!(staging = %staging.path().display(), "remove the staging of a killed run");
        staging.remove()?;
    }
    Ok(())
}

/// The staging directory of a run that has ended, owned by the user of this process.
///
/// Other users, such as build users, may create files in a store. Their files are not evidence of a commit to
/// undo, and stay where they are.
pub struct AbandonedStaging {
    path: PathBuf,
    directory: OwnedFd,
}

impl AbandonedStaging {
    /// Opens all abandoned staging directories in `parent`. The caller holds the lock that every run holds.
    pub fn all_in(parent: &Path) -> Result<Vec<Self>> {
        let ours = rustix::process::geteuid().as_raw();
        let opened = staging_paths(parent)?.into_iter().filter_map(|path| {
            // A link or a file is not a staging directory.
            let directory = open_directory(&path).ok()?;
            let is_ours = fstat(&directory).is_ok_and(|found| found.st_uid == ours);
            is_ours.then_some(AbandonedStaging { path, directory })
        });
        Ok(opened.collect())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Reads a file that [`Staging::write_file`] has written; `None` if it does not exist.
    ///
    /// # Errors
    /// If it is not a regular file, or cannot be read.
    pub fn read_file(&self, name: &str) -> Result<Option<String>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.directory, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            opened => File::from(opened?),
        };
        if !file.metadata()?.is_file() {
            bail!("{} is not a regular file", self.path.join(name).display());
        }
        Ok(Some(std::io::read_to_string(file)?))
    }

    /// Whether it contains a file with this name.
    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    pub fn remove(self) -> Result<()> {
        remove(&self.path)
            .with_context(|| format!("remove {}, left by a killed run", self.path.display()))
    }
}

fn open_directory(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
}

/// Returns everything in `parent` that has the name of a staging directory.
fn staging_paths(parent: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(parent) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| parent.display().to_string()),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{lchown, symlink};

    #[test]
    fn only_directories_of_this_user_are_abandoned_staging() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        for name in [".storecache-1", ".storecache-2", "other"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        lchown(at(".storecache-2"), Some(1234), None).unwrap();
        symlink(at("other"), at(".storecache-3")).unwrap();
        std::fs::write(at(".storecache-4"), "").unwrap();
        let found = AbandonedStaging::all_in(parent.path()).unwrap();
        let paths: Vec<_> = found.iter().map(AbandonedStaging::path).collect();
        assert_eq!(paths, [at(".storecache-1")]);
        drop(found);
        clean_stale(parent.path()).unwrap();
        assert!(!at(".storecache-1").exists() && at(".storecache-2").exists());
        assert!(at("other").exists());
    }

    #[test]
    fn a_file_of_staging_is_read_through_its_directory() {
        let parent = tempfile::tempdir().unwrap();
        let staging = Staging::create(parent.path()).unwrap();
        staging.write_file(".plan", b"text").unwrap();
        assert!(staging.write_file(".plan", b"again").is_err(), "never over another");
        symlink("/etc/passwd", staging.path().join(".link")).unwrap();
        let [abandoned] = &AbandonedStaging::all_in(parent.path()).unwrap()[..] else {
            panic!("one is there");
        };
        assert_eq!(abandoned.read_file(".plan").unwrap().as_deref(), Some("text"));
        assert_eq!(abandoned.read_file(".none").unwrap(), None);
        assert!(abandoned.read_file(".link").is_err());
        assert!(abandoned.has(".link") && !abandoned.has(".none"));
    }
}
