//! Daemons that the user stops and starts with their own commands.

use anyhow::{Result, bail};
use std::time::Duration;
use storecache_programs::{Program, await_status};
use storecache_runtime::RunContext;
use storecache_runtime::liveness::Watch;

/// Runs a shell command as the user who asked for it, so that it does not get more rights than that user has.
///
/// # Errors
/// If the command shows no activity for the time of `timeout`; any error of `cancelled`. The command is killed
/// in both cases. Also if it fails.
pub fn run(
    run: &RunContext,
    text: &str,
    run_as: Option<(u32, u32)>,
    timeout: Duration,
    cancelled: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let watch = Watch {
        run,
        what: &format!("the command {text:?}"),
        flag: "daemon-timeout",
        timeout,
        check_canceled: cancelled,
        probe: &mut || None,
    };
    let status = await_status(Program::UserCommand { text, user: run_as }, watch)?;
    if !status.success() {
        bail!("the command {text:?} failed: {status}");
    }
    Ok(())
}
