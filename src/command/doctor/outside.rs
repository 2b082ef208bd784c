//! What a save or restore needs beside the store: the backend with what it keeps aside, and the clock.

use super::super::{lookup, quarantine};
use crate::backend::Health;
use crate::budget::Traffic;
use crate::options::{BackendOptions, Doctor};
use crate::privileged::protocol::Finding;
use crate::report::Quarantined;
use crate::store::{Layout, StoreKind};
use anyhow::Result;
use jiff::Timestamp;

/// Seconds that clocks may differ by: what an answer is on its way, and what nobody minds.
const APART: i64 = 60;
/// From here on certificates and tokens are not valid, in seconds.
const FAR_APART: i64 = 24 * 3600;

/// Rows for the backend, what is kept aside there, and the clock.
pub fn look(options: &Doctor, kind: StoreKind, layout: &Layout) -> Vec<Finding> {
    let (backend, ahead) = backend(options, kind);
    vec![
        backend.named("backend"),
        kept_aside(options, kind).named("quarantine"),
        clock(layout, ahead).named("clock"),
    ]
}

/// Snapshots that failed their checks.
fn kept_aside(options: &Doctor, kind: StoreKind) -> Finding {
    let list = || -> Result<Vec<Quarantined>> {
        let backend = lookup::backend(&options.backend, kind, Traffic::default())?;
        quarantine::list(backend.as_ref(), options.memory.as_deref())
    };
    let kept = match list() {
        Ok(kept) => kept,
        Err(e) => return Finding::yellow(format!("{e:#}"), mend(&options.backend)),
    };
    if kept.is_empty() {
        return Finding::green("no snapshot is known to be damaged");
    }
    let told = kept.iter().map(|it| format!("{} ({})", it.entry, it.reason));
    let told = told.collect::<Vec<_>>().join("; ");
    let file = kept.iter().find_map(|it| it.file.as_ref());
    let fix = match file {
        Some(file) => format!("storecache verify {}", file.display()),
        None => "storecache list".into(),
    };
    Finding::yellow(told, Some(fix))
}

/// The backend, and how far ahead of it this machine's clock is.
fn backend(options: &Doctor, kind: StoreKind) -> (Finding, Option<i64>) {
    let opened = lookup::backend(&options.backend, kind, Traffic::default());
    let backend = match opened {
        Ok(backend) => backend,
        Err(e) => return (Finding::red(format!("{e:#}"), None), None),
    };
    let place = backend.describe();
    match backend.examine() {
        Ok(Health { found, unwritable: None, ahead }) => {
            (Finding::green(format!("{place}: {found}")), ahead)
        }
        Ok(Health { found, unwritable: Some(why), ahead }) => {
            // A restore works all the same.
            let found = format!("{place}: {found}, but nothing can be saved: {why:#}");
            (Finding::yellow(found, mend(&options.backend)), ahead)
        }
        Err(e) => (Finding::red(format!("{place}: {e:#}"), mend(&options.backend)), None),
    }
}

/// A command that shows or mends what stands between here and a backend.
fn mend(options: &BackendOptions) -> Option<String> {
    match options {
        BackendOptions::Directory { path, .. } => Some(format!("ls -ld {}", path.display())),
        BackendOptions::GitHub(service) => {
            let url = service.results_url.as_ref().or(service.cache_url.as_ref())?;
            let host = crate::backend::github::host(url);
            Some(format!("curl --head --silent --show-error https://{host}/"))
        }
    }
}

fn clock(layout: &Layout, ahead: Option<i64>) -> Finding {
    let now = Timestamp::now();
    let shown = now.strftime("%Y-%m-%dT%H:%M:%SZ");
    if let Some(seconds) = ahead.filter(|seconds| seconds.abs() > APART) {
        let theirs = now.as_second().saturating_sub(seconds);
        let word = if seconds > 0 { "ahead of" } else { "behind" };
        let found = format!("{shown}, which is {} s {word} the cache service", seconds.abs());
        let fix = Some(format!("date --set=@{theirs}"));
        return match seconds.abs() > FAR_APART {
            true => Finding::red(format!("{found}: no token and no certificate is valid"), fix),
            false => Finding::yellow(found, fix),
        };
    }
    match written(layout) {
        Ok(Some(written)) if written.as_second() - now.as_second() > APART => {
            let found = format!("{shown}, but the database of the store is of {written}");
            Finding::yellow(found, Some("timedatectl set-ntp true".into()))
        }
        _ => Finding::green(match ahead {
            Some(_) => format!("{shown}, as the cache service has it"),
            None => shown.to_string(),
        }),
    }
}

/// When the database of a store was written last.
fn written(layout: &Layout) -> Result<Option<Timestamp>> {
    let database = layout.database();
    if !database.exists() {
        return Ok(None);
    }
    Ok(Some(database.metadata()?.modified()?.try_into()?))
}
