//! Pauses a program when it opens a file, so that a test can act at that point.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::fanotify::{
    EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MarkFlags, MaskFlags,
    Response,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Pauses processes with one name when they open certain files or directories. Other processes are not
/// affected. All paused processes continue when this value is dropped.
pub struct PauseAtOpen {
    arrivals: mpsc::Receiver<()>,
    passes: mpsc::Sender<()>,
    gone: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl PauseAtOpen {
    /// `program` is the name that the kernel has in `/proc/PID/comm`. The paths are as the test process sees
    /// them, and must exist.
    pub fn hold(program: &'static str, paths: &[&Path]) -> PauseAtOpen {
        let flags = InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC;
        let events = EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC;
        let group = Fanotify::init(flags, events).expect("fanotify");
        for path in paths {
            let mask = MaskFlags::FAN_OPEN_PERM | MaskFlags::FAN_ONDIR;
            group.mark(MarkFlags::FAN_MARK_ADD, mask, rustix::fs::CWD, Some(*path)).unwrap();
        }
        let (arrived, arrivals) = mpsc::channel();
        let (passes, may_pass) = mpsc::channel();
        let gone = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&gone);
        let keeper = std::thread::spawn(move || {
            let mut held: Vec<FanotifyEvent> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                while may_pass.try_recv().is_ok() {
                    held.drain(..).for_each(|event| allow(&group, &event));
                }
                let readable = PollFd::from_borrowed_fd(group.as_fd(), PollFlags::IN);
                if poll(&mut [readable], Some(&POLL_INTERVAL)).unwrap() == 0 {
                    continue;
                }
                for event in group.read_events().unwrap() {
                    let name = fs::read_to_string(format!("/proc/{}/comm", event.pid()));
                    if name.is_ok_and(|name| name.trim_end() == program) {
                        held.push(event);
                        let _ = arrived.send(());
                    } else {
                        allow(&group, &event);
                    }
                }
            }
            // Closing the group releases all paused processes.
        });
        PauseAtOpen { arrivals, passes, gone, keeper: Some(keeper) }
    }

    /// Waits until a process is paused.
    #[track_caller]
    pub fn wait(&self) {
        self.arrivals.recv_timeout(TIMEOUT).expect("no process opened a watched file");
    }

    /// Lets the processes that are paused now continue.
    pub fn pass(&self) {
        self.passes.send(()).unwrap();
    }
}

fn allow(group: &Fanotify, event: &FanotifyEvent) {
    let file = event.fd().expect("each event has a file");
    group.write_response(FanotifyResponse::new(file, Response::FAN_ALLOW)).unwrap();
}

impl Drop for PauseAtOpen {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
        let _ = self.keeper.take().map(JoinHandle::join);
    }
}
