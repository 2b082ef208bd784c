//! Who may write an entry: whoever has made the small object that stands for its name.
//!
//! A multipart upload replaces what has its name when it is completed, and not every service has a condition
//! against that. All of them have one for an object that is written in a single request. So a writer first
//! makes `.claims/NAME`, on the condition that there is none, with a random word in it that only it knows; then
//! it looks that there is no entry of the name; and it looks once more for its word before it completes. The
//! claim goes after the entry has appeared.
//!
//! Sources: S3 `PutObject` with `If-None-Match: *` (docs.aws.amazon.com, "Conditional writes"), Google
//! `x-goog-if-generation-match: 0` (cloud.google.com, "Request preconditions"), Azure `If-None-Match: *` (Microsoft
//! Learn, "Specifying conditional headers for Blob service operations").

use super::hub::Hub;
use super::trouble::Trouble;
use anyhow::Result;
use object_store::path::Path;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Where claims are, below the base.
pub const CLAIMS: &str = ".claims/";

/// After so long whoever made one is dead.
pub const LEFT: Duration = Duration::from_secs(7 * 24 * 3600);

pub struct Claim {
    path: Path,
    word: String,
}

impl Claim {
    /// Claims the file of an entry that is at `entry`; `None` where somebody else has, or it is there already.
    pub async fn take(hub: &Hub, file: &str, entry: &Path) -> Result<Option<Claim>, Trouble> {
        let path = hub.path(&format!("{CLAIMS}{file}"));
        let path = path.map_err(|e| Trouble::Lasting(format!("{e:#}")))?;
        let claim = Claim { path, word: word() };
        let mut failures = 0;
        loop {
            let trouble = match hub.put_new(&claim.path, &claim.word).await {
                Ok(()) => break,
                Err(trouble @ (Trouble::Denied(_) | Trouble::Lasting(_))) => return Err(trouble),
                Err(trouble) => trouble,
            };
            // It may be ours, with an answer that got lost.
            match hub.get(&claim.path).await {
                Ok(bytes) if bytes == claim.word.as_bytes() => break,
                Ok(_) => return Ok(None),
                Err(Trouble::Missing) => {}
                Err(other) => return Err(other),
            }
            // It was there and is gone, or two came at the same time and none was served.
            let again = match trouble {
                Trouble::Exists | Trouble::Changed => Trouble::Passing {
                    what: "somebody else claims and unclaims the name".into(),
                    wait: None,
                },
                other => other,
            };
            hub.pause(again, &mut failures).await?;
        }
        match hub.head(entry).await {
            Ok(None) => Ok(Some(claim)),
            there_or_not => {
                claim.release(hub).await;
                there_or_not.map(|_| None)
            }
        }
    }

    /// # Errors
    /// When it is not ours any more: it was swept away, and somebody else may write by now.
    pub async fn holds(&self, hub: &Hub) -> Result<(), Trouble> {
        match hub.get(&self.path).await {
            Ok(bytes) if bytes == self.word.as_bytes() => Ok(()),
            Ok(_) | Err(Trouble::Missing) => Err(Trouble::Lasting(
                "the claim on its name is gone: somebody else may write it; save anew".into(),
            )),
            Err(trouble) => Err(trouble),
        }
    }

    /// Where that is not allowed it stays, and is in nobody's way: no name is used twice.
    pub async fn release(&self, hub: &Hub) {
        let _ = hub.delete(&self.path).await;
    }
}

/// 32 hex digits that nobody else has.
fn word() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
