//! Reports activity to the supervisors of a run: to people and, if systemd started the program, to systemd.
//!
//! systemd is notified only when there was activity. So its `WatchdogSec` kills and restarts a run that
//! hangs, but not one that is slow. Only the process that systemd started notifies it; the root helper does
//! not have the environment variable that this requires.

use super::progress::Progress;
use sd_notify::NotifyState;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use storecache_runtime::RunContext;
use storecache_runtime::liveness::Activity;
use storecache_runtime::untrusted_text::escape;

/// Minimum time between messages for people while a run is active without progress.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// Starts reporting the activity of `run`.
pub fn tell_signs(run: &RunContext, command: &'static str, progress: &Progress) {
    let voice = progress.voice();
    let every = ALIVE_EVERY.min(run.stall_timeout() / 3);
    let last = Mutex::new(Instant::now());
    run.set_listener(move |phase, activity, text| {
        notify(&[
            NotifyState::Watchdog,
            // A line break would begin another field (`man 3 sd_notify`).
            NotifyState::Status(&escape(&format!("{command}: {phase}: {text}"))),
        ]);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if activity == Activity::Progress {
            // Progress is shown by the progress bar or lines.
            *last = Instant::now();
        } else if last.elapsed() >= every {
            *last = Instant::now();
            voice.say(&format!("storecache: still working: {phase}: {text}"));
        }
    });
}

/// Reports that the run has everything it needs and begins its work.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// Reports that only the final report remains to be printed.
pub fn stopping(run: &RunContext) {
    run.remove_listener();
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    // Usually systemd is not there. If it does not receive the message, it acts as if the process was inactive.
    let _ = sd_notify::notify(state);
}
