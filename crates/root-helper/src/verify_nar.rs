//! `--verify content`: hashes the unpacked items again and compares them with the rows that will make them valid.
//!
//! This happens in staging, while the daemon runs: an item that does not match is never placed in the store.

use super::connection::Conversation;
use super::protocol::Reply;
use anyhow::{Context, Result, bail};
use crossbeam_channel::{RecvTimeoutError, unbounded};
use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use storecache_runtime::threads;
use storecache_snapshot::{SnapshotError, Unpacked, nar_digest};
use storecache_store::{ItemName, SnapshotDatabase, parse_sha256};

/// How often the root helper reports to the user process meanwhile.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Items with the hashes of their NARs.
pub struct Hashes(Vec<(ItemName, [u8; 32])>);

impl Hashes {
    /// Reads the hashes of the `wanted` items. The largest items come first, so that no thread has to hash a large
    /// item alone at the end.
    ///
    /// # Errors
    /// If a hash is not a SHA-256.
    pub fn from_database(database: &SnapshotDatabase, wanted: &[ItemName]) -> Result<Self> {
        let wanted: HashSet<&ItemName> = wanted.iter().collect();
        let mut items = database.items()?;
        items.retain(|item| wanted.contains(&item.name));
        items.sort_by_key(|item| std::cmp::Reverse(item.nar_size));
        let hashes = items.into_iter().map(|item| match parse_sha256(&item.nar_hash) {
            Some(hash) => Ok((item.name, hash)),
            None => bail!(damaged(format!(
                "the row of {} has the hash {:?}, which is not a SHA-256",
                item.name, item.nar_hash
            ))),
        });
        Ok(Hashes(hashes.collect::<Result<_>>()?))
    }

    /// Hashes every item in `staging` with up to `threads` threads. Returns how long that took, in seconds.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`] with the name of an item whose hash differs from its row.
    pub fn check(
        &self,
        talk: &Conversation,
        staging: &OwnedFd,
        threads: usize,
        unpacked: Unpacked,
    ) -> Result<f64> {
        let started = Instant::now();
        let cancel = talk.cancel.clone();
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let go_on = |_| match stop.load(Ordering::Relaxed) {
            true => bail!("another item failed the check"),
            false => cancel.check(),
        };
        let (send, done) = unbounded();
        std::thread::scope(|scope| {
            let start = || {
                let (send, next, mut go_on) = (send.clone(), &next, &go_on);
                threads::start_in(scope, "to hash items", move || {
                    while let Some((name, hash)) = self.0.get(next.fetch_add(1, Ordering::Relaxed))
                    {
                        let checked = check_item(staging, name, hash, &mut go_on);
                        let failed = checked.is_err();
                        if send.send(checked).is_err() || failed {
                            return;
                        }
                    }
                })
            };
            threads::some(threads.clamp(1, self.0.len().max(1)), start)?;
            drop(send);
            loop {
                match done.recv_timeout(SIGN_OF_LIFE) {
                    Ok(checked) => checked.inspect_err(|_| stop.store(true, Ordering::Relaxed))?,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    Err(RecvTimeoutError::Timeout) => {
                        let Unpacked { items, bytes } = unpacked;
                        talk.reply(&Reply::Progress { items, bytes })?;
                    }
                }
            }
        })
        .map(|()| started.elapsed().as_secs_f64())
    }
}

fn check_item(
    staging: &OwnedFd,
    name: &ItemName,
    expected: &[u8; 32],
    read: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<()> {
    let found = nar_digest(staging, name.as_str(), read)
        .with_context(|| format!("hash the content of {name}"))?;
    if found.as_bytes() != expected {
        let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
        bail!(damaged(format!(
            "the content of {name} has the hash sha256:{found}, but its row has sha256:{expected}"
        )));
    }
    Ok(())
}

fn damaged(what: String) -> SnapshotError {
    SnapshotError::Damaged(what)
}
