//! Untrusted text, and how it is shown to people.
//!
//! Snapshots, servers, other processes and file names can contain control characters that a terminal interprets,
//! characters that are invisible or reorder the text around them, line breaks that forge a second message, and text
//! that the runner of a job interprets as commands. [`escape`] makes any text safe to show as one line. All text for
//! people passes through it, at the latest in `report/output.rs`, which writes all output of the program.
//!
//! The escaped form is documented in `docs/cli.md`.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt::{self, Write};

/// Text from a snapshot, a server, another process or a file name.
///
/// `Display` and `Debug` only write the escaped form, so this is how people see it. [`Untrusted::raw`] returns the
/// exact text, for comparison, for parsing, and for machine formats with an encoding of their own.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Untrusted(String);

impl Untrusted {
    /// Returns the exact text, which must not be shown to people.
    pub fn raw(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Untrusted {
    fn from(text: String) -> Self {
        Untrusted(text)
    }
}

impl From<&str> for Untrusted {
    fn from(text: &str) -> Self {
        Untrusted(text.to_owned())
    }
}

impl PartialEq<str> for Untrusted {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Untrusted {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.0))
    }
}

impl fmt::Debug for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escape(&self.0))
    }
}

/// Returns a text as one line that is safe to display.
///
/// - Control characters are written as in Rust: `\n`, `\r`, `\t`, `\x1b`. Control characters above ASCII, and
///   characters that are invisible or change the direction of text, are written as `\u{202e}`.
/// - `##[`, which the runner of a job recognizes anywhere in a line, becomes `#\x23[`.
/// - `::` at the beginning, which the runner recognizes also after white space, becomes `\x3a:`.
///
/// All other text is unchanged, including backslashes, so escaping twice has the same result as escaping once.
///
/// Source of what the runner recognizes: actions/runner `src/Runner.Common/ActionCommand.cs`. It compares texts by
/// the rules of a language (.NET `IndexOf` and `StartsWith`), which ignore invisible characters. Here, invisible
/// characters are escaped before the search for these two sequences.
pub fn escape(text: &str) -> Cow<'_, str> {
    let mut text = escape_hidden(text);
    if text.contains("##[") {
        text = Cow::Owned(text.replace("##[", r"#\x23["));
    }
    let indent = text.len() - text.trim_start().len();
    if text[indent..].starts_with("::") {
        text.to_mut().replace_range(indent..=indent, r"\x3a");
    }
    text
}

fn escape_hidden(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            '\n' => out.write_str(r"\n"),
            '\r' => out.write_str(r"\r"),
            '\t' => out.write_str(r"\t"),
            c if c.is_ascii_control() => write!(out, r"\x{:02x}", u32::from(c)),
            c if is_hidden(c) => write!(out, r"\u{{{:x}}}", u32::from(c)),
            c => out.write_char(c),
        };
    }
    Cow::Owned(out)
}

/// Returns JSON in a form that is safe to display: the same value, where everything that [`escape`] would change
/// inside of strings is written as `\uXXXX`.
///
/// A line of JSON does not begin with `::`, so that sequence needs no change.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    // Outside of strings, JSON is printable ASCII and white space, and does not contain `#`.
    let is_escaped = |c: char| is_hidden(c) && !matches!(c, '\n' | '\r' | '\t');
    if !json.contains(is_escaped) && !json.contains("##[") {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_escaped(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(out, r"\u{unit:04x}");
            }
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out.replace("##[", r"\u0023\u0023["))
}

/// Returns whether a character is a control character, is invisible, changes the direction of text, or ends a line.
///
/// Source: the property Default_Ignorable_Code_Point of Unicode, with the line and paragraph separators and the
/// annotation characters.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_makes_control_characters_visible() {
        for (text, shown) in [
            ("plain text, a\\b, a::b, [::1]:80 é 漢字", "plain text, a\\b, a::b, [::1]:80 é 漢字"),
            ("\u{1b}[31m\u{7}\u{7f}\0", r"\x1b[31m\x07\x7f\x00"),
            ("\u{9b}31m\u{85}", r"\u{9b}31m\u{85}"),
            ("a\nb\r\n\tc", r"a\nb\r\n\tc"),
            ("abc\u{202e}gpj.exe", r"abc\u{202e}gpj.exe"),
            (
                "\u{200b}\u{61c}\u{2028}\u{2029}\u{e0041}",
                r"\u{200b}\u{61c}\u{2028}\u{2029}\u{e0041}",
            ),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn escape_breaks_commands_of_the_runner() {
        for (text, shown) in [
            ("::set-env name=x::y", r"\x3a:set-env name=x::y"),
            ("  \u{a0}::warning::", "  \u{a0}\\x3a:warning::"),
            ("a ##[error]b ###[c", r"a #\x23[error]b ##\x23[c"),
        ] {
            assert_eq!(escape(text), shown);
        }
    }

    #[test]
    fn untrusted_shows_no_raw_text_in_any_format() {
        let text = Untrusted::from("a\u{1b}\n::b");
        assert_eq!(format!("{text}|{text:?}|{text:>9}|"), r#"a\x1b\n::b|"a\x1b\n::b"|a\x1b\n::b|"#);
        assert_eq!(format!("{:<6}|", Untrusted::from("\u{7}")), r"\x07  |");
        assert_eq!(serde_json::to_value(&text).unwrap(), "a\u{1b}\n::b");
    }

    /// Generates text with a high share of sequences that are escaped.
    fn text() -> impl Strategy<Value = String> {
        const BITS: [&str; 15] = [
            "::", ":", "#", "##[", "[", "]", " ", "\n", "\r", "\u{1b}", "\u{9b}", "\u{202e}",
            "\u{ad}", "\\", "\"",
        ];
        let bit = prop_oneof![4 => proptest::sample::select(&BITS[..]).prop_map(str::to_owned), 1 => any::<String>()];
        proptest::collection::vec(bit, 0..12).prop_map(|bits| bits.concat())
    }

    proptest! {
        #[test]
        fn escape_leaves_one_line_without_commands(text in text()) {
            let shown = escape(&text);
            prop_assert!(!shown.contains(is_hidden), "{shown:?}");
            prop_assert!(!shown.contains("##[") && !shown.trim_start().starts_with("::"), "{shown:?}");
            prop_assert_eq!(escape(&shown), shown.as_ref());
        }

        #[test]
        fn escape_keeps_text_that_is_harmless(text in "[a-zé漢 :/.-]{0,20}") {
            prop_assume!(!text.trim_start().starts_with("::"));
            prop_assert_eq!(escape(&text), text.as_str());
        }

        #[test]
        fn escape_json_keeps_the_value(texts in proptest::collection::vec(text(), 0..4), pretty in any::<bool>()) {
            let value = serde_json::json!({ "texts": texts, "##[error]": 1 });
            let json = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let shown = escape_json(&json.unwrap()).into_owned();
            prop_assert!(shown.lines().all(|line| !line.contains(is_hidden)), "{shown:?}");
            prop_assert!(!shown.contains("##["), "{shown:?}");
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        }
    }
}
