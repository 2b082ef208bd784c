//! Write access to a store that may be mounted read-only.

use anyhow::Result;
use std::path::{Path, PathBuf};
use storecache_daemon::MountUnit;
use storecache_runtime::RunContext;
use storecache_store::{Layout, StaysReadOnly, aside, clean_up, make_writable};
use tracing::debug;

pub enum Access {
    /// The store can be written from now on, perhaps through a mount namespace of this thread.
    Now,
    /// The store can be written only while the unit that mounts it read-only is stopped, together with the daemon.
    WhileStopped { unit: MountUnit },
}

impl Access {
    /// Makes the store writable for this thread. If that is refused, finds the unit of the read-only mount.
    ///
    /// # Errors
    /// If the store must stay read-only. Nothing was changed then.
    pub fn to(layout: &Layout) -> Result<Self> {
        let refused = match make_writable(&layout.store()) {
            Ok(remounted) => {
                debug!(?remounted, "the store is writable");
                return Ok(Access::Now);
            }
            Err(e) if e.is::<StaysReadOnly>() => e,
            Err(e) => return Err(e),
        };
        // Units of this machine do not describe the mounts of a store below another root.
        if layout.root != Path::new("/") {
            return Err(refused);
        }
        match MountUnit::find(layout.store_dir)? {
            Some(unit) => {
                debug!(unit = unit.name, "the store is writable while its mount unit is stopped");
                Ok(Access::WhileStopped { unit })
            }
            None => Err(refused),
        }
    }

    /// Returns the directory in which staging can be created now.
    pub fn staging_parent(&self, layout: &Layout) -> PathBuf {
        match self {
            Access::Now => layout.store(),
            Access::WhileStopped { .. } => aside(layout)[0].clone(),
        }
    }

    /// Undoes and removes what killed runs left behind, as far as that is possible now.
    pub fn clean_up(&self, run: &RunContext, layout: &Layout) -> Result<()> {
        if let Access::Now = self {
            clean_up(run, layout, &layout.store())?;
        }
        aside(layout).iter().try_for_each(|place| clean_up(run, layout, place))
    }

    /// Returns the unit that has to be stopped for the commit.
    pub fn mount_unit(&self) -> Option<&MountUnit> {
        match self {
            Access::Now => None,
            Access::WhileStopped { unit } => Some(unit),
        }
    }
}
