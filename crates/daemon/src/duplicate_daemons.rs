//! Other daemons of the same store. A daemon that starts replaces the socket of a running one, which continues
//! to run but cannot be reached any more.

use super::procfs;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The flag of a listening socket in `/proc/net/unix`.
const LISTENS: &str = "00010000";

/// Returns the processes called `name` that listen on a socket bound at `socket` other than the socket of
/// `listener`. `socket` is the path as programs inside `root` name it.
pub fn find_duplicates(name: &str, root: &Path, socket: &Path, listener: Option<u32>) -> Vec<u32> {
    let live = listener.map(|pid| held(pid).collect::<HashSet<_>>()).unwrap_or_default();
    let mut lost = bound_at(socket);
    lost.retain(|socket| !live.contains(socket));
    let rivals = procfs::all().filter(|&pid| {
        is_called(pid, name)
            && is_below(pid, root)
            && !listens_elsewhere(pid, socket)
            && held(pid).any(|socket| lost.contains(&socket))
    });
    rivals.collect()
}

/// Whether a process has a listening socket open that has the file name of `socket`, in any directory: the
/// kernel keeps the path as it was given to bind, which may be relative.
pub fn has_open(pid: u32, socket: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let named = rows.filter(|row| {
        row.len() == 8 && row[3] == LISTENS && Path::new(row[7]).file_name() == socket.file_name()
    });
    let named: HashSet<String> = named.map(|row| format!("socket:[{}]", row[6])).collect();
    held(pid).any(|open| named.contains(&open))
}

/// Returns the sockets that listen at a path, in the notation of `/proc/PID/fd`. Guix's daemon changes to the
/// directory first, so that the kernel only knows `./socket`.
fn bound_at(socket: &Path) -> HashSet<String> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let relative = Path::new(".").join(socket.file_name().unwrap_or_default());
    // Num RefCount Protocol Flags Type St Inode Path
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = rows.filter(|row| row.len() == 8 && row[3] == LISTENS);
    let here = listening.filter(|row| [socket, &relative].contains(&Path::new(row[7])));
    here.map(|row| format!("socket:[{}]", row[6])).collect()
}

fn is_called(pid: u32, name: &str) -> bool {
    let comm = std::fs::read_to_string(procfs::directory(pid).join("comm")).unwrap_or_default();
    comm.trim_end() == name
}

/// Whether the process has the same root directory, so that its paths have the same meaning.
fn is_below(pid: u32, root: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).map(|root| (root.dev(), root.ino())).ok();
    let theirs = identity(&procfs::directory(pid).join("root"));
    theirs.is_some() && theirs == identity(root)
}

/// Whether the command line of the process makes it listen on other sockets, and not on this one.
fn listens_elsewhere(pid: u32, socket: &Path) -> bool {
    let words = procfs::words(pid, "cmdline").unwrap_or_default();
    let option = OsStr::new("--listen");
    let is_option = |word: &&OsStr| word.as_bytes().starts_with(option.as_bytes());
    let asked = words.iter().any(|word| is_option(&word.as_os_str()));
    let this = socket.as_os_str().as_bytes();
    asked && !words.iter().any(|word| word.as_bytes().ends_with(this))
}

/// Returns the open files of a process, in the kernel's notation.
fn held(pid: u32) -> impl Iterator<Item = String> {
    let descriptors = std::fs::read_dir(procfs::directory(pid).join("fd"));
    let descriptors = descriptors.into_iter().flatten().flatten();
    descriptors
        .filter_map(|fd| std::fs::read_link(fd.path()).ok()?.into_os_string().into_string().ok())
}
