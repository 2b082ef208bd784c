//! Daemons that the user stops and starts with commands of their own.

use super::ProcessContext;
use crate::pulse::{Watch, wait};
use crate::undo::insist;
use anyhow::{Context, Result, bail};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a shell command, as the user who asked for it: it must not get more rights than they have.
///
/// # Errors
/// When it gives no sign of life for the time of `patience`; whatever `cancelled` returns. Then it is killed.
pub fn run(
    text: &str,
    run_as: Option<(u32, u32)>,
    patience: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).stdin(Stdio::null());
    if let Some((uid, gid)) = run_as {
        ProcessContext { uid, gid, groups: vec![gid], ..ProcessContext::default() }
            .apply(&mut command);
    }
    // The daemon that the command leaves behind must not keep our pipes open.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    // What did not begin can begin again.
    let mut child = insist(|| command.spawn()).with_context(|| format!("run {text:?}"))?;
    let watch = Watch {
        what: &format!("the command {text:?}"),
        flag: "daemon-timeout",
        clock: patience,
        cancelled,
        probe: &mut || None,
    };
    let status = wait(&mut child, watch)?;
    if !status.success() {
        bail!("the command {text:?} failed: {status}");
    }
    Ok(())
}
