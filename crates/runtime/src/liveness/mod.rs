//! Liveness of a run: the phase that this process is in, since when, and its last activity.
//!
//! Silence does not mean failure. Code that makes progress reports it here, and so does code that waits and
//! sees that the awaited process or disk is active. Code with a timeout asks here for how long nothing was
//! reported. So a run is aborted only if there was no activity, and the error names the last activity.
//!
//! The state is global, one for each process, as signal handlers are. This module knows timeouts and `/proc`,
//! and not what the phases are about.

mod blocking;
mod child_process;
mod proc_activity;

pub use blocking::{BlockingWorker, is_canceled, run_blocking, run_blocking_for, set_cancel_flag};
pub use child_process::{Watch, output, wait};
pub use proc_activity::{ProcActivity, StallTimer, describe};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Default of the stall timeout.
pub const STALL: Duration = Duration::from_secs(60);

/// How often a waiting thread checks whether the run was canceled or the awaited event happened.
pub const LOOK: Duration = Duration::from_millis(50);

/// Activity that is no longer ago than this does not count as silence.
pub const SILENT: Duration = Duration::from_millis(500);

/// Minimum time between two reports to the listener, except for the first report of each phase.
const TELL: Duration = Duration::from_millis(100);

/// Liveness of this process at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivenessState {
    pub phase: String,
    /// Time since the phase began.
    pub in_phase: Duration,
    /// The last activity.
    pub sign: String,
    /// Time since that activity.
    pub silent: Duration,
    /// The wait that the process is in since then, if one was reported.
    pub waiting: Option<String>,
}

/// Kind of a progress report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Progress: bytes, items, a process that has ended.
    Moved,
    /// No progress, but the awaited process or device was seen to be active.
    Alive,
    /// A wait that has a timeout of its own. This is not evidence of activity.
    Waits,
}

impl LivenessState {
    /// Describes the last activity, how long ago it was, and what the process has waited for since.
    pub fn last_sign(&self) -> String {
        let last = format!("last activity {} ago: {}", seconds(self.silent), self.sign);
        match &self.waiting {
            Some(waiting) => format!("{last}; since then: {waiting}"),
            None => last,
        }
    }
}

/// Error: a run, or a part of it, was aborted by a timeout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimedOut {
    /// The timeout: the name of its flag without dashes.
    pub clock: &'static str,
    /// Description of the event, as a sentence without its period.
    pub what: String,
    pub seen: LivenessState,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimedOut { what, seen, .. } = self;
        let (phase, since) = (&seen.phase, seconds(seen.in_phase));
        write!(f, "{what}; in phase {phase} for {since}, {}", seen.last_sign())
    }
}

impl std::error::Error for TimedOut {}

/// Receives the phase, the kind of the report and its text.
type Listener = Arc<dyn Fn(&str, Activity, &str) + Send + Sync>;

struct Pulse {
    phase: String,
    since: Instant,
    sign: String,
    at: Instant,
    waiting: Option<String>,
    stall: Duration,
    listener: Option<Listener>,
    told: Option<Instant>,
}

static PULSE: LazyLock<Mutex<Pulse>> = LazyLock::new(|| {
    let now = Instant::now();
    Mutex::new(Pulse {
        phase: "start".into(),
        since: now,
        sign: "the phase began".into(),
        at: now,
        waiting: None,
        stall: STALL,
        listener: None,
        told: None,
    })
});

/// The first timeout that expired. Everything that failed afterwards may be a consequence of it.
static CUT: OnceLock<TimedOut> = OnceLock::new();

fn pulse() -> MutexGuard<'static, Pulse> {
    PULSE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the stall timeout, which applies to all phases that have no timeout of their own.
pub fn stall_timeout() -> Duration {
    pulse().stall
}

pub fn set_stall_timeout(stall: Duration) {
    pulse().stall = stall;
}

/// Sets the listener, which is called on the thread that reports.
pub fn listen(listener: impl Fn(&str, Activity, &str) + Send + Sync + 'static) {
    pulse().listener = Some(Arc::new(listener));
}

/// Removes the listener.
pub fn clear_listener() {
    pulse().listener = None;
}

/// Begins a phase, which counts as progress.
pub fn enter(phase: &str) {
    note(Some(phase), Activity::Moved, "the phase began".into());
}

/// Reports progress: bytes, items, a process that has ended.
pub fn moved(sign: impl Into<String>) {
    note(None, Activity::Moved, sign.into());
}

/// Reports that nothing progressed, but that the awaited process or device was seen to be active.
pub fn alive(sign: impl Into<String>) {
    note(None, Activity::Alive, sign.into());
}

/// Reports a wait that has a timeout of its own.
pub fn waiting(what: impl Into<String>) {
    note(None, Activity::Waits, what.into());
}

/// Records a report of another process, with the phase that the other process is in.
pub fn forward(phase: &str, sign: Activity, text: String) {
    note(Some(phase), sign, text);
}

/// Records a report of another process that works on the current phase of this process.
pub fn forward_in_phase(sign: Activity, text: String) {
    note(None, sign, text);
}

fn note(phase: Option<&str>, sign: Activity, text: String) {
    let now = Instant::now();
    let (listener, phase) = {
        let mut pulse = pulse();
        let entered = phase.filter(|phase| *phase != pulse.phase);
        if let Some(phase) = entered {
            (pulse.phase, pulse.since) = (phase.to_owned(), now);
        }
        match sign {
            Activity::Waits => pulse.waiting = Some(text.clone()),
            Activity::Moved | Activity::Alive => {
                (pulse.sign, pulse.at, pulse.waiting) = (text.clone(), now, None);
            }
        }
        if entered.is_none() && pulse.told.is_some_and(|told| now - told < TELL) {
            return;
        }
        pulse.told = Some(now);
        (pulse.listener.clone(), pulse.phase.clone())
    };
    // The lock is not held here: a listener may take some time.
    if let Some(listener) = listener {
        listener(&phase, sign, &text);
    }
}

impl Pulse {
    fn seen(&self, now: Instant) -> LivenessState {
        LivenessState {
            phase: self.phase.clone(),
            in_phase: now.saturating_duration_since(self.since),
            sign: self.sign.clone(),
            silent: now.saturating_duration_since(self.at),
            waiting: self.waiting.clone(),
        }
    }
}

/// Returns the phase and the last activity as of now.
pub fn now() -> LivenessState {
    pulse().seen(Instant::now())
}

/// Records that a timeout expired. Returns the first timeout that expired in this process, because only that
/// one is a cause.
pub fn timed_out(clock: &'static str, what: impl Into<String>) -> TimedOut {
    let timed_out = TimedOut { clock, what: what.into(), seen: now() };
    CUT.get_or_init(|| timed_out).clone()
}

/// Returns the first timeout that expired, if any did.
pub fn first_timeout() -> Option<&'static TimedOut> {
    CUT.get()
}

/// Returns why the run was canceled.
pub fn cancel_reason() -> String {
    first_timeout().map_or_else(|| "canceled by a signal".into(), ToString::to_string)
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
        let seen = LivenessState {
            phase: "unpack".into(),
            in_phase: Duration::from_secs(75),
            sign: "13 of 40 frames".into(),
            silent: Duration::from_secs(61),
            waiting: None,
        };
        let timed_out = TimedOut { clock: "stall-timeout", what: "it is silent".into(), seen };
        assert_eq!(
            timed_out.to_string(),
            "it is silent; in phase unpack for 75 s, last activity 61 s ago: 13 of 40 frames"
        );
    }

    #[test]
    fn seconds_are_printed_with_at_most_one_decimal() {
        let told = |millis| seconds(Duration::from_millis(millis));
        assert_eq!([0, 1000, 2540, 61_200].map(told), ["0 s", "1 s", "2.5 s", "61 s"]);
    }
}
