//! Signs of life: which phase this process is in, since when, and what it saw or did last.
//!
//! A silence is not an end. Whoever waits says so here whenever something moved, and whenever what it waits for
//! was seen to be alive though nothing moved; whoever has a clock asks here how long nothing of the kind
//! happened. So only what gives no sign is ever cut, and what is cut is told with the last sign there was.
//!
//! A process has one pulse, as it has one set of signals. The room knows clocks and `/proc`, and nothing of
//! what the phases are about.

mod aside;
mod child;
mod vitals;

pub use aside::{Aside, aside, aside_within, call_off_by, is_called_off};
pub use child::{Watch, output, wait};
pub use vitals::{Vigil, Vitals, describe};

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long something may give no sign of life, where nobody says otherwise.
pub const STALL: Duration = Duration::from_secs(60);

/// How soon whoever waits notices that something happened to the run.
pub const LOOK: Duration = Duration::from_millis(50);

/// What gave a sign so shortly ago is not called silent.
pub const SILENT: Duration = Duration::from_millis(500);

/// Listeners hear of signs at most so often, but for the first one of each phase.
const TELL: Duration = Duration::from_millis(100);

/// What is known of this process at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub phase: String,
    /// Since the phase began.
    pub in_phase: Duration,
    /// The last sign of life.
    pub sign: String,
    /// Since that sign.
    pub silent: Duration,
    /// What is waited for since, as far as somebody has said so.
    pub waits: Option<String>,
}

/// What is said of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sign {
    /// Bytes, items, a process that has ended.
    Moved,
    /// Nothing moved, but what is waited for was seen to be alive.
    Alive,
    /// Somebody waits, with a clock of its own that runs. No sign of what is waited for.
    Waits,
}

impl Seen {
    /// "last sign of life 61 s ago: 13 of 40 frames"
    pub fn last_sign(&self) -> String {
        let last = format!("last sign of life {} ago: {}", seconds(self.silent), self.sign);
        match &self.waits {
            Some(waits) => format!("{last}; since then {waits}"),
            None => last,
        }
    }
}

/// A run, or a part of it, that was cut because a clock ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Which clock: the name of its flag without dashes.
    pub clock: &'static str,
    /// What happened, as a sentence without its end.
    pub what: String,
    pub seen: Seen,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cut { what, seen, .. } = self;
        let (phase, since) = (&seen.phase, seconds(seen.in_phase));
        write!(f, "{what}; the phase {phase} had begun {since} before, {}", seen.last_sign())
    }
}

impl std::error::Error for Cut {}

/// Hears of the phase, and of what is said.
type Listener = Arc<dyn Fn(&str, Sign, &str) + Send + Sync>;

struct Pulse {
    phase: String,
    since: Instant,
    sign: String,
    at: Instant,
    waits: Option<String>,
    stall: Duration,
    listener: Option<Listener>,
    told: Option<Instant>,
}

static PULSE: LazyLock<Mutex<Pulse>> = LazyLock::new(|| {
    let now = Instant::now();
    Mutex::new(Pulse {
        phase: "start".into(),
        since: now,
        sign: "it began".into(),
        at: now,
        waits: None,
        stall: STALL,
        listener: None,
        told: None,
    })
});

/// What was cut first: everything that failed afterwards may have done so for that.
static CUT: OnceLock<Cut> = OnceLock::new();

fn pulse() -> MutexGuard<'static, Pulse> {
    PULSE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The stall clock of all phases that have none of their own.
pub fn clock() -> Duration {
    pulse().stall
}

pub fn set_clock(stall: Duration) {
    pulse().stall = stall;
}

/// Has `listener` hear of signs of life, on the thread that saw them.
pub fn listen(listener: impl Fn(&str, Sign, &str) + Send + Sync + 'static) {
    pulse().listener = Some(Arc::new(listener));
}

/// Nobody listens any more.
pub fn hush() {
    pulse().listener = None;
}

/// A phase begins, which is a sign of life.
pub fn enter(phase: &str) {
    note(Some(phase), Sign::Moved, "it began".into());
}

/// Something moved: bytes, items, a process that has ended.
pub fn moved(sign: impl Into<String>) {
    note(None, Sign::Moved, sign.into());
}

/// Nothing moved, but what is waited for was seen to be alive.
pub fn alive(sign: impl Into<String>) {
    note(None, Sign::Alive, sign.into());
}

/// Somebody waits, and looks at a clock of its own.
pub fn waits(what: impl Into<String>) {
    note(None, Sign::Waits, what.into());
}

/// A sign of life of another process, with the phase that it is in.
pub fn heard(phase: &str, sign: Sign, text: String) {
    note(Some(phase), sign, text);
}

/// The same of one that works for the phase that we are in.
pub fn heard_here(sign: Sign, text: String) {
    note(None, sign, text);
}

fn note(phase: Option<&str>, sign: Sign, text: String) {
    let now = Instant::now();
    let (listener, phase) = {
        let mut pulse = pulse();
        let entered = phase.filter(|phase| *phase != pulse.phase);
        if let Some(phase) = entered {
            (pulse.phase, pulse.since) = (phase.to_owned(), now);
        }
        match sign {
            Sign::Waits => pulse.waits = Some(text.clone()),
            Sign::Moved | Sign::Alive => {
                (pulse.sign, pulse.at, pulse.waits) = (text.clone(), now, None);
            }
        }
        if entered.is_none() && pulse.told.is_some_and(|told| now - told < TELL) {
            return;
        }
        pulse.told = Some(now);
        (pulse.listener.clone(), pulse.phase.clone())
    };
    // Not with the pulse in hand: a listener may take its time.
    if let Some(listener) = listener {
        listener(&phase, sign, &text);
    }
}

impl Pulse {
    fn seen(&self, now: Instant) -> Seen {
        Seen {
            phase: self.phase.clone(),
            in_phase: now.saturating_duration_since(self.since),
            sign: self.sign.clone(),
            silent: now.saturating_duration_since(self.at),
            waits: self.waits.clone(),
        }
    }
}

/// Phase and last sign as of now.
pub fn now() -> Seen {
    pulse().seen(Instant::now())
}

/// Books that a clock ran out. Only the first one is the cause of anything.
pub fn cut(clock: &'static str, what: impl Into<String>) -> Cut {
    let cut = Cut { clock, what: what.into(), seen: now() };
    CUT.get_or_init(|| cut).clone()
}

/// What was cut first, if anything was.
pub fn was_cut() -> Option<&'static Cut> {
    CUT.get()
}

/// Why the run was called off, for whoever noticed that it was.
pub fn why_called_off() -> String {
    was_cut().map_or_else(|| "cancelled by a signal".into(), ToString::to_string)
}

/// A time for people: `61 s`, `2.5 s`.
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
    fn a_cut_tells_phase_times_and_last_sign() {
        let seen = Seen {
            phase: "unpack".into(),
            in_phase: Duration::from_secs(75),
            sign: "13 of 40 frames".into(),
            silent: Duration::from_secs(61),
            waits: None,
        };
        let cut = Cut { clock: "stall-timeout", what: "it is silent".into(), seen };
        assert_eq!(
            cut.to_string(),
            "it is silent; the phase unpack had begun 75 s before, last sign of life 61 s ago: 13 of \
             40 frames"
        );
    }

    #[test]
    fn times_are_short() {
        let told = |millis| seconds(Duration::from_millis(millis));
        assert_eq!([0, 1000, 2540, 61_200].map(told), ["0 s", "1 s", "2.5 s", "61 s"]);
    }
}
