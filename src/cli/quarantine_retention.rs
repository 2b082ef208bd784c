//! The flag for how long damaged entries are kept.

use crate::config::Quarantine;
use clap::Args;
use std::time::Duration;
use storecache_backend::Denylist;

/// The default of `--quarantine-keep-days`. That of the input is in `src/action/inputs.rs`.
const DEFAULT_KEEP_DAYS: u32 = 30;

#[derive(Debug, Args)]
pub struct QuarantineArgs {
    /// Days to keep snapshots that failed their checks in quarantine; 0 keeps them forever
    #[arg(
        long = "quarantine-keep-days",
        value_name = "N",
        default_value_t = DEFAULT_KEEP_DAYS,
        hide_short_help = true
    )]
    keep_days: u32,
}

impl QuarantineArgs {
    pub fn options(&self) -> Quarantine {
        let days = u64::from(self.keep_days);
        let keep = (days > 0).then(|| Duration::from_secs(days * 24 * 3600));
        Quarantine { keep, denylist: Denylist::of_user() }
    }
}
