//! Claims on names of entries: a run may write an entry after it has created the small object that claims its name.
//!
//! Completing a multipart upload replaces any existing object, and not every service offers a condition against that.
//! All services offer one for an object that is written in a single request. So a writer first creates
//! `.claims/NAME`, on the condition that it does not exist, with a random token that only this writer knows. Then it
//! checks that no entry has the name. Before it completes the upload, it checks that the claim still contains its
//! token. It deletes the claim after the entry has appeared.
//!
//! Sources: S3 `PutObject` with `If-None-Match: *` (docs.aws.amazon.com, "Conditional writes"), Google
//! `x-goog-if-generation-match: 0` (cloud.google.com, "Request preconditions"), Azure `If-None-Match: *` (Microsoft
//! Learn, "Specifying conditional headers for Blob service operations").

use super::client::ObjectClient;
use super::error::ObjectError;
use object_store::path::Path;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Prefix of claims, below the base.
pub const CLAIMS: &str = ".claims/";

/// Age at which a claim is abandoned: its writer is no longer alive.
pub const LEFT: Duration = Duration::from_secs(7 * 24 * 3600);

pub struct WriteLock {
    path: Path,
    word: String,
}

impl WriteLock {
    /// Claims the name of an entry whose file is named `file` and whose path is `entry`. Returns `None` if another
    /// run holds the claim, or if the entry exists.
    pub async fn take(
        hub: &ObjectClient,
        file: &str,
        entry: &Path,
    ) -> Result<Option<WriteLock>, ObjectError> {
        let path = hub.path(&format!("{CLAIMS}{file}"))?;
        let claim = WriteLock { path, word: word() };
        let mut failures = 0;
        loop {
            let trouble = match hub.put_new(&claim.path, &claim.word).await {
                Ok(()) => break,
                Err(
                    trouble @ (ObjectError::Denied(_)
                    | ObjectError::Permanent(_)
                    | ObjectError::Canceled(_)),
                ) => {
                    return Err(trouble);
                }
                Err(trouble) => trouble,
            };
            // An earlier try may have created the claim although its answer was lost.
            match hub.get(&claim.path).await {
                Ok(bytes) if bytes == claim.word.as_bytes() => break,
                Ok(_) => return Ok(None),
                Err(ObjectError::Missing) => {}
                Err(other) => return Err(other),
            }
            // The claim existed and is gone now, or the service refused two requests that came at the same time.
            let again = match trouble {
                ObjectError::Exists | ObjectError::Changed => ObjectError::Temporary {
                    what: "other runs keep locking and unlocking the name".into(),
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

    /// Checks that this run still holds the claim.
    ///
    /// # Errors
    /// If the claim is gone or has another owner: after a sweep, another run may be writing the entry.
    pub async fn holds(&self, hub: &ObjectClient) -> Result<(), ObjectError> {
        match hub.get(&self.path).await {
            Ok(bytes) if bytes == self.word.as_bytes() => Ok(()),
            Ok(_) | Err(ObjectError::Missing) => Err(ObjectError::Permanent(
                "the lock on its name is gone, so another run may be writing it; save again".into(),
            )),
            Err(trouble) => Err(trouble),
        }
    }

    /// Deletes the claim. If that is not permitted, the claim stays and does no harm, because no name is used twice.
    pub async fn release(&self, hub: &ObjectClient) {
        let _ = hub.delete(&self.path).await;
    }
}

/// Returns 32 random hex digits.
fn word() -> String {
    let random = || RandomState::new().hash_one(std::process::id());
    format!("{:016x}{:016x}", random(), random())
}
