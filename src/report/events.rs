//! Shows events to people, and keeps the last ones for a run that fails.

use super::{RunnerCommand, command, note, plural};
use anyhow::{Result, anyhow, bail};
use std::env;
use std::sync::{Mutex, MutexGuard, PoisonError};
use storecache_runtime::events::{self, Event, EventBuffer, EventLevel, EventSink, is_own_target};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// The variable that holds directives such as `storecache_backend=trace`.
const FILTER: &str = "STORECACHE_LOG";
/// The number of events that are kept for a run that fails.
const KEPT: usize = 200;

/// Shows the events of this process from now on, as far as `--verbose`, which was given `verbosity` times, or the
/// environment asks for it, and keeps the last ones that are not shown.
///
/// # Errors
/// If the directives in the environment are wrong.
pub fn start_events(verbosity: u8) -> Result<()> {
    let is = |name: &str, value: &str| env::var_os(name).is_some_and(|it| it == value);
    // Source: github/docs `content/actions/reference/workflows-and-actions/variables.md`.
    let in_debugged_job = is("GITHUB_ACTIONS", "true") && is("RUNNER_DEBUG", "1");
    let verbosity = match verbosity.max(in_debugged_job.into()) {
        0 => LevelFilter::OFF,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = match env::var(FILTER) {
        Ok(text) => parse_filter(&text)?,
        Err(env::VarError::NotPresent) => Targets::new(),
        Err(env::VarError::NotUnicode(_)) => bail!("{FILTER} is not valid UTF-8"),
    };
    let kept = Mutex::new(EventBuffer::new(KEPT));
    events::start(EventLog { verbosity, filter, in_debugged_job, kept });
    Ok(())
}

/// Parses the directives of `STORECACHE_LOG`.
fn parse_filter(text: &str) -> Result<Targets> {
    if text.trim().is_empty() {
        return Ok(Targets::new());
    }
    let filter: Targets = text.parse().map_err(|e| {
        anyhow!("{FILTER} must hold directives such as storecache_backend=trace or debug: {e}")
    })?;
    if let Some((other, _)) = filter.iter().find(|(target, _)| !is_own_target(target)) {
        bail!(
            "{FILTER} names {other}, which is not a module of storecache; events of other crates \
             may contain secrets and are never shown"
        );
    }
    Ok(filter)
}

/// Prints the last events of a run that failed, except for those that were shown. In a job they are in a group. Phases
/// without any decision explain nothing, so they are not printed alone.
pub fn print_last_events(in_job: bool) {
    let events = events::take_last();
    if events.iter().all(|event| event.level < EventLevel::Debug) {
        return;
    }
    let title = format!("the last {} before the failure", plural(events.len() as u64, "event"));
    match in_job {
        true => command(&RunnerCommand::new("group").text([format!("storecache: {title}")])),
        false => note(format!("note: {title}:")),
    }
    events.iter().for_each(note);
    if in_job {
        command(&RunnerCommand::new("endgroup"));
    }
}

struct EventLog {
    verbosity: LevelFilter,
    filter: Targets,
    /// Whether the runner shows debug messages.
    in_debugged_job: bool,
    /// The last events that were not shown.
    kept: Mutex<EventBuffer>,
}

impl EventLog {
    fn kept(&self) -> MutexGuard<'_, EventBuffer> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_shown(&self, target: &str, level: EventLevel) -> bool {
        let level = level.into();
        self.verbosity >= level || self.filter.would_enable(target, &level)
    }

    fn shown_level(&self) -> LevelFilter {
        let levels = self.filter.iter().map(|(_, level)| level).chain(self.filter.default_level());
        levels.fold(self.verbosity, LevelFilter::max)
    }
}

impl EventSink for EventLog {
    fn most_detailed(&self) -> EventLevel {
        let shown = self.shown_level().into_level().map(EventLevel::from);
        shown.map_or(EventLevel::Debug, |level| level.max(EventLevel::Debug))
    }

    fn wants(&self, target: &str, level: EventLevel) -> bool {
        level <= EventLevel::Debug || self.is_shown(target, level)
    }

    fn shows_events(&self) -> bool {
        self.shown_level() != LevelFilter::OFF
    }

    fn take_last(&self) -> Vec<Event> {
        self.kept().take()
    }

    fn record(&self, event: Event) {
        if !self.is_shown(&event.target, event.level) {
            self.kept().push(event);
        } else if self.in_debugged_job {
            let text = format!("{}: {}", event.source(), event.text);
            command(&RunnerCommand::new("debug").text([text]));
        } else {
            note(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(verbosity: LevelFilter, filter: &str) -> EventLog {
        let filter = parse_filter(filter).unwrap();
        let kept = Mutex::new(EventBuffer::new(KEPT));
        EventLog { verbosity, filter, in_debugged_job: false, kept }
    }

    #[test]
    fn events_are_shown_as_flag_or_filter_asks() {
        let backend = "storecache_backend::github";
        let shown = |log: &EventLog, target| {
            let levels = [EventLevel::Info, EventLevel::Debug, EventLevel::Trace];
            levels.into_iter().filter(|level| log.is_shown(target, *level)).count()
        };
        for (verbosity, filter, of_backend, of_store, most_detailed) in [
            (LevelFilter::OFF, "", 0, 0, EventLevel::Debug),
            (LevelFilter::DEBUG, "", 2, 2, EventLevel::Debug),
            (LevelFilter::TRACE, "", 3, 3, EventLevel::Trace),
            (LevelFilter::OFF, "storecache_backend=trace", 3, 0, EventLevel::Trace),
            (LevelFilter::OFF, "info,storecache_backend=off", 0, 1, EventLevel::Debug),
            (LevelFilter::DEBUG, "storecache_backend=trace", 3, 2, EventLevel::Trace),
            (LevelFilter::OFF, "storecache_backend", 3, 0, EventLevel::Trace),
        ] {
            let log = log(verbosity, filter);
            assert_eq!(shown(&log, backend), of_backend, "{filter}");
            assert_eq!(shown(&log, "storecache_store::locks"), of_store, "{filter}");
            assert_eq!(log.most_detailed(), most_detailed, "{filter}");
            // All others up to `debug` are kept.
            assert!(log.wants(backend, EventLevel::Debug));
        }
    }

    #[test]
    fn filter_names_only_modules_of_storecache() {
        for wrong in ["hyper=trace", "debug,reqwest", "storecache=loud", "storecache=info=debug"] {
            assert!(parse_filter(wrong).is_err(), "{wrong}");
        }
    }
}
