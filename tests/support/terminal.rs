//! The effect of a program's output on a terminal and on the runner of a job.

/// Commands that the runner executes.
/// Source: actions/runner `src/Runner.Worker/ActionCommandManager.cs`.
const COMMANDS: [&str; 16] = [
    "add-mask",
    "add-matcher",
    "add-path",
    "debug",
    "echo",
    "endgroup",
    "error",
    "group",
    "internal-set-repo-path",
    "notice",
    "remove-matcher",
    "save-state",
    "set-env",
    "set-output",
    "stop-commands",
    "warning",
];

/// Returns the names of the commands that the runner finds in the output of a step.
///
/// Source: actions/runner `src/Runner.Common/ActionCommand.cs`: `::NAME …::` at the start of a line after
/// white space, or `##[NAME …]` anywhere in a line. .NET compares texts by linguistic rules, which ignore
/// characters without a glyph.
pub fn runner_commands(text: &str) -> Vec<String> {
    let shown = |c: &char| *c == '\t' || !is_control(*c) || matches!(c, '\n' | '\r');
    let text: String = text.chars().filter(shown).collect();
    text.split(['\n', '\r']).filter_map(runner_command).collect()
}

fn runner_command(line: &str) -> Option<String> {
    let named = |words: &str| {
        let name = words.split(' ').next().unwrap_or_default().to_ascii_lowercase();
        COMMANDS.contains(&name.as_str()).then_some(name)
    };
    let second = line.trim_start().strip_prefix("::").and_then(|rest| rest.split_once("::"));
    let first = line.split_once("##[").and_then(|(_, rest)| rest.split_once(']'));
    second.and_then(|(words, _)| named(words)).or_else(|| first.and_then(|(words, _)| named(words)))
}

/// Characters that control a terminal, have no glyph, change the direction of text, or end a line.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

/// Asserts that an output is harmless text: without control characters and without commands to the runner.
#[track_caller]
pub fn assert_harmless(what: &str, written: &[u8]) {
    let text = assert_readable(what, written);
    assert_eq!(runner_commands(text), [""; 0], "{what}:\n{text}");
}

/// As [`assert_harmless`], but allows commands to the runner. Returns the text.
#[track_caller]
pub fn assert_readable<'a>(what: &str, written: &'a [u8]) -> &'a str {
    let text = std::str::from_utf8(written).unwrap_or_else(|e| panic!("{what}: {e}"));
    let bad: Vec<char> = text.chars().filter(|c| *c != '\n' && is_control(*c)).collect();
    assert!(bad.is_empty(), "{what} has {bad:?}:\n{text:?}");
    text
}
