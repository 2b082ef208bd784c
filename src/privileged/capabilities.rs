//! What the root half may do of all that root may, and from when on.
//!
//! It has read two short messages and started its guardian, which needs whatever a daemon may need, when
//! it gives up all that no order takes. What it then reads of a snapshot, it reads with less still.
//! Children of it cannot get more than it has: `no_new_privs` is set.

use anyhow::{Context, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// A part of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Until it is clear what is to be done; for looking at a store and its daemon.
    Asked,
    /// Reading items.
    Packing,
    /// Reading a snapshot, writing items, and making them valid.
    Restoring,
    /// The thread that receives messages.
    Listening,
}

impl Stage {
    /// All of them.
    pub const ALL: [Stage; 4] = [Stage::Asked, Stage::Packing, Stage::Restoring, Stage::Listening];

    /// What is kept, and what for.
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

    /// Gives up all else, in this thread and those that it starts. There is no way back.
    pub fn enter(self) -> Result<()> {
        let keeps = self.keeps().iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
        let has = capabilities(None).context("ask for capabilities")?;
        set_no_new_privs(true).context("renounce new privileges")?;
        clear_ambient_capability_set().context("give up ambient capabilities")?;
        if has.effective.contains(CapabilitySet::SETPCAP) {
            // What there is that this program does not know of goes too.
            for number in 0..u64::BITS {
                let one = CapabilitySet::from_bits_retain(1 << number);
                // Those that the kernel does not know of are refused.
                let _ = (!keeps.contains(one)).then(|| remove_capability_from_bounding_set(one));
            }
        }
        let kept = has.permitted & keeps;
        let (effective, permitted, inheritable) = (kept, kept, CapabilitySet::empty());
        set_capabilities(None, CapabilitySets { effective, permitted, inheritable })
            .context("give up capabilities")
    }
}
