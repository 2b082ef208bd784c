//! The root half knows no network: the kernel refuses it, and all that it starts, every socket but those
//! of this machine's own.
//!
//! The daemon gets its sockets all the same: it is the guardian who starts it.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc::{self, sock_filter, sock_fprog};

#[cfg(target_arch = "x86_64")]
const OURS: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64 of linux/audit.h
#[cfg(target_arch = "aarch64")]
const OURS: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

/// Where things are in `struct seccomp_data` (`man 2 seccomp`).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;
/// From here on calls of x86_64 are those of x32, by other numbers.
const FOREIGN: u32 = 0x4000_0000;

/// From now on this thread and those that it starts have no way to a network. `no_new_privs` is set.
pub fn renounce() -> Result<()> {
    let load = |at| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    let allow = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
    let refuse = |error: i32| {
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | error.unsigned_abs())
    };
    // Each jump says how many lines are left out if it is so, and if it is not.
    let mut filter = [
        load(ARCHITECTURE),
        jump(libc::BPF_JEQ, OURS, 0, 3),
        load(NUMBER),
        jump(libc::BPF_JGE, FOREIGN, 1, 0),
        // A ring would make sockets by other means.
        jump(libc::BPF_JEQ, call(libc::SYS_io_uring_setup), 0, 1),
        refuse(libc::ENOSYS),
        jump(libc::BPF_JEQ, call(libc::SYS_socket), 0, 3),
        load(FIRST_ARGUMENT),
        jump(libc::BPF_JEQ, libc::AF_UNIX.unsigned_abs(), 1, 0),
        refuse(libc::EAFNOSUPPORT),
        allow,
    ];
    let length = libc::c_ushort::try_from(filter.len()).context("the filter is too long")?;
    let program = sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the filter, which lives until the call is over.
    let done = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, std::ptr::from_ref(&program))
    };
    match Errno::result(done).map(drop) {
        // A kernel without seccomp: then only our word is left.
        Err(Errno::EINVAL) => Ok(()),
        other => other.context("renounce the network"),
    }
}

fn call(number: libc::c_long) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn statement(code: u32, k: u32) -> sock_filter {
    jump_of(code, k, 0, 0)
}

fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    jump_of(libc::BPF_JMP | libc::BPF_K | code, k, jt, jf)
}

fn jump_of(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::unix::net::UnixStream;

    #[test]
    fn whoever_renounced_the_network_has_the_sockets_of_this_machine_alone() {
        let refused = std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            renounce().unwrap();
            UnixStream::pair().unwrap();
            std::os::unix::net::UnixDatagram::unbound().unwrap();
            let errors = [
                TcpListener::bind("127.0.0.1:0").map(drop),
                TcpListener::bind("[::1]:0").map(drop),
                UdpSocket::bind("127.0.0.1:0").map(drop),
            ];
            errors.map(|outcome| outcome.unwrap_err().raw_os_error())
        });
        assert_eq!(refused.join().unwrap(), [Some(libc::EAFNOSUPPORT); 3]);
        TcpListener::bind("127.0.0.1:0").unwrap();
    }
}
