//! Reads `/proc` for the processes of a world, from outside. "Outer" pids are those in the namespace of the
//! test process, "inner" pids those in the namespace of the world.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The first child of a process.
pub fn first_child(outer: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// A field of `/proc/PID/status`; empty once the process has ended.
pub fn status(outer: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{outer}/status")).unwrap_or_default();
    let values = status.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    values.map(|value| value.trim().to_owned()).next().unwrap_or_default()
}

/// The pids of one process in each nested namespace, the test's own first.
pub fn pids(outer: u32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{outer}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|pid| pid.parse().ok()).collect()
}

/// Whether a process is running. False for a zombie, unlike `kill -0`.
pub fn is_alive(outer: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{outer}/stat")) else {
        return false;
    };
    let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
    !state.is_some_and(|state| state.starts_with(['Z', 'X']))
}

/// All processes that the test process can see.
pub fn all() -> Vec<u32> {
    let names = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// The processes in the pid namespace of `outer`, including `outer`.
pub fn processes_in_namespace(outer: u32) -> Vec<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(outer);
    all().into_iter().filter(|&pid| own.is_some() && namespace(pid) == own).collect()
}

/// Whether a process has a nonempty file open that has no name yet, as an entry is while a save writes it
/// (`man 2 open`, `O_TMPFILE`). Empty ones do not count, because the program also creates one to test whether
/// this is supported.
pub fn has_unnamed_file(outer: u32) -> bool {
    let files = fs::read_dir(format!("/proc/{outer}/fd")).into_iter().flatten().flatten();
    let mut paths = files.map(|file| file.path());
    paths.any(|path| {
        let name = fs::read_link(&path).ok().and_then(|link| link.file_name().map(OsStr::to_owned));
        name.is_some_and(|name| name.as_encoded_bytes().starts_with(b"#"))
            && fs::metadata(path).is_ok_and(|file| file.len() > 0)
    })
}

/// The processes of a namespace that hold the listening end of a socket file. guix-daemon binds the socket as
/// `./socket`, and the kernel reports no more than that; so if a second guix-daemon has replaced the file,
/// the first one is returned too.
pub fn listeners(init: u32, socket: &Path) -> Vec<u32> {
    let relative = Path::new(".").join(socket.file_name().unwrap());
    let table = fs::read_to_string(format!("/proc/{init}/net/unix")).unwrap_or_default();
    // Columns: Num RefCount Protocol Flags Type St Inode Path. Flag 0x10000 marks a listener.
    let inodes: Vec<PathBuf> = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|row| row.len() == 8 && row[3] == "00010000")
        .filter(|row| [socket.as_os_str(), relative.as_os_str()].contains(&row[7].as_ref()))
        .map(|row| PathBuf::from(format!("socket:[{}]", row[6])))
        .collect();
    if inodes.is_empty() {
        return Vec::new();
    }
    let holds = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| inodes.contains(&target))
        })
    };
    processes_in_namespace(init).into_iter().filter(holds).collect()
}
