//! Escaping of untrusted text.

use storecache_runtime::untrusted_text;

/// Maximum length of a sentence in characters.
const LONGEST: usize = 2000;
/// Maximum length of a name or number in characters. A store allows names of 243.
const NAME: usize = 250;

/// Whether a character is a combining mark. A stack of them would cover the neighboring lines.
fn stacks(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}' | '\u{483}'..='\u{489}' | '\u{E31}'..='\u{E3A}' | '\u{E47}'..='\u{E4E}'
        | '\u{1AB0}'..='\u{1AFF}' | '\u{1DC0}'..='\u{1DFF}' | '\u{20D0}'..='\u{20FF}' | '\u{FE20}'..='\u{FE2F}')
}

/// At most `longest` characters of a text, with unsafe characters escaped and without stacked combining
/// marks.
fn harmless(text: &str, longest: usize) -> String {
    let text = untrusted_text::escape(text);
    let mut stacked = false;
    let mut out: String = text
        .chars()
        .take(longest)
        .filter(|c| {
            let above = std::mem::replace(&mut stacked, stacks(*c));
            !(stacks(*c) && above)
        })
        .collect();
    if text.chars().nth(longest).is_some() {
        out.push('…');
    }
    out
}

/// Escapes a sentence for an element, or for an attribute in double quotes.
pub fn escape(text: &str) -> String {
    markup(&harmless(text, LONGEST))
}

/// As [`escape`], for a name or a number, which is truncated earlier.
pub fn escape_name(text: &str) -> String {
    markup(&harmless(text, NAME))
}

fn markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn markup_shows_as_text() {
        assert_eq!(
            escape("<script>alert(\"1\")</script>&'"),
            "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"
        );
    }

    #[test]
    fn invisible_and_bidi_characters_are_escaped() {
        assert_eq!(escape("a\u{202E}b\u{2066}c\0d\u{200B}e"), r"a\u{202e}b\u{2066}c\x00d\u{200b}e");
        assert_eq!(escape("\u{1b}[31m"), r"\x1b[31m");
        assert_eq!(escape("two\nlines"), r"two\nlines");
        assert_eq!(escape("e\u{301}\u{301}\u{301}x"), "e\u{301}x");
    }

    #[test]
    fn a_long_text_is_cut() {
        assert_eq!(harmless(&"é".repeat(LONGEST), LONGEST).chars().count(), LONGEST);
        assert!(escape(&"é".repeat(LONGEST + 1)).ends_with("é…"));
        assert_eq!(escape_name(&"é".repeat(LONGEST)).chars().count(), NAME + 1);
    }

    proptest! {
        #[test]
        fn escaped_text_contains_no_markup(text in any::<String>()) {
            let escaped = escape(&text);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
            prop_assert!(untrusted_text::escape(&escaped) == escaped);
            for (at, _) in escaped.match_indices('&') {
                let entities = ["&amp;", "&lt;", "&gt;", "&quot;", "&#39;"];
                prop_assert!(entities.iter().any(|entity| escaped[at..].starts_with(entity)));
            }
        }
    }
}
