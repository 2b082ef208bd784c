//! The unit of systemd that mounts a store read-only, such as `gnu-store.mount`
//! (guix-mirror/guix `etc/gnu-store.mount.in`).
//!
//! The service of Guix 1.5 takes this mount away before it starts and brings it back afterwards. It
//! does not look whether that works: while somebody has a file of the store open, it does not, and the
//! daemon comes up with a store that it can not write to, and answers nobody.

use super::{Daemon, systemd};
use crate::pulse;
use crate::system::{Program, output};
use anyhow::{Context, Result, bail};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// How long systemd may take to see that a mount is gone.
const NOTICE: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A mount that systemd made, and could make again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountUnit {
    pub name: String,
    pub path: String,
}

impl MountUnit {
    /// The unit that is in charge of the mount on `path`; nothing when systemd does not run, or could
    /// not mount it again.
    pub fn of(path: &str) -> Result<Option<Self>> {
        if !systemd::is_running() {
            return Ok(None);
        }
        let unit = Self::named_after(path);
        // A mount that somebody else made is a unit too, but without a file that says what to mount.
        let known = unit.is_active()? && !systemd::property(&unit.name, "FragmentPath")?.is_empty();
        Ok(known.then_some(unit))
    }

    /// The unit that would mount `path`, by systemd's rule for names.
    pub fn named_after(path: &str) -> Self {
        // As systemd-escape(1) does it for paths of letters.
        let name = format!("{}.mount", path.trim_matches('/').replace('/', "-"));
        MountUnit { name, path: path.to_owned() }
    }

    /// The same, if the daemon's own unit takes that mount away whenever it starts.
    pub fn taken_away_by(daemon: &Daemon, path: &str) -> Result<Option<Self>> {
        let Daemon::Systemd { units } = daemon else {
            return Ok(None);
        };
        let Some(mount) = Self::of(path)? else {
            return Ok(None);
        };
        for unit in units {
            if systemd::property(unit, "ExecStartPre")?.contains(&mount.name) {
                return Ok(Some(mount));
            }
        }
        Ok(None)
    }

    /// Takes the mount away, also from under whoever uses it: they keep what they have open.
    pub fn stop(&self) -> Result<()> {
        let stop = systemd::Stop::of(std::slice::from_ref(&self.name));
        let Err(busy) = stop.and_then(|it| it.now(pulse::clock(), &|| Ok(()))) else {
            return Ok(());
        };
        match unmount(self.path.as_str(), UnmountFlags::DETACH) {
            // Gone meanwhile.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(Errno::PERM) => detach_through_systemd(&self.path).context(busy)?,
            Err(e) => return Err(busy.context(e)),
        }
        // Or it would find nothing to do when it is told to mount it again.
        let deadline = Instant::now() + NOTICE;
        while self.is_active()? {
            if Instant::now() > deadline {
                bail!("systemd does not notice that {} was unmounted", self.path);
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Brings the mount back, or leaves it where it is.
    pub fn start(&self) -> Result<()> {
        systemd::start(std::slice::from_ref(&self.name), pulse::clock())
    }

    fn is_active(&self) -> Result<bool> {
        Ok(!systemd::active(&[&self.name])?.is_empty())
    }
}

/// Has systemd do what this process may not.
fn detach_through_systemd(path: &str) -> Result<()> {
    let output = output(Program::DetachMount { path }).context("run systemd-run")?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("umount --lazy {path} failed ({}): {}", output.status, error.trim());
    }
    Ok(())
}
