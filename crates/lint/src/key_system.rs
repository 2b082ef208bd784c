//! Keys given in the workflow that lack properties that a store depends on. The cache service does not
//! separate entries by architecture, and an older version cannot use the database of a newer one.

use super::diagnostic::Diagnostic;
use super::fix::{Lines, Page};
use super::matrix::{self, System};
use super::{LintContext, rules, volatile_key};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Job, Step, Text, with_variable};

/// Texts that name an architecture, in lower case.
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

/// Contexts whose values are not in the file.
const UNKNOWN: [&str; 7] = ["env.", "vars.", "inputs.", "steps.", "needs.", "matrix.", "fromjson("];

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &scene.workflow.jobs {
        for step in cache_steps::in_job(job) {
            if let Some(key) = cache_steps::key(step) {
                found.extend(check_key(scene, job, step, key));
            }
        }
    }
    found
}

fn check_key(scene: &LintContext, job: &Job, step: &Step, key: &Text) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let text = resolved(scene, job, step, &key.text);
    let unknown =
        expressions(&text).any(|expression| UNKNOWN.iter().any(|it| expression.contains(it)));
    let in_front = || in_front(scene.page, step, "${{ runner.os }}-${{ runner.arch }}-");
    match systems(scene, job, step, key) {
        Systems::Mixed(one, other) => found.push(
            Diagnostic::error(
                rules::KEY_SYSTEM,
                key.line,
                format!(
                    "{one} and {other} save under the same key: each can restore the store of the \
                     other, which it cannot use"
                ),
            )
            .at_first_line(key)
            .fix(
                "put ${{ runner.os }} and ${{ runner.arch }} into the key, or use storecache \
                 without `key`",
            )
            .lines(in_front())
            .example("key: ${{ runner.os }}-${{ runner.arch }}-…"),
        ),
        Systems::Unknown if !unknown && !ARCHITECTURES.iter().any(|name| text.contains(name)) => {
            let swaps = self::in_front(scene.page, step, "${{ runner.arch }}-");
            found.push(
                Diagnostic::warning(
                    rules::KEY_SYSTEM,
                    key.line,
                    "the key does not name the architecture: a runner of another architecture \
                     finds this entry and cannot use it",
                )
                .at_first_line(key)
                .fix("put ${{ runner.arch }} into the key, or use storecache without `key`")
                .lines(swaps)
                .example("key: ${{ runner.arch }}-…"),
            );
        }
        _ => {}
    }
    let fixed = volatile_key::is_fixed(&text) && !cache_steps::ours(step);
    if !unknown && !has_version(&text) && !cache_steps::is_plain(step) && !fixed {
        let name = version_variable(scene, job);
        let lines = name
            .as_ref()
            .and_then(|it| self::in_front(scene.page, step, &format!("${{{{ env.{it} }}}}-")));
        found.push(
            Diagnostic::warning(
                rules::KEY_VERSION,
                key.line,
                "the key does not name the version of Nix or Guix, so entries of the old version \
                 are still restored after an upgrade",
            )
            .at_first_line(key)
            .fix("put the version into the key, or use storecache without `key`")
            .lines(lines)
            .example("key: nix-2.30.1-…"),
        );
    }
    found
}

enum Systems {
    /// Two systems share one key.
    Mixed(System, System),
    /// Jobs of several systems have different keys.
    Apart,
    Unknown,
}

/// Determines whether the jobs of a matrix that run on several systems have different keys.
fn systems(scene: &LintContext, job: &Job, step: &Step, key: &Text) -> Systems {
    let Some(jobs) = matrix::jobs(job) else { return Systems::Unknown };
    let environments = matrix::environments(scene.workflow, job, step);
    let mut known: Vec<(System, String)> = Vec::new();
    let mut apart = false;
    for values in &jobs {
        let Some(system) = matrix::system_of(job, values) else { return Systems::Unknown };
        let Some(text) = matrix::resolve(&key.text, values, Some(system), &environments) else {
            return Systems::Unknown;
        };
        for (other, same) in &known {
            if *other != system && *same == text {
                return Systems::Mixed(*other, system);
            }
            apart |= *other != system;
        }
        known.push((system, text));
    }
    if apart { Systems::Apart } else { Systems::Unknown }
}

/// Returns a variable of the workflow that holds the version.
fn version_variable(scene: &LintContext, job: &Job) -> Option<String> {
    let all = job.env.iter().chain(scene.workflow.env.iter());
    let named = |name: &str| {
        let name = name.to_uppercase();
        name.contains("VERSION") && (name.contains("NIX") || name.contains("GUIX"))
    };
    let mut named = all.filter(|(name, value)| named(name) && has_version(&value.text));
    named.next().map(|(name, _)| name.to_owned())
}

/// Inserts a text in front of the key and of its prefixes, so that they remain prefixes of the key.
pub fn in_front(page: &Page, step: &Step, text: &str) -> Option<Lines> {
    let key = cache_steps::key(step)?;
    let first = key.text.trim().to_owned();
    let all: Vec<(usize, String)> = [(key.line, first)]
        .into_iter()
        .chain(
            cache_steps::restore_keys(step).into_iter().map(|(line, key)| (line, key.to_owned())),
        )
        .collect();
    let new: Vec<String> = all.iter().map(|(_, old)| format!("{text}{old}")).collect();
    let swaps: Vec<_> = all
        .iter()
        .zip(&new)
        .map(|((line, old), new)| (*line, old.as_str(), new.as_str()))
        .collect();
    page.swap(&swaps)
}

/// Returns a key in lower case, with literal values of `env` substituted.
pub fn resolved(scene: &LintContext, job: &Job, step: &Step, key: &str) -> String {
    let mut text = key.to_owned();
    for fields in matrix::environments(scene.workflow, job, step) {
        for (name, value) in fields.iter() {
            text = with_variable(&text, name.strip_prefix("env.").unwrap_or(name), value);
        }
    }
    text.to_lowercase()
}

/// Returns the expressions between `${{` and `}}`.
pub fn expressions(text: &str) -> impl Iterator<Item = &str> {
    text.split("${{").skip(1).map(|rest| rest.split("}}").next().unwrap_or(rest))
}

/// Returns the text outside of expressions.
pub fn literal(text: &str) -> String {
    let parts = text.split("${{").enumerate().map(|(at, part)| match at {
        0 => part,
        _ => part.split_once("}}").map_or("", |(_, rest)| rest),
    });
    parts.collect()
}

/// Returns whether a key has a version: two numbers with a dot between them outside of expressions, or the
/// word `version` anywhere.
pub fn has_version(text: &str) -> bool {
    let outside = literal(text);
    let dotted = |w: &[u8]| w[0].is_ascii_digit() && w[1] == b'.' && w[2].is_ascii_digit();
    outside.as_bytes().windows(3).any(dotted) || text.contains("version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_a_key_are_detected() {
        assert!(has_version("guix-1.5.0-x64"));
        assert!(has_version("guix-${{ hashfiles('version') }}"));
        assert!(!has_version("guix-v1-${{ hashfiles('a1.2b') }}-x86_64"));
    }
}
