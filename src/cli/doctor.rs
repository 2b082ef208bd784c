//! Flags of `doctor`.

use super::{BackendArgs, DaemonArgs, OutputArgs, StoreArgs};
use crate::config::Doctor;
use anyhow::Result;
use clap::Args;
use storecache_backend::Denylist;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten, next_help_heading = "Store")]
    store: StoreArgs,
    #[command(flatten, next_help_heading = "Daemon")]
    daemon: DaemonArgs,
    #[command(flatten, next_help_heading = "Backend")]
    backends: BackendArgs,
    #[command(flatten, next_help_heading = "Output")]
    output: OutputArgs,
}

impl DoctorArgs {
    pub fn options(self) -> Result<Doctor> {
        Ok(Doctor {
            store: self.daemon.options(self.store.options()?)?,
            backends: self.backends.options()?,
            denylist: Denylist::of_user(),
            output: self.output.options(),
        })
    }
}
