//! Flags of `doctor`.

use super::{BackendArgs, OutputArgs, StoreArgs};
use crate::config::Doctor;
use anyhow::Result;
use clap::Args;
use storecache_runtime::files::DirPath;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    backends: BackendArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl DoctorArgs {
    pub fn options(self) -> Result<Doctor> {
        Ok(Doctor {
            store: self.store.options()?,
            backends: self.backends.options()?,
            memory: DirPath::state(),
            output: self.output.options(),
        })
    }
}
