//! Events: the decisions of a process and their reasons, for the diagnosis of a run.
//!
//! Code reports events with the macros of `tracing`, with the module as target: `info` for the phases of a run,
//! `debug` for decisions, `trace` for each request and each frame. The process decides with an [`EventSink`] which
//! events it wants and where they go: the user process shows them and keeps the last ones, the root helper sends them
//! to the user process. A process without a sink has no events, and reporting one costs almost nothing.
//!
//! Events of other crates are never recorded, at any level, because some of them contain headers and addresses with
//! secrets. Spans are not used.

mod event_buffer;
mod event_text;

pub use event_buffer::EventBuffer;
pub use event_text::{EVENT_LIMIT, without_query};

use event_text::event_text;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use tracing::dispatcher::get_default;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Level, Metadata, Subscriber};

/// The level of an event, from the most important one to the most detailed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventLevel {
    Error,
    Warn,
    /// A phase of a run begins or ends.
    Info,
    /// A decision and its reason.
    Debug,
    /// One request, one frame.
    Trace,
}

impl EventLevel {
    pub fn name(self) -> &'static str {
        match self {
            EventLevel::Error => "error",
            EventLevel::Warn => "warn",
            EventLevel::Info => "info",
            EventLevel::Debug => "debug",
            EventLevel::Trace => "trace",
        }
    }
}

impl From<Level> for EventLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::ERROR => EventLevel::Error,
            Level::WARN => EventLevel::Warn,
            Level::INFO => EventLevel::Info,
            Level::DEBUG => EventLevel::Debug,
            Level::TRACE => EventLevel::Trace,
        }
    }
}

impl From<EventLevel> for Level {
    fn from(level: EventLevel) -> Self {
        match level {
            EventLevel::Error => Level::ERROR,
            EventLevel::Warn => Level::WARN,
            EventLevel::Info => Level::INFO,
            EventLevel::Debug => Level::DEBUG,
            EventLevel::Trace => Level::TRACE,
        }
    }
}

/// An event with its text, which is escaped and at most [`EVENT_LIMIT`] bytes long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    pub level: EventLevel,
    /// The path of the module that reported it.
    pub target: Cow<'static, str>,
    pub text: String,
}

impl Event {
    /// Returns the name that people see: the crate of the target, or its module in the program.
    pub fn source(&self) -> &str {
        let target = &*self.target;
        let short = ["storecache::commands::", "storecache::", "storecache_"]
            .iter()
            .find_map(|prefix| target.strip_prefix(prefix));
        short.unwrap_or(target).split("::").next().unwrap_or(target)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.level.name(), self.source(), self.text)
    }
}

/// Receives the events of a process.
pub trait EventSink: Send + Sync + 'static {
    /// Returns the most detailed level that is wanted of any target.
    fn most_detailed(&self) -> EventLevel;

    /// Returns whether an event is wanted. The answer must always be the same.
    fn wants(&self, target: &str, level: EventLevel) -> bool;

    /// Returns whether people see any events.
    fn shows_events(&self) -> bool {
        false
    }

    /// Removes the last events that people have not seen, and returns them, oldest first.
    fn take_last(&self) -> Vec<Event> {
        Vec::new()
    }

    /// Records a wanted event. This must not report events itself.
    fn record(&self, event: Event);
}

/// Sends the events of this process to a sink from now on. Call it once; a second call has no effect.
pub fn start(sink: impl EventSink) {
    // The only error is that a sink exists.
    let _ = tracing::dispatcher::set_global_default(Dispatch::new(EventSubscriber(Box::new(sink))));
}

/// Records an event of another process as if it were one of this process.
pub fn forward(event: Event) {
    with_sink(|sink| {
        if sink.wants(&event.target, event.level) {
            sink.record(event);
        }
    });
}

/// Returns the most detailed level that this process wants of any target, or `None` if it has no events.
pub fn most_detailed() -> Option<EventLevel> {
    with_sink(EventSink::most_detailed)
}

/// Returns whether people see any events of this process.
pub fn are_shown() -> bool {
    with_sink(EventSink::shows_events).unwrap_or_default()
}

/// Removes the last events of this process that people have not seen, and returns them, oldest first.
pub fn take_last() -> Vec<Event> {
    with_sink(EventSink::take_last).unwrap_or_default()
}

fn with_sink<T>(action: impl FnOnce(&dyn EventSink) -> T) -> Option<T> {
    // `get_default` takes a closure that can be called again, but calls it once.
    let mut action = Some(action);
    get_default(|dispatch| {
        let sink = &dispatch.downcast_ref::<EventSubscriber>()?.0;
        Some(action.take()?(sink.as_ref()))
    })
}

struct EventSubscriber(Box<dyn EventSink>);

/// Returns whether a target belongs to a crate of storecache.
pub fn is_own_target(target: &str) -> bool {
    let crate_name = target.split("::").next().unwrap_or(target);
    crate_name == "storecache" || crate_name.starts_with("storecache_")
}

impl Subscriber for EventSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        metadata.is_event()
            && is_own_target(target)
            && self.0.wants(target, (*metadata.level()).into())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.0.most_detailed().into()))
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        self.0.record(Event {
            level: (*event.metadata().level()).into(),
            target: Cow::Owned(event.metadata().target().to_owned()),
            text: event_text(event),
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
