//! Versions that are not pinned, in jobs that cache a store: the installed software changes, but the key does
//! not. A key that storecache generates contains the installed version, so it is not affected.

use super::diagnostic::Diagnostic;
use super::shell::{self, Command};
use super::{LintContext, rules};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::Step;

/// Usual names of branches.
const BRANCHES: [&str; 8] =
    ["main", "master", "trunk", "develop", "dev", "HEAD", "latest", "nightly"];

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &scene.workflow.jobs {
        if cache_steps::in_job(job).next().is_none() {
            continue;
        }
        let by_hand = |step: &Step| !cache_steps::ours(step) || cache_steps::key(step).is_some();
        let own_keys = cache_steps::in_job(job).any(by_hand);
        for step in &job.steps {
            found.extend(branch(step));
            if own_keys {
                found.extend(installer(step));
                found.extend(channel(step));
                found.extend(scripts(scene, step));
            }
        }
    }
    found
}

/// Reports an action related to a store at the tip of a branch.
fn branch(step: &Step) -> Option<Diagnostic> {
    let uses = step.fields.get("uses")?;
    let (action, reference) = uses.text.trim().split_once('@')?;
    let name = action.to_lowercase();
    let matters = ["nix", "guix", "cache", "devbox", "devenv"].iter().any(|it| name.contains(it));
    if !matters || !BRANCHES.contains(&reference) {
        return None;
    }
    Some(
        Diagnostic::warning(
            rules::UNPINNED,
            uses.line,
            format!(
                "{action} is used at the tip of `{reference}`, so it changes while this workflow \
                 does not"
            ),
        )
        .at_first_line(uses)
        .fix("pin a release or a commit")
        .example(format!("uses: {action}@<a tag or a commit>")),
    )
}

fn installer(step: &Step) -> Option<Diagnostic> {
    let uses = step.fields.get("uses")?;
    let has =
        |names: &[&str]| names.iter().any(|name| !step.text(&format!("with.{name}")).is_empty());
    let action = step.action()?;
    let (what, input) = match action {
        "PromyLOPh/guix-install-action" if !has(&["channels"]) => ("the newest Guix", "channels"),
        "DeterminateSystems/nix-installer-action" | "DeterminateSystems/determinate-nix-action"
            if !has(&[
                "source-tag",
                "source-url",
                "source-rev",
                "source-revision",
                "nix-package-url",
            ]) && !tagged(uses.text.trim()) =>
        {
            ("the newest Nix", "source-tag")
        }
        _ => return None,
    };
    Some(
        Diagnostic::warning(
            rules::UNPINNED,
            uses.line,
            format!(
                "{action} installs {what}, which changes while this workflow and its key do not"
            ),
        )
        .at_first_line(uses)
        .fix(format!("pin it with the input `{input}`"))
        .example(format!("with:\n  {input}: …")),
    )
}

/// Returns whether an action is used at a full version, such as `v3.8.4`, which installs a fixed version.
fn tagged(uses: &str) -> bool {
    uses.split_once('@').is_some_and(|(_, reference)| reference.matches('.').count() == 2)
}

/// Reports a rolling channel in inputs and variables.
fn channel(step: &Step) -> Option<Diagnostic> {
    let named = |name: &str| name.starts_with("with.") || name.starts_with("env.");
    let (_, text) = step.fields.iter().find(|(name, text)| named(name) && moves(&text.text))?;
    Some(unstable(text.line))
}

fn moves(text: &str) -> bool {
    [
        "channel:nixos-unstable",
        "channel:nixpkgs-unstable",
        "channels.nixos.org/nixos-unstable",
        "channels.nixos.org/nixpkgs-unstable",
        "channels/nixos-unstable",
        "channels/nixpkgs-unstable",
    ]
    .iter()
    .any(|channel| text.contains(channel))
}

fn unstable(line: usize) -> Diagnostic {
    Diagnostic::warning(
        rules::UNPINNED,
        line,
        "the channel changes several times a week: the store changes, but the key does not",
    )
    .at("unstable")
    .fix("pin a commit of nixpkgs, or use a flake.lock")
    .example("nix_path: nixpkgs=https://github.com/NixOS/nixpkgs/archive/<commit>.tar.gz")
}

fn scripts(scene: &LintContext, step: &Step) -> Vec<Diagnostic> {
    shell::commands(step).iter().filter_map(|command| script(scene, command)).collect()
}

fn script(scene: &LintContext, command: &Command) -> Option<Diagnostic> {
    let text = &command.text;
    let fetches = ["curl", "wget"].iter().any(|it| command.arguments(it).is_some());
    let newest = [
        "nixos.org/nix/install",
        "install.determinate.systems/nix",
        "nix/latest/install",
        "guix.git/plain/etc/guix-install.sh",
        "raw/branch/master/etc/guix-install.sh",
        "guix-install.sh",
        "releases/latest/",
    ];
    let about = text.contains("nix") || text.contains("guix");
    let pinned = text.contains("/tag/") || text.contains("?id=") || text.contains("raw/commit/");
    if fetches
        && about
        && !pinned
        && let Some(part) = newest.iter().find(|it| text.contains(**it))
    {
        return Some(
            Diagnostic::warning(
                rules::UNPINNED,
                command.line,
                "this installs the newest version: the database may change, but the key does not",
            )
            .at(*part)
            .fix("pin the version, and put it into the key")
            .example(
                "curl -L https://releases.nixos.org/nix/nix-${{ env.NIX_VERSION }}/install | sh",
            ),
        );
    }
    if moves(text) {
        return Some(unstable(command.line));
    }
    pulls(scene, command)
}

/// Reports `guix pull` and `guix time-machine` without a commit.
fn pulls(scene: &LintContext, command: &Command) -> Option<Diagnostic> {
    let verb = ["pull", "time-machine"].into_iter().find(|verb| command.has(&["guix", verb]))?;
    let pinned = ["--commit", "--channels", "-C", "--list-generations", "-l", "--news", "--help"];
    if command.words().iter().any(|word| pinned.iter().any(|it| word.starts_with(it))) {
        return None;
    }
    let file = scene.files.first(&["channels.scm"]);
    let old = format!("guix {verb}");
    let new = format!("{old} --channels={}", file.as_deref().unwrap_or("channels.scm"));
    let lines = file.and_then(|_| scene.page.swap(&[(command.line, &old, &new)]));
    Some(
        Diagnostic::warning(
            rules::UNPINNED,
            command.line,
            format!("`{old}` uses the newest commit: the store changes, but the key does not"),
        )
        .at(&old)
        .fix("pin the commits in a channels file, and put its hash into the key")
        .lines(lines)
        .example(new.clone()),
    )
}
