//! The state of one run, which the parts of a process share.
//!
//! Silence does not mean failure. Code that makes progress reports it to the [`RunContext`], and so does code that
//! waits and sees that the awaited process or disk is active. Code with a timeout asks the context for how long there
//! was no report. So a run is aborted only if there was no activity, and the error names the last activity.

use crate::liveness::{Activity, DEFAULT_STALL_TIMEOUT, LivenessState, TimedOut};
use anyhow::{Result, bail};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tracing::debug;

/// Minimum time between two reports to the listener, except for the first report of each phase.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);

/// Phase, last activity, timeouts and cancellation of one run. Clones share their state.
#[derive(Clone, Default)]
pub struct RunContext(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    canceled: Arc<AtomicBool>,
    /// Everything that fails after the first expired timeout may be a consequence of it.
    first_timeout: OnceLock<TimedOut>,
    /// Whether the run has stopped waiting for a root helper that still undoes its changes.
    undoing: AtomicBool,
}

/// Receives the phase, the kind of the report and its text.
type Listener = Arc<dyn Fn(&str, Activity, &str) + Send + Sync>;

struct State {
    phase: String,
    phase_began: Instant,
    last_activity: String,
    last_activity_at: Instant,
    /// The wait that the run is in since the last activity, if one was reported.
    waiting: Option<String>,
    stall_timeout: Duration,
    listener: Option<Listener>,
    last_report: Option<Instant>,
}

impl Default for State {
    fn default() -> Self {
        let now = Instant::now();
        State {
            phase: "start".into(),
            phase_began: now,
            last_activity: PHASE_BEGAN.into(),
            last_activity_at: now,
            waiting: None,
            stall_timeout: DEFAULT_STALL_TIMEOUT,
            listener: None,
            last_report: None,
        }
    }
}

const PHASE_BEGAN: &str = "the phase began";

impl RunContext {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the stall timeout, which applies to all phases that have no timeout of their own.
    pub fn stall_timeout(&self) -> Duration {
        self.state().stall_timeout
    }

    /// Sets the stall timeout, which is [`DEFAULT_STALL_TIMEOUT`] before.
    pub fn set_stall_timeout(&self, timeout: Duration) {
        self.state().stall_timeout = timeout;
    }

    /// Sets the listener, which is called on the thread that reports.
    pub fn set_listener(&self, listener: impl Fn(&str, Activity, &str) + Send + Sync + 'static) {
        self.state().listener = Some(Arc::new(listener));
    }

    /// Removes the listener.
    pub fn remove_listener(&self) {
        self.state().listener = None;
    }

    /// Begins a phase, which counts as progress.
    pub fn begin_phase(&self, phase: &str) {
        self.report(Some(phase), Activity::Progress, PHASE_BEGAN.into());
    }

    /// Reports progress: bytes, items, a process that has ended.
    pub fn report_progress(&self, text: impl Into<String>) {
        self.report(None, Activity::Progress, text.into());
    }

    /// Reports that nothing progressed, but that the awaited process or device was seen to be active.
    pub fn report_active(&self, text: impl Into<String>) {
        self.report(None, Activity::Active, text.into());
    }

    /// Reports a wait that has a timeout of its own. This is not evidence of activity.
    pub fn report_waiting(&self, text: impl Into<String>) {
        self.report(None, Activity::Waiting, text.into());
    }

    /// Records a report of another process, with the phase that the other process is in.
    pub fn forward(&self, phase: &str, activity: Activity, text: String) {
        self.report(Some(phase), activity, text);
    }

    /// Records a report of another process that works on the current phase of this process.
    pub fn forward_in_phase(&self, activity: Activity, text: String) {
        self.report(None, activity, text);
    }

    fn report(&self, phase: Option<&str>, activity: Activity, text: String) {
        let now = Instant::now();
        let (listener, phase) = {
            let mut state = self.state();
            let entered = phase.filter(|phase| *phase != state.phase);
            if let Some(phase) = entered {
                (state.phase, state.phase_began) = (phase.to_owned(), now);
            }
            match activity {
                Activity::Waiting => state.waiting = Some(text.clone()),
                Activity::Progress | Activity::Active => {
                    (state.last_activity, state.last_activity_at) = (text.clone(), now);
                    state.waiting = None;
                }
            }
            let is_recent = |last: Instant| now.saturating_duration_since(last) < REPORT_INTERVAL;
            if entered.is_none() && state.last_report.is_some_and(is_recent) {
                return;
            }
            state.last_report = Some(now);
            (state.listener.clone(), state.phase.clone())
        };
        // The lock is not held here: a listener may take some time.
        if let Some(listener) = listener {
            listener(&phase, activity, &text);
        }
    }

    /// Returns the phase and the last activity as of now.
    pub fn liveness(&self) -> LivenessState {
        let (state, now) = (self.state(), Instant::now());
        LivenessState {
            phase: state.phase.clone(),
            in_phase: now.saturating_duration_since(state.phase_began),
            last_activity: state.last_activity.clone(),
            idle: now.saturating_duration_since(state.last_activity_at),
            waiting: state.waiting.clone(),
        }
    }

    /// Records that the timeout of a flag, given without dashes, expired. Returns the first timeout that expired in
    /// this run, because only that one is a cause.
    pub fn timed_out(&self, flag: &'static str, what: impl Into<String>) -> TimedOut {
        let timed_out = || {
            let timed_out = TimedOut { flag, what: what.into(), state: self.liveness() };
            debug!(flag, reason = %timed_out, "a timeout expired");
            timed_out
        };
        self.0.first_timeout.get_or_init(timed_out).clone()
    }

    /// Returns the first timeout that expired, if any did.
    pub fn first_timeout(&self) -> Option<&TimedOut> {
        self.0.first_timeout.get()
    }

    /// Cancels the run. A thread that sees the cancellation sees earlier timeouts too.
    pub fn cancel(&self) {
        self.0.canceled.store(true, Ordering::Release);
    }

    /// Returns whether the run has been canceled.
    pub fn is_canceled(&self) -> bool {
        self.0.canceled.load(Ordering::Acquire)
    }

    /// Returns the flag that cancels the run, for signal handlers, which can only set a flag.
    pub fn cancel_flag(&self) -> &Arc<AtomicBool> {
        &self.0.canceled
    }

    /// Records that the run ends while a root helper still undoes its changes.
    pub fn mark_undoing(&self) {
        self.0.undoing.store(true, Ordering::Relaxed);
    }

    /// Returns whether a root helper still undoes its changes, because the run has stopped waiting for it.
    pub fn is_undoing(&self) -> bool {
        self.0.undoing.load(Ordering::Relaxed)
    }

    /// Returns why the run was canceled.
    pub fn cancel_reason(&self) -> String {
        self.first_timeout().map_or_else(|| "canceled by a signal".into(), ToString::to_string)
    }

    /// Checks that the run has not been canceled.
    ///
    /// # Errors
    /// The reason, if the run has been canceled.
    pub fn check_canceled(&self) -> Result<()> {
        if self.is_canceled() {
            bail!(self.cancel_reason());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records what a context reports to its listener.
    fn record(run: &RunContext) -> Arc<Mutex<Vec<String>>> {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&reports);
        run.set_listener(move |phase, _, text| {
            record.lock().unwrap().push(format!("{phase}: {text}"))
        });
        reports
    }

    #[test]
    fn contexts_of_one_process_are_independent() {
        let (one, other) = (RunContext::default(), RunContext::default());
        let (reports, other_reports) = (record(&one), record(&other));
        one.set_stall_timeout(Duration::from_secs(1));
        one.begin_phase("unpack");
        one.timed_out("deadline", "it took too long");
        one.cancel();

        assert_eq!(one.stall_timeout(), Duration::from_secs(1));
        assert_eq!(*reports.lock().unwrap(), ["unpack: the phase began"]);
        assert!(one.check_canceled().unwrap_err().to_string().starts_with("it took too long; "));

        assert_eq!(other.stall_timeout(), DEFAULT_STALL_TIMEOUT);
        assert_eq!(other.liveness().phase, "start");
        assert!(other_reports.lock().unwrap().is_empty());
        assert!(other.first_timeout().is_none());
        assert!(other.check_canceled().is_ok());
    }

    #[test]
    fn clones_share_their_run() {
        let run = RunContext::default();
        let clone = run.clone();
        clone.begin_phase("commit");
        clone.cancel_flag().store(true, Ordering::Relaxed);
        assert_eq!(run.liveness().phase, "commit");
        assert_eq!(run.check_canceled().unwrap_err().to_string(), "canceled by a signal");
    }

    #[test]
    fn only_the_first_timeout_is_a_cause() {
        let run = RunContext::default();
        run.timed_out("stall-timeout", "the disk is silent");
        assert_eq!(run.timed_out("deadline", "late").flag, "stall-timeout");
    }

    #[test]
    fn waiting_is_not_an_activity() {
        let run = RunContext::default();
        run.report_progress("frame 1");
        run.report_waiting("the lock is held");
        let state = run.liveness();
        assert_eq!(state.last_activity, "frame 1");
        assert_eq!(state.waiting.as_deref(), Some("the lock is held"));
        run.report_active("the process works");
        assert_eq!(run.liveness().waiting, None);
    }
}
