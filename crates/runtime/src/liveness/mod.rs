//! How a wait notices that the awaited process, thread or disk is active, and for how long it was not.
//!
//! - [`StallTimer`]: a timeout that counts from the last activity
//! - [`wait`], [`output`]: run programs with such a timeout
//! - [`BlockingWorker`], [`run_blocking`]: work that may block forever, on a separate thread
//!
//! They report to a [`RunContext`](crate::RunContext). This module knows timeouts and `/proc`, and not what the phases
//! of a run are about.

mod blocking;
mod child_process;
mod proc_activity;

pub use blocking::{BlockingWorker, Late, run_blocking, run_blocking_for};
pub use child_process::{Watch, output, wait};
pub use proc_activity::{ProcActivity, StallTimer, describe};

use crate::advice::Advice;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Default of the stall timeout.
pub const DEFAULT_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a waiting thread checks whether the run was canceled or the awaited event happened.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Activity that is no longer ago than this does not count as silence.
pub const SILENCE_THRESHOLD: Duration = Duration::from_millis(500);

/// Liveness of a run at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivenessState {
    /// Name of the phase.
    pub phase: String,
    /// Time since the phase began.
    pub in_phase: Duration,
    /// The last activity.
    pub last_activity: String,
    /// Time since that activity.
    pub idle: Duration,
    /// The wait that the run is in since then, if one was reported.
    pub waiting: Option<String>,
}

/// Kind of an activity report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Progress: bytes, items, a process that has ended.
    #[serde(rename = "Moved")]
    Progress,
    /// No progress, but the awaited process or device was seen to be active.
    #[serde(rename = "Alive")]
    Active,
    /// A wait that has a timeout of its own. This is not evidence of activity.
    #[serde(rename = "Waits")]
    Waiting,
}

impl LivenessState {
    /// Describes the last activity, how long ago it was, and what the run has waited for since.
    pub fn describe_last_activity(&self) -> String {
        let last = format!("last activity {} ago: {}", seconds(self.idle), self.last_activity);
        match &self.waiting {
            Some(waiting) => format!("{last}; since then: {waiting}"),
            None => last,
        }
    }
}

/// Error: a run, or a part of it, was aborted by a timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedOut {
    /// Name of the flag that sets the timeout, without dashes.
    pub flag: &'static str,
    /// Description of the event, as a sentence without its period.
    pub what: String,
    /// State of the run when the timeout expired.
    pub state: LivenessState,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimedOut { what, state, .. } = self;
        let (phase, since) = (&state.phase, seconds(state.in_phase));
        write!(f, "{what}; in phase {phase} for {since}, {}", state.describe_last_activity())
    }
}

impl std::error::Error for TimedOut {}

impl TimedOut {
    /// Returns the state of the run as a note, and the flag that allows more time as a hint.
    pub fn advice(&self) -> Advice {
        let LivenessState { phase, in_phase, .. } = &self.state;
        let since = format!("it was in phase {phase} for {}", seconds(*in_phase));
        let notes = vec![since, self.state.describe_last_activity()];
        Advice { notes, ..Advice::hint(format!("set --{} to allow more time", self.flag)) }
    }
}

/// Formats a time for people: `61 s`, `2.5 s`.
pub fn seconds(time: Duration) -> String {
    let tenths = (time.as_secs_f64() * 10.0).round() / 10.0;
    if tenths < 10.0 && tenths.fract() != 0.0 {
        return format!("{tenths:.1} s");
    }
    format!("{} s", time.as_secs_f64().round())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_message_has_phase_times_and_last_activity() {
        let state = LivenessState {
            phase: "unpack".into(),
            in_phase: Duration::from_secs(75),
            last_activity: "13 of 40 frames".into(),
            idle: Duration::from_secs(61),
            waiting: None,
        };
        let timed_out = TimedOut { flag: "stall-timeout", what: "it is silent".into(), state };
        assert_eq!(
            timed_out.to_string(),
            "it is silent; in phase unpack for 75 s, last activity 61 s ago: 13 of 40 frames"
        );
    }

    #[test]
    fn seconds_are_printed_with_at_most_one_decimal() {
        let text = |millis| seconds(Duration::from_millis(millis));
        assert_eq!([0, 1000, 2540, 61_200].map(text), ["0 s", "1 s", "2.5 s", "61 s"]);
    }
}
