//! The flags of `doctor`.

use super::{CacheService, OutputArgs, StoreArgs, backend};
use crate::options::Doctor;
use anyhow::Result;
use clap::Args;

#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Backend to look at: dir:PATH, or github, which is the cache service of a GitHub job
    /// [default: github in a job, else dir: and the user's cache directory]
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// Version of the cache service [default: as the runner says]
    #[arg(long, value_enum, env = "STORECACHE_CACHE_SERVICE")]
    cache_service: Option<CacheService>,
    /// Seconds without a byte from the cache service after which a request is made again
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    network_timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl DoctorArgs {
    pub fn options(self) -> Result<Doctor> {
        Ok(Doctor {
            store: self.store.options()?,
            backend: backend(self.backend.as_deref(), self.cache_service, self.network_timeout)?,
            memory: super::quarantine::memory(),
            output: self.output.options(),
        })
    }
}
