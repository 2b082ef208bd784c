//! The system calls that can fail for lack of space, memory or descriptors or because of a broken disk,
//! sorted into kinds, and the errors of each kind.

use std::fs;

use nix::libc;

use super::syscall_injector::memory;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Opens an existing file for reading.
    Open,
    /// Creates a file, or opens one for writing.
    Create,
    Read,
    Write,
    List,
    Stat,
    Rename,
    Mkdir,
    Link,
    Unlink,
    /// Modes, owners, times.
    Mode,
    /// Sizes and reservations.
    Size,
    Sync,
    Lock,
    Mmap,
    Mount,
    /// Threads and processes.
    Clone,
    Exec,
    Pipe,
    PipeSize,
    Dup,
    Socket,
    /// Other calls that return a descriptor.
    Event,
}

impl Kind {
    /// The errors that the campaign injects into such a call.
    pub fn errors(self) -> &'static [i32] {
        match self {
            Kind::Open => &[libc::EIO, libc::EMFILE, libc::ENOMEM],
            Kind::Create => &[libc::ENOSPC, libc::EIO, libc::EROFS, libc::EMFILE],
            Kind::Write | Kind::Size => &[libc::ENOSPC, libc::EIO],
            Kind::Sync => &[libc::EIO, libc::ENOSPC],
            Kind::Rename | Kind::Mkdir | Kind::Link => &[libc::ENOSPC, libc::EIO, libc::EROFS],
            Kind::Unlink | Kind::Mode => &[libc::EIO, libc::EROFS],
            Kind::Read | Kind::List | Kind::Stat => &[libc::EIO],
            Kind::Lock => &[libc::ENOLCK, libc::EIO],
            Kind::Mmap | Kind::Mount => &[libc::ENOMEM],
            Kind::Clone => &[libc::EAGAIN, libc::ENOMEM],
            Kind::Exec => &[libc::ENOMEM, libc::EIO],
            Kind::Pipe | Kind::Dup | Kind::Event => &[libc::EMFILE],
            Kind::PipeSize => &[libc::ENOMEM],
            Kind::Socket => &[libc::EMFILE, libc::ENOMEM],
        }
    }
}

/// Only the runtime requests less memory, for the signal stack of a new thread. It aborts if that fails,
/// which a program cannot prevent. Allocators and thread stacks request more.
const LEAST_MEMORY: u64 = 64 << 10;

/// The numbers of the observed calls.
pub(super) fn numbers() -> Vec<i64> {
    let mut numbers = vec![
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_read,
        libc::SYS_pread64,
        libc::SYS_readv,
        libc::SYS_preadv,
        libc::SYS_write,
        libc::SYS_pwrite64,
        libc::SYS_writev,
        libc::SYS_pwritev,
        libc::SYS_copy_file_range,
        libc::SYS_getdents64,
        libc::SYS_statx,
        libc::SYS_newfstatat,
        libc::SYS_fstat,
        libc::SYS_statfs,
        libc::SYS_fstatfs,
        libc::SYS_readlinkat,
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_mkdirat,
        libc::SYS_linkat,
        libc::SYS_symlinkat,
        libc::SYS_unlinkat,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_fchown,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_syncfs,
        libc::SYS_flock,
        libc::SYS_fcntl,
        libc::SYS_mmap,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_open_tree,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_execve,
        libc::SYS_pipe2,
        libc::SYS_dup,
        libc::SYS_dup3,
        libc::SYS_socket,
        libc::SYS_socketpair,
        libc::SYS_epoll_create1,
        libc::SYS_eventfd2,
        libc::SYS_memfd_create,
        libc::SYS_pidfd_open,
    ];
    // Calls that newer architectures have only in their newer forms.
    #[cfg(target_arch = "x86_64")]
    numbers.extend([
        libc::SYS_open,
        libc::SYS_creat,
        libc::SYS_stat,
        libc::SYS_lstat,
        libc::SYS_readlink,
        libc::SYS_rename,
        libc::SYS_mkdir,
        libc::SYS_rmdir,
        libc::SYS_link,
        libc::SYS_symlink,
        libc::SYS_unlink,
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_fork,
        libc::SYS_vfork,
        libc::SYS_pipe,
        libc::SYS_dup2,
    ]);
    numbers
}

/// The kind of a call and the object that it is about; `None` if the call must not fail.
pub(super) fn classify(call: &libc::seccomp_notif) -> Option<(Kind, String)> {
    let arguments = call.data.args;
    let path = |at: usize| text(call.pid, arguments[at]);
    let open = |at: usize| descriptor(call.pid, arguments[at]);
    let file = |at: usize| open(at).filter(|target| is_file(target));
    let found = match i64::from(call.data.nr) {
        libc::SYS_openat => (opening(arguments[2]), path(1)?),
        libc::SYS_openat2 => {
            let how = memory(call.pid, arguments[2], 8)?;
            (opening(u64::from_ne_bytes(how.try_into().ok()?)), path(1)?)
        }
        libc::SYS_read | libc::SYS_pread64 | libc::SYS_readv | libc::SYS_preadv => {
            (Kind::Read, file(0)?)
        }
        libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev => {
            (Kind::Write, file(0)?)
        }
        libc::SYS_copy_file_range => (Kind::Write, file(2)?),
        libc::SYS_getdents64 => (Kind::List, open(0)?),
        libc::SYS_statx | libc::SYS_newfstatat => (Kind::Stat, path_or(path(1)?, || open(0))),
        libc::SYS_fstat | libc::SYS_fstatfs => (Kind::Stat, file(0)?),
        libc::SYS_statfs => (Kind::Stat, path(0)?),
        libc::SYS_readlinkat => (Kind::Stat, path_or(path(1)?, || open(0))),
        libc::SYS_renameat | libc::SYS_renameat2 => (Kind::Rename, path(3)?),
        libc::SYS_mkdirat => (Kind::Mkdir, path(1)?),
        libc::SYS_linkat => (Kind::Link, path(3)?),
        libc::SYS_symlinkat => (Kind::Link, path(2)?),
        libc::SYS_unlinkat => (Kind::Unlink, path(1)?),
        libc::SYS_fchmod | libc::SYS_fchown => (Kind::Mode, open(0)?),
        libc::SYS_fchmodat | libc::SYS_fchownat => (Kind::Mode, path(1)?),
        // Without a path, the call is about the descriptor.
        libc::SYS_utimensat => (Kind::Mode, path(1).or_else(|| open(0))?),
        libc::SYS_ftruncate | libc::SYS_fallocate => (Kind::Size, open(0)?),
        libc::SYS_fsync | libc::SYS_fdatasync | libc::SYS_syncfs => (Kind::Sync, open(0)?),
        libc::SYS_flock => match arguments[1] as i32 & libc::LOCK_UN {
            0 => (Kind::Lock, open(0)?),
            _ => return None,
        },
        libc::SYS_fcntl => (control(call.pid, arguments)?, open(0)?),
        libc::SYS_mmap if arguments[1] >= LEAST_MEMORY => {
            (Kind::Mmap, format!("{} bytes", arguments[1]))
        }
        libc::SYS_mount => (Kind::Mount, path(1)?),
        libc::SYS_umount2 => (Kind::Mount, path(0)?),
        libc::SYS_open_tree => (Kind::Mount, path(1)?),
        libc::SYS_unshare | libc::SYS_setns => (Kind::Mount, "a namespace".into()),
        libc::SYS_clone | libc::SYS_clone3 => (Kind::Clone, String::new()),
        libc::SYS_execve => (Kind::Exec, path(0)?),
        libc::SYS_pipe2 => (Kind::Pipe, String::new()),
        libc::SYS_dup | libc::SYS_dup3 => (Kind::Dup, open(0)?),
        libc::SYS_socket | libc::SYS_socketpair => (Kind::Socket, String::new()),
        libc::SYS_epoll_create1
        | libc::SYS_eventfd2
        | libc::SYS_memfd_create
        | libc::SYS_pidfd_open => (Kind::Event, String::new()),
        #[cfg(target_arch = "x86_64")]
        number => match number {
            libc::SYS_open => (opening(arguments[1]), path(0)?),
            libc::SYS_creat => (Kind::Create, path(0)?),
            libc::SYS_stat | libc::SYS_lstat | libc::SYS_readlink => (Kind::Stat, path(0)?),
            libc::SYS_rename => (Kind::Rename, path(1)?),
            libc::SYS_mkdir => (Kind::Mkdir, path(0)?),
            libc::SYS_link | libc::SYS_symlink => (Kind::Link, path(1)?),
            libc::SYS_unlink | libc::SYS_rmdir => (Kind::Unlink, path(0)?),
            libc::SYS_chmod | libc::SYS_chown | libc::SYS_lchown => (Kind::Mode, path(0)?),
            libc::SYS_fork | libc::SYS_vfork => (Kind::Clone, String::new()),
            libc::SYS_pipe => (Kind::Pipe, String::new()),
            libc::SYS_dup2 => (Kind::Dup, open(0)?),
            _ => return None,
        },
        #[cfg(not(target_arch = "x86_64"))]
        _ => return None,
    };
    // Skips calls of the dynamic linker, and the runtime's check of its own stack.
    let foreign = [
        "/lib",
        "/usr/lib",
        "/etc/ld.so",
        "/proc/self/maps",
        "/sys/fs/cgroup",
        "/proc/self/cgroup",
    ];
    (!foreign.iter().any(|prefix| found.1.starts_with(prefix))).then_some(found)
}

fn opening(flags: u64) -> Kind {
    let writes = libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR;
    if flags as i32 & writes == 0 { Kind::Open } else { Kind::Create }
}

/// Kinds of `fcntl` calls that can fail: locking, but not unlocking; copies of descriptors; sizes of pipes.
fn control(thread: u32, arguments: [u64; 6]) -> Option<Kind> {
    match arguments[1] as i32 {
        libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            let kind = memory(thread, arguments[2], 2)?;
            let kind = i16::from_ne_bytes(kind.try_into().ok()?);
            (i32::from(kind) != libc::F_UNLCK).then_some(Kind::Lock)
        }
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => Some(Kind::Dup),
        libc::F_SETPIPE_SZ => Some(Kind::PipeSize),
        _ => None,
    }
}

fn text(thread: u32, at: u64) -> Option<String> {
    if at == 0 {
        return None;
    }
    let bytes = memory(thread, at, 4096)?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn path_or(path: String, other: impl Fn() -> Option<String>) -> String {
    if path.is_empty() { other().unwrap_or_default() } else { path }
}

fn descriptor(thread: u32, number: u64) -> Option<String> {
    let link = fs::read_link(format!("/proc/{thread}/fd/{}", number as i32)).ok()?;
    Some(link.to_string_lossy().into_owned())
}

/// Whether a descriptor refers to a file on a disk.
fn is_file(target: &str) -> bool {
    let odd = ["/dev/", "/proc/", "/sys/"];
    target.starts_with('/') && !odd.iter().any(|prefix| target.starts_with(prefix))
}
