//! The systemd unit that mounts a store read-only, such as `gnu-store.mount` (guix-mirror/guix
//! `etc/gnu-store.mount.in`).
//!
//! The service of Guix 1.5 removes this mount before it starts and restores it afterwards. It does not check
//! whether the removal works: it fails while any process has a file of the store open. Then the daemon starts
//! with a store that it cannot write to, and does not answer.

use super::{Daemon, systemd};
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use storecache_programs::{Program, output};
use storecache_runtime::RunContext;

/// How long systemd may take to notice that a mount is gone.
const NOTICE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A mount that systemd made, and could make again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountUnit {
    pub name: String,
    pub path: String,
}

impl MountUnit {
    /// Returns the unit of the mount on `path`; `None` if systemd does not run, or could not mount it again.
    pub fn find(path: &str) -> Result<Option<Self>> {
        if !systemd::is_running() {
            return Ok(None);
        }
        let unit = Self::named_after(path);
        // A mount that another program made is a unit too, but does not have a file with its definition.
        let known = unit.is_active()? && !systemd::property(&unit.name, "FragmentPath")?.is_empty();
        Ok(known.then_some(unit))
    }

    /// Returns the unit that would mount `path`, by systemd's rule for names.
    pub fn named_after(path: &str) -> Self {
        // As systemd-escape(1) does it for paths of letters.
        let name = format!("{}.mount", path.trim_matches('/').replace('/', "-"));
        MountUnit { name, path: path.to_owned() }
    }

    /// Returns the unit of the mount on `path` if the daemon's own unit removes this mount whenever it starts.
    pub fn taken_away_by(daemon: &Daemon, path: &str) -> Result<Option<Self>> {
        if daemon.units().is_empty() {
            return Ok(None);
        }
        let Some(mount) = Self::find(path)? else {
            return Ok(None);
        };
        for unit in daemon.units() {
            if systemd::property(unit, "ExecStartPre")?.contains(&mount.name) {
                return Ok(Some(mount));
            }
        }
        Ok(None)
    }

    /// Removes the mount, even while processes use it: their open files stay usable.
    pub fn stop(&self, run: &RunContext) -> Result<()> {
        let stop = systemd::Stop::new(std::slice::from_ref(&self.name));
        let Err(busy) = stop.and_then(|it| it.now(run, run.stall_timeout(), &|| Ok(()))) else {
            return Ok(());
        };
        match unmount(self.path.as_str(), UnmountFlags::DETACH) {
            // The mount is gone already.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(Errno::PERM) => detach_through_systemd(&self.path).context(busy)?,
            Err(e) => return Err(busy.context(e)),
        }
        // Otherwise systemd would have nothing to do when it is asked to mount it again.
        let deadline = Instant::now() + NOTICE;
        while self.is_active()? {
            if Instant::now() > deadline {
                bail!("systemd still reports {} as mounted after an unmount", self.path);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Restores the mount, if it is not there.
    pub fn start(&self, run: &RunContext) -> Result<()> {
        systemd::start(run, std::slice::from_ref(&self.name), run.stall_timeout())
    }

    fn is_active(&self) -> Result<bool> {
        Ok(!systemd::active(&[&self.name])?.is_empty())
    }
}

/// Makes systemd unmount `path`, which this process is not permitted to do.
fn detach_through_systemd(path: &str) -> Result<()> {
    let output = output(Program::DetachMount { path }).context("run systemd-run")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("`umount --lazy {path}` failed ({}): {}", output.status, error.trim());
    }
    Ok(())
}
