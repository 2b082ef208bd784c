//! Flags for signatures and trust.

use super::list_usage_prune::{here, set};
use crate::action::Job;
use crate::config::{OriginTrust, Signing, Trust};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use storecache_runtime::advice::WithAdvice;
use storecache_snapshot::{BadKey, PublicKey, SecretKey};

/// Variables with secret keys, in search order: the input of a step, then a variable of storecache. Secret keys
/// are never on a command line, like tokens.
pub const SIGN_KEYS: [&str; 2] = ["INPUT_SIGN-KEY", "STORECACHE_SIGN_KEY"];

/// Maximum number of bytes to read from a file of keys.
const LONGEST: u64 = 1 << 16;

#[derive(Debug, Args)]
pub struct SignArgs {
    /// Sign with the secret keys in this file; repeatable [default: the keys in STORECACHE_SIGN_KEY]
    ///
    /// A key is NAME:BASE64, as `nix-store --generate-binary-cache-key` writes it.
    #[arg(long, value_name = "FILE")]
    sign_key: Vec<PathBuf>,
}

#[derive(Debug, Default, Args)]
pub struct TrustedKeysArgs {
    /// Trust only snapshots signed with one of these public keys: NAME:BASE64, separated by spaces
    #[arg(long, value_name = "KEYS")]
    trusted_keys: Option<String>,
}

#[derive(Debug, Args)]
pub struct TrustArgs {
    #[command(flatten)]
    keys: TrustedKeysArgs,
    /// Accepted origins of snapshots
    ///
    /// Without --trusted-keys, the origin is only what the snapshot claims.
    #[arg(long, value_enum, default_value_t = Origin::Any)]
    trust: Origin,
    /// Repository for --trust [default: GITHUB_REPOSITORY, else the repository of the remote `origin`]
    #[arg(long, value_name = "OWNER/NAME", hide_short_help = true)]
    repository: Option<String>,
    /// Default branch for --trust [default: as reported by the job, else HEAD of the remote `origin`]
    #[arg(long, value_name = "BRANCH", hide_short_help = true)]
    default_branch: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Origin {
    /// Any origin
    Any,
    /// Jobs of this repository
    SameRepository,
    /// Jobs on the default branch of this repository that only users with write access can start
    DefaultBranchOnly,
}

impl SignArgs {
    /// # Errors
    /// If a key is not valid, or is not among the trusted keys.
    pub fn signing(self, trust: Trust) -> Result<Signing> {
        let mut keys = Vec::new();
        for path in &self.sign_key {
            // The error does not contain the path: the user may have passed the key itself by mistake.
            let text = read(path).context(
                "read the file of --sign-key (to pass a key itself, set STORECACHE_SIGN_KEY \
                 instead)",
            )?;
            keys.extend(secret_keys(&text).context("--sign-key")?);
        }
        if self.sign_key.is_empty()
            && let Some((name, text)) = SIGN_KEYS.into_iter().find_map(|n| Some((n, set(n)?)))
        {
            let shown = if name == SIGN_KEYS[0] { "input sign-key" } else { name };
            keys = secret_keys(&text).context(shown)?;
        }
        let strange =
            keys.iter().find(|key| !trust.keys.is_empty() && !trust.keys.contains(&key.public()));
        if let Some(key) = strange {
            bail!(
                "--sign-key: the key {} is not in --trusted-keys, so restores that trust only those \
                 keys would skip the snapshots that it signs",
                key.name()
            );
        }
        let mut trust = trust;
        if trust.keys.is_empty() {
            trust.keys = keys.iter().map(SecretKey::public).collect();
        }
        Ok(Signing { keys, trust })
    }
}

impl TrustedKeysArgs {
    fn keys(&self) -> Result<Vec<PublicKey>> {
        let Some(text) = &self.trusted_keys else { return Ok(Vec::new()) };
        let keys = each(text, PublicKey::parse).context("--trusted-keys")?;
        if keys.is_empty() {
            bail!("--trusted-keys: it is empty; omit it to trust all snapshots");
        }
        Ok(keys)
    }

    /// Returns trust that depends only on keys, and not on the origin of a snapshot.
    pub fn trust(&self) -> Result<Trust> {
        Ok(Trust { keys: self.keys()?, origin: OriginTrust::Any })
    }
}

impl TrustArgs {
    /// # Errors
    /// If a key is not valid, or if the repository or the branch to trust is unknown.
    pub fn options(self) -> Result<Trust> {
        let keys = self.keys.keys()?;
        let origin = match self.trust {
            Origin::Any => OriginTrust::Any,
            Origin::SameRepository => {
                OriginTrust::SameRepository { repository: self.repository()? }
            }
            Origin::DefaultBranchOnly => OriginTrust::DefaultBranchOnly {
                repository: self.repository()?,
                branch: self
                    .branch()
                    .context("--trust default-branch-only: the default branch is unknown")
                    .hint("name it with --default-branch BRANCH")?,
            },
        };
        Ok(Trust { keys, origin })
    }

    fn repository(&self) -> Result<String> {
        here(self.repository.as_deref()).context("--trust")
    }

    fn branch(&self) -> Option<String> {
        let job = Job::of_environment();
        self.default_branch.clone().or_else(|| job.default_branch()).or_else(head_of_origin)
    }
}

/// Returns the default branch of the remote `origin`, as recorded when it was cloned.
fn head_of_origin() -> Option<String> {
    let asked = Command::new("git")
        .args(["symbolic-ref", "--quiet", "refs/remotes/origin/HEAD"])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(asked.stdout).ok()?;
    Some(text.trim().strip_prefix("refs/remotes/origin/")?.to_owned())
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

fn secret_keys(text: &str) -> Result<Vec<SecretKey>> {
    let keys = each(text, SecretKey::parse)?;
    if keys.is_empty() {
        bail!("no key found");
    }
    Ok(keys)
}

/// Parses each word. An error contains the number of the word and not the word, which may be a secret.
fn each<K>(text: &str, parse: fn(&str) -> Result<K, BadKey>) -> Result<Vec<K>> {
    let words = text.split_whitespace().enumerate();
    words.map(|(at, word)| parse(word).with_context(|| format!("key {}", at + 1))).collect()
}
