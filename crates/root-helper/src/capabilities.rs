//! Which capabilities the root helper keeps, and in which stages it gives up the others.
//!
//! After it has read two short messages and started its guardian, which needs every capability that a daemon may
//! need, the root helper gives up all capabilities that no request needs. It gives up more before it reads a
//! snapshot. Its children cannot gain more capabilities, because `no_new_privs` is set.

use anyhow::{Context, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// A stage of a conversation, with its own set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Until the kind of request is known; also for examining a store and its daemon.
    Asked,
    /// Reading items.
    Packing,
    /// Reading a snapshot, writing items, and making them valid.
    Restoring,
    /// The thread that receives messages.
    Listening,
}

impl Stage {
    /// All stages.
    pub const ALL: [Stage; 4] = [Stage::Asked, Stage::Packing, Stage::Restoring, Stage::Listening];

    /// Returns the capabilities that the stage keeps, each with its purpose.
    pub fn keeps(self) -> &'static [(CapabilitySet, &'static str)] {
        match self {
            Stage::Asked => &[
                (CapabilitySet::CHOWN, "lock files belong to the owner of the store"),
                (CapabilitySet::DAC_OVERRIDE, "a store may belong to another user than root"),
                (CapabilitySet::DAC_READ_SEARCH, "packing keeps it"),
                (CapabilitySet::FOWNER, "packing and restoring keep it"),
                (CapabilitySet::FSETID, "restoring keeps it"),
                (
                    CapabilitySet::SETGID,
                    "`herd` runs as the owner of a shepherd, and the package manager is asked for its version as `nobody`",
                ),
                (CapabilitySet::SETUID, "the same"),
                (CapabilitySet::SYS_CHROOT, "that package manager is looked up below `--root`"),
                (
                    CapabilitySet::SYS_PTRACE,
                    "`/proc` is searched for the daemon and for holders of locks",
                ),
                (
                    CapabilitySet::SYS_ADMIN,
                    "a store that is mounted read-only is written through a mount namespace",
                ),
            ],
            Stage::Packing => &[
                (CapabilitySet::DAC_READ_SEARCH, "items that only their owner may read"),
                (
                    CapabilitySet::FOWNER,
                    "`O_NOATIME`: reading an item does not change its access time",
                ),
            ],
            Stage::Restoring => &[
                (CapabilitySet::CHOWN, "items belong to the owner of the store"),
                (
                    CapabilitySet::DAC_OVERRIDE,
                    "the owner of the store may be another user than root",
                ),
                (CapabilitySet::FOWNER, "modes and times of files that already have their owner"),
                (CapabilitySet::FSETID, "setgid directories of a plain store"),
                (CapabilitySet::SYS_PTRACE, "`/proc` is searched for holders of locks"),
            ],
            Stage::Listening => &[],
        }
    }

    /// Gives up all other capabilities, permanently, in this thread and the threads that it starts.
    pub fn enter(self) -> Result<()> {
        let keeps = self.keeps().iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
        let has = capabilities(None).context("read the capabilities")?;
        set_no_new_privs(true).context("set no_new_privs")?;
        clear_ambient_capability_set().context("drop ambient capabilities")?;
        if has.effective.contains(CapabilitySet::SETPCAP) {
            // This also drops capabilities that this program does not know.
            for number in 0..u64::BITS {
                let one = CapabilitySet::from_bits_retain(1 << number);
                // The kernel refuses numbers of capabilities that it does not know.
                let _ = (!keeps.contains(one)).then(|| remove_capability_from_bounding_set(one));
            }
        }
        let kept = has.permitted & keeps;
        let (effective, permitted, inheritable) = (kept, kept, CapabilitySet::empty());
        set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
            .context("drop capabilities")
    }
}
