//! `doctor`: whether what a save or restore relies on is as it should be, and what to do where not.

use super::{Ending, cancel, lookup, or_json};
use crate::daemon::await_ready;
use crate::options::Doctor;
use crate::privileged::client::RootHalf;
use crate::privileged::protocol::{Finding, Light, Reply, Request};
use crate::report;
use crate::store::{Layout, StoreKind};
use anyhow::{Result, bail};
use serde_json::json;
use std::time::Duration;

/// How long a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints one row for each check. Fails when any is red.
pub fn doctor(options: &Doctor) -> Result<Ending> {
    or_json(&options.output, run(options))
}

fn run(options: &Doctor) -> Result<Ending> {
    let kind = lookup::kind(&options.store)?;
    if kind == StoreKind::Plain {
        bail!("a plain store has nothing to examine; see `storecache verify` for snapshots");
    }
    let layout = Layout::of(kind, &options.store.root)?;
    let place = format!("{kind}: {}, {}", layout.store().display(), layout.state().display());
    let mut rows = vec![row("store", Light::Green, place, None)];
    match examine(options, kind) {
        Ok(found) => {
            rows.push(row("root", Light::Green, "the root half runs".into(), None));
            rows.extend(found);
        }
        Err(e) => {
            rows.push(row("root", Light::Red, format!("{e:#}"), None));
            let all_else = "schema, database, owners, locks, space, daemon and mount need root";
            rows.push(row("skipped", Light::Yellow, all_else.into(), None));
            rows.push(socket(&layout));
        }
    }
    let worst = rows.iter().map(|row| row.light).max().unwrap_or(Light::Green);
    if options.output.json {
        report::answer(json!({ "store": kind, "worst": worst, "checks": rows }))?;
    } else {
        tell(&rows)?;
    }
    Ok(if worst == Light::Red { Ending::Failed } else { Ending::Done })
}

fn examine(options: &Doctor, kind: StoreKind) -> Result<Vec<Finding>> {
    let store = lookup::store_request(&options.store, kind);
    let mut root = RootHalf::start(&cancel::on_signals()?, &store)?;
    root.survey(&store)?;
    root.send(&Request::Examine, &[])?;
    match root.receive()?.0 {
        Reply::Examined(found) => Ok(found),
        _ => bail!("the root half did not say what it found"),
    }
}

/// Whether the daemon answers, which anybody may ask.
fn socket(layout: &Layout) -> Finding {
    match await_ready(&layout.socket(), &layout.probe(), PATIENCE) {
        Ok(_) => row("socket", Light::Green, "the daemon answers".into(), None),
        Err(e) => row("socket", Light::Red, format!("{e:#}"), Some("start the daemon".into())),
    }
}

fn row(check: &str, light: Light, found: String, fix: Option<String>) -> Finding {
    Finding { check: check.into(), light, found, fix }
}

fn tell(rows: &[Finding]) -> Result<()> {
    for Finding { check, light, found, fix } in rows {
        report::answer(format!("{:<7} {check:<9} {found}", light.name()))?;
        if let Some(fix) = fix {
            report::answer(format!("{:<17} to do: {fix}", ""))?;
        }
    }
    Ok(())
}
