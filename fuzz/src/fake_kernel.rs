//! A simulated kernel for the code under test: every system call that names a file, a process, a user or a
//! socket is answered from a world that the input describes, and recorded.
//!
//! A system call filter (`man 2 seccomp`, `SECCOMP_RET_TRAP`) raises a signal instead of such a call, on the
//! thread that runs the code and on the threads that it starts. The signal handler performs the call in the
//! world. So no call bypasses it, whichever library makes it, and nothing on this machine is read or changed.
//!
//! The files of the world are in a directory, and every path is resolved below it (`openat2`,
//! `RESOLVE_IN_ROOT`). Owners, modes and inode numbers come from a table, so that the fuzzer does not need
//! root's rights.
#![expect(unsafe_code, reason = "it answers system calls, whose arguments are addresses")]

use nix::libc;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The device of all files of the world.
pub const DEVICE: u64 = 1;
/// The process that started the code under test.
pub const PARENT: u32 = 7;
/// Inode numbers of files that the code under test creates begin here.
const FIRST_NEW_INODE: u64 = 1 << 20;

/// An action of the code under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file or directory was opened for reading, and for writing if `write` is set. The path is absolute;
    /// the part below the descriptor that it started from was not resolved.
    Open {
        path: String,
        write: bool,
    },
    /// A program was opened through an `O_PATH` descriptor.
    OpenProgram(String),
    /// An entry was created, replaced or removed, or its owner or mode was changed.
    Change(String),
    Connect(String),
    /// A signal was sent to a process.
    Signal {
        pid: u32,
        signal: i32,
    },
    SetUser(u32),
    SetGroup(u32),
    SetGroups(Vec<u32>),
    /// The user for file access of one thread was changed.
    SetFileUser(u32),
    Unmount(String),
    /// A call that the code must not make.
    Forbidden(String),
}

/// The listener of a socket, and the bytes that a client reads from it.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    pub says: Vec<u8>,
}

/// The simulated metadata of a file.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub inode: u64,
    pub uid: u32,
    pub gid: u32,
    /// Permission bits, without the file type.
    pub mode: u32,
    pub acl: Option<Vec<u8>>,
    pub peer: Option<Peer>,
}

/// The environment of the code under test.
#[derive(Default)]
pub struct World {
    /// The directory of the files.
    pub directory: std::path::PathBuf,
    /// Metadata of the files, by their real inodes.
    pub entries: HashMap<u64, Entry>,
    pub uid: u32,
    /// Processes that can be watched and signaled.
    pub processes: Vec<u32>,
    /// Content of standard input, one piece for each read.
    pub input: Vec<Vec<u8>>,
    /// Whether standard input is readable even for a poll with a timeout of zero.
    pub impatient: bool,
}

/// The actions and the result of the code under test.
#[derive(Debug)]
pub struct Outcome<T> {
    pub done: T,
    pub events: Vec<Event>,
    pub output: Vec<u8>,
    /// The user at the end.
    pub uid: u32,
}

struct State {
    /// The directory of the files, open, and its real path.
    top: OwnedFd,
    top_path: Vec<u8>,
    top_device: u64,
    world: World,
    /// The read end of standard input.
    input: OwnedFd,
    /// Duplicates of `input`.
    input_copies: Vec<i32>,
    /// Processes by the inode of the pipe that represents a pidfd.
    handles: HashMap<u64, u32>,
    /// The write ends of these pipes: a byte in a pipe means that the process has ended.
    lives: Vec<(u32, OwnedFd)>,
    /// Peers by the inode of a socket.
    peers: HashMap<u64, Peer>,
    /// The server ends of connections.
    servers: Vec<OwnedFd>,
    next_inode: u64,
    /// User and group of a thread for file access, if they are not those of the process.
    file_ids: HashMap<isize, [u32; 2]>,
    events: Vec<Event>,
    output: Vec<u8>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
/// Whether calls are answered from a world. Otherwise they are forwarded to the real kernel.
static INSIDE: AtomicBool = AtomicBool::new(false);

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` in a world.
pub fn run_in<T: Send + 'static>(
    world: World,
    work: impl FnOnce() -> T + Send + 'static,
) -> Outcome<T> {
    // Only one world at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    *state() = Some(State::new(world));
    let (send, receive) = sync_channel(1);
    let job = move || {
        INSIDE.store(true, Ordering::SeqCst);
        let done = catch_unwind(AssertUnwindSafe(work));
        INSIDE.store(false, Ordering::SeqCst);
        let _ = send.send(done);
    };
    thread().send(Box::new(job)).expect("the thread of the fake kernel lives");
    let done = receive.recv().expect("the thread of the fake kernel answers");
    let ended = state().take().expect("nothing else takes it");
    match done {
        Ok(done) => {
            let State { events, output, world, .. } = ended;
            Outcome { done, events, output, uid: world.uid }
        }
        Err(panic) => resume_unwind(panic),
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Returns the thread whose system calls are filtered.
fn thread() -> &'static SyncSender<Job> {
    static THREAD: OnceLock<SyncSender<Job>> = OnceLock::new();
    THREAD.get_or_init(|| {
        pass_on_in_panics();
        let (send, receive): (_, Receiver<Job>) = sync_channel(1);
        std::thread::spawn(move || {
            install_handler();
            install_filter();
            receive.into_iter().for_each(|job| job());
        });
        send
    })
}

/// Forwards calls to the real kernel after a panic: its report needs files of this machine, such as the input
/// that caused it.
fn pass_on_in_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        INSIDE.store(false, Ordering::SeqCst);
        report(info);
    }));
}

impl State {
    fn new(world: World) -> State {
        let top = std::fs::File::open(&world.directory).expect("the directory of the world");
        let about = std::os::unix::fs::MetadataExt::dev(&top.metadata().unwrap());
        let top_path = world.directory.canonicalize().unwrap().as_os_str().as_bytes().to_vec();
        let kind = nix::sys::socket::SockType::SeqPacket;
        let (input, writer) = pair(kind);
        for piece in &world.input {
            nix::unistd::write(&writer, piece).expect("room for all orders");
        }
        State {
            top: top.into(),
            top_path,
            top_device: about,
            world,
            input,
            input_copies: Vec::new(),
            handles: HashMap::new(),
            lives: Vec::new(),
            peers: HashMap::new(),
            servers: Vec::new(),
            next_inode: FIRST_NEW_INODE,
            file_ids: HashMap::new(),
            events: Vec::new(),
            output: Vec::new(),
        }
    }
}

fn pair(kind: nix::sys::socket::SockType) -> (OwnedFd, OwnedFd) {
    use nix::sys::socket::{AddressFamily, SockFlag, socketpair};
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).expect("a pair of sockets")
}

// Takes the arguments of `syscall(2)`. The filter allows this one call, by its address.
std::arch::global_asm!(
    ".hidden storecache_fuzz_syscall",
    ".globl storecache_fuzz_syscall",
    "storecache_fuzz_syscall:",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "mov rdx, rcx",
    "mov r10, r8",
    "mov r8, r9",
    "mov r9, [rsp + 8]",
    "syscall",
    ".hidden storecache_fuzz_syscall_end",
    ".globl storecache_fuzz_syscall_end",
    "storecache_fuzz_syscall_end:",
    "ret",
);

unsafe extern "C" {
    fn storecache_fuzz_syscall(
        number: i64,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        e: usize,
        f: usize,
    ) -> isize;
    static storecache_fuzz_syscall_end: u8;
}

type Arguments = [usize; 6];

/// Makes a system call of the real kernel. A negative result is an error.
fn raw(number: i64, arguments: &[usize]) -> isize {
    let at = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: the arguments are those of the trapped call, or were made here from values that live long
    // enough.
    unsafe { storecache_fuzz_syscall(number, at(0), at(1), at(2), at(3), at(4), at(5)) }
}

/// System calls that are trapped whatever their arguments are.
const TRAPPED: [i64; 104] = [
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_fsopen,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_bpf,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_sethostname,
    libc::SYS_io_uring_setup,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockopt,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getresuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_getppid,
    libc::SYS_setuid,
    libc::SYS_setreuid,
    libc::SYS_setresuid,
    libc::SYS_setgid,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
];

fn install_filter() {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY_OF: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code: u16, jt: u8, jf: u8, k: u32| libc::sock_filter { code, jt, jf, k };
    // `struct seccomp_data`: number, architecture, address, arguments.
    let load = |offset: u32| step(LOAD, 0, 0, offset);
    let trap = || step(RETURN, 0, 0, libc::SECCOMP_RET_TRAP);
    let pass = || step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW);
    let end = (&raw const storecache_fuzz_syscall_end) as u64;
    let mut filter = vec![
        load(8),
        step(EQUAL, 0, 3, end as u32),
        load(12),
        step(EQUAL, 0, 1, (end >> 32) as u32),
        pass(),
        load(0),
    ];
    for number in TRAPPED {
        filter.extend([step(EQUAL, 0, 1, number as u32), trap()]);
    }
    // `clone3` fails, so that the C library falls back to `clone`, whose flags the filter can check.
    let missing = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    filter.extend([step(EQUAL, 0, 1, libc::SYS_clone3 as u32), step(RETURN, 0, 0, missing)]);
    let first_argument = 16;
    // Traps a call unless the test of its first argument skips one step.
    let unless = |number: i64, test: libc::sock_filter| {
        [step(EQUAL, 0, 4, number as u32), load(first_argument), test, trap(), pass()]
    };
    filter.extend(unless(libc::SYS_clone, step(ANY_OF, 1, 0, libc::CLONE_THREAD as u32)));
    // Standard output, and a duplicate of standard input.
    filter.extend(unless(libc::SYS_write, step(EQUAL, 0, 1, 1)));
    filter.extend(unless(libc::SYS_fcntl, step(EQUAL, 0, 1, 0)));
    // Sockets of the network.
    filter.extend(unless(libc::SYS_socket, step(EQUAL, 1, 0, libc::AF_UNIX as u32)));
    filter.push(pass());
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program is valid, and lives until the calls return.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        let set = libc::syscall(libc::SYS_seccomp, mode, 0, &raw const program);
        assert_eq!(set, 0, "this needs a kernel that filters system calls (man 2 seccomp)");
    }
}

fn install_handler() {
    // SAFETY: the handler has the signature that SA_SIGINFO requires.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_trap as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        assert_eq!(libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()), 0);
    }
}

extern "C" fn on_trap(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO, the kernel passes the context of the trapped call to the handler.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let value = |register: i32| registers[register as usize] as usize;
    let arguments =
        [libc::REG_RDI, libc::REG_RSI, libc::REG_RDX, libc::REG_R10, libc::REG_R8, libc::REG_R9]
            .map(value);
    let number = registers[libc::REG_RAX as usize];
    let result = if INSIDE.load(Ordering::SeqCst) {
        let mut state = state();
        match state.as_mut() {
            Some(state) => state.call(number, arguments).unwrap_or_else(|error| -(error as isize)),
            None => raw(number, &arguments),
        }
    } else {
        raw(number, &arguments)
    };
    registers[libc::REG_RAX as usize] = result as i64;
}

/// The result of a call, or an error number.
type Answer = Result<isize, i32>;

fn checked(result: isize) -> Answer {
    if result < 0 { Err(-result as i32) } else { Ok(result) }
}

/// A descriptor of this module, which is closed on drop; or a descriptor of the code under test.
enum Descriptor {
    Own(i32),
    Theirs(i32),
}

impl Descriptor {
    fn number(&self) -> i32 {
        match self {
            Descriptor::Own(number) | Descriptor::Theirs(number) => *number,
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if let Descriptor::Own(number) = self {
            raw(libc::SYS_close, &[*number as usize]);
        }
    }
}

/// The target of a path argument.
enum Place {
    /// An open descriptor.
    Descriptor(i32),
    /// An absolute path of the world.
    Path(Vec<u8>),
}

/// Copies a string of the code under test.
///
/// # Safety
/// `at` must be null or point to a NUL-terminated string.
unsafe fn string(at: usize) -> Result<Vec<u8>, i32> {
    if at == 0 {
        return Err(libc::EFAULT);
    }
    // SAFETY: the caller guarantees it.
    Ok(unsafe { CStr::from_ptr(at as *const libc::c_char) }.to_bytes().to_vec())
}

fn terminated(path: &[u8]) -> CString {
    CString::new(path).expect("it came from a string that ends with zero")
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

const IN_ROOT: u64 = 0x10;
const BENEATH: u64 = 0x08;
const NO_SYMLINKS: u64 = 0x04;
const EMPTY: &CStr = c"";

/// Splits a path into directory and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let at = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    let parent = if at == 0 { &b"/"[..] } else { &path[..at] };
    (parent, path.get(at + 1..).unwrap_or_default())
}

impl State {
    fn call(&mut self, number: i64, a: Arguments) -> Answer {
        let at = |index: usize| a[index] as i32;
        const CWD: i32 = libc::AT_FDCWD;
        match number {
            libc::SYS_open => self.open(CWD, a[0], a[1] as u64, a[2] as u64, 0),
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                self.open(CWD, a[0], flags as u64, a[1] as u64, 0)
            }
            libc::SYS_openat => self.open(at(0), a[1], a[2] as u64, a[3] as u64, 0),
            libc::SYS_openat2 => {
                // SAFETY: the code under test passes the structure that the call requires.
                let how = unsafe { &*(a[2] as *const OpenHow) };
                self.open(at(0), a[1], how.flags, how.mode, how.resolve)
            }
            libc::SYS_stat => self.stat(CWD, a[0], a[1], 0),
            libc::SYS_lstat => self.stat(CWD, a[0], a[1], libc::AT_SYMLINK_NOFOLLOW),
            libc::SYS_fstat => self.stat(at(0), EMPTY.as_ptr() as usize, a[1], libc::AT_EMPTY_PATH),
            libc::SYS_newfstatat => self.stat(at(0), a[1], a[2], at(3)),
            libc::SYS_statx => self.statx(at(0), a[1], at(2), a[3], a[4]),
            libc::SYS_statfs => {
                let found = self.look_up(self.place(CWD, a[0], 0)?, true)?;
                checked(raw(libc::SYS_fstatfs, &[found.number() as usize, a[1]]))
            }
            libc::SYS_readlink => self.read_link(CWD, a[0], a[1], a[2]),
            libc::SYS_readlinkat => self.read_link(at(0), a[1], a[2], a[3]),
            libc::SYS_access => self.look_up(self.place(CWD, a[0], 0)?, true).map(|_| 0),
            libc::SYS_faccessat | libc::SYS_faccessat2 => {
                self.look_up(self.place(at(0), a[1], 0)?, true).map(|_| 0)
            }
            libc::SYS_getxattr => self.get_attribute(self.place(CWD, a[0], 0)?, true, &a),
            libc::SYS_lgetxattr => self.get_attribute(self.place(CWD, a[0], 0)?, false, &a),
            libc::SYS_fgetxattr => self.get_attribute(Place::Descriptor(at(0)), true, &a),
            libc::SYS_listxattr | libc::SYS_llistxattr => Ok(0),
            libc::SYS_mkdir => self.change(CWD, a[0], libc::SYS_mkdirat, &[a[1]]),
            libc::SYS_mkdirat => self.change(at(0), a[1], number, &[a[2]]),
            libc::SYS_rmdir => {
                self.change(CWD, a[0], libc::SYS_unlinkat, &[libc::AT_REMOVEDIR as usize])
            }
            libc::SYS_unlink => self.change(CWD, a[0], libc::SYS_unlinkat, &[0]),
            libc::SYS_unlinkat => self.change(at(0), a[1], number, &[a[2]]),
            libc::SYS_rename => self.rename(CWD, a[0], CWD, a[1], 0),
            libc::SYS_renameat => self.rename(at(0), a[1], at(2), a[3], 0),
            libc::SYS_renameat2 => self.rename(at(0), a[1], at(2), a[3], a[4]),
            libc::SYS_chmod => {
                self.set_entry(self.place(CWD, a[0], 0)?, true, |it| it.mode = a[1] as u32)
            }
            libc::SYS_fchmod => {
                self.set_entry(Place::Descriptor(at(0)), true, |it| it.mode = a[1] as u32)
            }
            libc::SYS_fchmodat => {
                self.set_entry(self.place(at(0), a[1], 0)?, true, |it| it.mode = a[2] as u32)
            }
            libc::SYS_chown => self.set_owner(self.place(CWD, a[0], 0)?, true, a[1], a[2]),
            libc::SYS_lchown => self.set_owner(self.place(CWD, a[0], 0)?, false, a[1], a[2]),
            libc::SYS_fchown => self.set_owner(Place::Descriptor(at(0)), true, a[1], a[2]),
            libc::SYS_fchownat => {
                let follow = at(4) & libc::AT_SYMLINK_NOFOLLOW == 0;
                self.set_owner(self.place(at(0), a[1], at(4))?, follow, a[2], a[3])
            }
            libc::SYS_utimensat if a[1] == 0 => checked(raw(number, &a)),
            libc::SYS_connect => self.connect(at(0), a[1], a[2]),
            libc::SYS_getsockopt => self.socket_option(&a),
            libc::SYS_getuid | libc::SYS_geteuid => Ok(self.world.uid as isize),
            libc::SYS_getgid | libc::SYS_getegid => Ok(0),
            libc::SYS_getresuid => Ok(self.write_ids(&a, self.world.uid)),
            libc::SYS_getresgid => Ok(self.write_ids(&a, 0)),
            libc::SYS_getgroups => Ok(0),
            libc::SYS_getppid => Ok(PARENT as isize),
            libc::SYS_setuid => self.set_user(a[0]),
            libc::SYS_setreuid | libc::SYS_setresuid => {
                if number == libc::SYS_setresuid && a[0] != a[2] || a[0] != a[1] {
                    self.events.push(Event::Forbidden("an id that is kept".into()));
                }
                self.set_user(a[0])
            }
            libc::SYS_setgid => self.set_group(a[0]),
            libc::SYS_setregid | libc::SYS_setresgid => {
                if number == libc::SYS_setresgid && a[0] != a[2] || a[0] != a[1] {
                    self.events.push(Event::Forbidden("a group that is kept".into()));
                }
                self.set_group(a[0])
            }
            libc::SYS_setgroups => {
                // SAFETY: the code under test passes an array of the given length.
                let groups = (0..a[0]).map(|at| unsafe { *(a[1] as *const u32).add(at) });
                let groups = groups.collect();
                self.events.push(Event::SetGroups(groups));
                Ok(0)
            }
            libc::SYS_setfsuid => Ok(self.set_file_id(a[0] as u32, 0)),
            libc::SYS_setfsgid => Ok(self.set_file_id(a[0] as u32, 1)),
            libc::SYS_capset => Ok(0),
            libc::SYS_pidfd_open => self.handle(a[0] as u32),
            libc::SYS_pidfd_send_signal => self.signal_by_handle(at(0), at(1)),
            libc::SYS_pidfd_getfd => Err(libc::EPERM),
            // A signal to the calling thread itself, as in `abort`.
            libc::SYS_tgkill if at(1) as isize == raw(libc::SYS_gettid, &[]) => {
                checked(raw(number, &a))
            }
            // The C library sends this signal so that all threads change their user, which must not happen to
            // threads outside of the world (`glibc:nptl/nptl_setxid.c`).
            libc::SYS_tgkill if at(2) == SIGSETXID => Err(libc::ESRCH),
            libc::SYS_kill => {
                self.events.push(Event::Signal { pid: a[0] as u32, signal: at(1) });
                self.end(a[0] as u32);
                Ok(0)
            }
            libc::SYS_write => {
                // SAFETY: the code under test passes a buffer of the given length.
                let bytes = unsafe { std::slice::from_raw_parts(a[1] as *const u8, a[2]) };
                self.output.extend_from_slice(bytes);
                Ok(a[2] as isize)
            }
            libc::SYS_fcntl if at(1) == libc::F_DUPFD_CLOEXEC => {
                let input = self.input.as_raw_fd() as usize;
                let copy = checked(raw(number, &[input, a[1], a[2]]))?;
                self.input_copies.push(copy as i32);
                Ok(copy)
            }
            libc::SYS_fcntl => checked(raw(number, &a)),
            libc::SYS_poll | libc::SYS_ppoll => self.poll(number, &a),
            // No time passes.
            libc::SYS_nanosleep | libc::SYS_clock_nanosleep => Ok(0),
            libc::SYS_umount2 => {
                // SAFETY: the code under test passes a string.
                let path = unsafe { string(a[0]) }?;
                self.events.push(Event::Unmount(shown(&path)));
                Err(libc::EPERM)
            }
            // Refused, as for a user who is not root; the code continues without it.
            libc::SYS_unshare | libc::SYS_open_tree => Err(libc::EPERM),
            other => {
                self.events.push(Event::Forbidden(format!("system call {other}")));
                Err(libc::EPERM)
            }
        }
    }

    /// Sets the user (0) or the group (1) of this thread for file access, unless the id is -1, and returns
    /// the previous one (`man 2 setfsuid`).
    fn set_file_id(&mut self, id: u32, which: usize) -> isize {
        let own = [self.world.uid, 0];
        let ids = self.file_ids.entry(raw(libc::SYS_gettid, &[])).or_insert(own);
        let before = ids[which];
        if id != u32::MAX {
            ids[which] = id;
            if which == 0 {
                self.events.push(Event::SetFileUser(id));
            }
        }
        before as isize
    }

    /// Returns the absolute path in the world of an open file.
    fn path_of(&self, descriptor: i32) -> Result<Vec<u8>, i32> {
        let link = terminated(format!("/proc/self/fd/{descriptor}").as_bytes());
        let mut path = vec![0u8; 4096];
        let (link, to) = (link.as_ptr() as usize, path.as_mut_ptr() as usize);
        let length = checked(raw(libc::SYS_readlink, &[link, to, path.len()]))?;
        path.truncate(length as usize);
        match path.strip_prefix(&self.top_path[..]) {
            Some(b"") => Ok(b"/".to_vec()),
            Some(inside) if inside.starts_with(b"/") => Ok(inside.to_vec()),
            _ => Err(libc::ENOTDIR),
        }
    }

    /// Resolves the path argument of a call.
    fn place(&self, directory: i32, path: usize, flags: i32) -> Result<Place, i32> {
        // SAFETY: the code under test passes a string.
        let path = unsafe { string(path) }?;
        if path.is_empty() {
            return match (flags & libc::AT_EMPTY_PATH != 0, directory) {
                (false, _) => Err(libc::ENOENT),
                (true, libc::AT_FDCWD) => Ok(Place::Path(b"/".to_vec())),
                (true, descriptor) => Ok(Place::Descriptor(descriptor)),
            };
        }
        let absolute = match (path.first(), directory) {
            (Some(b'/'), _) => path,
            (_, libc::AT_FDCWD) => [b"/", &path[..]].concat(),
            (_, descriptor) => [&self.path_of(descriptor)?[..], b"/", &path].concat(),
        };
        if let Some(rest) = absolute.strip_prefix(b"/proc/self/fd/") {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let number = str::from_utf8(&rest[..digits]).ok().and_then(|text| text.parse().ok());
            let Some(number) = number else { return Err(libc::ENOENT) };
            return match &rest[digits..] {
                b"" => Ok(Place::Descriptor(number)),
                below => Ok(Place::Path([&self.path_of(number)?[..], below].concat())),
            };
        }
        // All descriptors share one simulated file.
        if absolute.starts_with(b"/proc/self/fdinfo/") {
            return Ok(Place::Path(b"/proc/self/fdinfo".to_vec()));
        }
        Ok(Place::Path(absolute))
    }

    /// Opens a path below the top. Symbolic links are resolved in the world.
    fn open_inside(
        &self,
        path: &[u8],
        flags: u64,
        mode: u64,
        resolve: u64,
    ) -> Result<Descriptor, i32> {
        let path = terminated(path);
        let how = OpenHow { flags, mode, resolve: resolve & NO_SYMLINKS | IN_ROOT };
        let (path, how_at) = (path.as_ptr() as usize, &raw const how as usize);
        let top = self.top.as_raw_fd() as usize;
        let arguments = [top, path, how_at, size_of::<OpenHow>()];
        loop {
            match checked(raw(libc::SYS_openat2, &arguments)) {
                Err(libc::EAGAIN) => {}
                opened => return opened.map(|number| Descriptor::Own(number as i32)),
            }
        }
    }

    fn look_up(&self, place: Place, follow: bool) -> Result<Descriptor, i32> {
        let nofollow = if follow { 0 } else { libc::O_NOFOLLOW };
        match place {
            Place::Descriptor(number) => Ok(Descriptor::Theirs(number)),
            Place::Path(path) => {
                let flags = libc::O_PATH | libc::O_CLOEXEC | nofollow;
                self.open_inside(&path, flags as u64, 0, 0)
            }
        }
    }

    fn open(&mut self, directory: i32, path: usize, flags: u64, mode: u64, resolve: u64) -> Answer {
        let only_path = flags & libc::O_PATH as u64 != 0;
        let writes = flags & (libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC | libc::O_CREAT) as u64;
        let creates = flags & libc::O_CREAT as u64 != 0;
        let mode = if creates { mode & 0o7777 } else { 0 };
        let kept = (libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY | libc::O_NOFOLLOW) as u64;
        let flags = if only_path { flags & kept } else { flags };
        // The caller limits resolution to its directory, which is in the world, so the real call is safe.
        if resolve & (IN_ROOT | BENEATH) != 0 && only_path {
            let how = OpenHow { flags, mode, resolve };
            let how = &raw const how as usize;
            let arguments = [directory as usize, path, how, size_of::<OpenHow>()];
            return checked(raw(libc::SYS_openat2, &arguments));
        }
        // Opening a FIFO without a writer would block the fuzzer.
        let waits = !only_path && flags & libc::O_NONBLOCK as u64 == 0;
        let flags = if waits { flags | libc::O_NONBLOCK as u64 } else { flags };
        let opened = match self.place(directory, path, 0)? {
            Place::Descriptor(number) => {
                let again = terminated(format!("/proc/self/fd/{number}").as_bytes());
                let at = [libc::AT_FDCWD as usize, again.as_ptr() as usize, flags as usize, 0];
                let opened = checked(raw(libc::SYS_openat, &at))?;
                if !only_path {
                    let path = shown(&self.path_of(number).unwrap_or_default());
                    let about = self.real_status(opened as i32)?;
                    let is_program = about.st_mode & libc::S_IFMT == libc::S_IFREG
                        && self.entry(&about).mode & 0o111 != 0;
                    self.events.push(match is_program && writes == 0 {
                        true => Event::OpenProgram(path),
                        false => Event::Open { path, write: writes != 0 },
                    });
                }
                opened
            }
            Place::Path(path) => {
                let existed = creates && self.look_up(Place::Path(path.clone()), false).is_ok();
                let opened = self.open_inside(&path, flags, mode, resolve)?;
                if !only_path {
                    let path = shown(&path);
                    self.events.push(Event::Open { path: path.clone(), write: writes != 0 });
                    if creates && !existed {
                        self.events.push(Event::Change(path));
                    }
                }
                let number = opened.number();
                std::mem::forget(opened);
                number as isize
            }
        };
        if waits {
            let about = self.real_status(opened as i32)?;
            if about.st_mode & libc::S_IFMT == libc::S_IFIFO {
                self.events.push(Event::Forbidden("it waits for a FIFO".into()));
            }
            let cleared = flags & !(libc::O_NONBLOCK as u64);
            raw(libc::SYS_fcntl, &[opened as usize, libc::F_SETFL as usize, cleared as usize]);
        }
        Ok(opened)
    }

    fn real_status(&self, descriptor: i32) -> Result<libc::stat, i32> {
        // SAFETY: all zeros are a valid value of this structure, and the call fills it.
        let mut status: libc::stat = unsafe { std::mem::zeroed() };
        checked(raw(libc::SYS_fstat, &[descriptor as usize, &raw mut status as usize]))?;
        Ok(status)
    }

    /// Returns the simulated metadata of a file. A file that the code under test created belongs to its user.
    fn entry(&mut self, status: &libc::stat) -> &mut Entry {
        let (uid, next) = (self.world.uid, &mut self.next_inode);
        self.world.entries.entry(status.st_ino).or_insert_with(|| {
            *next += 1;
            let mode = status.st_mode & 0o7777;
            Entry { inode: *next, uid, gid: 0, mode, acl: None, peer: None }
        })
    }

    fn stat(&mut self, directory: i32, path: usize, to: usize, flags: i32) -> Answer {
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        let found = self.look_up(self.place(directory, path, flags)?, follow)?;
        let mut status = self.real_status(found.number())?;
        if status.st_dev == self.top_device {
            let kind = status.st_mode & libc::S_IFMT;
            let entry = self.entry(&status);
            let Entry { inode, uid, gid, mode, .. } = *entry;
            (status.st_dev, status.st_ino) = (DEVICE, inode);
            (status.st_uid, status.st_gid, status.st_mode) = (uid, gid, kind | mode);
        }
        // SAFETY: the code under test passes a buffer for the structure.
        unsafe { *(to as *mut libc::stat) = status };
        Ok(0)
    }

    fn statx(&mut self, directory: i32, path: usize, flags: i32, mask: usize, to: usize) -> Answer {
        // The standard library probes once whether the kernel supports the call.
        if path == 0 || to == 0 {
            return Err(libc::EFAULT);
        }
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        let found = self.look_up(self.place(directory, path, flags)?, follow)?;
        let status = self.real_status(found.number())?;
        let empty = EMPTY.as_ptr() as usize;
        let number = found.number() as usize;
        checked(raw(libc::SYS_statx, &[number, empty, libc::AT_EMPTY_PATH as usize, mask, to]))?;
        if status.st_dev == self.top_device {
            let kind = (status.st_mode & libc::S_IFMT) as u16;
            let entry = self.entry(&status);
            let Entry { inode, uid, gid, mode, .. } = *entry;
            // SAFETY: the call has just filled the structure.
            let filled = unsafe { &mut *(to as *mut libc::statx) };
            (filled.stx_dev_major, filled.stx_dev_minor) = (0, DEVICE as u32);
            (filled.stx_ino, filled.stx_mode) = (inode, kind | mode as u16);
            (filled.stx_uid, filled.stx_gid) = (uid, gid);
        }
        Ok(0)
    }

    fn read_link(&mut self, directory: i32, path: usize, to: usize, length: usize) -> Answer {
        let place = match self.place(directory, path, libc::AT_EMPTY_PATH)? {
            // A link in `/proc/self/fd`, unless the path is empty and means the descriptor itself.
            // SAFETY: the code under test passes a string.
            Place::Descriptor(number) if !unsafe { string(path) }?.is_empty() => {
                let found = self.path_of(number)?;
                let length = found.len().min(length);
                // SAFETY: the code under test passes a buffer of the given length.
                unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), to as *mut u8, length) };
                return Ok(length as isize);
            }
            place => place,
        };
        let found = self.look_up(place, false)?;
        let empty = EMPTY.as_ptr() as usize;
        match checked(raw(libc::SYS_readlinkat, &[found.number() as usize, empty, to, length])) {
            // The error for a descriptor of something other than a link.
            Err(libc::ENOENT) => Err(libc::EINVAL),
            read => read,
        }
    }

    fn get_attribute(&mut self, place: Place, follow: bool, a: &Arguments) -> Answer {
        // SAFETY: the code under test passes a string.
        let name = unsafe { string(a[1]) }?;
        let found = self.look_up(place, follow)?;
        let status = self.real_status(found.number())?;
        let list = match &name[..] {
            b"system.posix_acl_access" => self.entry(&status).acl.clone(),
            _ => None,
        };
        let Some(list) = list else { return Err(libc::ENODATA) };
        if a[3] == 0 {
            return Ok(list.len() as isize);
        }
        if a[3] < list.len() {
            return Err(libc::ERANGE);
        }
        // SAFETY: the code under test passes a buffer of the given length.
        unsafe { std::ptr::copy_nonoverlapping(list.as_ptr(), a[2] as *mut u8, list.len()) };
        Ok(list.len() as isize)
    }

    /// Returns the open parent directory, the name and the path of an entry to create or remove.
    fn parent(&self, place: Place) -> Result<(Descriptor, CString, Vec<u8>), i32> {
        let Place::Path(path) = place else { return Err(libc::EINVAL) };
        let (parent, name) = split(&path);
        if name.is_empty() || matches!(name, b"." | b"..") {
            return Err(libc::EINVAL);
        }
        let flags = (libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) as u64;
        Ok((self.open_inside(parent, flags, 0, 0)?, terminated(name), path.clone()))
    }

    /// Performs a call that creates or removes an entry.
    fn change(&mut self, directory: i32, path: usize, number: i64, rest: &[usize]) -> Answer {
        let (parent, name, path) = self.parent(self.place(directory, path, 0)?)?;
        self.events.push(Event::Change(shown(&path)));
        let first = [parent.number() as usize, name.as_ptr() as usize];
        checked(raw(number, &[&first[..], rest].concat()))
    }

    fn rename(&mut self, from: i32, old: usize, to: i32, new: usize, flags: usize) -> Answer {
        let (from, old, old_path) = self.parent(self.place(from, old, 0)?)?;
        let (to, new, new_path) = self.parent(self.place(to, new, 0)?)?;
        self.events.extend([&old_path, &new_path].map(|path| Event::Change(shown(path))));
        let (old, new) = (old.as_ptr() as usize, new.as_ptr() as usize);
        let (from, to) = (from.number() as usize, to.number() as usize);
        checked(raw(libc::SYS_renameat2, &[from, old, to, new, flags]))
    }

    fn set_entry(&mut self, place: Place, follow: bool, set: impl FnOnce(&mut Entry)) -> Answer {
        let found = self.look_up(place, follow)?;
        let status = self.real_status(found.number())?;
        let path = self.path_of(found.number())?;
        self.events.push(Event::Change(shown(&path)));
        set(self.entry(&status));
        Ok(0)
    }

    fn set_owner(&mut self, place: Place, follow: bool, uid: usize, gid: usize) -> Answer {
        self.set_entry(place, follow, |entry| {
            for (id, new) in [(&mut entry.uid, uid as u32), (&mut entry.gid, gid as u32)] {
                if new != u32::MAX {
                    *id = new;
                }
            }
        })
    }

    fn connect(&mut self, socket: i32, address: usize, length: usize) -> Answer {
        // SAFETY: the code under test passes an address of the given length.
        let address = unsafe { std::slice::from_raw_parts(address as *const u8, length) };
        let is_local = address.first_chunk() == Some(&(libc::AF_UNIX as u16).to_ne_bytes());
        let path: Vec<u8> = address.iter().skip(2).copied().take_while(|&byte| byte != 0).collect();
        if !is_local || path.is_empty() {
            self.events.push(Event::Forbidden("a connection to something without a path".into()));
            return Err(libc::EACCES);
        }
        let path = terminated(&path);
        let place = self.place(libc::AT_FDCWD, path.as_ptr() as usize, 0)?;
        let Place::Path(path) = place else { return Err(libc::ECONNREFUSED) };
        self.events.push(Event::Connect(shown(&path)));
        let found = self.look_up(Place::Path(path), true)?;
        let status = self.real_status(found.number())?;
        let peer = self.entry(&status).peer.clone().ok_or(libc::ECONNREFUSED)?;
        let (client, server) = pair_inside()?;
        let says = (peer.says.as_ptr() as usize, peer.says.len());
        let number = server.as_raw_fd() as usize;
        raw(libc::SYS_write, &[number, says.0, says.1]);
        raw(libc::SYS_shutdown, &[number, libc::SHUT_WR as usize]);
        self.servers.push(server);
        let client = client.into_raw_fd();
        let arguments = [client as usize, socket as usize, libc::O_CLOEXEC as usize];
        let done = checked(raw(libc::SYS_dup3, &arguments));
        raw(libc::SYS_close, &[client as usize]);
        done?;
        self.peers.insert(self.real_status(socket)?.st_ino, peer);
        Ok(0)
    }

    fn socket_option(&mut self, a: &Arguments) -> Answer {
        let of_peer = [libc::SO_PEERCRED, SO_PEERPIDFD].contains(&(a[2] as i32));
        if a[1] as i32 != libc::SOL_SOCKET || !of_peer {
            return checked(raw(libc::SYS_getsockopt, a));
        }
        let inode = self.real_status(a[0] as i32)?.st_ino;
        let Some(Peer { pid, uid, gid, .. }) = self.peers.get(&inode).cloned() else {
            return Err(libc::ENOTCONN);
        };
        if a[2] as i32 == SO_PEERPIDFD {
            let handle = self.handle(pid)?;
            // SAFETY: the code under test passes a buffer for a number.
            unsafe { *(a[3] as *mut i32) = handle as i32 };
        } else {
            let peer = libc::ucred { pid: pid as i32, uid, gid };
            // SAFETY: the code under test passes a buffer for the structure.
            unsafe { *(a[3] as *mut libc::ucred) = peer };
        }
        Ok(0)
    }

    /// Writes an id to the three addresses in the arguments.
    fn write_ids(&self, a: &Arguments, id: u32) -> isize {
        // SAFETY: the code under test passes buffers for three numbers.
        a[..3].iter().for_each(|&at| unsafe { *(at as *mut u32) = id });
        0
    }

    fn set_user(&mut self, uid: usize) -> Answer {
        if self.world.uid != 0 && self.world.uid != uid as u32 {
            return Err(libc::EPERM);
        }
        self.world.uid = uid as u32;
        self.events.push(Event::SetUser(uid as u32));
        Ok(0)
    }

    fn set_group(&mut self, gid: usize) -> Answer {
        self.events.push(Event::SetGroup(gid as u32));
        Ok(0)
    }

    /// Creates a simulated pidfd: a pipe that becomes readable when the process has ended.
    fn handle(&mut self, pid: u32) -> Answer {
        if !self.world.processes.contains(&pid) {
            return Err(libc::ESRCH);
        }
        let mut ends = [0i32; 2];
        checked(raw(libc::SYS_pipe2, &[ends.as_mut_ptr() as usize, libc::O_CLOEXEC as usize]))?;
        let inode = self.real_status(ends[0])?.st_ino;
        self.handles.insert(inode, pid);
        // SAFETY: the call has just created this descriptor, and nothing else owns it.
        let life = unsafe { std::os::fd::FromRawFd::from_raw_fd(ends[1]) };
        self.lives.push((pid, life));
        Ok(ends[0] as isize)
    }

    fn signal_by_handle(&mut self, handle: i32, signal: i32) -> Answer {
        let inode = self.real_status(handle)?.st_ino;
        let pid = *self.handles.get(&inode).ok_or(libc::EBADF)?;
        self.events.push(Event::Signal { pid, signal });
        self.end(pid);
        Ok(0)
    }

    fn end(&mut self, pid: u32) {
        self.lives.iter().filter(|(of, _)| *of == pid).for_each(|(_, life)| end(life));
    }

    /// Polls without waiting. Standard input is readable only for a poll with a timeout other than zero,
    /// unless the world is `impatient`.
    fn poll(&mut self, number: i64, a: &Arguments) -> Answer {
        if storecache_programs::has_herd_stopped() {
            self.lives.iter().for_each(|(_, life)| end(life));
        }
        // SAFETY: the code under test passes an array of the given length.
        let wanted = unsafe { std::slice::from_raw_parts_mut(a[0] as *mut libc::pollfd, a[1]) };
        let has_time = match number {
            libc::SYS_poll => a[2] as i32 != 0,
            _ if a[2] == 0 => true,
            _ => {
                // SAFETY: the code under test passes a valid timeout.
                let timeout = unsafe { &*(a[2] as *const libc::timespec) };
                (timeout.tv_sec, timeout.tv_nsec) != (0, 0)
            }
        };
        let only_input = wanted.iter().all(|it| self.input_copies.contains(&it.fd));
        if only_input && !has_time && !self.world.impatient {
            wanted.iter_mut().for_each(|it| it.revents = 0);
            return Ok(0);
        }
        checked(raw(libc::SYS_poll, &[a[0], a[1], 0]))
    }
}

/// Ends a process, given the write end of the pipe of its simulated pidfd.
fn end(life: &OwnedFd) {
    raw(libc::SYS_write, &[life.as_raw_fd() as usize, c"x".as_ptr() as usize, 1]);
}

/// Source: `linux:include/uapi/asm-generic/socket.h`.
const SO_PEERPIDFD: i32 = 77;
/// Source: `glibc:sysdeps/unix/sysv/linux/internal-signals.h`.
const SIGSETXID: i32 = 33;

fn pair_inside() -> Result<(OwnedFd, OwnedFd), i32> {
    let mut ends = [0i32; 2];
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let to = ends.as_mut_ptr() as usize;
    checked(raw(libc::SYS_socketpair, &[libc::AF_UNIX as usize, kind as usize, 0, to]))?;
    // SAFETY: the call has just created both descriptors, and nothing else owns them.
    Ok(ends.map(|end| unsafe { std::os::fd::FromRawFd::from_raw_fd(end) }).into())
}

/// Returns the real inode of a file.
pub fn real_inode(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&path.symlink_metadata().expect("it was just made"))
}
