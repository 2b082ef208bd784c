//! The parts of a GitHub Actions workflow that this program uses: triggers, jobs, steps, and the line of each
//! text.

use super::yaml::{Data, Node, YamlError};
use anyhow::Result;
use globset::GlobBuilder;
use std::rc::Rc;

/// A scalar and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub text: String,
    /// Line of its first character, from 1.
    pub line: usize,
}

impl Text {
    /// Returns the line of the character at a byte offset. Exact only for literal blocks (`|`), which keep
    /// their lines; for other scalars the result may be too small.
    pub fn line_at(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or_default();
        self.line + before.matches('\n').count()
    }
}

#[derive(Debug)]
pub struct Workflow {
    /// The whole document, for details that the other fields do not have.
    pub node: Rc<Node>,
    /// Line of `on`.
    pub on: usize,
    pub triggers: Vec<Trigger>,
    /// `env` of the whole workflow.
    pub env: Fields,
    pub jobs: Vec<Job>,
}

#[derive(Debug)]
pub struct Trigger {
    pub name: String,
    /// It is limited to tags.
    pub only_tags: bool,
    pub branches: Branches,
}

/// The branches that a trigger is limited to.
#[derive(Debug, Default)]
pub struct Branches {
    /// Patterns in order; a pattern that begins with `!` excludes. All branches if empty.
    only: Vec<String>,
    ignored: Vec<String>,
}

impl Branches {
    /// Returns whether a branch matches, or may match. Source: github/docs, workflow syntax, filter pattern
    /// cheat sheet.
    pub fn hold(&self, branch: &str) -> bool {
        let mut held = self.only.is_empty();
        for pattern in &self.only {
            match pattern.strip_prefix('!') {
                Some(pattern) if fits(pattern, branch) == Some(true) => held = false,
                None if fits(pattern, branch) != Some(false) => held = true,
                _ => {}
            }
        }
        held && !self.ignored.iter().any(|pattern| fits(pattern, branch) == Some(true))
    }
}

/// Returns whether a pattern matches a branch; `None` if it contains characters with another meaning in
/// globs.
fn fits(pattern: &str, branch: &str) -> Option<bool> {
    if pattern.contains(['?', '+', '[', ']', '{', '}', '\\']) {
        return None;
    }
    let glob = GlobBuilder::new(pattern).literal_separator(true).build().ok()?;
    Some(glob.compile_matcher().is_match(branch))
}

#[derive(Debug)]
pub struct Job {
    pub node: Rc<Node>,
    pub env: Fields,
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub struct Step {
    pub node: Rc<Node>,
    pub fields: Fields,
}

/// Scalars by their path, such as `with.key`, in the order of the file.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, Text)>);

impl Fields {
    pub fn get(&self, path: &str) -> Option<&Text> {
        self.iter().find(|(name, _)| *name == path).map(|(_, text)| text)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Text)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text))
    }
}

impl Job {
    /// Returns the labels of its runner, as written.
    pub fn runs_on(&self) -> Vec<String> {
        let on = self.node.get("runs-on");
        // `{group, labels}` is the long form.
        let labels = on.and_then(|on| on.get("labels")).or(on);
        labels.map(|labels| texts(labels)).unwrap_or_default()
    }
}

/// Replaces references to the variable `name` of `env` in a text, if its value is literal.
pub fn with_variable(text: &str, name: &str, value: &Text) -> String {
    if value.text.contains("${{") {
        return text.to_owned();
    }
    let spaced = text.replace(&format!("${{{{ env.{name} }}}}"), &value.text);
    spaced.replace(&format!("${{{{env.{name}}}}}"), &value.text)
}

impl Step {
    /// Returns the text of a field; empty if the field does not exist.
    pub fn text(&self, path: &str) -> &str {
        self.fields.get(path).map(|text| text.text.as_str()).unwrap_or_default()
    }

    /// Returns the action of `uses` without its version: `actions/cache/restore`.
    pub fn action(&self) -> Option<&str> {
        let uses = self.fields.get("uses")?.text.trim();
        Some(uses.split_once('@').map_or(uses, |(action, _)| action))
    }
}

/// The reason why a file is not a valid workflow, and the position.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct NotAWorkflow {
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    pub what: String,
}

impl From<YamlError> for NotAWorkflow {
    fn from(YamlError { line, column, what }: YamlError) -> Self {
        NotAWorkflow { line, column, what }
    }
}

impl Workflow {
    /// Parses a workflow.
    ///
    /// # Errors
    /// The reason and its position.
    pub fn parse(source: &str) -> Result<Self, NotAWorkflow> {
        let top = Node::parse(source)?;
        let none = |what: &str| NotAWorkflow { line: 1, column: 1, what: what.into() };
        if let Data::Null = top.data {
            return Err(none("the file is empty"));
        }
        let Some(on) = top.pair("on") else {
            return Err(none("not a workflow: it has no `on`"));
        };
        let Some(jobs) = top.get("jobs") else {
            return Err(none("not a workflow: it has no `jobs`"));
        };
        Ok(Workflow {
            node: Rc::clone(&top),
            on: on.place.line,
            triggers: read_triggers(&on.value),
            env: top.get("env").map(|env| fields(env)).unwrap_or_default(),
            jobs: jobs.pairs().iter().map(|job| read_job(&job.value)).collect(),
        })
    }
}

fn read_triggers(node: &Node) -> Vec<Trigger> {
    let plain = |node: &Node| {
        let name = node.text()?.to_owned();
        Some(Trigger { name, only_tags: false, branches: Branches::default() })
    };
    match &node.data {
        Data::Sequence(names) => names.iter().filter_map(|name| plain(name)).collect(),
        Data::Mapping(triggers) => triggers
            .iter()
            .map(|trigger| {
                let filters = &trigger.value;
                let has = |key| filters.get(key).is_some();
                let tags = has("tags") || has("tags-ignore");
                let branches = has("branches") || has("branches-ignore");
                let texts = |key| filters.get(key).map(|it| texts(it)).unwrap_or_default();
                let branches_of =
                    Branches { only: texts("branches"), ignored: texts("branches-ignore") };
                let only_tags = tags && !branches;
                Trigger { name: trigger.key.clone(), only_tags, branches: branches_of }
            })
            .collect(),
        _ => plain(node).into_iter().collect(),
    }
}

/// Returns a single text, or all texts of a list.
pub fn texts(node: &Node) -> Vec<String> {
    let all = node.elements().iter().filter_map(|element| element.text());
    all.chain(node.text()).map(str::to_owned).collect()
}

/// Reads a job from its node in a workflow.
pub fn read_job(node: &Rc<Node>) -> Job {
    let steps = node.get("steps").map(|steps| steps.elements()).unwrap_or_default();
    Job {
        node: Rc::clone(node),
        env: node.get("env").map(|env| fields(env)).unwrap_or_default(),
        steps: steps
            .iter()
            .map(|step| Step { node: Rc::clone(step), fields: fields(step) })
            .collect(),
    }
}

/// Returns all scalars below a node. A list becomes one text with one line for each element.
pub fn fields(node: &Node) -> Fields {
    let mut found = Fields::default();
    collect(node, "", &mut found);
    found
}

fn collect(node: &Node, path: &str, found: &mut Fields) {
    for pair in node.pairs() {
        let (name, value) = (&pair.key, &pair.value);
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let line = value.place.line;
        match &value.data {
            Data::Mapping(_) => collect(value, &path, found),
            Data::Sequence(_) => {
                found.0.push((path, Text { text: texts(value).join("\n"), line }));
            }
            Data::Text(text) => found.0.push((path, Text { text: text.clone(), line })),
            Data::Null => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_keep_their_line_numbers() {
        let workflow = Workflow::parse(
            "name: x\non: [push, pull_request]\njobs:\n  a:\n    steps:\n      - uses: actions/cache@v4\n\
             \x20       with:\n          path: |\n            one\n            two\n          key: 7\n",
        )
        .unwrap();
        let names: Vec<_> = workflow.triggers.iter().map(|trigger| trigger.name.as_str()).collect();
        assert_eq!((workflow.on, names), (2, vec!["push", "pull_request"]));
        let step = &workflow.jobs[0].steps[0];
        assert_eq!(step.action(), Some("actions/cache"));
        let path = step.fields.get("with.path").unwrap();
        assert_eq!((path.line, path.line_at(path.text.find("two").unwrap())), (9, 10));
        assert_eq!(step.fields.get("with.key").unwrap().text, "7");
    }

    #[test]
    fn invalid_workflow_error_has_a_line() {
        for (source, line) in [("", 1), ("a: 1\n", 1), ("on: push\njobs: [\n", 3), ("- on\n", 1)] {
            let error = Workflow::parse(source).unwrap_err();
            assert_eq!(error.line, line, "{source:?}");
        }
        let odd =
            "on: 1\njobs:\n  a: 3\n  b:\n    steps: {x: y}\n  c:\n    steps: [1, null, [2]]\n";
        assert_eq!(Workflow::parse(odd).unwrap().jobs.len(), 3);
    }
}
