//! Checks of what a save or restore needs besides the store: the backend with its quarantine, and the clock.

use super::super::{quarantine, resolve};
use crate::config::{BackendOptions, Doctor};
use anyhow::Result;
use jiff::Timestamp;
use std::sync::Arc;
use storecache_backend::{Backend, Health};
use storecache_root_helper::protocol::{Finding, Light};
use storecache_runtime::RunContext;
use storecache_runtime::advice::in_one_line;
use storecache_runtime::memory::Traffic;
use storecache_store::{Layout, StoreKind};

/// Tolerated difference between clocks in seconds. It covers the latency of a response and harmless deviations.
const APART: i64 = 60;
/// From this difference on, certificates and tokens are not valid, in seconds.
const FAR_APART: i64 = 24 * 3600;

/// Returns rows for the backends, the quarantine and the clock.
pub fn look(
    context: &RunContext,
    options: &Doctor,
    kind: StoreKind,
    layout: &Layout,
) -> Vec<Finding> {
    let places = options.backends.iter();
    let opened: Vec<_> = places
        .map(|place| (place, resolve::one_backend(context, place, kind, Traffic::default())))
        .collect();
    let mut ahead = None;
    let mut rows = Vec::new();
    for (place, opened) in &opened {
        let (row, theirs) = backend(place, opened);
        ahead = ahead.or(theirs.map(|theirs| (theirs, server(place))));
        rows.push(row.named("backend"));
    }
    if rows.iter().any(|row| row.light != Light::Red) {
        // A run continues with another backend and only prints a warning.
        let silent = rows.iter_mut().filter(|row| row.light == Light::Red);
        silent.for_each(|row| row.light = Light::Yellow);
    }
    rows.push(kept_aside(options, &opened).named("quarantine"));
    rows.push(clock(layout, ahead).named("clock"));
    rows
}

type Opened<'a> = (&'a BackendOptions, Result<Arc<dyn Backend>>);

/// Checks for snapshots that failed their verification.
fn kept_aside(options: &Doctor, opened: &[Opened<'_>]) -> Finding {
    let mut kept = Vec::new();
    for (place, backend) in opened {
        let listed = match backend {
            Ok(backend) => quarantine::list(backend.as_ref(), options.denylist.as_ref()),
            Err(e) => return Finding::yellow(in_one_line(e.as_ref()), mend(place)),
        };
        match listed {
            Ok(listed) => kept.extend(listed),
            Err(e) => return Finding::yellow(in_one_line(e.as_ref()), mend(place)),
        }
    }
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

/// Checks a backend. Also returns how far the clock of this machine is ahead of the backend's clock.
fn backend(options: &BackendOptions, opened: &Result<Arc<dyn Backend>>) -> (Finding, Option<i64>) {
    let backend = match opened {
        Ok(backend) => backend,
        Err(e) => return (Finding::red(in_one_line(e.as_ref()), None), None),
    };
    let place = backend.describe();
    match backend.examine() {
        Ok(Health { found, unwritable: None, ahead }) => {
            (Finding::green(format!("{place}: {found}")), ahead)
        }
        Ok(Health { found, unwritable: Some(why), ahead }) => {
            // A restore still works.
            let found = format!("{place}: {found}, but nothing can be saved: {why:#}");
            (Finding::yellow(found, mend(options)), ahead)
        }
        Err(e) => {
            (Finding::red(format!("{place}: {}", in_one_line(e.as_ref())), mend(options)), None)
        }
    }
}

/// A command that shows or fixes connection problems with a backend.
fn mend(options: &BackendOptions) -> Option<String> {
    match options {
        BackendOptions::Objects(store) => {
            Some(format!("curl --head --silent --show-error {}/", store.server()))
        }
        BackendOptions::Directory { path, .. } => Some(format!("ls -ld {}", path.path().display())),
        BackendOptions::GitHub(service) => {
            let url = service.results_url.as_ref().or(service.cache_url.as_ref())?;
            let host = storecache_backend::options::host(url);
            Some(format!("curl --head --silent --show-error https://{host}/"))
        }
    }
}

/// The server whose clock a backend reports.
fn server(options: &BackendOptions) -> &'static str {
    match options {
        BackendOptions::Objects(_) => "the object store",
        BackendOptions::Directory { .. } | BackendOptions::GitHub(_) => "the cache service",
    }
}

fn clock(layout: &Layout, ahead: Option<(i64, &str)>) -> Finding {
    let now = Timestamp::now();
    let shown = now.strftime("%Y-%m-%dT%H:%M:%SZ");
    if let Some((seconds, server)) = ahead.filter(|(seconds, _)| seconds.abs() > APART) {
        let theirs = now.as_second().saturating_sub(seconds);
        let word = if seconds > 0 { "ahead of" } else { "behind" };
        let found = format!("{shown}, which is {} s {word} {server}", seconds.abs());
        let fix = Some(format!("date --set=@{theirs}"));
        return match seconds.abs() > FAR_APART {
            true => Finding::red(format!("{found}: tokens and certificates are not valid"), fix),
            false => Finding::yellow(found, fix),
        };
    }
    match written(layout) {
        Ok(Some(written)) if written.as_second() - now.as_second() > APART => {
            let found = format!("{shown}, but the database of the store was written at {written}");
            Finding::yellow(found, Some("timedatectl set-ntp true".into()))
        }
        _ => Finding::green(match ahead {
            Some((_, server)) => format!("{shown}, in agreement with {server}"),
            None => shown.to_string(),
        }),
    }
}

/// When the database of a store was last written.
fn written(layout: &Layout) -> Result<Option<Timestamp>> {
    let database = layout.database();
    if !database.exists() {
        return Ok(None);
    }
    Ok(Some(database.metadata()?.modified()?.try_into()?))
}
