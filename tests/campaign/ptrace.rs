//! Stops a process at a system call, so that a fault happens exactly there.
#![expect(unsafe_code, reason = "no library waits for any thread that is traced")]

use std::fs;
use std::mem::{size_of, zeroed};
use std::ptr::null_mut;

use nix::libc::{self, c_long, pid_t};

const OPTIONS: c_long = (libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE) as c_long;

/// Lets a process run until one of its threads is about to make the `nth` of these calls, and runs `act`
/// while that thread is stopped. Returns `false` if the process ended before.
pub fn at_call(pid: u32, calls: &[c_long], nth: usize, act: impl FnOnce() + Send) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let threads = threads.filter_map(|it| it.file_name().to_str()?.parse().ok());
    begin(threads.collect(), &vec![calls; nth], act)
}

/// As [`at_call`], for one thread: stops it when it is about to make a call of the last set, after one call
/// of each earlier set, in this order. The other threads continue to run meanwhile.
pub fn at_last_call_of_thread(tid: u32, calls: &[&[c_long]], act: impl FnOnce() + Send) -> bool {
    begin(vec![tid.try_into().unwrap()], calls, act)
}

fn begin(threads: Vec<pid_t>, calls: &[&[c_long]], act: impl FnOnce() + Send) -> bool {
    // The traced threads resume by themselves when the thread that traces them ends.
    std::thread::scope(|scope| scope.spawn(|| wait(threads, calls, act)).join().unwrap())
}

fn wait(threads: Vec<pid_t>, calls: &[&[c_long]], act: impl FnOnce()) -> bool {
    for thread in threads {
        if request(libc::PTRACE_SEIZE, thread, OPTIONS) {
            request(libc::PTRACE_INTERRUPT, thread, 0);
        }
    }
    let mut seen = 0;
    loop {
        let mut status = 0;
        // SAFETY: the only pointer is to a variable of this function. Children of other threads, for which
        // the rest of the test waits, are not affected.
        let thread =
            unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if thread < 0 {
            return false;
        }
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        if signal == libc::SIGTRAP | 0x80 {
            if call_entered(thread).is_some_and(|call| calls[seen].contains(&call)) {
                seen += 1;
                if seen == calls.len() {
                    act();
                    return true;
                }
            }
            request(libc::PTRACE_SYSCALL, thread, 0);
        } else {
            let event = status >> 16 != 0;
            request(libc::PTRACE_SYSCALL, thread, if event { 0 } else { c_long::from(signal) });
        }
    }
}

/// The call that a thread is about to make, if it is stopped before a call and not after one.
fn call_entered(thread: pid_t) -> Option<c_long> {
    // SAFETY: the structure consists of plain numbers, and the kernel receives its size.
    let info = unsafe {
        let mut info: libc::ptrace_syscall_info = zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        let done = libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info);
        (done > 0 && info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then_some(info.u.entry.nr)
    };
    info.and_then(|number| c_long::try_from(number).ok())
}

fn request(what: libc::c_uint, thread: pid_t, data: c_long) -> bool {
    // SAFETY: none of the requests made here has a pointer.
    unsafe { libc::ptrace(what, thread, null_mut::<libc::c_void>(), data) == 0 }
}
