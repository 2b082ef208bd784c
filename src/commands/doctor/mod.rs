//! `doctor`: checks the prerequisites of saves and restores, and suggests fixes.

mod environment_checks;

use super::{Conclusion, cancel, or_json, resolve, run_history};
use crate::config::Doctor;
use crate::report;
use anyhow::{Result, anyhow, bail};
use rustix::process::geteuid;
use serde_json::json;
use storecache_root_helper::HelperError;
use storecache_root_helper::client::RootHelperProcess;
use storecache_root_helper::doctor::without_root;
use storecache_root_helper::protocol::{Finding, Light, Reply, Request, StoreRequest};
use storecache_runtime::RunContext;
use storecache_runtime::advice::{WithAdvice, in_one_line};
use storecache_store::Layout;

/// Prints one row for each check. Fails if any of them is red.
pub fn doctor(context: &RunContext, options: &Doctor) -> Result<Conclusion> {
    or_json(&options.output, run(context, options))
}

fn run(context: &RunContext, options: &Doctor) -> Result<Conclusion> {
    let kind = resolve::kind(&options.store)?;
    if !kind.has_database() {
        bail!(
            anyhow!("a plain store has nothing to examine")
                .hint("see `storecache verify` for snapshots")
        );
    }
    let layout = Layout::new(kind, &options.store.root)?;
    let request = resolve::store_request(context, &options.store, kind);
    let mut rows = match examine(context, &request) {
        Ok(found) => [vec![sudo_works(), store(&layout)], found].concat(),
        Err(e) => {
            let open = without_root(context, &request)?;
            [vec![sudo_fails(e), store(&layout)], open].concat()
        }
    };
    rows.extend(environment_checks::look(context, options, kind, &layout));
    rows.push(last_runs());
    let worst = rows.iter().map(|row| row.light).max().unwrap_or(Light::Green);
    if options.output.json {
        report::answer_json(&json!({ "store": kind, "worst": worst, "checks": rows }))?;
    } else {
        print_findings(&rows)?;
    }
    Ok(if worst == Light::Red { Conclusion::Failed } else { Conclusion::Done })
}

fn examine(context: &RunContext, request: &StoreRequest) -> Result<Vec<Finding>, HelperError> {
    cancel::on_signals(context)?;
    let mut root = RootHelperProcess::start_to_examine(context, request)?;
    root.survey(request)?;
    root.send(&Request::Examine, &[])?;
    match root.receive()?.0 {
        Reply::Examined(found) => Ok(found),
        _ => Err(HelperError::unexpected_reply("Examined")),
    }
}

fn sudo_works() -> Finding {
    let how = if geteuid().is_root() { "running as root" } else { "sudo works without a password" };
    Finding::green(how).named("sudo")
}

fn sudo_fails(error: HelperError) -> Finding {
    let fix = match &error {
        HelperError::NoRoot(no_root) => no_root.fix(),
        _ => None,
    };
    Finding::red(in_one_line(&error), fix).named("sudo")
}

fn store(layout: &Layout) -> Finding {
    let (store, state) = (layout.store(), layout.state());
    let found = format!("{}: {}, {}", layout.kind, store.display(), state.display());
    Finding::green(found).named("store")
}

/// Shows how the last saves and restores of this user ended.
fn last_runs() -> Finding {
    let runs = match run_history::read() {
        Ok(runs) => runs,
        Err(e) => return Finding::green(format!("none on record: {e}")).named("runs"),
    };
    let Some(last) = runs.last() else { return Finding::green("none on record").named("runs") };
    const SHOWN: usize = 3;
    let told: Vec<String> = runs.iter().rev().take(SHOWN).map(ToString::to_string).collect();
    let told = told.join("; ");
    let finding = match last.failed {
        false => Finding::green(told),
        true => Finding::yellow(told, Some(format!("storecache {} --dry-run", last.command))),
    };
    finding.named("runs")
}

fn print_findings(rows: &[Finding]) -> Result<()> {
    for Finding { check, light, found, fix } in rows {
        report::answer(format!("{:<7} {check:<10} {found}", light.name()))?;
        if let Some(fix) = fix {
            report::answer(format!("{:<18} to do: {fix}", ""))?;
        }
    }
    Ok(())
}
