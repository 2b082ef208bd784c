//! Stores that are cached on the host although the daemon runs in a container with its own store.

use super::diagnostic::Diagnostic;
use super::shell::{self, Command};
use super::{LintContext, rules};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Job, Step};

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for job in &scene.workflow.jobs {
        // All steps of a job with a container run in it, including those that restore and save.
        if job.node.get("container").is_some() || uses_the_host(job) {
            continue;
        }
        let Some(store) = cache_steps::in_job(job).find_map(store) else { continue };
        found.extend(service(job, store));
        found.extend(steps(scene, job, store));
    }
    found
}

/// Returns the top of the store that a step caches on the host.
fn store(step: &Step) -> Option<&'static str> {
    let ours = cache_steps::ours(step).then(|| step.text("with.store").trim());
    if ours.is_some() && !step.text("with.root").is_empty() {
        return None;
    }
    let paths = cache_steps::stores(step);
    let named = |name: &str| ours == Some(name) || paths.iter().any(|path| path.contains(name));
    if named("gnu") || named("guix") {
        Some("/gnu/store")
    } else if named("nix") || step.action().is_some_and(cache_steps::is_cache_nix) {
        Some("/nix")
    } else {
        None
    }
}

/// Returns whether the job also uses Nix or Guix on the host: then the step may be meant to cache that store.
fn uses_the_host(job: &Job) -> bool {
    job.steps.iter().any(|step| {
        let action = step.action().is_some_and(|action| {
            let action = action.to_lowercase();
            !cache_steps::of_a_store(step)
                && !action.starts_with("docker://")
                && (action.contains("nix") || action.contains("guix"))
        });
        let own = |command: &Command| {
            let words = command.words();
            let plain =
                |word: &&&str| !word.contains('=') && !word.starts_with('-') && **word != "sudo";
            let runs = words.iter().find(plain).is_some_and(|it| {
                ["guix", "nix", "guix-daemon", "nix-daemon"].contains(it) || it.starts_with("nix-")
            });
            let installs = ["guix", "nix-bin", "nix"].iter().any(|it| words.contains(it))
                && words.contains(&"install");
            let script = ["guix-install", "nix/install", "systems/nix"];
            runs || installs || script.iter().any(|it| command.text.contains(it))
        };
        action || shell::commands(step).iter().any(own)
    })
}

fn speaks_of_the_store(text: &str) -> bool {
    let text = text.to_lowercase();
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|word| word == "guix" || word == "nix" || word == "nixos")
}

fn mounts(text: &str, store: &str) -> bool {
    let top = if store == "/nix" { "/nix" } else { "/gnu" };
    text.contains(&format!("{top}:"))
        || text.contains(&format!("{top}/"))
        || text.contains(&format!("={top}"))
        || text.contains("--volumes-from")
}

fn found(line: usize, store: &str) -> Diagnostic {
    let message = format!(
        "the container has its own store: the step caches {store} of the host, which the container \
         does not see"
    );
    Diagnostic::error(rules::CONTAINER, line, message).fix(format!(
        "mount the store and its database into the container, with -v {store}:{store}"
    ))
}

fn service(job: &Job, store: &'static str) -> Vec<Diagnostic> {
    let services = job.node.get("services").map(|it| it.pairs()).unwrap_or_default();
    let mut all = Vec::new();
    for service in services {
        let image = service.value.get("image").and_then(|it| it.text()).unwrap_or_default();
        let volumes =
            service.value.get("volumes").map(|it| storecache_workflow::workflow::texts(it));
        let mounted = volumes.unwrap_or_default().iter().any(|volume| mounts(volume, store));
        let options = service.value.get("options").and_then(|it| it.text()).unwrap_or_default();
        if speaks_of_the_store(image) && !mounted && !mounts(options, store) {
            all.push(
                found(service.place.line, store)
                    .at(&service.key)
                    .example(format!("volumes:\n  - {store}:{store}\n  - {0}:{0}", state(store))),
            );
        }
    }
    all
}

fn state(store: &str) -> &'static str {
    if store == "/nix" { "/nix/var" } else { "/var/guix" }
}

fn steps(scene: &LintContext, job: &Job, store: &'static str) -> Option<Diagnostic> {
    for step in &job.steps {
        if let Some(uses) = step.fields.get("uses")
            && uses.text.starts_with("docker://")
            && speaks_of_the_store(&uses.text)
        {
            return Some(found(uses.line, store).at_first_line(uses).example(format!(
                "run: docker run -v {store}:{store} -v {0}:{0} IMAGE …",
                state(store)
            )));
        }
        for command in shell::commands(step) {
            let Some((program, arguments)) =
                ["docker", "podman"].into_iter().find_map(|it| Some((it, command.arguments(it)?)))
            else {
                continue;
            };
            let runs = arguments.iter().any(|word| *word == "run" || *word == "create");
            if !runs || !speaks_of_the_store(&command.text) || mounts(&command.text, store) {
                continue;
            }
            let verb = if arguments.contains(&"run") { "run" } else { "create" };
            let old = format!("{program} {verb}");
            let mount = format!("{old} -v {store}:{store} -v {0}:{0}", state(store));
            return Some(
                found(command.line, store)
                    .at(&old)
                    .lines(scene.page.swap(&[(command.line, &old, &mount)]))
                    .example(mount.clone()),
            );
        }
    }
    None
}
