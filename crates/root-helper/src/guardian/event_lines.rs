//! The events of a guardian on their way to the root helper: lines between its answers.

use super::messages::Answer;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::PIPE_BUF;
use std::io::{Write, stdout};
use storecache_runtime::events::{self, Event, EventLevel, EventSink};

/// Sends the events of this process to the root helper, up to a level.
pub(super) fn report_events(level: EventLevel) {
    events::start(EventLines { level });
}

struct EventLines {
    level: EventLevel,
}

impl EventSink for EventLines {
    fn most_detailed(&self) -> EventLevel {
        self.level
    }

    fn wants(&self, _: &str, level: EventLevel) -> bool {
        level <= self.level
    }

    /// Writes the event if that is possible without waiting: the root helper may have been stopped or killed, and the
    /// guardian must start the daemon all the same.
    fn record(&self, event: Event) {
        let Ok(line) = serde_json::to_string(&Answer::Event(event)) else { return };
        // Other threads write answers.
        let mut out = stdout().lock();
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let has_room = poll(&mut [PollFd::new(&out, PollFlags::OUT)], Some(&now));
        if line.len() < PIPE_BUF && has_room.is_ok_and(|count| count > 0) {
            let _ = out.write_all(format!("{line}\n").as_bytes());
        }
    }
}
