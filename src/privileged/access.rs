//! How a restore gets to write to a store that may be mounted read-only.

use crate::daemon::MountUnit;
use crate::store::{Layout, StaysReadOnly, aside, clean_stale, make_writable};
use anyhow::Result;
use std::path::{Path, PathBuf};

pub enum Access {
    /// From now on, perhaps through a mount namespace of our own.
    Now,
    /// Only while the unit that mounts it read-only is stopped, together with the daemon.
    WhileStopped { unit: MountUnit },
}

impl Access {
    /// Makes the store writable for this thread. Where that is refused, finds the unit whose mount
    /// is in the way.
    ///
    /// # Errors
    /// When the store must stay read-only. Nothing was changed then.
    pub fn to(layout: &Layout) -> Result<Self> {
        let refused = match make_writable(&layout.store()) {
            Ok(_) => return Ok(Access::Now),
            Err(e) if e.is::<StaysReadOnly>() => e,
            Err(e) => return Err(e),
        };
        // Units of this machine say nothing about a store below another root.
        if layout.root != Path::new("/") {
            return Err(refused);
        }
        match MountUnit::of(layout.store_dir)? {
            Some(unit) => Ok(Access::WhileStopped { unit }),
            None => Err(refused),
        }
    }

    /// Where staging can be made now.
    pub fn staging_parent(&self, layout: &Layout) -> PathBuf {
        match self {
            Access::Now => layout.store(),
            Access::WhileStopped { .. } => aside(layout)[0].clone(),
        }
    }

    /// Removes what dead runs left, as far as that is possible now.
    pub fn clean_stale(&self, layout: &Layout) -> Result<()> {
        if let Access::Now = self {
            clean_stale(&layout.store())?;
        }
        aside(layout).iter().try_for_each(|place| clean_stale(place))
    }

    /// The unit that has to be stopped for the commit.
    pub fn mount_unit(&self) -> Option<&MountUnit> {
        match self {
            Access::Now => None,
            Access::WhileStopped { unit } => Some(unit),
        }
    }
}
