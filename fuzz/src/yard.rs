//! A target directory next to files that must not change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub struct Yard {
    directory: tempfile::TempDir,
    before: Picture,
}

/// Everything about each file that could change, except its access time.
type Picture = BTreeMap<PathBuf, (u32, u32, u32, u64, u64, (i64, i64), Vec<u8>)>;

impl Yard {
    pub fn new() -> Yard {
        let memory = Path::new("/dev/shm");
        let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::Builder::new().prefix("storecache-yard-").tempdir_in(place);
        let directory = directory.expect("a directory in memory");
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("outside")).unwrap();
        fs::write(at("outside/secret"), "secret\n").unwrap();
        fs::write(at("bystander"), "bystander\n").unwrap();
        symlink("outside", at("link")).unwrap();
        let before = picture(directory.path());
        Yard { directory, before }
    }

    /// Returns an empty target directory; removes the previous one.
    pub fn target(&self) -> PathBuf {
        let target = self.directory.path().join("target");
        clear(&target);
        fs::create_dir(&target).unwrap();
        target
    }

    #[track_caller]
    pub fn assert_untouched(&self) {
        assert_eq!(picture(self.directory.path()), self.before, "what lies outside has changed");
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        clear(&self.directory.path().join("target"));
    }
}

fn picture(top: &Path) -> Picture {
    let mut picture = Picture::new();
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path == top.join("target") {
                continue;
            }
            let m = path.symlink_metadata().unwrap();
            let content = if m.is_dir() {
                pending.push(path.clone());
                Vec::new()
            } else if m.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let times = (m.mtime(), m.mtime_nsec());
            picture.insert(path, (m.mode(), m.uid(), m.gid(), m.ino(), m.nlink(), times, content));
        }
    }
    picture
}

/// Removes a directory whatever its modes are. Does not follow links.
fn clear(top: &Path) {
    if fs::remove_dir_all(top).is_ok() {
        return;
    }
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        if !directory.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            continue;
        }
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        pending.extend(fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()));
    }
    let removed = fs::remove_dir_all(top);
    assert!(removed.is_ok() || !top.exists(), "{removed:?}");
}
