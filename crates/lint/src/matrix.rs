//! The jobs of a matrix: the systems that they run on, and jobs that share a key. Source: github/docs,
//! workflow syntax, `jobs.<job_id>.strategy.matrix`.

use super::diagnostic::Diagnostic;
use super::{LintContext, rules};
use std::collections::BTreeMap;
use std::fmt;
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Fields, Job, Step, Workflow};
use storecache_workflow::yaml::{Data, Node};

/// GitHub's limit of jobs of one matrix.
const MOST: usize = 256;

/// The values of one job, by their names below `matrix`.
pub type Values = BTreeMap<String, String>;

/// Returns the jobs of a matrix; a single job without values if the job has no matrix. Returns `None` if the
/// matrix depends on values that are not in the file.
pub fn jobs(job: &Job) -> Option<Vec<Values>> {
    let Some(matrix) = job.node.get("strategy").and_then(|it| it.get("matrix")) else {
        return Some(vec![Values::new()]);
    };
    let Data::Mapping(dimensions) = &matrix.data else { return None };
    let mut all = vec![Values::new()];
    let mut own = Vec::new();
    let special = |name: &str| matches!(name, "include" | "exclude");
    for dimension in dimensions.iter().filter(|it| !special(&it.key)) {
        let Data::Sequence(values) = &dimension.value.data else { return None };
        own.push(dimension.key.as_str());
        let mut more = Vec::new();
        for before in &all {
            for value in values {
                let mut with = before.clone();
                put(value, &dimension.key, &mut with)?;
                more.push(with);
            }
        }
        all = more;
        if all.len() > MOST {
            return None;
        }
    }
    let fits = |some: &Values, all: &Values| some.iter().all(|(key, it)| all.get(key) == Some(it));
    if let Some(excluded) = matrix.get("exclude") {
        for one in values_of(excluded)? {
            all.retain(|it| !fits(&one, it));
        }
    }
    let Some(included) = matrix.get("include") else { return Some(all) };
    let original = if own.is_empty() { Vec::new() } else { all.clone() };
    let mut all = original.clone();
    for one in values_of(included)? {
        let is_own = |key: &String| own.iter().any(|it| key.split('.').next() == Some(*it));
        let wanted: Values = one
            .iter()
            .filter(|(key, _)| is_own(key))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let mut added = false;
        for (at, before) in original.iter().enumerate() {
            if fits(&wanted, before) {
                all[at].extend(one.clone());
                added = true;
            }
        }
        if !added {
            all.push(one);
        }
    }
    (all.len() <= MOST).then_some(all)
}

fn values_of(list: &Node) -> Option<Vec<Values>> {
    let Data::Sequence(all) = &list.data else { return None };
    let values = all.iter().map(|one| {
        let mut values = Values::new();
        for pair in one.pairs() {
            put(&pair.value, &pair.key, &mut values)?;
        }
        Some(values)
    });
    values.collect()
}

/// Stores all scalars of a value under its name. Returns `None` if one of them is an expression.
fn put(node: &Node, name: &str, values: &mut Values) -> Option<()> {
    match &node.data {
        Data::Text(text) if text.contains("${{") => return None,
        Data::Text(text) => drop(values.insert(name.to_lowercase(), text.clone())),
        Data::Null => drop(values.insert(name.to_lowercase(), String::new())),
        Data::Mapping(pairs) => {
            for pair in pairs {
                put(&pair.value, &format!("{name}.{}", pair.key), values)?;
            }
        }
        Data::Sequence(_) => {}
    }
    Some(())
}

/// The system of a runner, as the contexts `runner.os` and `runner.arch` name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct System {
    pub os: &'static str,
    pub arch: &'static str,
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {}", self.os, self.arch)
    }
}

/// Returns the system of a GitHub-hosted runner by its label. Source: github/docs, GitHub-hosted runners.
fn system(label: &str) -> Option<System> {
    let label = label.trim().to_lowercase();
    let arm = label.contains("-arm") || label.contains("arm64") || label.contains("aarch64");
    let os = ["ubuntu", "macos", "windows"].into_iter().find(|os| {
        let rest = label.strip_prefix(os);
        rest.is_some_and(|rest| rest.starts_with('-'))
    })?;
    let intel = label.ends_with("-large") || label.ends_with("-intel") || label == "macos-13";
    Some(match os {
        "ubuntu" => System { os: "Linux", arch: if arm { "ARM64" } else { "X64" } },
        "windows" => System { os: "Windows", arch: if arm { "ARM64" } else { "X64" } },
        _ => System { os: "macOS", arch: if intel { "X64" } else { "ARM64" } },
    })
}

/// Returns the system of one job of a matrix, if its label shows it.
pub fn system_of(job: &Job, values: &Values) -> Option<System> {
    let labels = job.runs_on();
    let [label] = labels.as_slice() else { return None };
    system(&resolve(label, values, None, &[])?)
}

/// Substitutes the values of one job of a matrix in a text. Expressions that are equal for all jobs of a
/// matrix stay. Returns `None` if an expression may differ between jobs in a way that the file does not show.
pub fn resolve(
    text: &str,
    values: &Values,
    system: Option<System>,
    environments: &[&Fields],
) -> Option<String> {
    resolve_within(text, values, system, environments, 0)
}

fn resolve_within(
    text: &str,
    values: &Values,
    system: Option<System>,
    environments: &[&Fields],
    depth: usize,
) -> Option<String> {
    let mut parts = text.split("${{");
    let mut resolved = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (expression, rest) = part.split_once("}}")?;
        let name = expression.trim().to_lowercase();
        let plain = |name: &str| {
            name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        };
        match name.split_once('.') {
            Some(("matrix", key)) if plain(key) => {
                resolved += values.get(key).map(String::as_str).unwrap_or_default();
            }
            Some(("runner", "os")) if let Some(system) = system => resolved += system.os,
            Some(("runner", "arch")) if let Some(system) = system => resolved += system.arch,
            Some(("env", key)) if plain(key) && depth < 3 => {
                let value = environments.iter().find_map(|fields| {
                    fields.iter().find(|(name, _)| {
                        name.strip_prefix("env.").unwrap_or(name).eq_ignore_ascii_case(key)
                    })
                })?;
                let value = &value.1.text;
                resolved += &resolve_within(value, values, system, environments, depth + 1)?;
            }
            _ => {
                let differs = ["matrix", "strategy", "runner.", "steps.", "needs.", "env."];
                let known = ["runner.os", "runner.arch"].contains(&name.as_str());
                if !known && differs.iter().any(|part| name.contains(part)) {
                    return None;
                }
                resolved += &format!("${{{{ {name} }}}}");
            }
        }
        resolved += rest;
    }
    Some(resolved)
}

/// Returns the environments that apply to a step, innermost first.
pub fn environments<'w>(workflow: &'w Workflow, job: &'w Job, step: &'w Step) -> [&'w Fields; 3] {
    [&step.fields, &job.env, &workflow.env]
}

/// Reports jobs of one system that save under one key.
pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let jobs = scene.workflow.jobs.iter();
    jobs.flat_map(|job| job.steps.iter().filter_map(|step| shared(scene, job, step))).collect()
}

fn shared(scene: &LintContext, job: &Job, step: &Step) -> Option<Diagnostic> {
    let chosen = [step.text("if"), job.node.get("if").and_then(|it| it.text()).unwrap_or_default()];
    if !cache_steps::saves(step) || chosen.iter().any(|text| text.contains("matrix.")) {
        return None;
    }
    let jobs = jobs(job)?;
    let text = told(step)?;
    let environments = environments(scene.workflow, job, step);
    let mut seen: BTreeMap<(Option<System>, String), &Values> = BTreeMap::new();
    let (first, second) = jobs.iter().find_map(|values| {
        let system = system_of(job, values);
        let key = resolve(&text, values, system, &environments)?;
        seen.insert((system, key), values).map(|first| (first, values))
    })?;
    // Runners with unknown labels may be of several systems, which the key may tell apart.
    let by_system =
        cache_steps::key(step).map_or(cache_steps::ours(step), |_| text.contains("runner."));
    if by_system && system_of(job, first).is_none() {
        return None;
    }
    let name = first.iter().find(|(key, value)| second.get(*key) != Some(value))?.0;
    let line = cache_steps::key(step).map_or(step.node.place.line, |key| key.line);
    let word = cache_steps::key(step).map_or_else(|| step.text("uses"), |key| key.text.trim());
    let found = Diagnostic::warning(
        rules::MATRIX_KEY,
        line,
        format!(
            "matrix jobs that differ in `{name}` save under the same key: only the first job to \
             finish saves its store, and the builds of the others are lost"
        ),
    );
    let found = found
        .at(word)
        .fix(format!("put ${{{{ matrix.{name} }}}} into the key, or save in only one of the jobs"));
    let lines = match cache_steps::key(step) {
        Some(_) => {
            super::key_system::in_front(scene.page, step, &format!("${{{{ matrix.{name} }}}}-"))
        }
        None => {
            let prefix = step.fields.get("with.key-prefix").map(|it| (it.line, it.text.clone()));
            let value = format!("storecache-${{{{ matrix.{name} }}}}");
            match (prefix, step.node.get("with")) {
                (Some((line, old)), _) => {
                    scene.page.swap(&[(line, &old, &format!("{old}-${{{{ matrix.{name} }}}}"))])
                }
                (None, Some(with)) => scene.page.add(with, &[&format!("key-prefix: {value}")]),
                (None, None) => {
                    scene.page.add(&step.node, &["with:", &format!("  key-prefix: {value}")])
                }
            }
        }
    };
    Some(found.lines(lines))
}

/// Returns the text that the key of a step is made from, as far as the workflow contains it.
fn told(step: &Step) -> Option<String> {
    if let Some(key) = cache_steps::key(step) {
        return Some(key.text.clone());
    }
    let parts = ["key-prefix", "version", "hash-files", "path", "store"];
    cache_steps::ours(step)
        .then(|| parts.map(|part| step.text(&format!("with.{part}")).to_owned()).join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs_of(matrix: &str) -> Option<Vec<String>> {
        let text = format!("on: push\njobs:\n  a:\n    strategy:\n      matrix: {matrix}\n");
        let workflow = Workflow::parse(&text).unwrap();
        let shown = |values: &Values| {
            values.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        Some(jobs(&workflow.jobs[0])?.iter().map(shown).collect())
    }

    #[test]
    fn matrix_is_expanded_as_github_does() {
        assert_eq!(
            jobs_of("{a: [1, 2], b: [x, y]}").unwrap(),
            ["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"]
        );
        assert_eq!(jobs_of("{a: [1, 2], exclude: [{a: 2}]}").unwrap(), ["a=1"]);
        assert_eq!(
            jobs_of("{a: [1, 2], include: [{a: 1, c: z}, {d: w}, {a: 3}]}").unwrap(),
            ["a=1 c=z d=w", "a=2 d=w", "a=3"]
        );
        assert_eq!(jobs_of("{include: [{os: x}, {os: y}]}").unwrap(), ["os=x", "os=y"]);
        assert_eq!(jobs_of("{c: [{os: x, n: 1}]}").unwrap(), ["c.n=1 c.os=x"]);
        assert_eq!(jobs_of("${{ fromJSON(needs.x.outputs.y) }}"), None);
        assert_eq!(jobs_of("{a: ['${{ inputs.x }}']}"), None);
    }

    #[test]
    fn runner_systems_are_derived_from_labels() {
        let shown = |label| system(label).map(|it| it.to_string());
        for (label, told) in [
            ("ubuntu-latest", "Linux X64"),
            ("ubuntu-24.04-arm", "Linux ARM64"),
            ("macos-13", "macOS X64"),
            ("macos-14", "macOS ARM64"),
            ("macos-15-intel", "macOS X64"),
        ] {
            assert_eq!(shown(label).as_deref(), Some(told), "{label}");
        }
        assert_eq!((shown("self-hosted"), shown("ubuntu")), (None, None));
    }
}
