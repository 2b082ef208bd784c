//! The events of the root helper on their way to the user process.
//!
//! The user process of a confined user may stop reading, so an event is sent only if the connection has room for it
//! at once. Otherwise it waits, and further events are dropped and counted: an event never delays a run, and never
//! makes it fail. Events are not flushed before a failure is reported either, because the cause is more important.

use super::output::Output;
use super::protocol::{Reply, write_message};
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use storecache_runtime::events::{self, Event, EventLevel, EventSink};

/// The most events that wait for room.
const WAITING: usize = 64;
/// The most events of one conversation.
const MOST: usize = 10_000;

/// Sends events over a connection. Clones share the connection.
#[derive(Clone)]
pub struct EventSender(Arc<Shared>);

struct Shared {
    level: EventLevel,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The connection, once it is set up.
    output: Option<Arc<Mutex<Output>>>,
    waiting: VecDeque<Event>,
    /// The number of events so far that were not dropped.
    taken: usize,
    /// The number of events that were dropped since the last one that was sent.
    dropped: u64,
}

impl EventSender {
    pub fn new(level: EventLevel) -> Self {
        EventSender(Arc::new(Shared { level, state: Mutex::default() }))
    }

    /// Starts to record the events of this process, up to a level.
    pub fn start(level: EventLevel) -> Self {
        let sender = Self::new(level);
        events::start(sender.clone());
        sender
    }

    /// From now on sends events over this connection, beginning with those that were recorded before.
    pub fn connect(&self, output: &Arc<Mutex<Output>>) {
        let mut state = self.state();
        state.output = Some(Arc::clone(output));
        state.send();
    }

    /// Sends the events that wait, as far as there is room.
    pub fn send(&self) {
        self.state().send();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for EventSender {
    fn most_detailed(&self) -> EventLevel {
        self.0.level
    }

    fn wants(&self, _: &str, level: EventLevel) -> bool {
        level <= self.0.level
    }

    fn record(&self, event: Event) {
        let mut state = self.state();
        state.send();
        if state.taken < MOST && state.waiting.len() >= WAITING {
            state.dropped += 1;
            return;
        }
        match state.taken.cmp(&MOST) {
            Ordering::Less => state.take(event),
            Ordering::Equal => state.take(own("no more events are sent".into())),
            Ordering::Greater => return,
        }
        state.send();
    }
}

impl State {
    fn send(&mut self) {
        let Some(output) = &self.output else { return };
        // The connection is locked while a reply is written, which may wait.
        let Ok(mut output) = output.try_lock() else { return };
        while let Some(event) = self.waiting.front() {
            if !send(&mut output, event) {
                return;
            }
            self.waiting.pop_front();
        }
        let report = own(format!("events were dropped count={}", self.dropped));
        if self.dropped > 0 && self.taken < MOST && send(&mut output, &report) {
            (self.taken, self.dropped) = (self.taken + 1, 0);
        }
    }

    fn take(&mut self, event: Event) {
        self.taken += 1;
        self.waiting.push_back(event);
    }
}

/// Sends an event if there is room. Returns whether it was sent.
fn send(output: &mut Output, event: &Event) -> bool {
    let mut message = Vec::new();
    let encoded = write_message(&mut message, &Reply::Event(event.clone()), &[]);
    encoded.is_ok() && output.write_if_room(&message)
}

/// Returns an event about the events themselves.
fn own(text: String) -> Event {
    Event { level: EventLevel::Debug, target: module_path!().into(), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Phase, read_message};
    use rustix::fs::{OFlags, fcntl_setfl};
    use std::fs::File;
    use std::io::{Read, pipe};
    use std::os::fd::OwnedFd;
    use std::time::Duration;
    use storecache_runtime::events::EVENT_LIMIT;
    use storecache_runtime::memory::ByteSemaphore;

    fn event(number: usize) -> Event {
        // The encoding of a backslash is longest.
        let text = format!("{number}{}", "\\".repeat(EVENT_LIMIT - 8));
        Event { level: EventLevel::Debug, target: "storecache_root_helper".into(), text }
    }

    /// A pipe without blocking, as the root helper has one for a confined user, and its reader.
    fn connection() -> (Arc<Mutex<Output>>, impl Read) {
        let (reader, writer) = pipe().unwrap();
        let writer = File::from(OwnedFd::from(writer));
        fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
        let limit = Some(Duration::from_secs(60));
        (Arc::new(Mutex::new(Output::to(writer, limit))), reader)
    }

    fn read_all(mut reader: impl Read) -> Vec<Reply> {
        let memory = ByteSemaphore::new(0);
        let next = || read_message::<Reply>(&mut reader, &memory).unwrap();
        std::iter::from_fn(next).map(|(reply, _)| reply).collect()
    }

    #[test]
    fn events_wait_for_the_connection_and_arrive_in_order() {
        let (output, reader) = connection();
        let sender = EventSender::new(EventLevel::Debug);
        sender.record(event(0));
        sender.connect(&output);
        sender.record(event(1));
        drop((sender, output));
        let texts = read_all(reader).into_iter().map(|reply| match reply {
            Reply::Event(event) => event,
            other => panic!("{other:?}"),
        });
        assert_eq!(texts.collect::<Vec<_>>(), [event(0), event(1)]);
    }

    #[test]
    fn events_without_room_are_dropped_and_the_failure_is_delivered() {
        let (output, reader) = connection();
        let sender = EventSender::new(EventLevel::Debug);
        sender.connect(&output);
        // Nothing reads, so the pipe fills up. None of these calls may wait.
        (0..MOST * 2).map(event).for_each(|event| sender.record(event));
        assert!(sender.state().dropped > 0);
        assert!(!output.lock().unwrap().has_room());

        let reading = std::thread::spawn(move || read_all(reader));
        let failed = Reply::Failed {
            phase: Phase::Commit,
            causes: vec!["the cause".into()],
            advice: Default::default(),
            fault: Default::default(),
        };
        write_message(&mut *output.lock().unwrap(), &failed, &[]).unwrap();
        drop((sender, output));
        let mut replies = reading.join().unwrap();
        let last = replies.pop().unwrap();
        assert!(matches!(&last, Reply::Failed { causes, .. } if *causes == ["the cause"]));
        let sent = replies.len();
        assert!(sent > 0 && sent < MOST, "{sent}");
        for (number, reply) in replies.into_iter().enumerate() {
            assert!(matches!(reply, Reply::Event(sent) if sent == event(number)), "{number}");
        }
    }

    #[test]
    fn number_of_events_is_limited_and_dropped_ones_are_counted() {
        let (output, reader) = connection();
        let sender = EventSender::new(EventLevel::Debug);
        sender.connect(&output);
        let reading = std::thread::spawn(move || read_all(reader));
        let mut recorded = 0;
        while sender.state().taken <= MOST {
            sender.record(event(recorded));
            recorded += 1;
        }
        (0..5).map(event).for_each(|event| sender.record(event));
        while !sender.state().waiting.is_empty() {
            sender.send();
        }
        drop((sender, output));
        let replies = reading.join().unwrap().into_iter().map(|reply| match reply {
            Reply::Event(event) => event.text,
            other => panic!("{other:?}"),
        });
        let texts: Vec<String> = replies.collect();
        assert_eq!(texts.len(), MOST + 1);
        assert_eq!(texts.last().unwrap(), "no more events are sent");
        let counts =
            texts.iter().filter_map(|text| text.strip_prefix("events were dropped count="));
        let counts: Vec<usize> = counts.map(|count| count.parse().unwrap()).collect();
        // The last call brought the last event, and no further one is counted.
        assert!(recorded - 1 - counts.iter().sum::<usize>() + counts.len() >= MOST);
    }

    #[test]
    fn longest_event_fits_into_one_write_to_a_pipe() {
        let target = "storecache_root_helper::restart_after_crash::and_more";
        let mut message = Vec::new();
        let longest = Event { target: target.into(), ..event(usize::MAX) };
        write_message(&mut message, &Reply::Event(longest), &[]).unwrap();
        assert!(message.len() <= rustix::pipe::PIPE_BUF, "{}", message.len());
    }
}
