//! Flags for the time limits of a run: in total, and without activity.

use crate::config::Clocks;
use clap::Args;
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct RunLimitArgs {
    /// Cancel and undo the run after this many seconds; 0 means no limit [default: 0]
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        hide_default_value = true,
        hide_short_help = true
    )]
    deadline: u64,
    /// Abort after this many seconds without activity in the root helper or on a disk
    ///
    /// CPU use, I/O and disk waits count as activity.
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(1..=86_400), hide_short_help = true)]
    stall_timeout: u64,
}

impl RunLimitArgs {
    pub(super) fn clocks(&self) -> Clocks {
        let deadline = Some(self.deadline).filter(|&seconds| seconds != 0);
        Clocks {
            deadline: deadline.map(Duration::from_secs),
            stall: Duration::from_secs(self.stall_timeout),
        }
    }
}
