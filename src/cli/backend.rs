//! Flags and environment variables that select the backend.

use super::absolute;
use crate::config::{BackendOptions, not_built_in};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::path::Path;
use std::time::Duration;
use storecache_backend::options::{
    Address, CacheService, GitHubService, NetworkTimeouts, OLD, ObjectStore, RestApi, Secret,
};
use storecache_runtime::advice::WithAdvice;
use storecache_runtime::files::DirPath;

#[derive(Debug, Args)]
pub struct BackendArgs {
    /// Where to keep snapshots: dir:PATH, github, s3://, gs:// or az://; repeatable [default: github in a
    /// job, else dir: with the user's cache directory]
    ///
    /// `github` is the cache service of a GitHub job. Object stores are s3://BUCKET/PREFIX, gs://BUCKET/PREFIX
    /// and az://CONTAINER/PREFIX, with credentials from the environment. Backends are searched in the given
    /// order, and a save writes to the first backend that is writable.
    #[arg(long = "backend", value_name = "BACKEND", id = "backend")]
    backends: Vec<String>,
    /// Version of the cache service [default: as reported by the runner]
    #[arg(long, value_enum, env = "STORECACHE_CACHE_SERVICE", hide_short_help = true)]
    cache_service: Option<CacheServiceVersion>,
    /// Retry a request after this many seconds without data from the cache service or object store
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3600), hide_short_help = true)]
    network_timeout: u64,
    /// Seconds to wait for the first byte of a response from the cache service or object store, while the
    /// connection is up [default: three times --network-timeout]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400), hide_short_help = true)]
    answer_timeout: Option<u64>,
}

/// The values of `--cache-service`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CacheServiceVersion {
    /// GHES, `act`, Forgejo, older runners of Gitea
    V1,
    /// github.com and ghe.com
    V2,
}

impl From<CacheServiceVersion> for CacheService {
    fn from(version: CacheServiceVersion) -> Self {
        match version {
            CacheServiceVersion::V1 => CacheService::V1,
            CacheServiceVersion::V2 => CacheService::V2,
        }
    }
}

/// Settings that all network backends share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Network {
    service: Option<CacheService>,
    /// In seconds.
    stall: u64,
    /// In seconds.
    answer: Option<u64>,
}

impl Network {
    /// Returns settings with timeouts derived from `stall`, in seconds.
    pub(super) fn stalling_at(stall: u64) -> Self {
        Network { service: None, stall, answer: None }
    }

    fn timeouts(self) -> NetworkTimeouts {
        let stall = Duration::from_secs(self.stall);
        let answer = self.answer.map_or(stall * 3, Duration::from_secs);
        NetworkTimeouts { stall, answer, pause: stall / 20, old: OLD }
    }
}

impl BackendArgs {
    /// Returns the backends in search order, at least one.
    pub(super) fn options(&self) -> Result<Vec<BackendOptions>> {
        let network = Network {
            service: self.cache_service.map(CacheService::from),
            stall: self.network_timeout,
            answer: self.answer_timeout,
        };
        if self.backends.is_empty() {
            return Ok(vec![backend(None, network)?]);
        }
        let mut all = Vec::new();
        for text in &self.backends {
            let backend = backend(Some(text), network)?;
            if all.contains(&backend) {
                bail!("--backend {text} is named twice");
            }
            all.push(backend);
        }
        Ok(all)
    }
}

/// Variables with a token for GitHub's REST API, in search order: the input of a step, then the variables
/// that other programs use too. There is no flag for it, because all users can read command lines.
pub const TOKENS: [&str; 3] = ["INPUT_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"];

/// GitHub asks clients to wait at least one second between requests that change something.
/// Source: github/docs `content/rest/using-the-rest-api/best-practices-for-using-the-rest-api.md`.
pub(super) const BETWEEN_CHANGES: Duration = Duration::from_secs(1);

/// Reads the variables in which the runner describes GitHub and its cache service to a step.
/// Source: actions/runner `src/Runner.Worker/Handlers/NodeScriptActionHandler.cs`.
fn github(network: Network) -> GitHubService {
    let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    GitHubService {
        results_url: set("ACTIONS_RESULTS_URL"),
        cache_url: set("ACTIONS_CACHE_URL"),
        server_url: set("GITHUB_SERVER_URL"),
        token: Secret::new(set("ACTIONS_RUNTIME_TOKEN").unwrap_or_default()),
        v2: set("ACTIONS_CACHE_SERVICE_V2").is_some(),
        mode: set("ACTIONS_CACHE_MODE").unwrap_or_default(),
        service: network.service,
        timeouts: network.timeouts(),
        rest: RestApi {
            url: set("GITHUB_API_URL"),
            repository: set("GITHUB_REPOSITORY"),
            reference: set("GITHUB_REF"),
            token: TOKENS.into_iter().find_map(set).map(|token| Secret::new(token.trim())),
            pause: BETWEEN_CHANGES,
        },
    }
}

/// Collects the environment variables of an object store, which the tools of its provider read too.
fn objects(address: Address, network: Network) -> ObjectStore {
    let prefix = address.service.variables();
    let ours = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| name.starts_with(prefix))?.to_owned();
        let value = value.into_string().ok().filter(|value| !value.trim().is_empty())?;
        Some((name, Secret::new(value)))
    });
    let mut settings: Vec<_> = ours.collect();
    settings.sort_by(|a, b| a.0.cmp(&b.0));
    ObjectStore { address, settings, timeouts: network.timeouts() }
}

/// Parses the name of a backend. Returns the default backend if `text` is `None`.
///
/// # Errors
/// Also if this program was built without the backend.
pub(super) fn backend(text: Option<&str>, network: Network) -> Result<BackendOptions> {
    let backend = parse(text, network)?;
    match &backend {
        BackendOptions::GitHub(_) if !cfg!(feature = "github") => Err(not_built_in("github")),
        BackendOptions::Objects(store) if !cfg!(feature = "object-store") => {
            Err(not_built_in(store.address.service.scheme()))
        }
        BackendOptions::Directory { .. }
        | BackendOptions::GitHub(_)
        | BackendOptions::Objects(_) => Ok(backend),
    }
}

fn parse(text: Option<&str>, network: Network) -> Result<BackendOptions> {
    let github = github(network);
    let named = github.results_url.is_some() || github.cache_url.is_some();
    match text {
        None if named && !github.token.reveal().is_empty() => {
            Ok(BackendOptions::GitHub(Box::new(github)))
        }
        Some("github") if named => Ok(BackendOptions::GitHub(Box::new(github))),
        Some("github") => bail!(
            "--backend github: ACTIONS_RESULTS_URL and ACTIONS_CACHE_URL are not set; the runner \
             sets them only for steps with `uses:`"
        ),
        None => {
            let path = DirPath::cache()
                .context("no home directory is known")
                .hint("name a directory with --backend dir:PATH")?;
            Ok(BackendOptions::Directory { path, sync: true })
        }
        Some(text) if let Some(address) = Address::parse(text)? => {
            Ok(BackendOptions::Objects(Box::new(objects(address, network))))
        }
        Some(text) => match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => {
                let path = absolute(Path::new(path))?.into();
                Ok(BackendOptions::Directory { path, sync: true })
            }
            _ => bail!(
                "unknown backend {text:?}; expected dir:PATH, github, s3://BUCKET/PREFIX, \
                 gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
            ),
        },
    }
}
