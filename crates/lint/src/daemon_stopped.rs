//! Daemons that stay stopped after a failed command: the shell of a step exits at the first failure. Source:
//! github/docs, workflow syntax, `jobs.<job_id>.steps[*].shell`.

use super::diagnostic::Diagnostic;
use super::shell::{self, Command};
use super::{LintContext, rules};
use storecache_workflow::cache_steps;
use storecache_workflow::workflow::{Job, Step};

pub fn check(scene: &LintContext) -> Vec<Diagnostic> {
    let jobs = scene.workflow.jobs.iter().filter(|job| cache_steps::in_job(job).next().is_some());
    jobs.flat_map(|job| check_job(scene, job)).collect()
}

fn check_job(scene: &LintContext, job: &Job) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (at, step) in job.steps.iter().enumerate() {
        let commands = shell::commands(step);
        let Some((first, unit)) =
            commands.iter().enumerate().find_map(|(at, command)| Some((at, unit(command, &STOP)?)))
        else {
            continue;
        };
        let after = &job.steps[at + 1..];
        if goes_on(step, &commands) || !after.iter().any(uses_the_store) {
            continue;
        }
        let starts = |command: &Command| {
            let unit = unit.trim_end_matches(".service").trim_end_matches(".socket");
            self::unit(command, &START).is_some_and(|it| it.starts_with(unit))
        };
        let line = commands[first].line;
        let stopped = |message| Diagnostic::error(rules::DAEMON_STOPPED, line, message).at("stop");
        if let Some(last) = commands.iter().rposition(starts) {
            if last > first + 1 {
                found.push(trap(scene, &commands[first], &commands[last], stopped));
            }
            continue;
        }
        match after.iter().find(|step| shell::commands(step).iter().any(starts)) {
            Some(step) if !runs_always(step) => found.push(
                stopped("when a step fails before the daemon is started again, it stays stopped")
                    .fix("start it in a step with `if: always()`")
                    .lines(condition(scene, step))
                    .example("if: always()"),
            ),
            Some(_) => {}
            None => found.push(
                stopped("nothing starts the daemon again, and later steps need it")
                    .fix("start it at the end of this script")
                    .example(format!("trap 'sudo systemctl start {unit}' EXIT")),
            ),
        }
    }
    found
}

fn trap(
    scene: &LintContext,
    stop: &Command,
    start: &Command,
    stopped: impl Fn(&'static str) -> Diagnostic,
) -> Diagnostic {
    let line = scene.page.line(stop.line).unwrap_or_default();
    let indent = &line[..line.len() - line.trim_start().len()];
    let trap = format!("trap '{}' EXIT", start.text.replace('\'', "'\\''"));
    stopped("when a command fails before the daemon is started again, it stays stopped")
        .fix("set a trap that starts it when the script exits")
        .lines(scene.page.before(stop.line, &[format!("{indent}{trap}")]))
        .example(trap)
}

/// Returns lines that make the condition of the step always true.
fn condition(scene: &LintContext, step: &Step) -> Option<super::Lines> {
    match step.fields.get("if") {
        None => scene.page.add(&step.node, &["if: always()"]),
        Some(it) => {
            let text = it.text.trim();
            let new = format!("always() && ({text})");
            if text.contains("${{") { None } else { scene.page.swap(&[(it.line, text, &new)]) }
        }
    }
}

const STOP: [&str; 4] = ["stop", "kill", "unload", "bootout"];
const START: [&str; 4] = ["start", "restart", "load", "bootstrap"];

/// Returns the daemon that a command stops or starts.
fn unit(command: &Command, verbs: &[&str]) -> Option<String> {
    let managers = ["systemctl", "herd", "service", "launchctl"];
    let arguments = managers.iter().find_map(|manager| command.arguments(manager))?;
    arguments.iter().any(|word| verbs.contains(word)).then_some(())?;
    let daemon = |word: &&&str| word.contains("guix-daemon") || word.contains("nix-daemon");
    arguments.iter().find(daemon).map(|word| (*word).to_owned())
}

/// Returns whether the script continues after a failed command, or sets a trap.
fn goes_on(step: &Step, commands: &[Command]) -> bool {
    let shell = step.text("shell").trim();
    let own_shell = shell.contains("{0}") && !shell.contains("-e");
    own_shell
        || commands.iter().any(|command| {
            command.text.starts_with("trap ")
                || command.has(&["set", "+e"])
                || command.text.contains("trap ")
        })
}

fn uses_the_store(step: &Step) -> bool {
    shell::commands(step).iter().any(|command| {
        command.words().iter().any(|word| {
            ["guix", "nix"].contains(word) || word.starts_with("nix-") || word.starts_with("./nix")
        })
    })
}

fn runs_always(step: &Step) -> bool {
    let text = step.text("if");
    ["always()", "cancelled()", "failure()"].iter().any(|it| text.contains(it))
}
