//! Scripts of steps without their comments.
//!
//! Only whole lines that are a comment for certain go: where a quote is open, in a here-document, after
//! a backslash or in another language a `#` may be content.

/// A script without comments, empty lines and blanks at the ends of lines.
pub fn tidy(script: &str, shell: Option<&str>) -> String {
    let known = shell.is_none_or(|shell| {
        let program = shell.split_whitespace().next().unwrap_or_default();
        matches!(program.rsplit('/').next(), Some("bash" | "sh" | "dash" | "zsh"))
    });
    // A here-document is anything.
    if !known || script.contains("<<") {
        return script.to_owned();
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut state = State::Plain;
    for line in script.lines() {
        let begins_in_the_open = state == State::Plain;
        if begins_in_the_open && is_comment(line) {
            continue;
        }
        state = state.after(line);
        let ends_in_the_open = state == State::Plain;
        if begins_in_the_open && ends_in_the_open && line.trim().is_empty() {
            continue;
        }
        kept.push(if ends_in_the_open { line.trim_end() } else { line });
    }
    kept.join("\n")
}

/// An order to the kernel, at the top, is none.
fn is_comment(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with('#') && !line.starts_with("#!")
}

/// What is open at the end of a line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Plain,
    Single,
    Double,
    /// The next line goes on with this one.
    Continued,
}

impl State {
    fn after(self, line: &str) -> State {
        let mut state = if self == State::Continued { State::Plain } else { self };
        let mut chars = line.chars().peekable();
        // A comment starts with a word.
        let mut before = ' ';
        while let Some(c) = chars.next() {
            match (state, c) {
                (State::Plain, '\\') if chars.peek().is_none() => return State::Continued,
                (State::Plain | State::Double, '\\') => drop(chars.next()),
                (State::Plain, '\'') => state = State::Single,
                (State::Plain, '"') => state = State::Double,
                (State::Plain, '#') if before.is_whitespace() || ";&|(".contains(before) => break,
                (State::Single, '\'') | (State::Double, '"') => state = State::Plain,
                _ => {}
            }
            before = c;
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(script: &str) -> String {
        tidy(script, None)
    }

    #[test]
    fn whole_lines_of_comment_go() {
        assert_eq!(of("# why\nmake  \n\n   # more\n  test\n"), "make\n  test");
        assert_eq!(of("#!/bin/sh\nmake # here\n"), "#!/bin/sh\nmake # here");
        assert_eq!(of("echo it # don't\n# gone\n"), "echo it # don't");
    }

    #[test]
    fn what_may_be_content_stays() {
        for script in [
            "echo '\n# in quotes\n'",
            "echo \"a \\\" \n# in quotes\n\"",
            "cat <<X\n# in a document\nX",
            "echo a \\\n# continued",
            "echo '\n\n'",
            "echo a#'\n# still\n'",
        ] {
            assert_eq!(of(script), script);
        }
        assert_eq!(tidy("# x\ny", Some("python")), "# x\ny");
        assert_eq!(tidy("# x\ny", Some("/bin/bash -e {0}")), "y");
    }
}
