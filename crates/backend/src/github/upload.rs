//! Upload of an entry in blocks of bounded size, several at a time. Only those blocks are in memory.
//!
//! Sources: Azure's Put Blob, Put Block and Put Block List as the official client uses them (`@azure/storage-blob`
//! 12.31).

use super::Hub;
use super::cache_service::Upload;
use super::retryable_failures::blob_fault;
use crate::http_client::{Block, RequestError, RetryingClient};
use crate::options::Secret;
use crate::{Entry, EntryName, EntryWriter, Written};
use anyhow::{Context, Result, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::{Client, RequestBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;
use storecache_runtime::memory::Traffic;
use tokio::task::JoinSet;
use tracing::{debug, trace};

/// Maximum number of blocks in one blob (Azure); at 8 MiB that is 390 GiB.
const BLOCKS: usize = 50_000;

/// First version of the Azure service with blocks of over 100 MiB; any later version would do.
const AZURE_VERSION: &str = "2020-10-02";

pub struct Writer {
    hub: Arc<Hub>,
    name: EntryName,
    upload: Arc<Upload>,
    block: Block,
    /// Number of blocks on their way at a time. One more is being filled.
    parallel: usize,
    sent: JoinSet<Result<()>>,
    /// Base64 of the ids of the blocks sent so far.
    ids: Vec<String>,
    /// The 36 characters at the beginning of all block ids of this upload.
    unique: String,
    /// Bytes of the blocks sent so far.
    size: u64,
}

impl Writer {
    pub fn new(hub: Arc<Hub>, name: EntryName, upload: Upload, traffic: Traffic) -> Self {
        Writer {
            hub,
            name,
            upload: Arc::new(upload),
            block: Block::new(traffic.block),
            parallel: traffic.blocks,
            sent: JoinSet::new(),
            ids: Vec::new(),
            unique: uuid(),
            size: 0,
        }
    }

    /// Sends the current block, after waiting until fewer than `parallel` blocks are on their way.
    fn ship(&mut self) -> Result<()> {
        while self.sent.len() >= self.parallel {
            self.arrived()?;
        }
        if self.ids.len() == BLOCKS {
            bail!("the snapshot needs more than {BLOCKS} blocks");
        }
        let bytes = self.block.take();
        let id = block_id(&self.unique, self.ids.len());
        let at = self.size;
        self.size += bytes.len() as u64;
        self.ids.push(id.clone());
        trace!(number = self.ids.len(), bytes = bytes.len(), "upload a block");
        let (hub, upload) = (Arc::clone(&self.hub), Arc::clone(&self.upload));
        let sending = async move {
            match &*upload {
                Upload::Blob(url) => put_block(hub.wire(), url, &id, bytes).await,
                Upload::Cache(number) => patch(&hub, *number, at, bytes).await,
            }
        };
        self.sent.spawn_on(sending, self.hub.wire().runtime().handle());
        Ok(())
    }

    /// Waits for any block to arrive.
    fn arrived(&mut self) -> Result<()> {
        let hub = Arc::clone(&self.hub);
        match hub.wire().wait(self.sent.join_next())? {
            Some(done) => done.context("send a block")?,
            None => Ok(()),
        }
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.block.fill(bytes);
        if self.block.is_full() {
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
        let hub = Arc::clone(&self.hub);
        let wire = hub.wire();
        match &*Arc::clone(&self.upload) {
            Upload::Blob(url) if self.ids.is_empty() => {
                let bytes = self.block.take();
                self.size = bytes.len() as u64;
                wire.wait(put_blob(wire, url, bytes))??;
            }
            upload => {
                if !self.block.is_empty() {
                    self.ship()?;
                }
                while !self.sent.is_empty() {
                    self.arrived()?;
                }
                if let Upload::Blob(url) = upload {
                    wire.wait(put_list(wire, url, &self.ids))??;
                }
            }
        }
        debug!(entry = %self.name, blocks = self.ids.len(), bytes = self.size, "uploaded an entry");
        let finish = hub.service.finalize(&self.name, &self.upload, self.size);
        wire.wait(finish)??;
        let entry = Entry { name: self.name.clone(), size: self.size };
        Ok(Written { entry, sync: Duration::ZERO })
    }
}

/// Returns 16 random bytes as a UUID of version 4.
fn uuid() -> String {
    let random = || u128::from(RandomState::new().hash_one(0));
    let bits = random() << 64 | random();
    let hex = format!("{bits:032x}");
    let variant = ["8", "9", "a", "b"][(bits >> 126) as usize];
    format!(
        "{}-{}-4{}-{variant}{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

/// Returns the id of a block: 48 bytes before base64, as in the official client. Some servers read the number of the
/// block from the last 12 bytes.
fn block_id(unique: &str, number: usize) -> String {
    STANDARD.encode(format!("{unique}{number:012}"))
}

async fn put_blob(wire: &RetryingClient, url: &Secret, bytes: Bytes) -> Result<()> {
    persist(wire, "upload the snapshot", &bytes, |client| {
        Ok(azure(client.put(url.reveal())).header("x-ms-blob-type", "BlockBlob"))
    })
    .await
}

async fn put_block(wire: &RetryingClient, url: &Secret, id: &str, bytes: Bytes) -> Result<()> {
    let id = id.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    // Edited as text: the signature in the URL is only valid if the URL is not encoded again.
    let url = Secret::new(format!("{}&comp=block&blockid={id}", url.reveal()));
    persist(wire, "upload a block", &bytes, |client| Ok(azure(client.put(url.reveal())))).await
}

async fn put_list(wire: &RetryingClient, url: &Secret, ids: &[String]) -> Result<()> {
    let url = Secret::new(format!("{}&comp=blocklist", url.reveal()));
    let latest: String = ids.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
    let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{latest}</BlockList>");
    persist(wire, "assemble the blocks", &Bytes::from(list), |client| {
        Ok(client
            .put(url.reveal())
            .header("content-type", "application/xml")
            .header("x-ms-version", AZURE_VERSION))
    })
    .await
}

fn azure(request: RequestBuilder) -> RequestBuilder {
    let request = request.header("content-type", "application/octet-stream");
    request.header("x-ms-version", AZURE_VERSION)
}

/// Uploads a piece to version 1 of the service.
async fn patch(hub: &Hub, number: i64, at: u64, bytes: Bytes) -> Result<()> {
    let url = hub.service.piece(number)?;
    let range = format!("bytes {at}-{}/*", at + bytes.len() as u64 - 1);
    let token = &hub.wire().token;
    persist(hub.wire(), "upload a block", &bytes, |client| {
        let request = client.patch(&url).bearer_auth(token.reveal());
        let request = request.header("content-type", "application/octet-stream");
        Ok(request.header("content-range", &range))
    })
    .await
}

/// Sends bytes until they have arrived. Each of these requests may be carried out twice.
async fn persist(
    wire: &RetryingClient,
    what: &'static str,
    bytes: &Bytes,
    request: impl Fn(&Client) -> Result<RequestBuilder>,
) -> Result<()> {
    let mut failures = 0;
    loop {
        let request = request(wire.blobs(failures))?;
        let fault = match wire.send(request, bytes.clone()).await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) => blob_fault(&response),
            Err(fault) => fault,
        };
        match fault {
            RequestError::Temporary { what: why, wait } => {
                let retry = wire.before_retry(&mut failures, why, wait).await;
                retry.map_err(|why| anyhow!("{what}: {why}"))?;
            }
            // No call renews an upload URL.
            RequestError::Expired(why) => {
                bail!("{what}: the URL for it is not valid or has expired: {why}")
            }
            RequestError::NoRanges => return Err(anyhow!("{what}: unexpected response")),
            RequestError::Permanent(error) => return Err(error.context(what)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_ids_match_the_official_client() {
        let unique = uuid();
        assert_ne!(unique, uuid());
        let shape = "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx";
        assert_eq!(unique.len(), shape.len());
        for (c, wanted) in unique.chars().zip(shape.chars()) {
            match wanted {
                'x' => assert!(c.is_ascii_hexdigit()),
                'y' => assert!("89ab".contains(c)),
                other => assert_eq!(c, other),
            }
        }
        let id = STANDARD.decode(block_id(&unique, 17)).unwrap();
        assert_eq!(id.len(), 48);
        assert_eq!(&id[36..], b"000000000017");
    }
}
