//! Plain directories below a file-system root of their own: a store that needs no world.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde_json::Value;
use tempfile::TempDir;

use super::invocation::Output;
use super::tree::{Entry, tree_digest};
use super::world_runs::report;

/// The attributes of a file that a plain store keeps, beyond those of [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlainEntry {
    pub entry: Entry,
    pub gid: u32,
    /// The first other name of the same file in this tree.
    pub same_file_as: Option<PathBuf>,
}

pub type PlainTree = BTreeMap<PathBuf, PlainEntry>;

/// A root for `--root`, and a backend beside it.
pub struct PlainEnv {
    directory: TempDir,
}

impl PlainEnv {
    pub fn new() -> PlainEnv {
        assert!(
            rustix::process::geteuid().is_root(),
            "plain stores need root: run the tests through sudo"
        );
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        fs::create_dir(directory.path().join("entries")).unwrap();
        PlainEnv { directory }
    }

    /// A fixture with the directories `/opt/tool` and `/var/lib/data`.
    pub fn filled() -> PlainEnv {
        let place = PlainEnv::new();
        fill(&place.host("/opt/tool"));
        place.write("/var/lib/data/one", "one\n");
        place.write("/var/lib/data/below/two", "two\n");
        place
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    /// The directory of the entries' files.
    pub fn entries(&self) -> PathBuf {
        self.directory.path().join("entries")
    }

    /// A path below the root, as the tests see it.
    pub fn host(&self, inside: &str) -> PathBuf {
        self.root().join(inside.trim_start_matches('/'))
    }

    pub fn write(&self, inside: &str, content: &str) {
        let path = self.host(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn read(&self, inside: &str) -> String {
        fs::read_to_string(self.host(inside)).unwrap()
    }

    pub fn remove(&self, inside: &str) {
        fs::remove_dir_all(self.host(inside)).unwrap();
    }

    pub fn tree(&self, inside: &str) -> PlainTree {
        plain_tree(&self.host(inside))
    }

    /// Saves or restores `paths` under the key `test`, whatever the outcome.
    pub fn attempt(&self, verb: &str, paths: &[&str], more: &[&str]) -> Output {
        let mut words: Vec<OsString> = vec![verb.into(), "--root".into(), self.root().into()];
        words.extend(["--store", "plain", "--key", "test", "--backend"].map(OsString::from));
        words.push(format!("dir:{}", self.entries().display()).into());
        for path in paths {
            words.extend(["--path".into(), OsString::from(path)]);
        }
        words.extend(more.iter().map(OsString::from));
        storecache(words)
    }

    /// Saves, which must succeed, and returns the report.
    #[track_caller]
    pub fn save(&self, paths: &[&str]) -> Value {
        report(&self.attempt("save", paths, &["--json"]).ok())
    }

    /// Restores, which must succeed, and returns the report.
    #[track_caller]
    pub fn restore(&self, paths: &[&str], more: &[&str]) -> Value {
        let more = [more, &["--json"]].concat();
        report(&self.attempt("restore", paths, &more).ok())
    }

    /// The file of the newest entry.
    #[track_caller]
    pub fn snapshot(&self) -> PathBuf {
        let files = fs::read_dir(self.entries()).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        files.pop().expect("nothing was saved")
    }

    /// The names of the program's temporary files below the root and in the backend, which a run must remove.
    pub fn leftovers(&self) -> Vec<String> {
        let names = tree_digest(self.directory.path()).into_keys();
        let names = names.filter_map(|path| Some(path.file_name()?.display().to_string()));
        names.filter(|name| name.starts_with(".storecache-")).collect()
    }
}

/// Runs the program under test on this machine, as the user who runs the tests.
pub fn storecache<I: IntoIterator<Item: AsRef<OsStr>>>(words: I) -> Output {
    storecache_in(Path::new("/"), words)
}

/// As [`storecache`], in another working directory.
pub fn storecache_in<I>(directory: &Path, words: I) -> Output
where
    I: IntoIterator<Item: AsRef<OsStr>>,
{
    let mut command = Command::new(binary());
    // The tests may run in a job themselves.
    command.args(words).current_dir(directory);
    for name in ["GITHUB_EVENT_PATH", "RUNNER_DEBUG", "STORECACHE_LOG"] {
        command.env_remove(name);
    }
    output(&mut command)
}

/// The program under test, chosen by the same rule as in a world.
pub fn binary() -> PathBuf {
    std::env::var_os("STORECACHE_TEST_BINARY")
        .map_or(env!("CARGO_BIN_EXE_storecache").into(), PathBuf::from)
}

/// Runs a command of this machine to its end.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let done = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("cannot run {}: {e}", words[0]));
    Output {
        command: words.join(" "),
        status: done.status,
        stdout: String::from_utf8_lossy(&done.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// All attributes that a plain store keeps of the tree at `top`.
pub fn plain_tree(top: &Path) -> PlainTree {
    let mut first_names: HashMap<(u64, u64), PathBuf> = HashMap::new();
    tree_digest(top)
        .into_iter()
        .map(|(path, entry)| {
            let on_disk = match path.as_os_str().is_empty() {
                true => top.to_owned(),
                false => top.join(&path),
            };
            let metadata = fs::symlink_metadata(on_disk).unwrap();
            let inode = (metadata.dev(), metadata.ino());
            let same_file_as = first_names.get(&inode).cloned();
            first_names.entry(inode).or_insert_with(|| path.clone());
            let entry = PlainEntry { entry, gid: metadata.gid(), same_file_as };
            (path, entry)
        })
        .collect()
}

/// Panics with the first difference instead of two whole trees.
#[track_caller]
pub fn assert_same_tree(before: &PlainTree, after: &PlainTree) {
    let names = |tree: &PlainTree| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(before), names(after));
    for (path, entry) in before {
        assert_eq!(entry, &after[path], "{}", path.display());
    }
}

/// Creates a directory with every kind of file and attribute that a plain store keeps.
fn fill(top: &Path) {
    let long = "7".repeat(120);
    let files: [(&[u8], &[u8]); 12] = [
        (b"bin/run", b"#!/bin/sh\n"),
        (b"bin/setuid", b"root\n"),
        (b"empty", b""),
        (b"one", b"linked\n"),
        (b"old", b"before 1970\n"),
        (b"older", b"long before\n"),
        (b"fine", b"to the nanosecond\n"),
        (b"foreign", b"of a large number\n"),
        (b"shared/file", b"group\n"),
        (b"caf\xE9", b"latin1\n"),
        (b"two\nlines", b"newline\n"),
        (b"a b", b"space\n"),
    ];
    for (name, content) in files {
        write(top, OsStr::from_bytes(name), content);
    }
    let deep = format!("deep/{long}/{long}/{long}");
    write(top, OsStr::new(&format!("{deep}/file")), b"deep\n");
    write(top, OsStr::new(&"8".repeat(255)), b"longest\n");
    let large: Vec<u8> = (0..1_300_000u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
    write(top, OsStr::new("large"), &[large.clone(), large].concat());
    fs::create_dir(top.join("empty-directory")).unwrap();
    fs::hard_link(top.join("one"), top.join("same-file")).unwrap();
    fs::hard_link(top.join("one"), top.join("shared/same-file")).unwrap();
    symlink("one", top.join("relative")).unwrap();
    symlink("/nowhere/at/all", top.join("dangling")).unwrap();
    symlink(".", top.join("loop")).unwrap();
    symlink(&deep, top.join("to-deep")).unwrap();

    // Owners first, because a change of the owner clears setuid.
    for (name, uid, gid) in
        [("one", 12, 34), ("foreign", 3_000_000, 4_000_000), ("shared", 0, 100), ("", 1001, 1002)]
    {
        chown(top.join(name), Some(uid), Some(gid)).unwrap();
    }
    lchown(top.join("dangling"), Some(5), Some(6)).unwrap();
    for (name, mode) in [
        ("bin/run", 0o755),
        ("bin/setuid", 0o4755),
        ("shared", 0o2775),
        ("empty-directory", 0o1777),
        ("empty", 0o000),
        ("one", 0o640),
        ("", 0o750),
    ] {
        fs::set_permissions(top.join(name), Permissions::from_mode(mode)).unwrap();
    }
    let deepest = format!("{deep}/file");
    for (name, seconds, nanos) in [
        ("old", -86_401, 750_000_000),
        ("older", -5, 0),
        ("fine", 1_234_567_890, 123_456_789),
        ("dangling", 1_000_000_000, 1),
        (deepest.as_str(), 1_600_000_000, 999_999_999),
        ("one", 1, 0),
        ("empty-directory", 0, 500_000_000),
        ("shared", 1_500_000_000, 0),
        ("", 1_400_000_000, 42),
    ] {
        set_mtime(&top.join(name), seconds, nanos);
    }
}

fn write(top: &Path, name: &OsStr, content: &[u8]) {
    let path = top.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    set_mtime(&path, 1_700_000_000, 0);
}

/// Sets the times of a file, or of a symlink itself.
pub fn set_mtime(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Truncates a file to a length.
pub fn truncate(path: &Path, length: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}
