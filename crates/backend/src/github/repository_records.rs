//! The entries of a whole repository, through REST alone: for people at a terminal, without a cache
//! service.

use super::named;
use super::rest::Rest;
use super::rest_error::Asker;
use crate::http_client::RetryingClient;
use crate::options::{RepositoryOptions, Secret};
use crate::{Deleted, Inventory, InventoryError, QuarantineList, Quarantined, Record};
use anyhow::{Context, Result};
use jiff::Timestamp;
use octocrab::models::actions::ActionsCacheItem;
use std::sync::Arc;
use storecache_runtime::RunContext;

/// A repository on GitHub.
pub struct Repository {
    wire: Arc<RetryingClient>,
    rest: Rest,
    name: String,
}

impl Repository {
    /// Prepares access to a repository.
    ///
    /// # Errors
    /// If the network cannot be set up.
    pub fn new(run: &RunContext, options: &RepositoryOptions) -> Result<Self> {
        // The token of the REST API is sent with REST requests alone.
        let wire = Arc::new(RetryingClient::new(run, "GitHub", Secret::new(""), options.timeouts)?);
        let rest = Rest::new(Arc::clone(&wire), options.api.clone(), Asker::Person);
        let name = options.api.repository.clone().unwrap_or_default();
        Ok(Repository { wire, rest, name })
    }
}

impl Inventory for Repository {
    fn describe(&self) -> String {
        format!("github, {} at {}", self.name, self.rest.describe())
    }

    fn evicts(&self) -> bool {
        true
    }

    fn records(&self) -> Result<Vec<Record>> {
        let caches = self.wire.wait(self.rest.list_all())??;
        Ok(caches.into_iter().map(record).collect())
    }

    fn default_branch(&self) -> Result<Option<String>> {
        let name = self.wire.wait(self.rest.default_branch())??;
        Ok(Some(format!("refs/heads/{name}")))
    }

    fn is_open(&self, pull: u64) -> Result<Option<bool>> {
        self.wire.wait(self.rest.is_open(pull))?
    }

    fn delete(&self, record: &Record) -> Result<Deleted, InventoryError> {
        let number =
            record.id.parse().with_context(|| format!("not an entry number: {}", record.id))?;
        self.wire.wait(self.rest.delete(number)).map_err(anyhow::Error::from)?
    }
}

impl QuarantineList for Repository {
    fn is_at(&self, place: &str) -> bool {
        place.starts_with(&format!("github:{}:", self.name))
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>> {
        Ok(Vec::new())
    }
}

fn record(cache: ActionsCacheItem) -> Record {
    let time = |seconds, nanos: u32| Timestamp::new(seconds, nanos.try_into().ok()?).ok();
    let (created, used) = (cache.created_at, cache.last_accessed_at);
    Record {
        id: cache.id.to_string(),
        name: named(&cache.key),
        key: cache.key,
        reference: cache.r#ref.filter(|name| !name.is_empty()),
        version: Some(cache.version),
        size: cache.size_in_bytes.try_into().unwrap_or_default(),
        created: time(created.timestamp(), created.timestamp_subsec_nanos()),
        used: time(used.timestamp(), used.timestamp_subsec_nanos()),
        damage: None,
    }
}
