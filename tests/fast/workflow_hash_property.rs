//! Property tests of the workflow hash: the key does not depend on how a workflow is written, and every value
//! that counts changes it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use saphyr_parser::{Event, Parser, ScalarStyle};
use storecache_key::{KeyOptions, WorkflowMode, gather};
use storecache_workflow::{Pattern, Tree};

const WORKFLOWS: [(&str, &str); 3] =
    [("guix.yml", "interop"), ("nix.yml", "build"), ("called.yml", "nix")];

/// Values as their author meant them.
#[derive(Clone, Debug, PartialEq)]
enum Yaml {
    /// Without quotes, so it may be a number.
    Plain(String),
    Quoted(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    fn parse(text: &str) -> Yaml {
        let mut events = Parser::new_from_str(text).map(|event| event.unwrap().0);
        let first =
            events.find(|event| !matches!(event, Event::StreamStart | Event::DocumentStart(_)));
        Yaml::read(first.unwrap(), &mut events)
    }

    fn read<'e>(first: Event<'e>, events: &mut impl Iterator<Item = Event<'e>>) -> Yaml {
        match first {
            Event::Scalar(text, ScalarStyle::Plain, ..) => Yaml::Plain(text.into_owned()),
            Event::Scalar(text, ..) => Yaml::Quoted(text.into_owned()),
            Event::SequenceStart(..) => {
                let mut list = Vec::new();
                loop {
                    match events.next().unwrap() {
                        Event::SequenceEnd => return Yaml::List(list),
                        next => list.push(Yaml::read(next, events)),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut map = Vec::new();
                loop {
                    match events.next().unwrap() {
                        Event::MappingEnd => return Yaml::Map(map),
                        Event::Scalar(key, ..) => {
                            let value = events.next().unwrap();
                            map.push((key.into_owned(), Yaml::read(value, events)));
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Adds the path of every scalar.
    fn scalars(&self, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
        let mut each = |name: String, value: &Yaml| {
            path.push(name);
            value.scalars(path, found);
            path.pop();
        };
        match self {
            Yaml::Plain(_) | Yaml::Quoted(_) => found.push(path.clone()),
            Yaml::List(list) => {
                list.iter().enumerate().for_each(|(at, value)| each(at.to_string(), value));
            }
            Yaml::Map(map) => map.iter().for_each(|(key, value)| each(key.clone(), value)),
        }
    }

    fn at(&mut self, path: &[String]) -> &mut Yaml {
        let Some((first, rest)) = path.split_first() else { return self };
        match self {
            Yaml::List(list) => list[first.parse::<usize>().unwrap()].at(rest),
            Yaml::Map(map) => map.iter_mut().find(|(key, _)| key == first).unwrap().1.at(rest),
            scalar => panic!("{scalar:?} has no {first}"),
        }
    }

    fn text(&self) -> &str {
        match self {
            Yaml::Plain(text) | Yaml::Quoted(text) => text,
            other => panic!("{other:?} is not a scalar"),
        }
    }
}

/// A source of pseudorandom choices.
struct Rng(u64);

impl Rng {
    fn below(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn shuffle<T>(&mut self, all: &mut [T]) {
        (1..all.len()).rev().for_each(|at| all.swap(at, self.below(at + 1)));
    }
}

/// Writes values in a random style.
struct YamlWriter {
    dice: Rng,
    out: String,
    after_block: bool,
}

impl YamlWriter {
    fn write(value: &Yaml, seed: u64) -> String {
        let mut hand = YamlWriter { dice: Rng(seed), out: String::new(), after_block: false };
        if hand.dice.below(3) == 0 {
            hand.out.push_str("---\n");
        }
        hand.block(value, 0);
        hand.out
    }

    fn add_random_comment(&mut self) {
        match self.dice.below(8) {
            0 => self.out.push('\n'),
            1 => self.out.push_str("# 'a remark: of {no} weight\n"),
            // After a block scalar this would be a part of it.
            2 if !self.after_block => self.out.push_str("      # - indented\n"),
            _ => {}
        }
    }

    fn end_line(&mut self) {
        self.after_block = false;
        self.out.push_str(["\n", "\n", "  \n", " # why\n"][self.dice.below(4)]);
    }

    /// Writes the rest of a line and everything that belongs to it, after a key or a dash.
    fn inner(&mut self, value: &Yaml, indent: usize) {
        let by = 1 + self.dice.below(5);
        match value {
            Yaml::Plain(_) | Yaml::Quoted(_) => self.long(value, indent),
            Yaml::List(list) if list.is_empty() || self.dice.below(4) == 0 => self.flow_line(value),
            Yaml::Map(map) if map.is_empty() || self.dice.below(4) == 0 => self.flow_line(value),
            _ => {
                self.end_line();
                self.block(value, indent + by);
            }
        }
    }

    fn flow_line(&mut self, value: &Yaml) {
        self.out.push(' ');
        self.flow(value);
        self.end_line();
    }

    fn block(&mut self, value: &Yaml, indent: usize) {
        match value {
            Yaml::List(list) => {
                for value in list {
                    self.add_random_comment();
                    self.out.push_str(&" ".repeat(indent));
                    self.out.push('-');
                    self.inner(value, indent);
                }
            }
            Yaml::Map(map) => {
                for (key, value) in self.shuffled(map) {
                    self.add_random_comment();
                    self.out.push_str(&" ".repeat(indent));
                    self.scalar(&Yaml::Quoted(key));
                    self.out.push(':');
                    self.inner(&value, indent);
                }
            }
            scalar => self.long(scalar, indent),
        }
    }

    fn shuffled(&mut self, map: &[(String, Yaml)]) -> Vec<(String, Yaml)> {
        let mut map = map.to_vec();
        self.dice.shuffle(&mut map);
        map
    }

    fn flow(&mut self, value: &Yaml) {
        let blank = ["", " "][self.dice.below(2)];
        match value {
            Yaml::List(list) => {
                self.out.push('[');
                for value in list {
                    self.out.push_str(blank);
                    self.flow(value);
                    self.out.push(',');
                }
                self.out.push(']');
            }
            Yaml::Map(map) => {
                self.out.push('{');
                for (key, value) in self.shuffled(map) {
                    self.out.push_str(blank);
                    self.scalar(&Yaml::Quoted(key));
                    self.out.push_str(": ");
                    self.flow(&value);
                    self.out.push(',');
                }
                self.out.push('}');
            }
            scalar => self.scalar(scalar),
        }
    }

    /// Writes a scalar that may take many lines.
    fn long(&mut self, scalar: &Yaml, indent: usize) {
        let text = scalar.text();
        let fits = text.lines().all(|line| !line.starts_with(' ') || !text.starts_with(' '));
        let fits = fits && text.ends_with(|c: char| c == '\n' || !c.is_whitespace());
        if matches!(scalar, Yaml::Plain(_)) || !fits || self.dice.below(2) == 0 {
            self.out.push(' ');
            self.scalar(scalar);
            return self.end_line();
        }
        let keep = if text.ends_with('\n') { "" } else { "-" };
        let margin = " ".repeat(indent + 1 + self.dice.below(4));
        self.out.push_str(&format!(" |{keep}\n"));
        for line in text.lines() {
            let margin = if line.is_empty() { "" } else { &margin };
            self.out.push_str(&format!("{margin}{line}\n"));
        }
        self.after_block = true;
    }

    fn scalar(&mut self, scalar: &Yaml) {
        let text = scalar.text();
        let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./@".contains(c))
            && !["true", "false", "null"].contains(&text.to_lowercase().as_str());
        let choice = match scalar {
            // Quotes would turn a number into a text.
            Yaml::Plain(_) if !is_word => 0,
            _ => self.dice.below(3),
        };
        let escaped = || {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("\"{text}\"")
        };
        let written = match choice {
            0 if is_word || matches!(scalar, Yaml::Plain(_)) => {
                // In braces and brackets, more characters have a meaning.
                match text.contains([',', '[', ']', '{', '}']) {
                    true => escaped(),
                    false => text.to_owned(),
                }
            }
            1 if !text.contains('\n') => format!("'{}'", text.replace('\'', "''")),
            _ => escaped(),
        };
        self.out.push_str(&written);
    }
}

/// Files in memory.
struct Files(BTreeMap<PathBuf, Vec<u8>>);

impl Tree for Files {
    fn describe(&self) -> String {
        "here".into()
    }

    fn read(&self, path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.0.get(path).cloned())
    }

    fn matching(&self, _: &Pattern) -> anyhow::Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workflows")
}

fn digest(text: &str, job: &str) -> String {
    let mut files = BTreeMap::new();
    for name in
        ["toolchain/action.yml", "direnv/action.yml", "report/action.yml", "report/dist/main.js"]
    {
        let content = fs::read(source().join("actions").join(name)).unwrap();
        files.insert(Path::new(".github/actions").join(name), content);
    }
    let workflow = PathBuf::from(".github/workflows/ci.yml");
    files.insert(workflow.clone(), text.as_bytes().to_vec());
    let options = KeyOptions {
        key: None,
        restore_keys: Vec::new(),
        prefix: KeyOptions::PREFIX.into(),
        version: None,
        hash_files: Vec::new(),
        workflow: Some(workflow),
        workflow_mode: WorkflowMode::Semantic,
        workflow_job: Some(job.into()),
        workflow_steps: Vec::new(),
        ignore_pins: Vec::new(),
        in_job: false,
    };
    let made = gather(&options, &Files(files)).unwrap_or_else(|e| panic!("{e:#}\n{text}"));
    made[0].digest.to_string()
}

fn corpus(index: usize) -> (Yaml, &'static str) {
    let (name, job) = WORKFLOWS[index];
    (Yaml::parse(&fs::read_to_string(source().join(name)).unwrap()), job)
}

/// Returns whether the value at a path can reach the store, determined independently of the program.
fn counts(root: &mut Yaml, path: &[String], job: &str) -> bool {
    let parts: Vec<&str> = path.iter().map(String::as_str).collect();
    let no_part = ["name", "timeout-minutes", "permissions", "concurrency"];
    match parts.as_slice() {
        ["on", _, "inputs", "packages" | "runner-label" | "system", "default"] => true,
        ["name" | "on" | "permissions" | "concurrency", ..] => false,
        ["jobs", other, ..] if *other != job => false,
        ["jobs", _, "if" | "needs", ..] => false,
        ["jobs", _, part, ..] if no_part.contains(part) => false,
        ["jobs", _, "strategy", "fail-fast" | "max-parallel"] => false,
        ["jobs", _, "steps", _, "name" | "timeout-minutes"] => false,
        ["jobs", _, "steps", _, "uses"] => {
            let ignored = [
                "actions/checkout@",
                "actions/cache@",
                "actions/upload-artifact@",
                "me/storecache@",
            ];
            !ignored.iter().any(|action| root.at(path).text().starts_with(action))
        }
        ["jobs", _, "steps", _, "id"] => root.at(path).text() == "tarball",
        ["jobs", _, "steps", at, "with", input] => {
            let step = root.at(&path[..4]);
            let Yaml::Map(map) = step else { panic!("step {at}") };
            let uses = map.iter().find(|(key, _)| key == "uses").unwrap().1.text();
            match uses.split('@').next().unwrap() {
                "actions/checkout" => *input != "fetch-depth",
                "actions/upload-artifact" => false,
                "me/storecache" => *input == "store",
                _ => true,
            }
        }
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn key_does_not_depend_on_the_yaml_style(index in 0..WORKFLOWS.len(), seed: u64) {
        let (workflow, job) = corpus(index);
        let plain = fs::read_to_string(source().join(WORKFLOWS[index].0)).unwrap();
        let written = YamlWriter::write(&workflow, seed);
        prop_assert_eq!(digest(&written, job), digest(&plain, job), "{}", written);
    }

    #[test]
    fn value_changes_the_key_exactly_when_it_counts(
        index in 0..WORKFLOWS.len(),
        which: prop::sample::Index,
        seed: u64,
    ) {
        let (mut workflow, job) = corpus(index);
        let before = digest(&YamlWriter::write(&workflow, seed), job);
        let mut scalars = Vec::new();
        workflow.scalars(&mut Vec::new(), &mut scalars);
        let path = which.get(&scalars).clone();
        let expected = counts(&mut workflow, &path, job);
        let value = workflow.at(&path);
        *value = Yaml::Quoted(format!("{}x", value.text()));
        let written = YamlWriter::write(&workflow, seed.rotate_left(7));
        prop_assert_eq!(digest(&written, job) != before, expected, "{:?}\n{}", path, written);
    }

    #[test]
    fn yaml_key_changes_the_key_exactly_when_it_counts(index in 0..WORKFLOWS.len(), which: prop::sample::Index, seed: u64) {
        let (mut workflow, job) = corpus(index);
        let before = digest(&YamlWriter::write(&workflow, seed), job);
        let mut scalars = Vec::new();
        workflow.scalars(&mut Vec::new(), &mut scalars);
        let in_job = |path: &Vec<String>| path.iter().any(|part| part == "env" || part == "with");
        let scalars: Vec<_> = scalars.into_iter().filter(in_job).collect();
        let path = which.get(&scalars).clone();
        let expected = counts(&mut workflow, &path, job);
        let (last, above) = path.split_last().unwrap();
        let Yaml::Map(map) = workflow.at(above) else { panic!("{path:?}") };
        let key = &mut map.iter_mut().find(|(key, _)| key == last).unwrap().0;
        key.push('_');
        // With another name, an input is not known to be irrelevant.
        let renamed = [above, std::slice::from_ref(key)].concat();
        let expected = expected || counts(&mut workflow, &renamed, job);
        let written = YamlWriter::write(&workflow, seed);
        prop_assert_eq!(digest(&written, job) != before, expected, "{:?}\n{}", path, written);
    }
}
