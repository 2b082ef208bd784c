//! Daemons that the user stops and starts with commands of their own.

use crate::pulse::Watch;
use crate::system::{Program, await_status};
use anyhow::{Result, bail};
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
    let watch = Watch {
        what: &format!("the command {text:?}"),
        flag: "daemon-timeout",
        clock: patience,
        cancelled,
        probe: &mut || None,
    };
    let status = await_status(Program::UserCommand { text, user: run_as }, watch)?;
    if !status.success() {
        bail!("the command {text:?} failed: {status}");
    }
    Ok(())
}
