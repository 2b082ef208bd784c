//! Injects failures of system calls: a supervisor sees the calls of the program under test, in all of its
//! processes, and lets some of them fail.
//!
//! A filter of the kernel (`seccomp_unotify.2`) holds each call until a thread of the test has decided
//! whether the kernel carries it out or it fails. Programs that the program under test starts inherit the
//! filter, so the supervisor checks which executable a process runs: daemons, sudo and other programs always
//! pass. A call that fails is not carried out.
#![expect(unsafe_code, reason = "no library has notifications of seccomp")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use rustix::event::{PollFd, PollFlags, poll};

use super::syscalls::{Kind, classify, numbers};

/// The process that makes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessRole {
    User,
    Root,
    Guardian,
}

/// A call that could fail.
#[derive(Clone, Debug)]
pub struct Call {
    pub kind: Kind,
    pub half: ProcessRole,
    /// The path, or the file that the descriptor refers to.
    pub what: String,
}

/// Selects the call that fails, counted from 0.
#[derive(Clone, Copy, Debug)]
pub enum CallSelector {
    Nth(usize),
    /// Counts the calls of one kind in one process.
    NthOf(Kind, ProcessRole, usize),
}

#[derive(Default)]
struct Log {
    calls: Vec<Call>,
    /// The indexes of the aims that were reached, each with its call.
    hits: Vec<(usize, Call)>,
}

/// The effect on a selected call.
#[derive(Clone)]
enum Effect {
    Fails(i32),
    /// The call is carried out after an action of the test.
    ComesLater(Arc<Mutex<dyn FnMut() + Send>>),
}

/// Observes the calls of a command and lets the selected ones fail. Each run needs its own injector.
#[derive(Clone)]
pub struct Injector {
    aims: Vec<(CallSelector, Effect)>,
    log: Arc<Mutex<Log>>,
}

impl Injector {
    /// Only counts calls.
    pub fn counting() -> Injector {
        Injector { aims: Vec::new(), log: Arc::default() }
    }

    /// Lets each of these calls fail.
    pub fn failing(aims: &[(CallSelector, i32)]) -> Injector {
        let aims = aims.iter().map(|&(aim, errno)| (aim, Effect::Fails(errno)));
        Injector { aims: aims.collect(), log: Arc::default() }
    }

    /// Runs an action just before a call.
    pub fn before(aim: CallSelector, action: impl FnMut() + Send + 'static) -> Injector {
        let effect = Effect::ComesLater(Arc::new(Mutex::new(action)));
        Injector { aims: vec![(aim, effect)], log: Arc::default() }
    }

    /// All calls so far that could have failed.
    pub fn calls(&self) -> Vec<Call> {
        self.log().calls.clone()
    }

    /// The selected calls in the order in which they came; `None` unless all of them came.
    pub fn hits(&self) -> Option<Vec<Call>> {
        let hits: Vec<Call> = self.log().hits.iter().map(|(_, call)| call.clone()).collect();
        (hits.len() == self.aims.len()).then_some(hits)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    /// Makes the command, and all that it starts, report to a thread that lives as long as they do.
    pub(super) fn attach(&self, command: &mut Command) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let filter = filter();
        // SAFETY: between fork and exec, only system calls on memory that was allocated before are made.
        unsafe {
            command.pre_exec(move || hand_over(install(&filter)?, theirs.as_raw_fd()));
        }
        let injector = self.clone();
        thread::spawn(move || {
            // Nothing arrives if the command could not be started.
            if let Some(listener) = take(&ours) {
                injector.serve(&listener);
            }
        });
    }

    fn serve(&self, listener: &OwnedFd) {
        let program = program();
        let mut begun = HashSet::new();
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut events, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => panic!("wait for calls: {e}"),
            }
            if !events[0].revents().contains(PollFlags::IN) {
                // No process with the filter is left.
                return;
            }
            let Some(call) = receive(listener) else { continue };
            let fails = self.judge(&call, program, &mut begun);
            answer(listener, call.id, fails);
        }
    }

    /// Returns the error that the call is to fail with, if any.
    fn judge(
        &self,
        call: &libc::seccomp_notif,
        program: (u64, u64),
        begun: &mut HashSet<String>,
    ) -> Option<i32> {
        let runs = fs::metadata(format!("/proc/{}/exe", call.pid)).ok()?;
        if (runs.dev(), runs.ino()) != program {
            return None;
        }
        let (kind, what) = classify(call)?;
        // Calls before `main` come from the dynamic linker and the runtime, which allocate memory.
        let process = process(call.pid)?;
        if kind == Kind::Mmap && !begun.contains(&process) {
            return None;
        }
        match kind {
            Kind::Exec => begun.remove(&process),
            _ => begun.insert(process),
        };
        let half = half(call.pid)?;
        let call = Call { kind, half, what };
        let mut log = self.log();
        let same = |other: &&Call| (other.kind, other.half) == (kind, half);
        let number = log.calls.len();
        let of_these = log.calls.iter().filter(same).count();
        let aimed = |aim: &CallSelector| match *aim {
            CallSelector::Nth(at) => number == at,
            CallSelector::NthOf(of, whose, at) => (of, whose) == (kind, half) && of_these == at,
        };
        let aimed = self.aims.iter().position(|(aim, _)| aimed(aim));
        log.calls.push(call.clone());
        let aimed = aimed?;
        log.hits.push((aimed, call));
        drop(log);
        let (_, effect) = &self.aims[aimed];
        match effect {
            Effect::Fails(errno) => Some(*errno),
            Effect::ComesLater(action) => {
                action.lock().unwrap()();
                None
            }
        }
    }
}

/// Device and inode of the program under test.
fn program() -> (u64, u64) {
    let file = fs::metadata(super::world::binary()).unwrap();
    (file.dev(), file.ino())
}

fn process(thread: u32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")).map(|pid| pid.trim().to_owned())
}

fn half(thread: u32) -> Option<ProcessRole> {
    let words = fs::read(format!("/proc/{thread}/cmdline")).ok()?;
    let has = |word: &[u8]| words.split(|&byte| byte == 0).any(|it| it == word);
    Some(match (has(b"privileged"), has(b"--guardian")) {
        (true, true) => ProcessRole::Guardian,
        (true, false) => ProcessRole::Root,
        _ => ProcessRole::User,
    })
}

/// Holds the calls of [`numbers`] and lets all others pass.
fn filter() -> Vec<libc::sock_filter> {
    let numbers = numbers();
    let op = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    // The number of the call is the first field of `seccomp_data`.
    let mut program = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (at, number) in numbers.iter().enumerate() {
        let to_end = u8::try_from(numbers.len() - at).expect("few enough calls for short jumps");
        program.push(op(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            to_end,
            0,
            u32::try_from(*number).unwrap(),
        ));
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    program
}

/// Runs in the child: its calls are held from now on.
fn install(filter: &[libc::sock_filter]) -> io::Result<RawFd> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // Keeps a signal from restarting a call that is held, which would count it twice.
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    // SAFETY: the program is complete and lives until the call returns. No library has this call.
    let listener =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &program) };
    if listener < 0 { Err(io::Error::last_os_error()) } else { Ok(listener as RawFd) }
}

/// Runs in the child: sends the listener to the test process. It must not allocate memory.
fn hand_over(listener: RawFd, socket: RawFd) -> io::Result<()> {
    let mut byte = 0u8;
    let mut data = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut control = [0u64; 4];
    // SAFETY: everything that the message points to lives here until the call returns, and the control buffer
    // is aligned and large enough for one descriptor.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut data;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let head = libc::CMSG_FIRSTHDR(&message);
        (*head).cmsg_level = libc::SOL_SOCKET;
        (*head).cmsg_type = libc::SCM_RIGHTS;
        (*head).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(head).cast::<RawFd>().write_unaligned(listener);
        if libc::sendmsg(socket, &message, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::close(listener);
    }
    Ok(())
}

fn take(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), flags).ok()?;
    message.cmsgs().ok()?.find_map(|control| match control {
        // SAFETY: the descriptor has just been received and has no other owner.
        ControlMessageOwned::ScmRights(fds) => Some(unsafe { OwnedFd::from_raw_fd(fds[0]) }),
        _ => None,
    })
}

// `SECCOMP_IOCTL_NOTIF_RECV` and `_SEND` of linux/seccomp.h.
nix::ioctl_readwrite!(notif_recv, b'!', 0, libc::seccomp_notif);
nix::ioctl_readwrite!(notif_send, b'!', 1, libc::seccomp_notif_resp);

/// Receives the next call; `None` if the process that made it has ended.
fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    // SAFETY: the kernel requires an all-zero value, and fills in all of it.
    unsafe {
        let mut call: libc::seccomp_notif = std::mem::zeroed();
        notif_recv(listener.as_raw_fd(), &raw mut call).ok()?;
        Some(call)
    }
}

fn answer(listener: &OwnedFd, id: u64, fails: Option<i32>) {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: fails.map_or(0, |errno| -errno),
        flags: if fails.is_some() { 0 } else { libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32 },
    };
    // SAFETY: the response is complete. The result is ignored, because the process may have been killed
    // meanwhile.
    let _ = unsafe { notif_send(listener.as_raw_fd(), &raw mut answer) };
}

/// Reads up to `length` bytes from the memory of a process.
pub(super) fn memory(thread: u32, at: u64, length: usize) -> Option<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; length];
    let file = File::open(format!("/proc/{thread}/mem")).ok()?;
    let read = file.read_at(&mut bytes, at).ok()?;
    bytes.truncate(read);
    Some(bytes)
}
