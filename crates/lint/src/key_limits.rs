//! Keys that the cache service refuses. Source: actions/toolkit `packages/cache/src/cache.ts`.

use super::diagnostic::Diagnostic;
use super::{LintContext, key_system, rules};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::Step;

/// Maximum length of a key, in characters.
const LONGEST: usize = 512;

/// Maximum number of keys of one step: its key and its prefixes.
const MOST: usize = 10;

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let steps = scene.workflow.jobs.iter().flat_map(cache_steps::in_job);
    steps.flat_map(|step| check_step(scene, step)).collect()
}

fn check_step(scene: &LintContext, step: &Step) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let own = cache_steps::key(step).map(|key| (key.line, key.text.trim()));
    let prefixes = cache_steps::restore_keys(step);
    for (line, key) in own.iter().copied().chain(prefixes.iter().copied()) {
        let literal = key_system::literal(key);
        if literal.contains(',') {
            let new = without_commas(key);
            found.push(
                Diagnostic::error(
                    rules::KEY_LIMITS,
                    line,
                    "the cache service refuses a key with a comma, so no run saves it",
                )
                .at(",")
                .fix("replace it with another character")
                .lines(scene.page.swap(&[(line, key, &new)]))
                .example(format!("key: {new}")),
            );
        }
        let length = literal.encode_utf16().count();
        if length > LONGEST {
            let message = format!(
                "a key has at most {LONGEST} characters, but this one has {length} without its \
                 values"
            );
            found.push(
                Diagnostic::error(rules::KEY_LIMITS, line, message)
                    .fix("put a hash of its parts into the key")
                    .example("key: nix-2.30.1-${{ runner.arch }}-${{ hashFiles('flake.lock') }}"),
            );
        }
    }
    let all = prefixes.len() + usize::from(own.is_some());
    if let (true, Some((last, _)), Some((end, _))) =
        (all > MOST, prefixes.get(MOST - 2), prefixes.last())
    {
        let message = format!("a step has at most {MOST} keys, but this one has {all}");
        let lines = scene.page.line(*last).and_then(|it| scene.page.put(*last, *end, &[it.into()]));
        found.push(
            Diagnostic::error(rules::KEY_LIMITS, *last + 1, message)
                .fix(format!("keep at most {} of `restore-keys`", MOST - 1))
                .lines(lines.filter(|_| end > last)),
        );
    }
    found
}

/// Replaces commas by dashes outside of expressions.
fn without_commas(key: &str) -> String {
    let parts = key.split("${{").enumerate().map(|(at, part)| match part.split_once("}}") {
        Some((expression, rest)) if at > 0 => format!("{expression}}}}}{}", rest.replace(',', "-")),
        _ if at == 0 => part.replace(',', "-"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("${{")
}
