//! Signs of life, told to those who look after a run: people, and systemd where it started us.
//!
//! systemd hears of a sign only when there was one. So a run that hangs is killed and started again by its
//! `WatchdogSec`, and one that is slow is not. Only the process that systemd started speaks to it; the root half
//! has no environment that would tell it how.

use super::progress::Progress;
use crate::pulse::{self, Sign};
use crate::untrusted::escape;
use sd_notify::NotifyState;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// People hear of what is alive and does not move at most so often.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

/// From now on signs of life are told.
pub fn tell_signs(command: &'static str, progress: &Progress) {
    let voice = progress.voice();
    let every = ALIVE_EVERY.min(pulse::clock() / 3);
    let last = Mutex::new(Instant::now());
    pulse::listen(move |phase, sign, text| {
        notify(&[
            NotifyState::Watchdog,
            // A line break would begin another field (`man 3 sd_notify`).
            NotifyState::Status(&escape(&format!("{command}: {phase}: {text}"))),
        ]);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if sign == Sign::Moved {
            // What moves shows as progress.
            *last = Instant::now();
        } else if last.elapsed() >= every {
            *last = Instant::now();
            voice.say(&format!("storecache: alive: {phase}: {text}"));
        }
    });
}

/// The run has all that it takes, and its work begins.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// All is done but to tell.
pub fn stopping() {
    pulse::hush();
    notify(&[NotifyState::Stopping]);
}

fn notify(state: &[NotifyState<'_>]) {
    // Nobody is there, as a rule. Should systemd not hear us, it does what it does when it hears nothing.
    let _ = sd_notify::notify(state);
}
