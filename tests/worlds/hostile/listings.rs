//! Lists the archives with other programs, to check that they are what they claim to be.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingProgram {
    GnuTar,
    BsdTar,
    Python,
}
pub use ListingProgram::{BsdTar, GnuTar, Python};

/// Lists types, modes, sizes, names and targets of archives, one member per line, with a line between archives;
/// errors as Python reports them.
const LISTING: &str = r"
import sys, tarfile
for path in sys.argv[1:]:
    try:
        with tarfile.open(path, 'r:', errorlevel=2) as archive:
            for it in archive:
                print(it.type, oct(it.mode), it.size, ascii(it.name), ascii(it.linkname))
    except Exception as error:
        print('refused', type(error).__name__, error)
    print('-' * 40)
";

/// Returns what a program prints for each of these archives. It does not unpack them.
pub fn listings(judge: ListingProgram, tars: &[&[u8]]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let write = |(number, tar): (usize, &&[u8])| {
        let path = directory.path().join(number.to_string());
        fs::write(&path, [*tar, &[0; 1024]].concat()).unwrap();
        path
    };
    let paths: Vec<PathBuf> = tars.iter().enumerate().map(write).collect();
    let listed = |words: &[&str], paths: &[PathBuf]| {
        let mut command = Command::new("timeout");
        command.arg("60").args(words).args(paths).stdin(Stdio::null()).env("LC_ALL", "C.UTF-8");
        let done = command.output().unwrap();
        String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned()
    };
    let each = |words: &[&str]| paths.chunks(1).map(|path| listed(words, path)).collect();
    match judge {
        GnuTar => each(&["tar", "--numeric-owner", "-tvf"]),
        BsdTar => each(&["bsdtar", "-tvf"]),
        Python => {
            let all = listed(&["python3", "-c", LISTING], &paths);
            all.split(&"-".repeat(40)).map(str::to_owned).collect()
        }
    }
}
