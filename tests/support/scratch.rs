//! Temporary directories on the file system of the cache, which are removed when their value is dropped.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::fixture_cache;

/// A private directory, which is removed with its content on drop. `scripts/roots` removes the unlocked ones,
/// which killed tests have left.
#[derive(Debug)]
pub struct Scratch {
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    pub fn new() -> Scratch {
        let parent = fixture_cache::directory().join("scratch");
        let directory = tempfile::Builder::new()
            .prefix("storecache-")
            .tempdir_in(&parent)
            .unwrap_or_else(|_| panic!("run ./scripts/roots first"));
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let lock = File::open(directory.path()).unwrap();
        lock.lock().unwrap();
        Scratch { directory, _lock: lock }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The last component of its path, which is unique on this machine and a valid machine name.
    pub fn name(&self) -> &str {
        self.path().file_name().unwrap().to_str().unwrap()
    }

    /// Copies `source` into this directory, with owners, times and hard links.
    pub fn copy(&self, source: &Path, name: &str) -> PathBuf {
        let target = self.path().join(name);
        let status = Command::new("cp").arg("-a").args([source, &target]).status().unwrap();
        assert!(status.success(), "cannot copy {}", source.display());
        target
    }
}

/// A directory that worlds see as `/cache` and that all their users may write to. Clones share the directory,
/// which is removed with the last of them.
#[derive(Clone, Debug)]
pub struct Backend {
    scratch: Arc<Scratch>,
}

impl Backend {
    pub fn new() -> Backend {
        let scratch = Scratch::new();
        fs::create_dir(scratch.path().join("cache")).unwrap();
        fs::set_permissions(scratch.path().join("cache"), Permissions::from_mode(0o1777)).unwrap();
        Backend { scratch: Arc::new(scratch) }
    }

    /// The path of the directory outside of worlds.
    pub fn host_path(&self) -> PathBuf {
        self.scratch.path().join("cache")
    }
}

impl Default for Backend {
    fn default() -> Backend {
        Backend::new()
    }
}
