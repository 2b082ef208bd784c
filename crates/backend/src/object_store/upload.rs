//! Upload of an entry in parts of bounded size, several at a time. Only those parts are in memory.

use super::client::ObjectClient;
use super::error::ObjectError;
use super::write_lock::WriteLock;
use crate::http_client::Block;
use crate::{Entry, EntryName, EntryWriter, Written};
use anyhow::{Context, Result, bail};
use object_store::PutPayload;
use object_store::multipart::PartId;
use object_store::path::Path;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use storecache_runtime::memory::Traffic;
use tokio::task::JoinSet;

/// Minimum size of every part but the last (S3 and Google), in bytes.
const LEAST: usize = 5 << 20;

/// Maximum number of parts in one upload (S3 and Google); at 8 MiB that is 78 GiB.
const PARTS: usize = 10_000;

pub struct Writer {
    hub: Arc<ObjectClient>,
    name: EntryName,
    path: Path,
    /// `None` when there is nothing left to clean up.
    claim: Option<WriteLock>,
    /// Id of the upload, after it has begun.
    upload: Option<Arc<String>>,
    part: Block,
    /// Number of parts on their way at a time. One more is being filled.
    parallel: usize,
    sent: JoinSet<Result<(usize, PartId), ObjectError>>,
    /// The ids that the service gave to the parts, for those that have arrived.
    parts: Vec<Option<PartId>>,
    /// Bytes of the parts sent so far.
    size: u64,
}

impl Writer {
    pub fn new(
        hub: Arc<ObjectClient>,
        name: EntryName,
        path: Path,
        claim: WriteLock,
        traffic: Traffic,
    ) -> Self {
        let part_size = traffic.block.max(LEAST);
        // As many parts as fit into the memory for blocks of the configured size, but at least one on its way.
        let all = (traffic.blocks + 1) * traffic.block / part_size;
        Writer {
            hub,
            name,
            path,
            claim: Some(claim),
            upload: None,
            part: Block::new(part_size),
            parallel: all.saturating_sub(1).max(1),
            sent: JoinSet::new(),
            parts: Vec::new(),
            size: 0,
        }
    }

    /// Returns the id of the upload, which begins with the first part.
    fn upload(&mut self) -> Result<Arc<String>> {
        if let Some(upload) = &self.upload {
            return Ok(Arc::clone(upload));
        }
        let begin = self.hub.insist(|| self.hub.store.create_multipart(&self.path));
        let upload = Arc::new(self.hub.wait(begin).context("start the upload of the snapshot")?);
        self.upload = Some(Arc::clone(&upload));
        Ok(upload)
    }

    /// Sends the current part, after waiting until fewer than `parallel` parts are on their way.
    fn ship(&mut self) -> Result<()> {
        let upload = self.upload()?;
        while self.sent.len() >= self.parallel {
            self.arrived()?;
        }
        let number = self.parts.len();
        if number == PARTS {
            bail!(
                "the snapshot needs more than {PARTS} parts; save with more --memory, or less with --max-size"
            );
        }
        let bytes = PutPayload::from(self.part.take());
        self.size += bytes.content_length() as u64;
        self.parts.push(None);
        let (hub, path) = (Arc::clone(&self.hub), self.path.clone());
        let sending = async move {
            let send = || hub.store.put_part(&path, &upload, number, bytes.clone());
            Ok((number, hub.insist(send).await?))
        };
        self.sent.spawn_on(sending, self.hub.wire.runtime().handle());
        Ok(())
    }

    /// Waits for any part to arrive.
    fn arrived(&mut self) -> Result<()> {
        let hub = Arc::clone(&self.hub);
        if let Some(done) = hub.wire.wait(self.sent.join_next())? {
            let (number, part) = done.context("send a part")?.context("send a part")?;
            self.parts[number] = Some(part);
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<()> {
        let hub = Arc::clone(&self.hub);
        let claim = self.claim.as_ref().context("the entry is finished")?;
        let Some(upload) = self.upload.clone() else {
            let bytes = self.part.take();
            self.size = bytes.len() as u64;
            let put = async {
                claim.holds(&hub).await?;
                hub.put(&self.path, bytes).await
            };
            return hub.wait(put).context("upload the snapshot");
        };
        if !self.part.is_empty() {
            self.ship()?;
        }
        while !self.sent.is_empty() {
            self.arrived()?;
        }
        let parts: Vec<PartId> = self.parts.drain(..).flatten().collect();
        let claim = self.claim.as_ref().context("the entry is finished")?;
        let put = async {
            claim.holds(&hub).await?;
            let complete = || hub.store.complete_multipart(&self.path, &upload, parts.clone());
            match hub.insist(complete).await {
                // The upload was completed, but the answer to an earlier try was lost.
                Err(ObjectError::Missing) => match hub.head(&self.path).await? {
                    Some(there) if there.size == self.size => Ok(()),
                    _ => Err(ObjectError::Permanent(
                        "the upload was removed before it was complete".into(),
                    )),
                },
                done => done.map(drop),
            }
        };
        hub.wait(put).context("assemble the parts")
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.part.fill(bytes);
        if self.part.is_full() {
            self.ship().map_err(io::Error::other)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl EntryWriter for Writer {
    fn finish(mut self: Box<Self>) -> Result<Written> {
        self.complete()?;
        if let Some(claim) = self.claim.take() {
            let hub = Arc::clone(&self.hub);
            hub.tidy(async {
                claim.release(&hub).await;
                Ok(())
            });
        }
        let entry = Entry { name: self.name.clone(), size: self.size };
        Ok(Written { entry, sync: Duration::ZERO })
    }
}

impl Drop for Writer {
    /// Cleans up an unfinished upload: its parts, which are stored and paid for, and its claim.
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let hub = Arc::clone(&self.hub);
        let mut sent = std::mem::take(&mut self.sent);
        let upload = self.upload.take();
        hub.tidy(async {
            // Stop the parts first: one that arrives after the abort would stay.
            sent.shutdown().await;
            if let Some(upload) = upload {
                let _ = hub.insist(|| hub.store.abort_multipart(&self.path, &upload)).await;
            }
            claim.release(&hub).await;
            Ok(())
        });
    }
}
