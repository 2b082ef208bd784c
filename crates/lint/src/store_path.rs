//! Stores that actions/cache caches as plain files. It runs as the user of the runner, without additional
//! rights: it can read a store that belongs to root, but cannot write it. Source: actions/cache#749.

use super::diagnostic::Diagnostic;
use super::{LintContext, rules, shell};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Job, Step};

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &scene.workflow.jobs {
        // Report once for each job: the steps that restore and save share one mistake.
        let Some(step) = job.steps.iter().find(|step| is_out_of_reach(job, step)) else { continue };
        let (Some(store), Some(text)) =
            (cache_steps::stores(step).into_iter().next(), step.fields.get("with.path"))
        else {
            continue;
        };
        let at = text.text.find(&store).unwrap_or_default();
        let kind = if store.contains("nix") { "nix" } else { "guix" };
        let message = format!(
            "actions/cache cannot write {store}, which belongs to root: it saves entries that no \
             run can restore, and the daemon does not see files without rows in its database"
        );
        found.push(
            Diagnostic::error(rules::STORE_PATH, text.line_at(at), message)
                .at(store)
                .fix("use storecache, which restores as root and adds the rows")
                .example(format!("- uses: OWNER/storecache@v1\n  with:\n    store: {kind}")),
        );
    }
    found
}

/// Returns whether a step caches a store as files that it cannot write.
pub fn is_out_of_reach(job: &Job, step: &Step) -> bool {
    let official = step.action().is_some_and(cache_steps::is_official);
    let stores = cache_steps::stores(step);
    let Some(store) = stores.first().filter(|_| official && !may_write(job)) else { return false };
    !(store.contains("nix") && belongs_to_the_user(job))
}

/// Returns whether the steps of a job run as root, or a wrapper runs tar as root.
fn may_write(job: &Job) -> bool {
    let wraps_tar = |step: &Step| {
        shell::scripts(step).any(|script| {
            let text = &script.text;
            text.contains("/tar") && text.contains("sudo") && text.contains("exec")
        })
    };
    let action = |step: &Step| step.action().is_some_and(|action| action.contains("devbox"));
    job.node.get("container").is_some()
        || job.steps.iter().any(|step| wraps_tar(step) || action(step))
}

/// Returns whether the Nix store belongs to the user of the runner, as in an installation without a daemon.
pub fn belongs_to_the_user(job: &Job) -> bool {
    job.steps.iter().any(|step| {
        let quick =
            step.action().is_some_and(|action| action.ends_with("nix-quick-install-action"));
        let words = |text: &str| {
            text.contains("--no-daemon")
                || (text.contains("mkdir") && text.contains("chown") && text.contains("/nix"))
        };
        quick
            || step.fields.iter().any(|(name, text)| {
                (name == "run" || name.starts_with("with.")) && words(&text.text)
            })
    })
}
