//! Commands that change the owner of a store so that another program can write to it, and copies of a whole
//! store.

use super::diagnostic::Diagnostic;
use super::shell::{self, Command};
use super::{LintContext, rules, store_path, tar};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::Job;

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let jobs = scene.workflow.jobs.iter().filter(|job| cache_steps::in_job(job).next().is_some());
    jobs.flat_map(check_job).collect()
}

fn check_job(job: &Job) -> Vec<Diagnostic> {
    let commands: Vec<Command> = job.steps.iter().flat_map(shell::commands).collect();
    let mut staging: Vec<String> = commands.iter().filter_map(tar::directory).map(bare).collect();
    staging.extend(cache_steps::in_job(job).flat_map(cache_steps::paths).map(|path| bare(&path)));
    let mut found = Vec::new();
    for command in &commands {
        if let Some(one) = owner(job, command).or_else(|| fix_up(command, &staging)) {
            found.push(one);
        } else if let Some(one) = copy(command) {
            found.push(one);
        }
    }
    found
}

/// Returns the program and the arguments of a recursive `chown` or `chmod`.
fn recursive(command: &Command) -> Option<(&'static str, Vec<&str>)> {
    let (program, arguments) =
        ["chown", "chmod"].into_iter().find_map(|it| Some((it, command.arguments(it)?)))?;
    let is_recursive = |word: &&str| {
        *word == "--recursive"
            || (word.starts_with('-') && !word.starts_with("--") && word.contains('R'))
    };
    arguments.iter().any(is_recursive).then_some(())?;
    Some((program, arguments.into_iter().filter(|word| !word.starts_with('-')).collect()))
}

fn owner(job: &Job, command: &Command) -> Option<Diagnostic> {
    let (program, words) = recursive(command)?;
    let (to, paths) = words.split_first()?;
    let path = paths.iter().find(|path| is_store(path))?;
    let to_root = ["root", "0", "guix-daemon", "nixbld"].iter().any(|name| to.starts_with(name));
    if (program == "chown" && to_root)
        || (path.contains("nix") && store_path::belongs_to_the_user(job))
    {
        return None;
    }
    if program == "chmod" && !to.contains('w') && !to.contains(['2', '3', '6', '7']) {
        return None;
    }
    let message = format!(
        "{program} gives the items of {path} to a user who can change them, so the daemon no \
         longer trusts them"
    );
    Some(
        Diagnostic::error(rules::OWNERS, command.line, message)
            .at(program)
            .fix("do not change the owner; restore the store as root, as storecache does")
            .example("- uses: OWNER/storecache@v1"),
    )
}

/// Reports a recursive change in a directory that a store is copied through.
fn fix_up(command: &Command, staging: &[String]) -> Option<Diagnostic> {
    let (program, words) = recursive(command)?;
    let path = words.iter().skip(1).find(|path| staging.contains(&bare(path)))?;
    Some(
        Diagnostic::warning(
            rules::STAGING,
            command.line,
            format!(
                "{path} holds a second copy of the store, whose owners {program} changes one by \
                 one"
            ),
        )
        .at(program)
        .fix(
            "stream the store into the cache, as storecache does, or change only the owner of the \
             archive",
        )
        .example(format!("sudo chown \"$USER\" {path}/ARCHIVE")),
    )
}

fn copy(command: &Command) -> Option<Diagnostic> {
    let (program, arguments) =
        ["cp", "rsync"].into_iter().find_map(|it| Some((it, command.arguments(it)?)))?;
    let (_, sources) = arguments.split_last()?;
    let whole = |word: &&&str| is_store(word.trim_end_matches(['.', '*']));
    let store = sources.iter().find(whole)?;
    Some(
        Diagnostic::warning(
            rules::STAGING,
            command.line,
            format!(
                "{program} makes a second copy of {store}, which takes as much space as the store"
            ),
        )
        .at(program)
        .fix("stream the store into the cache, as storecache does")
        .example("- uses: OWNER/storecache@v1"),
    )
}

fn is_store(path: &str) -> bool {
    let path = path.trim_end_matches('/');
    ["/gnu", "/gnu/store", "/nix", "/nix/store", "/nix/var", "/nix/var/nix", "/var/guix"]
        .contains(&path)
}

fn bare(path: &str) -> String {
    path.trim_matches(['"', '\'']).trim_end_matches('/').to_owned()
}
