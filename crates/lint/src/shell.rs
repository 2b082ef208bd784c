//! Splits a script into commands, line by line.

use storecache_workflow::workflow::{Step, Text};

/// A command, which may extend over several lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Number of its first line in the file.
    pub line: usize,
    pub text: String,
}

impl Command {
    pub fn words(&self) -> Vec<&str> {
        self.text.split_whitespace().map(|word| word.trim_matches(['"', '\'', ';'])).collect()
    }

    /// Returns whether these words follow each other in the command.
    pub fn has(&self, words: &[&str]) -> bool {
        let first = words.first().copied().unwrap_or_default();
        if !self.text.contains(first) {
            return false;
        }
        self.words().windows(words.len()).any(|these| these == words)
    }

    /// Returns the arguments of a program, up to the next command of the line.
    pub fn arguments(&self, program: &str) -> Option<Vec<&str>> {
        // Check the text first: most commands do not contain the name, and there may be many of them.
        self.text.contains(program).then_some(())?;
        let words = self.words();
        let at = words.iter().position(|word| {
            *word == program || word.rsplit('/').next() == Some(program) && word.starts_with('/')
        })?;
        let ends = |word: &&&str| !matches!(**word, "&&" | "||" | "|" | "");
        Some(words.iter().skip(at + 1).take_while(ends).copied().collect())
    }
}

/// Returns the scripts that a step runs, including those of actions that retry a command.
pub fn scripts(step: &Step) -> impl Iterator<Item = &Text> {
    ["run", "with.command"].into_iter().filter_map(|name| step.fields.get(name))
}

pub fn commands(step: &Step) -> Vec<Command> {
    scripts(step).flat_map(split).collect()
}

/// Returns the commands of a script, without comments.
pub fn split(script: &Text) -> Vec<Command> {
    let mut found = Vec::new();
    let mut lines = script.text.split('\n').enumerate();
    while let Some((at, first)) = lines.next() {
        let mut text = first.trim().to_owned();
        while text.ends_with('\\') {
            text.pop();
            text.push_str(lines.next().map_or("", |(_, line)| line.trim()));
        }
        if !text.is_empty() && !text.starts_with('#') {
            found.push(Command { line: script.line + at, text });
        }
    }
    found
}
