//! Information about processes from `/proc`.

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, open};
use rustix::param::clock_ticks_per_second;
use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use storecache_runtime::disclosure;
use storecache_runtime::process_stat::{ProcessStat, processes};

/// Number of characters after which a command line is truncated in messages: some contain a whole script.
const COMMAND_LIMIT: usize = 120;

/// `SS_CONNECTED`, as in the kernel's table of sockets.
const CONNECTED: &str = "03";

pub fn directory(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn about(pid: u32) -> String {
    format!("examine the daemon, process {pid}")
}

/// Returns the zero-terminated strings in `cmdline` or `environ`.
pub fn words(pid: u32, file: &str) -> Result<Vec<OsString>> {
    let bytes = std::fs::read(directory(pid).join(file)).with_context(|| about(pid))?;
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    Ok(bytes.split(|&b| b == 0).map(|w| OsString::from_vec(w.to_vec())).collect())
}

/// Returns the environment that the process was started with.
pub fn environment(pid: u32) -> Result<Vec<(OsString, OsString)>> {
    let variables = words(pid, "environ")?.into_iter().filter_map(|variable| {
        let bytes = variable.into_vec();
        let equals = bytes.iter().position(|&b| b == b'=')?;
        let (name, value) = (bytes[..equals].to_vec(), bytes[equals + 1..].to_vec());
        Some((OsString::from_vec(name), OsString::from_vec(value)))
    });
    Ok(variables.collect())
}

/// Returns a library that a process runs and that was removed or replaced on disk since; its program itself
/// does not count (`man 5 proc_pid_maps`).
///
/// # Errors
/// If the process cannot be examined.
pub fn replaced_library(pid: u32) -> io::Result<Option<String>> {
    let program = std::fs::read_link(directory(pid).join("exe"))?;
    let maps = std::fs::read(directory(pid).join("maps"))?;
    let maps = String::from_utf8_lossy(&maps);
    Ok(maps.lines().find_map(|line| {
        // address, permissions, offset, device, inode, path
        let mut fields = line.split_ascii_whitespace();
        let (permissions, inode) = (fields.nth(1)?, fields.nth(2)?);
        let path = &line[line.find('/')?..];
        let library = path.strip_suffix(" (deleted)")?;
        let is_code = permissions.contains('x') && inode != "0";
        let is_file = !path.starts_with("/memfd:") && !path.starts_with("/dev/");
        (is_code && is_file && Path::new(path) != program).then(|| library.to_owned())
    }))
}

/// Opens the target of a link of the process, such as `root` or `cwd`.
pub fn open_link(pid: u32, file: &str, flags: OFlags) -> Result<OwnedFd> {
    let fd = open(directory(pid).join(file), flags | OFlags::CLOEXEC, Mode::empty());
    fd.with_context(|| about(pid))
}

/// Whether `pid` is `ancestor` or a descendant of it.
pub fn descends(pid: u32, ancestor: u32) -> bool {
    let mut line = std::iter::successors(Some(pid), |&pid| parent(pid));
    line.any(|pid| pid == ancestor)
}

/// Returns the parent of a process: the process that started it, or that adopted it when its parent ended.
/// `None` for the first process, and for a process that cannot be examined.
pub fn parent(pid: u32) -> Option<u32> {
    parent_of(pid).ok().filter(|&pid| pid != 0)
}

/// As [`parent`], but returns 0 for a process without a visible parent.
///
/// # Errors
/// If the process cannot be examined.
pub fn parent_of(pid: u32) -> io::Result<u32> {
    Ok(ProcessStat::read(pid)?.parent)
}

/// Returns the process and its direct children.
pub fn family(pid: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    [pid].into_iter().chain(children).collect()
}

/// Whether the process has accepted a connection on a named socket: such a connection has the name of the
/// listening socket, while the client's end does not have a name (`linux:net/unix/af_unix.c`,
/// `unix_stream_connect`).
pub fn serves(pid: u32) -> bool {
    let files = std::fs::read_dir(directory(pid).join("fd")).into_iter().flatten().flatten();
    let targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    let sockets: Vec<String> = targets.filter_map(|target| inode(target.to_str()?)).collect();
    let table = std::fs::read_to_string(directory(pid).join("net/unix")).unwrap_or_default();
    table.lines().any(|line| {
        // Num RefCount Protocol Flags Type St Inode Path (man 5 proc_pid_net).
        let mut fields = line.split_whitespace().skip(5);
        let (state, inode, name) = (fields.next(), fields.next(), fields.next());
        state == Some(CONNECTED)
            && name.is_some()
            && inode.is_some_and(|inode| sockets.iter().any(|socket| socket == inode))
    })
}

/// Returns the inode of a socket from the link of a descriptor (`man 5 proc_pid_fd`).
fn inode(target: &str) -> Option<String> {
    Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
}

/// Whether the process is running, runnable, or waiting for a disk. Other waits do not count.
pub fn is_at_work(pid: u32) -> bool {
    ProcessStat::read(pid).is_ok_and(|stat| stat.is_at_work())
}

/// Returns when the process was forked, in clock ticks since boot.
pub fn started_at(pid: u32) -> Option<u64> {
    Some(ProcessStat::read(pid).ok()?.started_at)
}

/// Returns the current time, in the unit of [`started_at`].
pub fn ticks_now() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let of_second =
        u64::try_from(now.tv_nsec).unwrap_or(0) * clock_ticks_per_second() / 1_000_000_000;
    u64::try_from(now.tv_sec).unwrap_or(0) * clock_ticks_per_second() + of_second
}

/// Returns all processes that are visible from here.
pub fn all() -> impl Iterator<Item = u32> {
    processes().into_iter().flatten()
}

/// Describes the process for messages: `process 7 (nix-daemon --daemon)`, as far as the reader may know
/// ([`disclosure`]).
pub fn describe(pid: u32) -> String {
    let words = match disclosure::command_line(pid) {
        None if disclosure::is_limited() => return "another process".into(),
        words => words.unwrap_or_default(),
    };
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    let command = words.join(" ");
    let command: String = command.chars().filter(|c| !c.is_control()).collect();
    match command.trim() {
        "" => format!("process {pid}"),
        command => match command.char_indices().nth(COMMAND_LIMIT) {
            Some((end, _)) => format!("process {pid} ({}…)", &command[..end]),
            None => format!("process {pid} ({command})"),
        },
    }
}
