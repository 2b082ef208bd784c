//! A parser of untrusted YAML that yields trees of values with their positions.
//!
//! An alias shares the node of its anchor, so that a document takes no more memory than its text. But code
//! that walks the tree visits everything that the aliases expand to, and builds paths from all keys on the
//! way: the parser limits this expanded size, and the depth. It also resolves merge keys. Other files of
//! this crate interpret workflows; this one does not.

mod scalar;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

/// Limit of the expanded size of a document, and of the sum of what its aliases expand to, in bytes. An alias
/// bomb expands to gigabytes.
const HEAVIEST: u64 = 64 << 20;

/// Size that is counted for a value besides its text and its path, in bytes.
const VALUE: u64 = 64;

/// Length that an index of a sequence adds to a path, in bytes.
const INDEX: u64 = 8;

/// Maximum depth, with aliases expanded.
const DEPTH: usize = 200;

/// The reason why a text is not valid YAML, or not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct YamlError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
}

#[derive(Debug)]
pub struct Node {
    pub place: SourcePosition,
    pub data: Data,
    /// Expanded size of this node and everything below, including the path of each value from here; in bytes.
    weight: u64,
    /// Expanded number of values.
    values: u64,
    depth: usize,
}

/// A position in a file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourcePosition {
    pub line: usize,
    /// In characters.
    pub column: usize,
}

#[derive(Debug)]
pub enum Data {
    /// `null` or empty.
    Null,
    /// A text, or another scalar as its canonical text: `0x10` is `16`.
    Text(String),
    Sequence(Vec<Rc<Node>>),
    /// In the order of the file; keys are unique.
    Mapping(Vec<Pair>),
}

#[derive(Debug, Clone)]
pub struct Pair {
    pub key: String,
    /// Position of the key.
    pub place: SourcePosition,
    pub value: Rc<Node>,
}

impl Node {
    /// Parses the first document of a text. Returns a null node if the text has no document.
    ///
    /// # Errors
    /// If the text is not valid YAML, has a duplicate key or a key that is not a text, or exceeds the limits
    /// of nesting or expansion.
    pub fn parse(source: &str) -> Result<Rc<Node>, YamlError> {
        Reader { source, anchors: HashMap::new(), expanded: 0 }.read()
    }

    /// Returns the size of all values from here on, if each is written out with a path below a prefix of
    /// `path` bytes. In bytes.
    pub fn weight_below(&self, path: usize) -> u64 {
        self.values.saturating_mul(path as u64).saturating_add(self.weight)
    }

    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the entries of a mapping; empty for other nodes.
    pub fn pairs(&self) -> &[Pair] {
        match &self.data {
            Data::Mapping(pairs) => pairs,
            _ => &[],
        }
    }

    /// Returns the elements of a sequence; empty for other nodes.
    pub fn elements(&self) -> &[Rc<Node>] {
        match &self.data {
            Data::Sequence(elements) => elements,
            _ => &[],
        }
    }

    pub fn pair(&self, key: &str) -> Option<&Pair> {
        self.pairs().iter().find(|pair| pair.key == key)
    }

    pub fn get(&self, key: &str) -> Option<&Rc<Node>> {
        self.pair(key).map(|pair| &pair.value)
    }
}

impl From<&Marker> for SourcePosition {
    fn from(marker: &Marker) -> Self {
        SourcePosition { line: marker.line(), column: marker.col() + 1 }
    }
}

struct Reader<'s> {
    source: &'s str,
    anchors: HashMap<usize, Rc<Node>>,
    expanded: u64,
}

/// A collection whose end was not reached yet.
struct Open {
    place: SourcePosition,
    anchor: usize,
    kind: Kind,
}

enum Kind {
    Sequence(Vec<Rc<Node>>),
    Mapping {
        pairs: Vec<Pair>,
        /// The line of each key.
        lines: HashMap<String, usize>,
        /// A key without its value so far.
        key: Option<(String, SourcePosition)>,
        /// The mappings that `<<` merges.
        merged: Vec<Rc<Node>>,
    },
}

impl Kind {
    fn mapping() -> Self {
        Kind::Mapping { pairs: vec![], lines: HashMap::new(), key: None, merged: vec![] }
    }
}

/// The key that merges other mappings.
const MERGE: &str = "<<";

impl Reader<'_> {
    fn read(mut self) -> Result<Rc<Node>, YamlError> {
        let mut open: Vec<Open> = Vec::new();
        let mut parser = Parser::new_from_str(self.source);
        while let Some(next) = parser.next_event() {
            let (event, span) = next.map_err(|e| {
                let SourcePosition { line, column } = SourcePosition::from(e.marker());
                YamlError { line, column, what: format!("not valid YAML: {}", e.info()) }
            })?;
            let place = SourcePosition::from(&span.start);
            let node = match event {
                Event::SequenceStart(anchor, _) => {
                    open.push(Open { place, anchor, kind: Kind::Sequence(Vec::new()) });
                    None
                }
                Event::MappingStart(anchor, _) => {
                    open.push(Open { place, anchor, kind: Kind::mapping() });
                    None
                }
                Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                    Some(ended) => Some(self.end(ended)?),
                    None => None,
                },
                Event::Scalar(text, style, anchor, tag) => {
                    Some(self.keep(anchor, Node::scalar(place, text, style, tag)))
                }
                Event::Alias(anchor) => Some(self.alias(anchor, place, span.start.index())?),
                Event::DocumentEnd | Event::StreamEnd => break,
                Event::Nothing | Event::StreamStart | Event::DocumentStart(_) => None,
            };
            if open.len() > DEPTH {
                return Err(fault(place, format!("it is nested deeper than {DEPTH} levels")));
            }
            let Some(node) = node else { continue };
            match open.last_mut() {
                Some(inside) => inside.add(node, place)?,
                None => return Ok(node),
            }
        }
        Ok(Rc::new(Node::new(SourcePosition { line: 1, column: 1 }, Data::Null)))
    }

    fn keep(&mut self, anchor: usize, node: Node) -> Rc<Node> {
        let node = Rc::new(node);
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        node
    }

    fn end(&mut self, Open { place, anchor, kind }: Open) -> Result<Rc<Node>, YamlError> {
        let data = match kind {
            Kind::Sequence(elements) => Data::Sequence(elements),
            Kind::Mapping { mut pairs, mut lines, merged, .. } => {
                // Entries of the mapping itself win, then those of the first merged mapping.
                for pair in merged.iter().flat_map(|node| node.pairs()) {
                    if lines.insert(pair.key.clone(), pair.place.line).is_none() {
                        pairs.push(pair.clone());
                    }
                }
                Data::Mapping(pairs)
            }
        };
        let node = Node::new(place, data);
        if node.depth > DEPTH {
            return Err(fault(
                place,
                format!("with its aliases it is nested deeper than {DEPTH} levels"),
            ));
        }
        if node.weight > HEAVIEST {
            let what = format!("its values and their paths take more than {} MiB", HEAVIEST >> 20);
            return Err(fault(place, what));
        }
        Ok(self.keep(anchor, node))
    }

    fn alias(
        &mut self,
        anchor: usize,
        place: SourcePosition,
        at: usize,
    ) -> Result<Rc<Node>, YamlError> {
        let name = || {
            let rest = self.source.chars().skip(at);
            rest.take_while(|c| !c.is_whitespace() && !",[]{}".contains(*c)).collect::<String>()
        };
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(fault(place, format!("the alias {} is inside of its own anchor", name())));
        };
        self.expanded = self.expanded.saturating_add(node.weight);
        if self.expanded > HEAVIEST {
            return Err(fault(
                place,
                format!(
                    "alias bomb: with the alias {}, the aliases expand to more than {} MiB",
                    name(),
                    HEAVIEST >> 20
                ),
            ));
        }
        Ok(Rc::clone(node))
    }
}

impl Open {
    /// Adds a finished node that began at `place`.
    fn add(&mut self, node: Rc<Node>, place: SourcePosition) -> Result<(), YamlError> {
        match &mut self.kind {
            Kind::Sequence(elements) => elements.push(node),
            Kind::Mapping { pairs, lines, key, merged } => match key.take() {
                None => match &node.data {
                    Data::Text(text) => *key = Some((text.clone(), node.place)),
                    Data::Null => *key = Some((String::new(), node.place)),
                    _ => return Err(fault(node.place, "a mapping key is not text".into())),
                },
                Some((name, _)) if name == MERGE => {
                    match &node.data {
                        Data::Mapping(_) => merged.push(node),
                        Data::Sequence(all)
                            if all.iter().all(|it| matches!(it.data, Data::Mapping(_))) =>
                        {
                            merged.extend(all.iter().cloned());
                        }
                        _ => return Err(fault(place, "the value of `<<` is not a mapping".into())),
                    };
                }
                Some((name, at)) => {
                    if let Some(line) = lines.insert(name.clone(), at.line) {
                        let what = format!("duplicate key {name:?}, first used in line {line}");
                        return Err(fault(at, what));
                    }
                    pairs.push(Pair { key: name, place: at, value: node });
                }
            },
        }
        Ok(())
    }
}

impl Node {
    fn new(place: SourcePosition, data: Data) -> Self {
        let mut node = Node { place, data, weight: VALUE, values: 1, depth: 1 };
        let mut add = |child: &Node, step: u64| {
            let path = child.values.saturating_mul(step);
            node.weight = node.weight.saturating_add(child.weight).saturating_add(path);
            node.values = node.values.saturating_add(child.values);
            node.depth = node.depth.max(child.depth + 1);
        };
        match &node.data {
            Data::Null => {}
            Data::Text(text) => node.weight += text.len() as u64,
            Data::Sequence(elements) => elements.iter().for_each(|element| add(element, INDEX)),
            Data::Mapping(pairs) => {
                pairs.iter().for_each(|pair| add(&pair.value, pair.key.len() as u64 + 1));
            }
        }
        node
    }

    fn scalar(
        place: SourcePosition,
        text: Cow<str>,
        style: ScalarStyle,
        tag: Option<Cow<Tag>>,
    ) -> Self {
        let is_string = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        let data = match style {
            ScalarStyle::Plain if !is_string => scalar::plain(&text),
            _ => Data::Text(text.into_owned()),
        };
        Node::new(place, data)
    }
}

fn fault(SourcePosition { line, column }: SourcePosition, what: String) -> YamlError {
    YamlError { line, column, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Renders a node on one line, with keys in the order of the file.
    fn shown(node: &Node) -> String {
        match &node.data {
            Data::Null => "~".into(),
            Data::Text(text) => text.clone(),
            Data::Sequence(all) => {
                format!("[{}]", all.iter().map(|it| shown(it)).collect::<Vec<_>>().join(" "))
            }
            Data::Mapping(pairs) => {
                let pair = |pair: &Pair| format!("{}={}", pair.key, shown(&pair.value));
                format!("{{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(" "))
            }
        }
    }

    fn parsed(source: &str) -> String {
        shown(&Node::parse(source).unwrap())
    }

    fn refused(source: &str) -> String {
        let YamlError { line, column, what } = Node::parse(source).unwrap_err();
        format!("{line}:{column}: {what}")
    }

    #[test]
    fn block_texts_and_the_first_document_are_parsed() {
        assert_eq!(parsed("a: |\n  one\n  two\nb: >-\n  one\n  two\n"), "{a=one\ntwo\n b=one two}");
        assert_eq!(
            (parsed(""), parsed("# nothing\n"), parsed("a: 1\n---\nb: 2\n")),
            ("~".into(), "~".into(), "{a=1}".into())
        );
    }

    #[test]
    fn aliases_and_merge_keys_are_resolved() {
        let source = "base: &base {a: 1, b: 2}\nmore: &more {b: 3, c: 4}\nall: {<<: [*base, *more], b: 9}\n\
                      one:\n  <<: *base\n  d: &d x\nlast: *d\n";
        assert_eq!(
            parsed(source),
            "{base={a=1 b=2} more={b=3 c=4} all={b=9 a=1 c=4} one={d=x a=1 b=2} last=x}"
        );
        assert_eq!(refused("a: &a [*a]\n"), "1:8: the alias *a is inside of its own anchor");
        assert_eq!(refused("a: {<<: 3}\n"), "1:9: the value of `<<` is not a mapping");
        assert!(refused("a: *b\n").starts_with("1:"), "{}", refused("a: *b\n"));
    }

    #[test]
    fn alias_bombs_and_deep_nesting_are_refused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..30 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{}]\n", before.trim_end_matches(", "));
        }
        let said = refused(&bomb);
        assert!(said.contains("alias bomb: with the alias *a4, the aliases"), "{said}");
        assert!(said.starts_with("6:"), "{said}");
        let long =
            format!("text: &text {}\nmany:\n{}", "x".repeat(500_000), "- *text\n".repeat(50_000));
        let said = refused(&long);
        assert!(said.contains("alias bomb: with the alias *text"), "{said}");
        let deep = format!("? {}\n: [{}]\n", "k".repeat(500_000), "1, ".repeat(100_000));
        assert!(refused(&deep).contains("their paths take more than"), "{}", refused(&deep));
        let mut chain = "a0: &a0 [x]\n".to_owned();
        for level in 1..1_000 {
            chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert!(refused(&chain).contains("deeper than 200 levels"), "{}", refused(&chain));
        for deep in ["[".repeat(100_000), "{a: ".repeat(100_000), "- ".repeat(100_000)] {
            let said = refused(&deep);
            // The scanner has its own limit for brackets.
            assert!(said.contains("deeper than 200") || said.contains("recursion"), "{said}");
        }
    }

    #[test]
    fn non_text_and_duplicate_keys_are_refused() {
        assert_eq!(refused("a: 1\nb: 2\na: 3\n"), "3:1: duplicate key \"a\", first used in line 1");
        assert_eq!(refused("? [1]\n: 2\n"), "1:3: a mapping key is not text");
        assert_eq!(parsed("1: a\ntrue: b\non: c\n"), "{1=a true=b on=c}");
        assert!(refused("a: [\n").starts_with("2:1: not valid YAML"), "{}", refused("a: [\n"));
        assert!(refused("a: 'x\n").contains("not valid YAML"));
    }
}
