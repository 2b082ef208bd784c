//! The words in which messages name options: flags at a terminal, inputs of the step in a job.
//!
//! Messages are written with flags. Commands in backquotes are typed at a terminal, so they keep their flags.

use super::Outcome;

/// How an interface names the option of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// The name of an input with a value, and its values if they are a closed set.
    Name(&'static str, &'static [&'static str]),
    /// The name of an input that is `true` instead of a flag without a value.
    Switch(&'static str),
}

/// The words of one interface.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    of_flag: fn(&str) -> Option<Word>,
}

impl Words {
    /// The words of the command line: the flags themselves.
    pub fn command_line() -> Self {
        Words::new(|_| None)
    }

    /// The words of an interface; `of_flag` returns `None` for a flag that it does not have.
    pub fn new(of_flag: fn(&str) -> Option<Word>) -> Self {
        Words { of_flag }
    }

    /// Replaces flags in a message. With a value, `--flag VALUE` becomes `name: VALUE`.
    pub fn apply(self, message: &str) -> String {
        let mut parts = Vec::new();
        for (number, part) in message.split('`').enumerate() {
            let is_command = number % 2 == 1 && part.contains(' ') && !part.starts_with("--");
            parts.push(if is_command { part.to_owned() } else { self.replace(part) });
        }
        parts.join("`")
    }

    /// Replaces flags in the messages of a report.
    pub fn apply_to(self, report: &mut Outcome) {
        let Outcome { reason, notes, hint, warnings, .. } = report;
        let texts = reason.iter_mut().chain(notes).chain(hint).chain(warnings);
        texts.for_each(|text| *text = self.apply(text));
    }

    fn replace(self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("--") {
            let (before, from) = rest.split_at(at);
            out.push_str(before);
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            let end = from.find(|c| !is_name(c)).unwrap_or(from.len());
            let (flag, after) = from.split_at(end);
            let starts_word = out.is_empty() || out.ends_with([' ', '(', '\'', '"']);
            rest = after;
            match (self.of_flag)(flag).filter(|_| starts_word) {
                None => out.push_str(flag),
                Some(Word::Switch(name)) => out.push_str(&format!("{name}: true")),
                Some(Word::Name(name, choices)) => {
                    out.push_str(name);
                    let value = after.strip_prefix([' ', '=']).unwrap_or_default();
                    if let Some((_, more)) =
                        value.strip_prefix('<').and_then(|it| it.split_once('>'))
                    {
                        // A placeholder of clap, which stands for nothing in a job.
                        rest = more;
                    } else if is_value(value, choices) {
                        out.push_str(": ");
                        rest = value;
                    }
                }
            }
        }
        out + rest
    }
}

/// Whether a text begins with a value of an option: one of its choices, a quoted value, or a placeholder such as `FILE`
/// or `dir:PATH`.
fn is_value(text: &str, choices: &[&str]) -> bool {
    let word = text.split([' ', ',', ';', ')']).next().unwrap_or_default();
    choices.contains(&word)
        || word.starts_with('"')
        || word.contains(|c: char| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_inputs_outside_of_commands() {
        let words = Words::new(|flag| match flag {
            "--store" => Some(Word::Name("store", &["nix", "plain"])),
            "--path" => Some(Word::Name("path", &[])),
            "--policy" => Some(Word::Name("save", &[])),
            "--full" => Some(Word::Switch("full")),
            _ => None,
        });
        for (flags, inputs) in [
            ("use --store plain --path DIR, or not", "use store: plain path: DIR, or not"),
            (
                "set --path to another, --full or --store",
                "set path to another, full: true or store",
            ),
            ("invalid value 'x' for '--path <DIR>': no", "invalid value 'x' for 'path': no"),
            ("--policy \"x\" (--policy=Y)", "save: \"x\" (save: Y)"),
            ("run `git fetch --full` or `--full`", "run `git fetch --full` or `full: true`"),
            (
                "--other stays, and so does a--full or /x--path",
                "--other stays, and so does a--full or /x--path",
            ),
        ] {
            assert_eq!(words.apply(flags), inputs);
            assert_eq!(words.apply(inputs), inputs, "twice");
            assert_eq!(Words::command_line().apply(flags), flags);
        }
    }
}
