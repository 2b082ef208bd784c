//! Corrections of a workflow as replaced lines of its text: all other text stays as written, including
//! comments, quotes and line ends.

use serde::Serialize;
use storecache_workflow::yaml::Node;

/// A replacement of a range of lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// The first and the last line to replace, from 1.
    pub from: usize,
    pub to: usize,
    /// The new text, with the line ends of the file, but without one at the end.
    pub text: String,
}

impl Lines {
    /// Returns the corrected source, or `None` if it does not have these lines.
    pub fn apply(&self, source: &str) -> Option<String> {
        let before = start_of(source, self.from)?;
        let last = start_of(source, self.to)?;
        let rest = source.get(last..)?;
        let end = rest.find('\n').map_or(rest.len(), |at| {
            at - usize::from(rest.as_bytes().get(at.wrapping_sub(1)) == Some(&b'\r'))
        });
        (before <= last).then(|| {
            let (head, tail) = (&source[..before], &rest[end..]);
            [head, &self.text, tail].concat()
        })
    }
}

/// Returns the offset at which a line begins.
fn start_of(source: &str, line: usize) -> Option<usize> {
    match line {
        0 => None,
        1 => Some(0),
        _ => source.match_indices('\n').nth(line - 2).map(|(at, _)| at + 1),
    }
}

/// The text of a workflow, by lines.
pub struct Page<'s> {
    lines: Vec<&'s str>,
    end: &'static str,
}

impl<'s> Page<'s> {
    pub fn new(source: &'s str) -> Self {
        let lines = source.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let end = if source.contains("\r\n") { "\r\n" } else { "\n" };
        Page { lines: lines.collect(), end }
    }

    /// Returns a line without its line end, or `None` if it does not exist.
    pub fn line(&self, line: usize) -> Option<&'s str> {
        self.lines.get(line.checked_sub(1)?).copied()
    }

    /// Returns the column of a text in a line, from 1 and in characters. If the text is empty or not found,
    /// returns where the content of the line begins.
    pub fn column(&self, line: usize, text: &str) -> usize {
        let Some(found) = self.line(line) else { return 1 };
        let blank = || found.len() - found.trim_start_matches(['\u{feff}', ' ', '\t', '-']).len();
        let at = Some(text).filter(|text| !text.is_empty()).and_then(|text| found.find(text));
        let before = &found[..at.unwrap_or_else(blank)];
        before.trim_start_matches('\u{feff}').chars().count() + 1
    }

    /// Replaces texts in lines. Returns `None` if a text is not found or is ambiguous.
    pub fn swap(&self, swaps: &[(usize, &str, &str)]) -> Option<Lines> {
        let from = swaps.iter().map(|(line, ..)| *line).min()?;
        let to = swaps.iter().map(|(line, ..)| *line).max()?;
        let mut lines = Vec::new();
        for at in from..=to {
            let mut line = self.line(at)?.to_owned();
            for (_, old, new) in swaps.iter().filter(|(line, ..)| *line == at) {
                let start = place(&line, old)?;
                line.replace_range(start..start + old.len(), new);
            }
            lines.push(line);
        }
        Some(Lines { from, to, text: lines.join(self.end) })
    }

    /// Replaces a range of lines.
    pub fn put(&self, from: usize, to: usize, lines: &[String]) -> Option<Lines> {
        self.line(to)?;
        Some(Lines { from, to, text: lines.join(self.end) })
    }

    /// Inserts lines before a line.
    pub fn before(&self, line: usize, new: &[String]) -> Option<Lines> {
        let old = self.line(line)?.to_owned();
        let lines: Vec<_> = new.iter().cloned().chain([old]).collect();
        self.put(line, line, &lines)
    }

    /// Adds lines to a mapping in block style, after its first key. Returns `None` if the second key is on
    /// the line of the first.
    pub fn add(&self, mapping: &Node, new: &[&str]) -> Option<Lines> {
        let [first, rest @ ..] = mapping.pairs() else { return None };
        let indent = " ".repeat(first.place.column - 1);
        let new: Vec<String> = new.iter().map(|line| format!("{indent}{line}")).collect();
        match rest.first() {
            Some(next) if next.place.line > first.place.line => self.before(next.place.line, &new),
            Some(_) => None,
            None => {
                let end = self.end_of(first.place.line, first.place.column + 1);
                let old = self.line(end)?.to_owned();
                let lines: Vec<_> = [old].into_iter().chain(new).collect();
                self.put(end, end, &lines)
            }
        }
    }

    /// Returns the last line of a block that begins in `line`; its other lines are indented to `column` or
    /// deeper.
    pub fn end_of(&self, line: usize, column: usize) -> usize {
        let mut end = line;
        for (at, text) in self.lines.iter().enumerate().skip(line) {
            let own = text.trim_start_matches(' ');
            if own.trim().is_empty() {
                continue;
            }
            if text.len() - own.len() + 1 < column {
                break;
            }
            end = at + 1;
        }
        end
    }

    /// Returns the lines of a step in block style, including its dash.
    pub fn block(&self, step: &Node) -> Option<(usize, usize)> {
        let line = self.line(step.place.line)?;
        line.trim_start().starts_with("- ").then_some(())?;
        Some((step.place.line, self.end_of(step.place.line, step.place.column)))
    }

    /// Returns all lines of a range.
    pub fn lines(&self, from: usize, to: usize) -> Vec<String> {
        (from..=to).filter_map(|line| self.line(line)).map(str::to_owned).collect()
    }
}

/// Returns the offset of a text in a line: its only occurrence, or else the one at the end of the line, not
/// counting closing quotes and brackets.
fn place(line: &str, text: &str) -> Option<usize> {
    if text.is_empty() {
        return None;
    }
    let mut all = line.match_indices(text).map(|(at, _)| at);
    let first = all.next()?;
    if all.next().is_none() {
        return Some(first);
    }
    let body = line.trim_end().trim_end_matches(['"', '\'', '}', ']', ' ']);
    body.ends_with(text).then(|| body.len() - text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_replaced_and_line_endings_stay() {
        let source = "a: 1\r\nb: 2\r\nc: 3";
        let page = Page::new(source);
        let put = |lines: Option<Lines>| lines.unwrap().apply(source).unwrap();
        assert_eq!(put(page.swap(&[(2, "2", "5")])), "a: 1\r\nb: 5\r\nc: 3");
        assert_eq!(put(page.swap(&[(1, "1", "x"), (3, "3", "y")])), "a: x\r\nb: 2\r\nc: y");
        let new = ["z: 0".to_owned(), "y: 0".to_owned()];
        assert_eq!(put(page.before(1, &new)), "z: 0\r\ny: 0\r\na: 1\r\nb: 2\r\nc: 3");
        assert_eq!(put(page.put(2, 3, &new)), "a: 1\r\nz: 0\r\ny: 0");
        assert_eq!(page.swap(&[(2, "9", "5")]), None);
        assert_eq!(page.swap(&[(4, "", "5")]), None);
        assert_eq!(Lines { from: 3, to: 9, text: String::new() }.apply(source), None);
        assert_eq!(Lines { from: 0, to: 0, text: String::new() }.apply(source), None);
    }

    #[test]
    fn columns_are_counted_in_characters() {
        let page = Page::new("\u{feff}größe: 漢字 x\n  - run: x\n");
        assert_eq!(page.column(1, "x"), 11);
        assert_eq!(page.column(2, "nothing like it"), 5);
        assert_eq!(page.column(9, "x"), 1);
    }

    #[test]
    fn repeated_text_is_found_at_its_last_occurrence() {
        assert_eq!(place("key: key", "key"), Some(5));
        assert_eq!(place("a: \"b b\"", "b"), Some(6));
        assert_eq!(place("k: k # k!", "k"), None);
    }
}
