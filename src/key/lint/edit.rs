//! Corrections of a workflow as lines of its own text: what is not corrected stays as it was written,
//! comments, quotes and line ends too.

use super::super::yaml::Node;
use serde::Serialize;

/// Lines that stand in the place of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lines {
    /// The first and the last line that go, from 1.
    pub from: usize,
    pub to: usize,
    /// With the line ends of the file, but none after its last line.
    pub text: String,
}

impl Lines {
    /// The corrected source; nothing where it has no such lines.
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

/// Where a line begins.
fn start_of(source: &str, line: usize) -> Option<usize> {
    match line {
        0 => None,
        1 => Some(0),
        _ => source.match_indices('\n').nth(line - 2).map(|(at, _)| at + 1),
    }
}

/// The text of a workflow by its lines.
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

    /// A line without its end; nothing where there is none.
    pub fn line(&self, line: usize) -> Option<&'s str> {
        self.lines.get(line.checked_sub(1)?).copied()
    }

    /// Where a text stands in a line, from 1 and in characters; else where the line's own text begins.
    pub fn column(&self, line: usize, text: &str) -> usize {
        let Some(found) = self.line(line) else { return 1 };
        let blank = || found.len() - found.trim_start_matches(['\u{feff}', ' ', '\t', '-']).len();
        let at = Some(text).filter(|text| !text.is_empty()).and_then(|text| found.find(text));
        let before = &found[..at.unwrap_or_else(blank)];
        before.trim_start_matches('\u{feff}').chars().count() + 1
    }

    /// Swaps texts in lines. Nothing where one is not there, or where it is not clear which is meant.
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

    /// Puts lines in the place of others.
    pub fn put(&self, from: usize, to: usize, lines: &[String]) -> Option<Lines> {
        self.line(to)?;
        Some(Lines { from, to, text: lines.join(self.end) })
    }

    /// Puts lines before one.
    pub fn before(&self, line: usize, new: &[String]) -> Option<Lines> {
        let old = self.line(line)?.to_owned();
        let lines: Vec<_> = new.iter().cloned().chain([old]).collect();
        self.put(line, line, &lines)
    }

    /// Adds lines to a mapping in block style, after its first key where that is on one line.
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

    /// The last line of a block that begins in a line, and whose other lines are at a column or beyond.
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

    /// The lines of a step in block style with its dash.
    pub fn block(&self, step: &Node) -> Option<(usize, usize)> {
        let line = self.line(step.place.line)?;
        line.trim_start().starts_with("- ").then_some(())?;
        Some((step.place.line, self.end_of(step.place.line, step.place.column)))
    }

    /// All lines from one to another.
    pub fn lines(&self, from: usize, to: usize) -> Vec<String> {
        (from..=to).filter_map(|line| self.line(line)).map(str::to_owned).collect()
    }
}

/// Where a text is in a line: the only place, or its end but for what quotes and closes it.
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
    fn lines_are_put_where_others_were_and_line_ends_stay() {
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
    fn a_text_that_is_there_twice_is_the_one_at_the_end() {
        assert_eq!(place("key: key", "key"), Some(5));
        assert_eq!(place("a: \"b b\"", "b"), Some(6));
        assert_eq!(place("k: k # k!", "k"), None);
    }
}
