//! The text of an event: `text key=value`, in one line.

use crate::untrusted_text::escape;
use std::borrow::Cow;
use std::fmt::{Debug, Write};
use tracing::field::{Field, Visit};

/// The most bytes of an event's text.
pub const EVENT_LIMIT: usize = 1024;

/// The name of the field that holds the text of a `tracing` macro.
const MESSAGE: &str = "message";

/// Returns the text of an event, followed by its fields. The text is one escaped line without queries of URLs.
pub(super) fn event_text(event: &tracing::Event<'_>) -> String {
    let mut text = Fields::default();
    event.record(&mut text);
    let fields = text.fields;
    finish(&format!("{}{fields}", text.message))
}

fn finish(text: &str) -> String {
    let text = without_query(text);
    shortened(escape(&text).into_owned())
}

fn shortened(mut text: String) -> String {
    const MARK: &str = "…";
    if text.len() > EVENT_LIMIT {
        let mut ends = (0..=EVENT_LIMIT - MARK.len()).rev();
        text.truncate(ends.find(|&end| text.is_char_boundary(end)).unwrap_or(0));
        text.push_str(MARK);
    }
    text
}

/// Removes the queries, fragments and user names of all URLs in a text: a query may be a signature, and a user name
/// may come with a password.
pub fn without_query(text: &str) -> Cow<'_, str> {
    const SCHEME: &str = "://";
    if !text.contains(SCHEME) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SCHEME) {
        let (before, after) = rest.split_at(at + SCHEME.len());
        let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`');
        let (url, following) = after.split_at(after.find(is_end).unwrap_or(after.len()));
        out.push_str(before);
        let query = url.find(['?', '#']).unwrap_or(url.len());
        let host = url[..query].find('/').unwrap_or(query);
        let user = url[..host].rfind('@').map_or(0, |at| at + 1);
        out.push_str(&url[user..query]);
        if query < url.len() {
            out.push_str("?(removed)");
        }
        rest = following;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Collects the message and the other fields of an event.
#[derive(Default)]
struct Fields {
    message: String,
    fields: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        if field.name() == MESSAGE {
            self.message.push_str(value);
            return;
        }
        let is_word = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c == '"');
        // Writing to a string cannot fail.
        let _ = match is_word {
            true => write!(self.fields, " {}={value}", field.name()),
            false => write!(self.fields, " {}=\"{}\"", field.name(), value.replace('"', "'")),
        };
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.add(field, &value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Event, EventLevel, EventSink, EventSubscriber};
    use std::sync::{Arc, Mutex};

    struct Recorder(Arc<Mutex<Vec<Event>>>);

    impl EventSink for Recorder {
        fn most_detailed(&self) -> EventLevel {
            EventLevel::Debug
        }

        fn wants(&self, _: &str, level: EventLevel) -> bool {
            level <= EventLevel::Debug
        }

        fn record(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    fn recorded(report: impl FnOnce()) -> Vec<String> {
        let events = Arc::new(Mutex::new(Vec::new()));
        let subscriber = EventSubscriber(Box::new(Recorder(Arc::clone(&events))));
        tracing::subscriber::with_default(subscriber, report);
        let events = std::mem::take(&mut *events.lock().unwrap());
        events.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn event_is_one_line_of_text_and_fields() {
        let found = recorded(|| {
            let missing: Option<u32> = None;
            tracing::debug!(lock = "gc.lock", seconds = 1.5, missing, "took the lock");
            tracing::info!(reason = %"no answer\nin \"time\"", empty = "", "\u{1b}[2Jretry");
            tracing::trace!("not wanted");
            tracing::debug!(target: "hyper::client", "of another crate");
        });
        assert_eq!(
            found,
            [
                "debug: runtime: took the lock lock=gc.lock seconds=1.5",
                r#"info: runtime: \x1b[2Jretry reason="no answer\nin 'time'" empty="""#,
            ]
        );
    }

    #[test]
    fn event_is_shortened_between_characters() {
        let found = recorded(|| tracing::info!("{}", "é".repeat(5000)));
        let text = found[0].strip_prefix("info: runtime: ").unwrap();
        assert!(text.len() <= EVENT_LIMIT && text.len() > EVENT_LIMIT - 4, "{}", text.len());
        assert!(text.ends_with("é…"));
    }

    #[test]
    fn queries_and_users_of_urls_are_removed() {
        for (text, shown) in [
            ("no url?", "no url?"),
            ("GET https://a.b/c?sig=x&y=z failed", "GET https://a.b/c?(removed) failed"),
            ("'http://u:p@h:8/x#f' http://h", "'http://h:8/x?(removed)' http://h"),
            ("s3://bucket/a@b dir:/a?b", "s3://bucket/a@b dir:/a?b"),
            ("(https://h?q)", "(https://h?(removed)"),
        ] {
            assert_eq!(without_query(text), shown);
        }
    }
}
