//! The last events of a run.

use super::Event;
use std::collections::VecDeque;

/// A ring buffer that keeps the last events.
#[derive(Debug)]
pub struct EventBuffer {
    events: VecDeque<Event>,
    limit: usize,
}

impl EventBuffer {
    /// Creates a buffer for at most `limit` events.
    pub fn new(limit: usize) -> Self {
        EventBuffer { events: VecDeque::new(), limit }
    }

    /// Adds an event, and drops the oldest one if there is no room.
    pub fn push(&mut self, event: Event) {
        if self.events.len() >= self.limit {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Removes all events, and returns them, oldest first.
    pub fn take(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::EventLevel;

    #[test]
    fn buffer_keeps_the_last_events_in_order() {
        let event = |number: usize| Event {
            level: EventLevel::Debug,
            target: "storecache".into(),
            text: number.to_string(),
        };
        let mut buffer = EventBuffer::new(200);
        assert!(buffer.take().is_empty());
        (0..1000).map(event).for_each(|event| buffer.push(event));
        assert_eq!(buffer.take(), (800..1000).map(event).collect::<Vec<_>>());
        assert!(buffer.take().is_empty());
    }
}
