//! The configuration of the cache service and of the REST API of GitHub.

use super::{NetworkTimeouts, Secret};
use std::time::Duration;

/// The cache service of a job, as the runner describes it in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHubService {
    /// `ACTIONS_RESULTS_URL`
    pub results_url: Option<String>,
    /// `ACTIONS_CACHE_URL`
    pub cache_url: Option<String>,
    /// `GITHUB_SERVER_URL`
    pub server_url: Option<String>,
    /// `ACTIONS_RUNTIME_TOKEN`
    pub token: Secret,
    /// `ACTIONS_CACHE_SERVICE_V2` is not empty.
    pub v2: bool,
    /// `ACTIONS_CACHE_MODE`
    pub mode: String,
    /// Version that the user chose; takes precedence over the environment.
    pub service: Option<CacheService>,
    pub timeouts: NetworkTimeouts,
    pub rest: RestApi,
}

/// GitHub's REST API. It can list and delete entries; the cache service can only find and write them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestApi {
    /// `GITHUB_API_URL`
    pub url: Option<String>,
    /// `GITHUB_REPOSITORY`
    pub repository: Option<String>,
    /// `GITHUB_REF`, the ref that the entries of this run belong to.
    pub reference: Option<String>,
    /// Not the token of the cache service. It needs `actions: write`.
    pub token: Option<Secret>,
    /// Minimum time between two deletions.
    pub pause: Duration,
}

/// A repository whose entries are accessed only through the REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryOptions {
    /// URL, repository and token are set.
    pub api: RestApi,
    pub timeouts: NetworkTimeouts,
}

/// Version of the cache service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheService {
    /// GHES, `act`, Forgejo, older runners of Gitea
    V1,
    /// github.com and ghe.com
    V2,
}

/// Returns owner and name, if `text` is a valid name of a repository.
pub fn repository_name(text: &str) -> Option<(&str, &str)> {
    let plain = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        name.chars().all(fits) && !name.trim_matches('.').is_empty()
    };
    text.split_once('/').filter(|(owner, name)| plain(owner) && plain(name))
}
