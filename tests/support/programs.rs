//! Programs that a test writes and then has executed.
//!
//! The test process must not write such a file itself: while it has the file open, any other thread may fork,
//! and the kernel executes no file that some process still has open for writing (`ETXTBSY`, `man 2 execve`).

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Writes an executable file, usually a script.
#[track_caller]
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    let mut install = Command::new("install");
    install.args(["-m", "755", "/dev/stdin"]).arg(path).stdin(Stdio::piped());
    let mut child = install.spawn().unwrap();
    child.stdin.take().unwrap().write_all(content.as_ref()).unwrap();
    assert!(child.wait().unwrap().success(), "cannot write {}", path.display());
}

/// Copies an executable file.
#[track_caller]
pub fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").args([from, to]).status().unwrap();
    assert!(status.success(), "cannot copy {}", from.display());
}
