//! Keys of one's own without what a store depends on. A cache entry is not told apart by architecture,
//! and a database of a newer version is of no use to an older one.

use super::super::workflow::{Fields, Workflow};
use super::{Found, Level, caches};

/// What names an architecture, in lower case.
const ARCHITECTURES: [&str; 11] = [
    "runner.arch",
    "x86_64",
    "x86-64",
    "x64",
    "amd64",
    "aarch64",
    "arm64",
    "i686",
    "riscv64",
    "ppc64",
    "system",
];

/// Contexts whose values the file does not tell.
const UNKNOWN: [&str; 7] = ["env.", "vars.", "inputs.", "steps.", "needs.", "matrix.", "fromjson("];

pub fn check(workflow: &Workflow) -> Vec<Found> {
    let mut found = Vec::new();
    for job in &workflow.jobs {
        for step in job.steps.iter().filter(|step| caches::of_a_store(step)) {
            let Some(key) = caches::key(step) else { continue };
            let text = resolve(&key.text, &[&step.fields, &job.env, &workflow.env]).to_lowercase();
            if expressions(&text).any(|expression| UNKNOWN.iter().any(|it| expression.contains(it)))
            {
                continue;
            }
            if !ARCHITECTURES.iter().any(|name| text.contains(name)) {
                found.push((
                    key.line,
                    Level::Warning,
                    "the key has no architecture: a runner of another one finds this entry, and can \
                     not use it"
                        .into(),
                    "put ${{ runner.arch }} into the key, or leave `key` to storecache".into(),
                ));
            }
            if !has_version(&text) {
                found.push((
                    key.line,
                    Level::Warning,
                    "the key has no version of Nix or Guix, so an upgrade goes on with the entries of \
                     the old one"
                        .into(),
                    "put the version into the key, or leave `key` to storecache".into(),
                ));
            }
        }
    }
    found
}

/// Puts the literal values of `env` in their places.
fn resolve(key: &str, environments: &[&Fields]) -> String {
    let mut text = key.to_owned();
    for fields in environments {
        for (name, value) in fields.iter().filter(|(_, value)| !value.text.contains("${{")) {
            let name = name.strip_prefix("env.").unwrap_or(name);
            for spelling in [format!("${{{{ env.{name} }}}}"), format!("${{{{env.{name}}}}}")] {
                text = text.replace(&spelling, &value.text);
            }
        }
    }
    text
}

/// What is between `${{` and `}}`.
fn expressions(text: &str) -> impl Iterator<Item = &str> {
    text.split("${{").skip(1).map(|rest| rest.split("}}").next().unwrap_or(rest))
}

/// Two numbers with a dot between them outside of expressions, or the word.
fn has_version(text: &str) -> bool {
    let outside: String = text
        .split("${{")
        .enumerate()
        .map(|(at, part)| match at {
            0 => part,
            _ => part.split_once("}}").map_or("", |(_, rest)| rest),
        })
        .collect();
    let bytes = outside.as_bytes();
    let dotted = |w: &[u8]| w[0].is_ascii_digit() && w[1] == b'.' && w[2].is_ascii_digit();
    bytes.windows(3).any(dotted) || text.contains("version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_seen() {
        assert!(has_version("guix-1.5.0-x64"));
        assert!(has_version("guix-${{ hashfiles('version') }}"));
        assert!(!has_version("guix-v1-${{ hashfiles('a1.2b') }}-x86_64"));
    }
}
