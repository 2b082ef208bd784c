//! Surveys a store: the facts for the key and for the head of a snapshot.

use super::protocol::StoreRequest;
use super::store_context::StoreTarget;
use anyhow::Result;
use rustix::fs::{Mode, OFlags, open};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use storecache_daemon::nix_version;
use storecache_programs::{Program, output};
use storecache_runtime::RunContext;
use storecache_runtime::untrusted_text::Untrusted;
use storecache_snapshot::StoreFacts;
use storecache_store::{Owner, StoreKind, system};

/// How long the daemon may take to report its version.
const DAEMON_PATIENCE: Duration = Duration::from_secs(5);

/// Returns the facts about a store. The version is determined only on request, because that starts another program.
pub fn survey(run: &RunContext, request: &StoreRequest, with_version: bool) -> Result<StoreFacts> {
    let empty = StoreFacts {
        kind: request.kind.name().into(),
        store_dir: Untrusted::default(),
        state_dir: Untrusted::default(),
        system: system().into(),
        version: Untrusted::default(),
        schema: None,
        migrations: Vec::new(),
        owner: Untrusted::default(),
    };
    if !request.kind.has_database() {
        return Ok(empty);
    }
    let target = StoreTarget::new(run, request)?;
    let layout = &target.layout;
    let facts = StoreFacts {
        store_dir: layout.store_dir.into(),
        state_dir: layout.state_dir.into(),
        version: with_version.then(|| version(&target)).flatten().unwrap_or_default().into(),
        schema: layout.live_schema()?,
        owner: Owner::find(layout)?.model().into(),
        ..empty
    };
    Ok(facts)
}

/// Asks the package manager for its version: its program, or else the daemon.
fn version(target: &StoreTarget) -> Option<String> {
    let layout = &target.layout;
    let asked = layout.kind.program().and_then(|program| program_version(program, &layout.root));
    match layout.kind {
        StoreKind::Nix => asked.or_else(|| nix_version(&layout.socket(), DAEMON_PATIENCE).ok()),
        StoreKind::Guix | StoreKind::Plain => asked,
    }
}

/// Runs the program below `root`, as an account without any rights.
fn program_version(name: &'static str, root: &Path) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = Arc::new(open(root, flags, Mode::empty()).ok()?);
    let output = output(Program::PackageManager { name, root }).ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    // `nix-store (Nix) 2.8.0`, `guix (GNU Guix) 1.5.0`
    text.lines().next()?.split_whitespace().next_back().map(str::to_owned)
}
