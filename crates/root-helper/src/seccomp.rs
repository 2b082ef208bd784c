//! The system-call filter of the root helper, which refuses network sockets.
//!
//! The filter applies to the thread that installs it, to every thread and process that it starts afterwards, and to
//! every user. The guardian is started before and has no filter, because it starts the daemon, which needs the
//! network.
//!
//! | call | result |
//! |---|---|
//! | `socket` and `socketpair` of a family other than `AF_UNIX` | `EAFNOSUPPORT` |
//! | `io_uring_setup`, whose rings create sockets without `socket` | `ENOSYS` |
//! | `pidfd_getfd` and `ptrace`, which reach the sockets of another process | `ENOSYS` |
//! | the same calls under their x32 numbers | the same |
//! | any call of another architecture (i386, 32-bit Arm) | the kernel kills the process |
//!
//! Two ways remain. Another process can pass a descriptor through a Unix socket, so the root helper connects only to
//! processes that it knows. And `CAP_SYS_PTRACE`, which reading `/proc` needs, also allows opening `/proc/PID/mem` of
//! a process that has a network.

use anyhow::{Context, Result};
use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter,
};
use std::collections::BTreeMap;

/// This bit is set in the number of a call that is made through the x32 ABI of x86_64. A filter sees such a call with
/// the architecture x86_64 (`man 2 seccomp`, `linux:arch/x86/include/uapi/asm/unistd.h`).
const X32: i64 = 0x4000_0000;

/// Calls that create a socket of the family in their first argument.
const OF_A_FAMILY: [i64; 2] = [libc::SYS_socket, libc::SYS_socketpair];

const REFUSED: [i64; 3] = [libc::SYS_io_uring_setup, libc::SYS_pidfd_getfd, libc::SYS_ptrace];

/// Whether the kernel refuses network sockets from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    Active,
    /// The kernel was built without seccomp.
    Unsupported,
}

impl Confinement {
    /// Returns a warning for the report of a restore.
    pub fn warning(self) -> Option<String> {
        let text =
            "this kernel has no seccomp, so network access of the root helper is not blocked";
        (self == Confinement::Unsupported).then(|| text.to_owned())
    }
}

/// Installs the filter for this thread and the threads that it starts. Also sets `no_new_privs`.
///
/// # Errors
/// If the kernel supports seccomp but refuses the filter.
pub fn confine() -> Result<Confinement> {
    for filter in filters().context("build the system-call filter")? {
        match apply_filter(&filter) {
            Ok(()) => {}
            Err(seccompiler::Error::Seccomp(e)) if is_unsupported(&e) => {
                return Ok(Confinement::Unsupported);
            }
            Err(e) => return Err(e).context("install the system-call filter"),
        }
    }
    Ok(Confinement::Active)
}

/// `ENOSYS` without `CONFIG_SECCOMP`, `EINVAL` without `CONFIG_SECCOMP_FILTER` (`linux:kernel/seccomp.c`).
fn is_unsupported(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL))
}

/// Returns one filter for each error: if several apply, the kernel takes the strictest result.
fn filters() -> Result<[BpfProgram; 2], BackendError> {
    let another_family = SeccompRule::new(vec![SeccompCondition::new(
        0,
        // The kernel reads the family as an `int`.
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Ne,
        libc::AF_UNIX.unsigned_abs().into(),
    )?])?;
    Ok([
        filter(&OF_A_FAMILY, &[another_family], libc::EAFNOSUPPORT)?,
        filter(&REFUSED, &[], libc::ENOSYS)?,
    ])
}

/// Returns a filter that refuses calls to which any of `rules` applies, or all of the calls if `rules` is empty.
fn filter(calls: &[i64], rules: &[SeccompRule], error: i32) -> Result<BpfProgram, BackendError> {
    let numbers = calls.iter().flat_map(|&call| [call, call | X32]);
    let rules: BTreeMap<_, _> = numbers.map(|number| (number, rules.to_vec())).collect();
    let refuse = SeccompAction::Errno(error.unsigned_abs());
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, here)?.try_into()
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "calls that no library makes: x32, i386, seccomp itself")]
    #![expect(clippy::disallowed_macros, reason = "says why a case is skipped")]

    use super::*;
    use std::io;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::{FromRawFd, OwnedFd};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    /// Runs `work` with the filter in a thread of its own, because the filter cannot be removed.
    fn confined<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let confined = std::thread::spawn(|| {
            assert_eq!(confine().unwrap(), Confinement::Active);
            work()
        });
        confined.join().unwrap()
    }

    /// Makes a system call and returns its error.
    fn error_of(number: i64, arguments: [i64; 4]) -> Option<i32> {
        let [a, b, c, d] = arguments;
        // SAFETY: none of the calls below writes to memory other than what is passed here.
        let done = unsafe { libc::syscall(number, a, b, c, d) };
        (done < 0).then(|| io::Error::last_os_error().raw_os_error().unwrap())
    }

    const FAMILIES: [i32; 7] = [
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
        libc::AF_PACKET,
        libc::AF_VSOCK,
        libc::AF_ALG,
        libc::AF_TIPC,
    ];

    #[test]
    fn filter_refuses_network_sockets_and_allows_unix_sockets() {
        let refused = confined(|| {
            UnixStream::pair().unwrap();
            UnixDatagram::unbound().unwrap();
            let errors = [
                TcpListener::bind("127.0.0.1:0").map(drop),
                TcpListener::bind("[::1]:0").map(drop),
                UdpSocket::bind("127.0.0.1:0").map(drop),
            ];
            errors.map(|outcome| outcome.unwrap_err().raw_os_error())
        });
        assert_eq!(refused, [Some(libc::EAFNOSUPPORT); 3]);
        TcpListener::bind("127.0.0.1:0").unwrap();
    }

    #[test]
    fn filter_refuses_every_other_family() {
        for family in FAMILIES {
            let errors = confined(move || {
                let mut pair = [0_i32; 2];
                let at = pair.as_mut_ptr().expose_provenance() as i64;
                let family = i64::from(family);
                // The upper half is not part of the family that the kernel sees.
                let padded = family | 1 << 32;
                let unix = i64::from(libc::AF_UNIX) | 1 << 32;
                [
                    error_of(libc::SYS_socket, [family, libc::SOCK_DGRAM.into(), 0, 0]),
                    error_of(libc::SYS_socket, [padded, libc::SOCK_DGRAM.into(), 0, 0]),
                    error_of(libc::SYS_socketpair, [family, libc::SOCK_DGRAM.into(), 0, at]),
                    error_of(libc::SYS_socketpair, [unix, -1, 0, at]),
                ]
            });
            let [socket, padded, pair, unix] = errors;
            assert_eq!([socket, padded, pair], [Some(libc::EAFNOSUPPORT); 3], "family {family}");
            assert_eq!(unix, Some(libc::EINVAL), "this one reaches the kernel");
        }
    }

    #[test]
    fn filter_refuses_rings_and_foreign_descriptors() {
        let errors = confined(|| REFUSED.map(|number| error_of(number, [-1, 0, 0, 0])));
        assert_eq!(errors, [Some(libc::ENOSYS); 3]);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn filter_refuses_x32_calls() {
        let inet = [libc::AF_INET.into(), libc::SOCK_STREAM.into(), 0, 0];
        let refused = confined(move || {
            let mut errors = OF_A_FAMILY.map(|number| error_of(number | X32, inet)).to_vec();
            errors.extend(REFUSED.map(|number| error_of(number | X32, [-1, 0, 0, 0])));
            errors
        });
        // On a kernel without x32, it is still the filter that returns `EAFNOSUPPORT`.
        assert_eq!(refused[..2], [Some(libc::EAFNOSUPPORT); 2]);
        assert_eq!(refused[2..], [Some(libc::ENOSYS); 3]);
    }

    /// Makes an i386 call from a 64-bit process. Its arguments are passed in ebx, ecx and edx.
    #[cfg(target_arch = "x86_64")]
    fn i386_call(number: i32, arguments: [i32; 3]) -> i32 {
        let [first, second, third] = arguments;
        let done: i32;
        // SAFETY: the calls below take numbers and no pointers. LLVM keeps rbx for itself.
        unsafe {
            std::arch::asm!(
                "xchg {first:r}, rbx",
                "int 0x80",
                "xchg {first:r}, rbx",
                first = inout(reg) i64::from(first) => _,
                inlateout("eax") number => done,
                in("ecx") second,
                in("edx") third,
                // The kernel clears or keeps these registers, depending on its version.
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        done
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn filter_kills_a_process_that_makes_i386_calls() {
        use std::os::unix::process::ExitStatusExt;
        use std::process::Command;

        const ROLE: &str = "STORECACHE_TEST_I386";
        /// `socket` in `linux:arch/x86/entry/syscalls/syscall_32.tbl`.
        const SOCKET: i32 = 359;
        const MADE: i32 = 7;

        // This test starts itself again as a child process.
        if let Ok(role) = std::env::var(ROLE) {
            if role == "confined" {
                confine().unwrap();
            }
            let socket = i386_call(SOCKET, [libc::AF_INET, libc::SOCK_STREAM, 0]);
            std::process::exit(if socket >= 0 { MADE } else { 0 });
        }
        let name = "root_helper::seccomp::tests::filter_kills_a_process_that_makes_i386_calls";
        let run = |role: &str| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", name, "--test-threads", "1"]).env(ROLE, role);
            command.output().unwrap().status
        };
        let free = run("free");
        if free.code() != Some(MADE) {
            println!("skipped: this kernel does not run i386 calls ({free})");
            return;
        }
        assert_eq!(run("confined").signal(), Some(libc::SIGSYS));
    }

    #[test]
    fn confine_reports_a_kernel_without_seccomp() {
        let outcome = std::thread::spawn(|| {
            // This filter makes the kernel look like one without seccomp.
            let absent = filter(&[libc::SYS_seccomp], &[], libc::ENOSYS).unwrap();
            apply_filter(&absent).unwrap();
            confine().unwrap()
        });
        assert_eq!(outcome.join().unwrap(), Confinement::Unsupported);
    }

    #[test]
    fn filter_holds_for_later_threads() {
        let error = confined(|| {
            let later = || error_of(libc::SYS_socket, [libc::AF_INET.into(), 1, 0, 0]);
            std::thread::spawn(later).join().unwrap()
        });
        assert_eq!(error, Some(libc::EAFNOSUPPORT));
    }

    #[test]
    fn filter_leaves_other_threads_alone() {
        confined(|| ());
        let number = i64::from(libc::AF_INET);
        // SAFETY: no pointers are passed, and nothing else owns the returned descriptor.
        let socket = unsafe {
            let fd = libc::syscall(libc::SYS_socket, number, libc::SOCK_STREAM, 0);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
        };
        drop(socket);
    }
}
