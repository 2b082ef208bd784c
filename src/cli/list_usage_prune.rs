//! Flags of `list`, `usage` and `prune`, which are about a whole backend and not about a store or a key.

use super::{BETWEEN_CHANGES, Network, OutputArgs, backend, size};
use crate::config::{
    BackendOptions, InventoryOptions, List, Order, Prune, PruneReason, Pruning, Usage, not_built_in,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use storecache_backend::Denylist;
use storecache_backend::options::{
    NetworkTimeouts, OLD, RepositoryOptions, RestApi, Secret, host, repository_name,
};
use storecache_runtime::advice::WithAdvice;

/// The API of github.com.
const GITHUB: &str = "https://api.github.com";

/// Variables with a token for the API, in search order.
const TOKENS: [&str; 2] = ["GITHUB_TOKEN", "GH_TOKEN"];

#[derive(Debug, Args)]
struct InventoryArgs {
    /// Backend with the entries: dir:PATH, github, or an object store, as for save
    ///
    /// `github` is the REST API of GitHub, with the token in GITHUB_TOKEN or GH_TOKEN. It is the default with
    /// --repository, or if GITHUB_REPOSITORY and a token are set; otherwise the default is dir: with the user's
    /// cache directory.
    #[arg(long, value_name = "BACKEND")]
    backend: Option<String>,
    /// Repository on GitHub [default: GITHUB_REPOSITORY, else the repository of the remote `origin`]
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Option<String>,
    /// Retry a request after this many seconds without data from GitHub or the object store
    #[arg(long, value_name = "SECONDS", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=3600))]
    network_timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct LimitArgs {
    /// Limit on the total size of all entries, as in 500M or 10G
    #[arg(long, value_name = "SIZE", default_value = "10G", value_parser = size)]
    limit: u64,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    inventory: InventoryArgs,
    #[command(flatten)]
    limit: LimitArgs,
    /// Only keys with this prefix
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only entries of this ref: a branch, or a full ref such as refs/pull/7/merge
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Sort order
    #[arg(long, value_enum, default_value_t = Order::Age)]
    sort: Order,
    /// Only entries that storecache saved
    #[arg(long)]
    ours: bool,
}

#[derive(Debug, Args)]
pub struct UsageArgs {
    #[command(flatten)]
    inventory: InventoryArgs,
    #[command(flatten)]
    limit: LimitArgs,
    /// Predict the next eviction if this much more is saved, and the cost of keeping everything
    #[arg(long = "and", value_name = "SIZE", value_parser = size)]
    more: Option<u64>,
    /// Also write a self-contained HTML page with tables
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct PruneArgs {
    #[command(flatten)]
    inventory: InventoryArgs,
    /// Delete the entries instead of only listing them
    #[arg(long)]
    apply: bool,
    /// Generations to keep of each key and ref
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::MIN)]
    keep: NonZeroUsize,
    /// Also delete entries that were not used for this many days
    #[arg(long, value_name = "DAYS")]
    unused_for: Option<u32>,
    /// Only keys with this prefix, including keys that other tools saved
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only entries that can be deleted for this reason; repeatable
    #[arg(long, value_enum, value_name = "REASON")]
    only: Vec<PruneReason>,
}

impl ListArgs {
    pub fn options(self) -> Result<List> {
        let whole = |name: String| match name.starts_with("refs/") {
            true => name,
            false => format!("refs/heads/{name}"),
        };
        Ok(List {
            inventory: self.inventory.options()?,
            output: self.inventory.output.options(),
            limit: self.limit.limit,
            prefix: self.prefix,
            reference: self.reference.map(whole),
            order: self.sort,
            ours: self.ours,
            denylist: Denylist::of_user(),
        })
    }
}

impl UsageArgs {
    pub fn options(self) -> Result<Usage> {
        Ok(Usage {
            inventory: self.inventory.options()?,
            output: self.inventory.output.options(),
            limit: self.limit.limit,
            more: self.more,
            html: self.html,
        })
    }
}

impl PruneArgs {
    pub fn options(self) -> Result<Prune> {
        if self.only.contains(&PruneReason::Unused) && self.unused_for.is_none() {
            bail!("--only unused needs --unused-for DAYS");
        }
        Ok(Prune {
            inventory: self.inventory.options()?,
            output: self.inventory.output.options(),
            pruning: Pruning {
                keep: self.keep,
                unused_for: self.unused_for,
                prefix: self.prefix,
                only: self.only,
            },
            apply: self.apply,
        })
    }
}

impl InventoryArgs {
    fn options(&self) -> Result<InventoryOptions> {
        let in_job = set("GITHUB_REPOSITORY").is_some() && token().is_some();
        match self.backend.as_deref() {
            Some("github") => self.repository(),
            None if self.repository.is_some() || in_job => self.repository(),
            Some(_) if self.repository.is_some() => {
                bail!("--repository is for --backend github")
            }
            other => match backend(other, Network::stalling_at(self.network_timeout))? {
                BackendOptions::Directory { path, .. } => Ok(InventoryOptions::Directory { path }),
                BackendOptions::Objects(store) => Ok(InventoryOptions::Objects(store)),
                BackendOptions::GitHub(_) => self.repository(),
            },
        }
    }

    fn repository(&self) -> Result<InventoryOptions> {
        if !cfg!(feature = "github") {
            return Err(not_built_in("github"));
        }
        let url = api();
        let repository = here(self.repository.as_deref())?;
        let token = token().context("there is no token for GitHub's REST API").hint(
            "set GITHUB_TOKEN or GH_TOKEN to a token with `actions: read`, or `actions: write` to \
             delete entries",
        )?;
        let stall = Duration::from_secs(self.network_timeout);
        Ok(InventoryOptions::Repository(Box::new(RepositoryOptions {
            api: RestApi {
                url: Some(url),
                repository: Some(repository),
                reference: None,
                token: Some(token),
                pause: BETWEEN_CHANGES,
            },
            timeouts: NetworkTimeouts { stall, answer: stall, pause: stall / 20, old: OLD },
        })))
    }
}

fn api() -> String {
    set("GITHUB_API_URL").unwrap_or_else(|| GITHUB.to_owned())
}

/// Returns the given repository, else the repository of the job, else the repository that the work tree in
/// the working directory was cloned from.
///
/// # Errors
/// If no repository is found, or its name is not valid.
pub(super) fn here(given: Option<&str>) -> Result<String> {
    let named = match given {
        Some(name) => Some((name.to_owned(), "--repository")),
        None => set("GITHUB_REPOSITORY").map(|name| (name, "GITHUB_REPOSITORY")),
    };
    match named {
        Some((name, _)) if repository_name(&name).is_some() => Ok(name),
        Some((name, source)) => {
            bail!("{source}: not a valid repository name: {name:?}; expected OWNER/NAME")
        }
        None => of_origin(&api())
            .context("determine the repository (--repository OWNER/NAME is not set)"),
    }
}

pub(super) fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn token() -> Option<Secret> {
    TOKENS.into_iter().find_map(set).map(|token| Secret::new(token.trim()))
}

/// Returns the repository that the work tree in the working directory was cloned from.
///
/// # Errors
/// If no repository is found, or if it is on another server than the API. Errors do not contain its URL,
/// which may contain a password.
fn of_origin(api: &str) -> Result<String> {
    let asked = Command::new("git")
        .args(["remote", "get-url", "origin"])
        .stdin(Stdio::null())
        .output()
        .context("run git to find the remote `origin`")?;
    let url = String::from_utf8_lossy(&asked.stdout);
    let url = url.trim();
    if !asked.status.success() || url.is_empty() {
        bail!("this directory is not in a git work tree with a remote `origin`");
    }
    let Some((server, name)) = parse_remote(url) else {
        bail!("the remote `origin` is not on a server with an API");
    };
    if !is_api_of(api, server) {
        bail!("the remote `origin` is on {server}, but the API is on {}", host(api));
    }
    Ok(name)
}

/// Returns server and `owner/name` of the URL of a remote: `https://server/owner/name.git`,
/// `ssh://git@server/owner/name` or `git@server:owner/name.git`.
fn parse_remote(url: &str) -> Option<(&str, String)> {
    let (server, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        // A slash before the colon means a local path.
        None => url.split_once(':').filter(|(server, _)| !server.contains('/'))?,
    };
    let server = server.rsplit('@').next()?.split(':').next()?;
    let path = path.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    repository_name(path).filter(|_| !server.is_empty())?;
    Some((server, path.to_owned()))
}

/// Returns whether an API belongs to a server: its host is the server, or the server with `api.` in front.
/// `ssh.github.com` is the server for SSH through firewalls.
/// Source: github/docs `content/rest/using-the-rest-api/getting-started-with-the-rest-api.md`.
fn is_api_of(api: &str, server: &str) -> bool {
    let api = host(api).split(':').next().unwrap_or_default();
    let server = server.strip_prefix("ssh.").unwrap_or(server);
    let server = server.strip_prefix("www.").unwrap_or(server);
    api.eq_ignore_ascii_case(server) || api.eq_ignore_ascii_case(&format!("api.{server}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_remote_accepts_every_form_of_a_github_url() {
        let expected = Some(("github.com", "some-owner/some.repo".to_owned()));
        for url in [
            "https://github.com/some-owner/some.repo.git",
            "https://github.com/some-owner/some.repo/",
            "https://someone:password@github.com/some-owner/some.repo",
            "http://github.com:8080/some-owner/some.repo.git",
            "ssh://git@github.com/some-owner/some.repo.git",
            "ssh://git@github.com:22/some-owner/some.repo",
            "git@github.com:some-owner/some.repo.git",
            "git@github.com:/some-owner/some.repo",
            "github.com:some-owner/some.repo",
        ] {
            assert_eq!(parse_remote(url), expected, "{url}");
        }
        for url in [
            "/srv/git/some.repo",
            "../some.repo",
            "./a:b/c",
            "file:///srv/some.repo",
            "https://github.com/alone",
            "https://gitlab.com/group/below/repo",
            "https://github.com",
            "git@github.com:..",
            "",
        ] {
            assert_eq!(parse_remote(url), None, "{url}");
        }
    }

    #[test]
    fn api_url_is_matched_with_its_server() {
        for (api, server) in [
            (GITHUB, "github.com"),
            (GITHUB, "GitHub.com"),
            (GITHUB, "ssh.github.com"),
            ("https://ghes.example.org/api/v3", "ghes.example.org"),
            ("https://api.some.ghe.com", "some.ghe.com"),
            ("http://127.0.0.1:80/api/v3", "127.0.0.1"),
        ] {
            assert!(is_api_of(api, server), "{api} {server}");
        }
        assert!(!is_api_of(GITHUB, "gitlab.com"));
        assert!(!is_api_of(GITHUB, "example-github.com"));
    }
}
