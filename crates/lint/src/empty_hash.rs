//! Uses of `hashFiles` that match no file: the hash is empty, the key never changes, and the store is saved
//! only once.

use super::diagnostic::Diagnostic;
use super::{Level, LintContext, rules};
use globset::GlobBuilder;
use std::path::{Path, PathBuf};
use storecache_workflow::workflow::{Job, Step};

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let steps = || scene.workflow.jobs.iter().flat_map(|job| &job.steps);
    let any = steps().any(|step| step.fields.iter().any(|(_, text)| !calls(&text.text).is_empty()));
    let Some(files) = any.then(|| scene.files.list()).flatten() else { return Vec::new() };
    scene.workflow.jobs.iter().flat_map(|job| check_job(scene, job, files)).collect()
}

fn check_job(scene: &LintContext, job: &Job, files: &[PathBuf]) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (at, step) in job.steps.iter().enumerate() {
        let before = &job.steps[..at];
        // A condition may deliberately check whether a file exists.
        let given = |name: &str| name.starts_with("with.") || name.starts_with("env.");
        for (_, text) in step.fields.iter().filter(|(name, _)| given(name)) {
            for Call { offset, patterns } in calls(&text.text) {
                let line = text.line_at(offset);
                let Some(one) = judge(scene, line, &patterns, before, files) else { continue };
                found.push(one.at("hashFiles"));
            }
        }
    }
    found
}

/// Checks the patterns of a call that follows the steps `before`.
fn judge(
    scene: &LintContext,
    line: usize,
    patterns: &[String],
    before: &[Step],
    files: &[PathBuf],
) -> Option<Diagnostic> {
    let shown = patterns.join("', '");
    let found = |level, message: String| match level {
        Level::Error => Diagnostic::error(rules::EMPTY_HASH, line, message),
        Level::Warning => Diagnostic::warning(rules::EMPTY_HASH, line, message),
    };
    let checkouts: Vec<&Step> =
        before.iter().filter(|step| step.action() == Some("actions/checkout")).collect();
    // Files of other repositories, or in a directory that an expression names, are unknown.
    let unknown = |step: &&Step| {
        step.fields.get("with.repository").is_some()
            || checkout_path(step).is_some_and(|path| path.contains("${{"))
    };
    if checkouts.iter().any(unknown) {
        return None;
    }
    let made_before = before.iter().any(|step| step.fields.get("run").is_some());
    // A step may have created the file.
    let level = if made_before { Level::Warning } else { Level::Error };
    if checkouts.is_empty() {
        let message =
            format!("hashFiles('{shown}') is empty: nothing is checked out before this step");
        let example = "- uses: actions/checkout@v4";
        return Some(found(level, message).fix("put actions/checkout before it").example(example));
    }
    let places: Vec<&str> =
        checkouts.iter().map(|step| checkout_path(step).unwrap_or_default()).collect();
    let matches = |prefix: &str| {
        let all = || files.iter().map(|file| Path::new(prefix).join(file));
        some_match(patterns, all())
    };
    if places.iter().any(|place| matches(place)) {
        return None;
    }
    let inside = places.iter().find(|place| !place.is_empty());
    if let Some(place) = inside.filter(|_| matches("")) {
        let swaps: Vec<(String, String)> = patterns.iter().map(|it| below(place, it)).collect();
        let swaps: Vec<_> = swaps.iter().map(|(old, new)| (line, &**old, &**new)).collect();
        let first = patterns.first().map_or("", |it| it);
        let message = format!(
            "hashFiles('{shown}') matches no file and is empty, so the key never changes: the \
             checkout is in {place}"
        );
        return Some(
            found(Level::Error, message)
                .fix(format!("write hashFiles('{place}/{first}')"))
                .lines(scene.page.swap(&swaps)),
        );
    }
    let message = format!("hashFiles('{shown}') matches no file of this work tree, so it is empty");
    Some(
        found(level, message)
            .fix("correct the pattern, or leave it out")
            .example("${{ hashFiles('**/flake.lock') }}"),
    )
}

/// Returns a pattern in quotes, and the corresponding pattern for a checkout in `place`.
fn below(place: &str, pattern: &str) -> (String, String) {
    let (sign, bare) = match pattern.strip_prefix('!') {
        Some(bare) => ("!", bare),
        None => ("", pattern),
    };
    (format!("'{pattern}'"), format!("'{sign}{place}/{}'", bare.trim_start_matches("./")))
}

/// Returns the directory of a checkout relative to the workspace, without a leading `./` or a trailing slash.
fn checkout_path(step: &Step) -> Option<&str> {
    let path = step.fields.get("with.path")?.text.trim();
    let path = path.strip_prefix("./").unwrap_or(path).trim_end_matches('/');
    Some(if path == "." { "" } else { path })
}

/// Returns whether any of `files` matches, as in actions/toolkit `packages/glob`: a pattern with an
/// exclamation mark excludes what earlier patterns matched, and a directory matches everything below it.
fn some_match(patterns: &[String], files: impl Iterator<Item = PathBuf> + Clone) -> bool {
    let mut compiled = Vec::new();
    for pattern in patterns {
        let (take, pattern) = match pattern.strip_prefix('!') {
            Some(rest) => (false, rest),
            None => (true, pattern.as_str()),
        };
        let pattern = pattern.strip_prefix("./").unwrap_or(pattern).trim_end_matches('/');
        for glob in [pattern.to_owned(), format!("{pattern}/**")] {
            match GlobBuilder::new(&glob).literal_separator(true).build() {
                Ok(glob) => compiled.push((take, glob.compile_matcher())),
                // Not a pattern that this code can evaluate.
                Err(_) => return true,
            }
        }
    }
    let mut files = files;
    files.any(|file| {
        let last = compiled.iter().rev().find(|(_, glob)| glob.is_match(&file));
        last.is_some_and(|(take, _)| *take)
    })
}

/// A use of `hashFiles` whose patterns are all literal.
struct Call {
    offset: usize,
    patterns: Vec<String>,
}

fn calls(text: &str) -> Vec<Call> {
    let lower = text.to_ascii_lowercase();
    let found = lower.match_indices("hashfiles(").filter_map(|(offset, word)| {
        let patterns = literals(text.get(offset + word.len()..)?)?;
        // Absolute paths are outside of the work tree.
        let known =
            patterns.iter().all(|pattern| !pattern.trim_start_matches('!').starts_with('/'));
        known.then_some(Call { offset, patterns })
    });
    found.collect()
}

/// Returns the literal arguments up to the closing parenthesis, or `None` if an argument is an expression. A
/// quote inside a literal is doubled. A literal may hold several patterns, one on each line.
fn literals(mut rest: &str) -> Option<Vec<String>> {
    let mut patterns = Vec::new();
    loop {
        rest = rest.trim_start().strip_prefix('\'')?;
        let mut literal = String::new();
        loop {
            let (part, after) = rest.split_once('\'')?;
            literal.push_str(part);
            rest = after;
            match after.strip_prefix('\'') {
                Some(after) => {
                    literal.push('\'');
                    rest = after;
                }
                None => break,
            }
        }
        let lines = literal.split('\n').map(str::trim).filter(|line| !line.is_empty());
        patterns.extend(lines.map(str::to_owned));
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return rest.starts_with(')').then_some(patterns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_patterns_are_parsed() {
        let of = |text: &str| calls(text).into_iter().map(|call| call.patterns).collect::<Vec<_>>();
        assert_eq!(of("a-${{ hashFiles('x', '**/y''s') }}"), [["x", "**/y's"]]);
        assert_eq!(of("${{ hashfiles( 'a\nb' ) }}-${{ hashFiles('c') }}").len(), 2);
        for unknown in ["hashFiles(env.X)", "hashFiles('a', x)", "hashFiles('a'", "hashFiles('/a')"]
        {
            assert!(of(unknown).is_empty(), "{unknown}");
        }
    }

    #[test]
    fn patterns_match_as_in_the_runner() {
        let matches = |patterns: &[&str], file: &str| {
            let patterns: Vec<_> = patterns.iter().map(|p| (*p).to_owned()).collect();
            some_match(&patterns, [PathBuf::from(file)].into_iter())
        };
        assert!(matches(&["**/a.lock"], "a.lock"));
        assert!(matches(&["**/a.lock"], "x/y/a.lock"));
        assert!(matches(&["x"], "x/y/a.lock"));
        assert!(matches(&["./x/*/a.lock"], "x/y/a.lock"));
        assert!(!matches(&["*.lock"], "x/a.lock"));
        assert!(!matches(&["**/*.lock", "!x/**"], "x/a.lock"));
    }
}
