//! The cache service: choice of its version, and its requests.
//!
//! Sources: actions/toolkit `packages/cache/src/internal`, and observed responses of servers.

use super::retryable_failures::{Answer, USED_UP};
use super::{cache_service_v1, cache_service_v2};
use crate::http_client::RetryingClient;
use crate::options::{CacheService, GitHubService, Secret, host};
use crate::retry_limits::REQUEST_TRIES;
use crate::{BackendError, EntryName, Refused};
use anyhow::{Result, anyhow, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storecache_runtime::advice::WithAdvice;
use tracing::debug;

/// Maximum number of keys in one lookup.
pub const KEYS: usize = 10;

/// Maximum length of a key, in UTF-16 units.
const KEY_LENGTH: usize = 512;

pub struct Service {
    pub wire: Arc<RetryingClient>,
    v1: Option<String>,
    v2: Option<String>,
    speaks_v2: AtomicBool,
    /// Layout of the entries, 64 hex digits. Entries of other layouts are never seen.
    pub version: String,
}

/// An entry that a lookup found.
pub struct Match {
    pub key: String,
    pub url: Secret,
}

/// Where to upload a new entry.
#[derive(Debug)]
pub enum Upload {
    /// A signed URL of a block blob.
    Blob(Secret),
    /// The number of a cache in the service itself.
    Cache(i64),
}

/// Result of a request to reserve a name.
pub enum Reserved {
    Here(Upload),
    /// The name is taken, maybe by an earlier try of this run whose answer was lost.
    Taken {
        repeated: bool,
    },
}

impl Service {
    /// Chooses the version: the one that the user names, otherwise 2 if the runner or the host indicates it,
    /// otherwise 1. The official client uses version 1 for every host other than GitHub's; Gitea's runner supports 2.
    pub fn new(options: &GitHubService, wire: Arc<RetryingClient>, version: &str) -> Result<Self> {
        let base = |url: &Option<String>| {
            url.as_deref().filter(|url| !url.is_empty()).map(|url| url.trim_end_matches('/').into())
        };
        let results: Option<String> = base(&options.results_url);
        let cache: Option<String> = base(&options.cache_url);
        let host = options.server_url.as_deref().map(host).unwrap_or_default();
        let github = host == "github.com" || host.ends_with(".ghe.com");
        let (v1, v2) = match options.service {
            Some(CacheService::V1) => (cache.or(results), None),
            Some(CacheService::V2) => (None, results),
            None if options.v2 || github || cache.is_none() => (cache, results),
            None => (cache, None),
        };
        if v1.is_none() && v2.is_none() {
            bail!(
                "no cache service here: ACTIONS_RESULTS_URL and ACTIONS_CACHE_URL are not set; only \
                 steps with `uses:` have them"
            );
        }
        let speaks_v2 = AtomicBool::new(v2.is_some());
        Ok(Service { wire, v1, v2, speaks_v2, version: version.to_owned() })
    }

    /// Returns version and host, for messages.
    pub fn describe(&self) -> String {
        let (version, url) = match self.v2() {
            Some(url) => ("v2", url),
            None => ("v1", self.v1.as_deref().unwrap_or_default()),
        };
        format!("github, {version} at {}", host(url))
    }

    fn v2(&self) -> Option<&str> {
        self.v2.as_deref().filter(|_| self.speaks_v2.load(Ordering::Relaxed))
    }

    fn v1(&self) -> Result<&str> {
        self.v1.as_deref().ok_or_else(|| {
            anyhow!("no cache service of version 2 answers at the URL set by the runner")
        })
    }

    /// Returns whether a response shows that the server does not support version 2, so that version 1 can be tried.
    fn falls_back(&self, answer: &Answer) -> bool {
        let no_route = match answer.json["code"].as_str() {
            Some(code) => code == "bad_route",
            None => matches!(answer.status, 404 | 405 | 501),
        };
        if no_route && self.v1.is_some() {
            debug!(status = answer.status, "use version 1 of the cache service from now on");
            self.speaks_v2.store(false, Ordering::Relaxed);
        }
        no_route && self.v1.is_some()
    }

    /// Returns the newest entry of the first key that has an entry. Each key but the first is also a prefix; servers
    /// disagree whether the first key is.
    pub async fn lookup(&self, keys: &[String]) -> Result<Option<Match>, BackendError> {
        for key in keys {
            check(key)?;
        }
        if let Some(base) = self.v2() {
            let answer = cache_service_v2::lookup(&self.wire, base, &self.version, keys).await?;
            if !self.falls_back(&answer) {
                return cache_service_v2::found(answer);
            }
        }
        cache_service_v1::lookup(&self.wire, self.v1()?, &self.version, keys).await
    }

    pub async fn reserve(&self, name: &EntryName) -> Result<Reserved, BackendError> {
        let key = name.to_string();
        check(&key)?;
        if let Some(base) = self.v2() {
            let answer = cache_service_v2::reserve(&self.wire, base, &self.version, &key).await?;
            if !self.falls_back(&answer) {
                return cache_service_v2::reserved(answer);
            }
        }
        cache_service_v1::reserve(&self.wire, self.v1()?, &self.version, &key).await
    }

    /// Returns the URL for a piece of an [`Upload::Cache`].
    pub fn piece(&self, id: i64) -> Result<String> {
        Ok(cache_service_v1::address(self.v1()?, id))
    }

    /// Turns the uploaded bytes into an entry. A server may have done so although it reports a failure: its answer to
    /// an earlier try was lost, or it had not seen the blob yet. So this checks with a lookup after a failure.
    pub async fn finalize(&self, name: &EntryName, upload: &Upload, size: u64) -> Result<()> {
        let key = name.to_string();
        let mut failures = 0;
        loop {
            let done = match upload {
                Upload::Blob(_) => {
                    let base = self.v2.as_deref().unwrap_or_default();
                    cache_service_v2::finalize(&self.wire, base, &self.version, &key, size).await
                }
                Upload::Cache(id) => {
                    cache_service_v1::finalize(&self.wire, self.v1()?, *id, size).await
                }
            };
            let problem = match done {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            let final_one = match problem {
                Unfinished::Refused(refused) => return Err(refused.into()),
                Unfinished::NotYet { .. } => failures + 1 == REQUEST_TRIES,
                Unfinished::Failed(_) => true,
            };
            // The lookup fails if the run has permission to write but not to read.
            if let Ok(Some(found)) = self.lookup(&[key.clone(), key.clone()]).await
                && super::same(&found.key, &key)
            {
                return Ok(());
            }
            if final_one {
                return Err(problem.into());
            }
            failures += 1;
            let pause = self.wire.pause(failures, None);
            debug!(
                attempt = failures + 1,
                wait_ms = pause.as_millis(),
                "retry to finish the entry"
            );
            tokio::time::sleep(pause).await;
        }
    }
}

/// Why the service did not turn the uploaded bytes into an entry.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The service has not seen the upload yet, which may take some seconds.
    #[error("finish the entry: the cache service did not accept it (HTTP {status}): {said}")]
    NotYet { status: u16, said: String },
    #[error(transparent)]
    Failed(#[from] anyhow::Error),
}

impl Unfinished {
    pub fn not_yet(answer: &Answer) -> Self {
        Unfinished::NotYet { status: answer.status, said: said(answer).to_owned() }
    }
}

fn said(answer: &Answer) -> &str {
    if answer.said.is_empty() { "no further details" } else { &answer.said }
}

/// Checks the limits of the service for keys, as the official client does.
fn check(key: &str) -> Result<()> {
    let length = key.encode_utf16().count();
    if length > KEY_LENGTH {
        bail!(
            anyhow!(
                "the key {key:?} is {length} characters long with its generation, and the \
                 cache service accepts at most {KEY_LENGTH}"
            )
            .hint("give a shorter --key")
        );
    }
    if key.contains(',') {
        bail!("the key {key:?} has a comma, which the cache service does not accept");
    }
    Ok(())
}

/// Returns the refusal in an answer, if it is a [`Refused`] and not a failure.
pub fn refusal(said: &str) -> Option<Refused> {
    let after = |start: &str| said.strip_prefix(start).map(|rest| rest.trim().to_owned());
    if let Some(why) = after("cache write denied:") {
        return Some(Refused::Write(why));
    }
    after("cache read denied:").map(Refused::Read)
}

/// Creates the error for an answer that has no special meaning.
pub fn unexpected(what: &str, answer: &Answer) -> anyhow::Error {
    let status = answer.status;
    let code = answer.json["code"].as_str().unwrap_or_default();
    let hint = match (status, code) {
        (401, _) => "; the token of the job is not valid or has expired",
        _ if answer.said.contains(USED_UP) || code == "resource_exhausted" => {
            "; the storage of the repository is used up"
        }
        _ => "",
    };
    let said = said(answer);
    anyhow!("{what}: the cache service refused (HTTP {status}): {said}{hint}")
}
