//! Programs that are run and waited for, with a clock that counts since their last sign of life.

use super::vitals::Vigil;
use super::{LOOK, SILENT, alive, cut, waits};
use crate::undo::insist;
use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// How long to wait for what, and how it is seen to be alive.
pub struct Watch<'a> {
    /// What is waited for, for people: `systemctl stop nix-daemon.service`.
    pub what: &'a str,
    /// Name of the flag of the clock, without dashes.
    pub flag: &'static str,
    pub clock: Duration,
    /// Fails when the run is called off.
    pub cancelled: &'a dyn Fn() -> Result<()>,
    /// Looks now and then at what the program waits for itself; a sign if that is alive. Otherwise it is the
    /// program that is looked at.
    pub probe: &'a mut dyn FnMut() -> Option<String>,
}

/// Waits for the end of a program.
///
/// # Errors
/// When it gave no sign of life for the time of the clock, or the run was called off: then it is killed.
pub fn wait(child: &mut Child, watch: Watch<'_>) -> Result<ExitStatus> {
    let Watch { what, flag, clock, cancelled, probe } = watch;
    let about = || format!("wait for {what}");
    let pid = Pid::from_child(child);
    let handle = match insist(|| pidfd_open(pid, PidfdFlags::empty())).with_context(about) {
        Ok(handle) => handle,
        Err(e) => {
            end(child);
            return Err(e);
        }
    };
    let step = Timespec { tv_sec: 0, tv_nsec: LOOK.subsec_nanos().into() };
    let mut vigil = Vigil::new(clock);
    let mut looked = Vigil::new(clock);
    let over = loop {
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&step)) {
            Ok(1..) => return child.wait().with_context(about),
            // A signal that is caught calls nothing off by itself.
            Ok(0) | Err(Errno::INTR) => {}
            Err(e) => break anyhow::Error::new(e).context(about()),
        }
        if let Err(e) = cancelled() {
            break e;
        }
        let sign = vigil.look(&[child.id()]).or_else(|| {
            // Probes are other programs, as a rule.
            let due = looked.silent() >= (clock / 4).min(Duration::from_millis(500));
            due.then(|| {
                looked.sign();
                probe()
            })?
        });
        if let Some(sign) = sign {
            vigil.sign();
            alive(format!("{what}: {sign}"));
        } else if vigil.silent() >= SILENT {
            waits(format!("{what} {}", vigil.tell()));
        }
        if vigil.is_over() {
            break cut(flag, format!("{what} {}", vigil.tell())).into();
        }
    };
    end(child);
    Err(over)
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Runs a program to its end, with all that it says.
pub fn output(command: &mut Command, watch: Watch<'_>) -> Result<Output> {
    let about = format!("run {}", watch.what);
    // Files and not pipes, which somebody would have to empty meanwhile: once the program runs, no thread
    // that cannot be started and no file that cannot be opened keeps it from its end.
    let said = || insist(nowhere).with_context(|| about.clone());
    let (stdout, stderr) = (said()?, said()?);
    let given = |file: &File| insist(|| file.try_clone()).with_context(|| about.clone());
    command.stdin(Stdio::null()).stdout(given(&stdout)?).stderr(given(&stderr)?);
    // What did not begin can begin again.
    let mut child = insist(|| command.spawn()).with_context(|| about.clone())?;
    let status = wait(&mut child, watch)?;
    let text = |mut file: File| {
        let mut text = Vec::new();
        // What is cut short is told by the exit status.
        let _ = file.rewind().and_then(|()| file.read_to_end(&mut text));
        text
    };
    Ok(Output { status, stdout: text(stdout), stderr: text(stderr) })
}

/// A file that nobody else sees.
fn nowhere() -> std::io::Result<File> {
    Ok(memfd_create("output", MemfdFlags::CLOEXEC)?.into())
}
