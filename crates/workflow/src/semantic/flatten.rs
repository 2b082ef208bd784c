//! Values of a workflow as lines: one line for each value, with its path.
//!
//! Different trees yield different lines: keys that look like a part of a path are quoted, and an empty value
//! has a line too.

use super::super::yaml::{Data, Node, Pair, SourcePosition};
use super::{CanonicalLine, Dropped, Reader, expression};

impl Reader<'_> {
    /// Adds a part of a workflow, job or step. An empty part is treated as absent.
    pub(super) fn field(&mut self, path: &str, pair: &Pair) {
        let is_empty = match &pair.value.data {
            Data::Null => true,
            Data::Text(_) => false,
            Data::Sequence(elements) => elements.is_empty(),
            Data::Mapping(pairs) => pairs.is_empty(),
        };
        if !is_empty {
            self.pair(path, pair);
        }
    }

    pub(super) fn pair(&mut self, path: &str, pair: &Pair) {
        self.all(&below(path, &pair.key), &pair.value);
    }

    /// Adds everything below a node.
    pub(super) fn all(&mut self, path: &str, node: &Node) {
        match &node.data {
            // A null variable or input is an empty text, which overrides another value.
            Data::Null => self.line(path, "", node.place),
            Data::Text(text) => self.line(path, text, node.place),
            Data::Sequence(elements) if elements.is_empty() => {
                self.line(&format!("{path}[]"), "", node.place);
            }
            Data::Sequence(elements) => {
                for (at, element) in elements.iter().enumerate() {
                    self.all(&format!("{path}[{at}]"), element);
                }
            }
            Data::Mapping(pairs) if pairs.is_empty() => {
                self.line(&format!("{path}{{}}"), "", node.place);
            }
            Data::Mapping(pairs) => {
                sorted(pairs.iter()).into_iter().for_each(|pair| self.pair(path, pair));
            }
        }
    }

    /// As [`Reader::all`], but ignores the order of a list of texts.
    pub(super) fn set(&mut self, path: &str, node: &Node) {
        let mut elements: Vec<_> = node.elements().iter().collect();
        if elements.is_empty() || elements.iter().any(|element| element.text().is_none()) {
            return self.all(path, node);
        }
        elements.sort_by(|a, b| a.text().cmp(&b.text()));
        for (at, element) in elements.into_iter().enumerate() {
            self.all(&format!("{path}[{at}]"), element);
        }
    }

    pub(super) fn line(
        &mut self,
        path: &str,
        text: &str,
        SourcePosition { line, .. }: SourcePosition,
    ) {
        let (path, text, file) = (path.to_owned(), expression::tidy(text), self.file());
        self.found.lines.push(CanonicalLine { path, text, file, line });
    }

    pub(super) fn dropped(&mut self, path: &str, pair: &Pair, why: &'static str) {
        let (path, file, line) = (below(path, &pair.key), self.file(), pair.place.line);
        self.found.dropped.push(Dropped { path, file, line, why });
    }
}

/// Returns the pairs sorted by key.
pub fn sorted<'n>(pairs: impl Iterator<Item = &'n Pair>) -> Vec<&'n Pair> {
    let mut pairs: Vec<_> = pairs.collect();
    pairs.sort_by(|a, b| a.key.cmp(&b.key));
    pairs
}

/// Returns the path of a key below another path.
pub fn below(path: &str, key: &str) -> String {
    let is_odd = key.is_empty() || key.contains(['.', '[', '{', '"']);
    let quoted = is_odd.then(|| format!("{key:?}"));
    let key = quoted.as_deref().unwrap_or(key);
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_key_sequences_have_different_paths() {
        let ways: [&[&str]; 12] = [
            &["a", "b"],
            &["a.b"],
            &["a", "", "b"],
            &["", "a", "b"],
            &["a", "\"\"", "b"],
            &["a", "\".b"],
            &["a[0]"],
            &["a", "[0]"],
            &["a", "0"],
            &["a{}"],
            &["a", "{}"],
            &["a\\\"b"],
        ];
        let mut paths: Vec<String> = ways
            .iter()
            .map(|way| way.iter().fold(String::new(), |path, key| below(&path, key)))
            .collect();
        paths.extend(["a[0]", "a{}", "a[]"].map(str::to_owned));
        paths.sort();
        let all = paths.len();
        paths.dedup();
        assert_eq!(paths.len(), all, "{paths:?}");
    }
}
