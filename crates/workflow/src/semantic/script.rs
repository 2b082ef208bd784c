//! Removes comments from the scripts of steps.
//!
//! Only removes whole lines that are certainly comments. From the point where a quote spans lines, or where
//! only a shell could determine what is quoted, the rest is kept: there, in a here-document, and in other
//! languages, a `#` may be content.

/// Removes comments, empty lines and trailing blanks.
pub fn tidy(script: &str, shell: Option<&str>) -> String {
    // A here-document may contain anything.
    if !shell.is_none_or(is_posix) || script.contains("<<") {
        return script.to_owned();
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut rest = script.split('\n');
    let mut continued = false;
    while let Some(line) = rest.next() {
        let bare = line.trim_end_matches(BLANKS);
        if !continued && (bare.is_empty() || is_comment(line)) {
            continue;
        }
        let end = end_of(line);
        continued = end == End::Continued;
        match end {
            // An escaped blank is part of a word.
            End::Plain if !bare.ends_with('\\') => kept.push(bare),
            End::Plain | End::Continued => kept.push(line),
            End::Open => {
                kept.push(line);
                kept.extend(rest.by_ref());
            }
        }
    }
    kept.join("\n")
}

/// The characters that shells treat as blanks. Other white space is part of a word.
const BLANKS: [char; 2] = [' ', '\t'];

/// Returns whether the words of `shell:` run a POSIX shell directly on the script.
fn is_posix(shell: &str) -> bool {
    let mut words = shell.split_whitespace();
    let program = words.next().unwrap_or_default();
    // `-c` would make the script an argument of another program.
    let is_harmless = |word: &str| match word.strip_prefix('-') {
        Some(long) if long.starts_with('-') => true,
        Some(short) => !short.contains('c'),
        None => matches!(word, "{0}" | "pipefail"),
    };
    matches!(program.rsplit('/').next(), Some("bash" | "sh" | "dash")) && words.all(is_harmless)
}

/// Returns whether a line is a comment. A shebang is not a comment, and an expression may expand to several
/// lines.
fn is_comment(line: &str) -> bool {
    let line = line.trim_start_matches(BLANKS);
    line.starts_with('#') && !line.starts_with("#!") && !line.contains("${{")
}

/// The state at the end of a line that began outside of all quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Plain,
    /// The next line continues this one.
    Continued,
    /// Inside a quote, or unknown.
    Open,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
    /// `$'…'`, in which a backslash escapes.
    Escaped,
}

fn end_of(line: &str) -> End {
    let mut quote = Quote::None;
    // Depth of substitutions within double quotes, which have their own quotes.
    let mut nested = 0u32;
    let mut murky = false;
    let mut braces = 0u32;
    let mut before = ' ';
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        let mut here = c;
        match (quote, c) {
            (Quote::None, '\\') if chars.peek().is_none() => return End::Continued,
            (Quote::None | Quote::Double | Quote::Escaped, '\\') => {
                // An escaped character has no special meaning, and the next one is in the same word.
                chars.next();
                here = 'x';
            }
            (Quote::None | Quote::Double, '\'') if murky || nested > 0 => return End::Open,
            (Quote::None, '\'') if before == '$' => quote = Quote::Escaped,
            (Quote::None, '\'') => quote = Quote::Single,
            (Quote::None, '"') => quote = Quote::Double,
            (Quote::None, '#') if before.is_whitespace() || ";&|()<>`".contains(before) => {
                // A comment starts at the beginning of a word; within a parameter it is not a comment.
                let plain = !murky && nested == 0 && braces == 0;
                return if plain { End::Plain } else { End::Open };
            }
            (Quote::None, '{') if before == '$' => braces += 1,
            (Quote::None, '}') => braces = braces.saturating_sub(1),
            (Quote::Double, '`') => return End::Open,
            (Quote::Double, '(' | '{') if before == '$' || nested > 0 => nested += 1,
            (Quote::Double, ')' | '}') => nested = nested.saturating_sub(1),
            (Quote::Double, '"') => {
                murky = nested > 0;
                quote = Quote::None;
            }
            (Quote::Single | Quote::Escaped, '\'') => quote = Quote::None,
            _ => {}
        }
        before = here;
    }
    let plain = quote == Quote::None && nested == 0 && braces == 0;
    if plain { End::Plain } else { End::Open }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidied(script: &str) -> String {
        tidy(script, None)
    }

    #[test]
    fn comment_lines_are_removed() {
        assert_eq!(tidied("# why\nmake  \n\n   # more\n  test\n"), "make\n  test");
        assert_eq!(tidied("#!/bin/sh\nmake # here\n"), "#!/bin/sh\nmake # here");
        assert_eq!(tidied("echo it # don't\n# gone\n"), "echo it # don't");
        assert_eq!(tidied("a \"$(b \"$c\")\" ${d#e} $'it\\'s' 'f#'\n# gone\ng"), {
            "a \"$(b \"$c\")\" ${d#e} $'it\\'s' 'f#'\ng"
        });
        assert_eq!(tidied("a \"$(b ${c})\" 'd'\n# gone\ne"), "a \"$(b ${c})\" 'd'\ne");
        assert_eq!(tidied("(a)# don't\n# gone\nb"), "(a)# don't\nb");
    }

    #[test]
    fn lines_that_may_be_content_stay() {
        for script in [
            "echo '\n# in quotes\n'",
            "echo \"a \\\" \n# in quotes\n\"",
            "cat <<X\n# in a document\nX",
            "echo a \\\n# continued",
            "echo '\n\n'",
            "echo a#'\n# still\n'",
            // A quote with an escape.
            "echo $'it\\'s'\necho '\n# in quotes\n'",
            "echo $'a\\'\n# in quotes\n'",
            // Quotes within a command within quotes.
            "echo \"$(echo '\"')\" '\n# in quotes\n'",
            "echo \"`echo '\"'`\" '\n# in quotes\n'",
            "echo \"${a:-'\"'}\" '\n# in quotes\n'",
            "x=\"$(grep \" # \n# in quotes\n\")\"",
            "x=\"$(grep \"\n# in quotes\n\")\"",
            "x=\"$(\n# in a command\n)\"",
            "echo ${a:-\n# a default\n}",
            "echo ${a:- # '}\n# a default\n'",
            // An expression that may expand to two lines.
            "# ${{ inputs.script }}\nmake",
            // Not a blank for a shell.
            "\u{a0}# a word\nmake",
            "make\u{a0}",
            "make a\\ ",
            "a\r\nb",
        ] {
            assert_eq!(tidied(script), script);
        }
    }

    #[test]
    fn only_shell_scripts_are_tidied() {
        let script = "# x\ny";
        for shell in ["bash", "sh", "/bin/bash -e {0}", "bash --noprofile --norc -eo pipefail {0}"]
        {
            assert_eq!(tidy(script, Some(shell)), "y", "{shell}");
        }
        for shell in [
            "python",
            "pwsh",
            "bash -c 'python3 {0}'",
            "bash -ec {0}",
            "bash wrapper {0}",
            "nix develop -c bash -e {0}",
            "${{ matrix.shell }}",
            "",
        ] {
            assert_eq!(tidy(script, Some(shell)), script, "{shell}");
        }
    }
}
