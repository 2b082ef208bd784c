//! GitHub's REST API, through octocrab: the list of cache entries and their deletion, for which the cache service has
//! no calls, and the branches and pull requests of the repository.
//!
//! The API has a token of its own, which is sent to it alone, and knows entries of all refs, keys and layouts.
//! Source: github/rest-api-description `descriptions/api.github.com`, and github/docs
//! `content/rest/using-the-rest-api/rate-limits-for-the-rest-api.md`.

use super::rest_error::{Asker, Call, told};
use super::transport::HttpTransport;
use crate::http_client::RetryingClient;
use crate::options::{RestApi, host, repository_name};
use crate::retry_limits::LIST_READINGS;
use crate::{Deleted, InventoryError};
use anyhow::{Context, Result, anyhow, bail};
use http::{HeaderValue, StatusCode};
use octocrab::models::actions::ActionsCacheItem;
use octocrab::{Error, Octocrab};
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use storecache_runtime::advice::WithAdvice;

/// Entries on one page; GitHub returns no more.
const PAGE: u8 = 100;

/// Maximum number of pages to read. A repository has room for fewer entries.
const PAGES: u32 = 200;

const LIST: Call = Call { what: "list the cache entries", right: "actions: read" };
const DELETE: Call = Call { what: "delete a cache entry", right: "actions: write" };
const BRANCH: Call = Call { what: "read the default branch", right: "metadata: read" };
const PULL: Call = Call { what: "read a pull request", right: "pull-requests: read" };

pub struct Rest {
    wire: Arc<RetryingClient>,
    options: RestApi,
    asker: Asker,
    /// When the last deletion was answered.
    deleted: Mutex<Option<Instant>>,
}

/// Data that every call needs.
struct Known<'a> {
    crab: Octocrab,
    owner: &'a str,
    repository: &'a str,
}

impl Rest {
    pub fn new(wire: Arc<RetryingClient>, options: RestApi, asker: Asker) -> Self {
        Rest { wire, options, asker, deleted: Mutex::default() }
    }

    /// Returns `owner/name`, if that is known.
    pub fn repository(&self) -> Option<&str> {
        self.options.repository.as_deref()
    }

    /// Returns the host, for messages.
    pub fn describe(&self) -> &str {
        host(self.options.url.as_deref().unwrap_or_default())
    }

    /// Returns every entry of this run's ref whose key begins with `prefix`, of any layout.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ActionsCacheItem>> {
        let unset =
            "GITHUB_REF is not set (GitHub sets it in jobs), so its REST API cannot be used";
        let reference = self.options.reference.as_deref().context(unset)?;
        let mut caches = self.read(Some((prefix, reference))).await?;
        caches.retain(|cache| cache.r#ref.as_deref() == Some(reference));
        Ok(caches)
    }

    /// Returns every entry of the repository.
    pub async fn list_all(&self) -> Result<Vec<ActionsCacheItem>> {
        self.read(None).await
    }

    /// Reads all pages. Entries move between pages while others are written and deleted, so an entry may appear twice
    /// or not at all. If there are fewer entries than the list states, it is read again.
    async fn read(&self, only: Option<(&str, &str)>) -> Result<Vec<ActionsCacheItem>> {
        let Known { crab, owner, repository } = self.known()?;
        let actions = crab.actions();
        let mut caches = HashMap::new();
        for _ in 0..LIST_READINGS {
            let (mut shown, mut total) = (0, 0);
            for page in 1..=PAGES {
                let mut list = actions.list_repo_caches(owner, repository);
                if let Some((prefix, reference)) = only {
                    list = list.key(prefix).r#ref(reference);
                }
                let list = list.sort("created_at").direction("desc").per_page(PAGE).page(page);
                let got = list.send().await.map_err(|e| self.told(&LIST, e))?;
                let count = got.actions_caches.len();
                shown += i64::try_from(count)?;
                total = got.total_count;
                caches.extend(got.actions_caches.into_iter().map(|cache| (cache.id, cache)));
                // Some servers return smaller pages than requested.
                if count == 0 || (count < PAGE.into() && shown >= total) {
                    break;
                }
            }
            if i64::try_from(caches.len())? >= total {
                break;
            }
        }
        Ok(caches.into_values().collect())
    }

    /// Deletes an entry by its number, after the minimum pause since the last deletion.
    pub async fn delete(&self, number: i64) -> Result<Deleted, InventoryError> {
        let Known { crab, owner, repository } = self.known()?;
        let last = *self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            tokio::time::sleep(self.options.pause.saturating_sub(last.elapsed())).await;
        }
        let deleted = crab.actions().delete_repo_cache(owner, repository, number).await;
        *self.deleted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        match deleted {
            Err(Error::GitHub { source, .. }) if source.status_code == StatusCode::NOT_FOUND => {
                Ok(Deleted::Before)
            }
            Err(e) => Err(self.told(&DELETE, e)),
            Ok(()) => Ok(Deleted::Now),
        }
    }

    /// Returns the name of the default branch.
    pub async fn default_branch(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Repository {
            default_branch: String,
        }
        let Known { crab, owner, repository } = self.known()?;
        let asked = crab.get(format!("/repos/{owner}/{repository}"), None::<&()>).await;
        let Repository { default_branch } = asked.map_err(|e| self.told(&BRANCH, e))?;
        Ok(default_branch)
    }

    /// Returns whether a pull request is open, or `None` if this token cannot see one with this number.
    pub async fn is_open(&self, number: u64) -> Result<Option<bool>> {
        #[derive(Deserialize)]
        struct Pull {
            state: String,
        }
        let Known { crab, owner, repository } = self.known()?;
        let route = format!("/repos/{owner}/{repository}/pulls/{number}");
        match crab.get(route, None::<&()>).await {
            Ok(Pull { state }) => Ok(Some(state != "closed")),
            Err(Error::GitHub { source, .. }) if source.status_code == StatusCode::NOT_FOUND => {
                Ok(None)
            }
            Err(e) => Err(self.told(&PULL, e).into()),
        }
    }

    /// Returns the data that every call needs.
    ///
    /// # Errors
    /// If any of it is missing.
    fn known(&self) -> Result<Known<'_>> {
        let RestApi { url, repository, token, .. } = &self.options;
        let token = token
            .as_ref()
            .context("there is no token for GitHub's REST API")
            .hint("set the input token, or GITHUB_TOKEN in the environment")?;
        let unset = |name| {
            format!("{name} is not set (GitHub sets it in jobs), so its REST API cannot be used")
        };
        let url = url.as_deref().with_context(|| unset("GITHUB_API_URL"))?;
        let repository = repository.as_deref().with_context(|| unset("GITHUB_REPOSITORY"))?;
        let Some((owner, name)) = repository_name(repository) else {
            bail!("GITHUB_REPOSITORY is not a valid repository name: {repository:?}");
        };
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|_| anyhow!("the token for GitHub's REST API has invalid characters"))?;
        bearer.set_sensitive(true);
        let base = url.trim_end_matches('/').to_owned();
        let line = HttpTransport { wire: Arc::clone(&self.wire), base, bearer };
        Ok(Known { crab: line.octocrab(), owner, repository: name })
    }

    fn told(&self, call: &Call, error: Error) -> InventoryError {
        told(call, error, self.asker, &self.options)
    }
}
