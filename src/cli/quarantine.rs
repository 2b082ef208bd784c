//! The flag of the quarantine, and where entries are remembered that cannot be moved.

use super::absolute;
use crate::options::Quarantine;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
pub struct QuarantineArgs {
    /// Days for which snapshots that failed their checks are kept aside; 0 keeps them
    #[arg(long = "quarantine-keep-days", value_name = "N", default_value_t = 30)]
    keep_days: u32,
}

impl QuarantineArgs {
    pub fn options(&self) -> Quarantine {
        let days = u64::from(self.keep_days);
        let keep = (days > 0).then(|| Duration::from_secs(days * 24 * 3600));
        Quarantine { keep, memory: memory() }
    }
}

/// The file of this user: it outlives a job where the machine does.
pub fn memory() -> Option<PathBuf> {
    let below = |name: &str, below: &str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
        absolute(&Path::new(&value).join(below)).ok()
    };
    below("XDG_STATE_HOME", "storecache/quarantine.json")
        .or_else(|| below("HOME", ".local/state/storecache/quarantine.json"))
}
