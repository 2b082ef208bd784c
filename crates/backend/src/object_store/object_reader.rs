//! Ranges of one object, and never of another object that takes its name.

use super::client::ObjectClient;
use super::error::ObjectError;
use crate::http_client::RetryingClient;
use crate::prefetch::{self, Lost, Spooled};
use crate::retry_limits::REQUEST_TRIES;
use anyhow::{Result, anyhow};
use object_store::path::Path;
use object_store::{GetResult, ObjectMeta};
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;
use storecache_runtime::memory::ByteSemaphore;

pub struct Object {
    hub: Arc<ObjectClient>,
    path: Path,
    size: u64,
    etag: Option<String>,
}

impl Object {
    /// Requests size and entity tag of an object, and its first `count` bytes.
    ///
    /// # Errors
    /// [`ObjectError::Missing`] if there is no such object.
    pub async fn probe(
        hub: Arc<ObjectClient>,
        path: Path,
        count: u64,
    ) -> Result<(Object, Vec<u8>), ObjectError> {
        let meta = hub.head(&path).await?.ok_or(ObjectError::Missing)?;
        let ObjectMeta { size, e_tag, .. } = meta;
        // A weak entity tag does not identify bytes, and no server accepts one in this request.
        let etag = e_tag.filter(|etag| !etag.starts_with("W/"));
        let object = Object { hub, path, size, etag };
        let head = match size {
            0 => Vec::new(),
            size => object.all(0..count.min(size)).await?,
        };
        Ok((object, head))
    }

    /// Downloads all bytes of a range. If the body of a response breaks off, requests the missing rest.
    async fn all(&self, range: Range<u64>) -> Result<Vec<u8>, ObjectError> {
        let length = range.end - range.start;
        let mut bytes = Vec::with_capacity(length as usize);
        let mut failures = 0;
        loop {
            let from = range.start + bytes.len() as u64;
            let what = match self.some(from..range.end, &mut bytes).await {
                Ok(()) if bytes.len() as u64 == length => return Ok(bytes),
                Ok(()) => {
                    ObjectError::Temporary { what: "the body ended early".into(), wait: None }
                }
                Err(trouble) => trouble,
            };
            let got = bytes.len() as u64;
            match self.hub.pause(what, &mut failures).await {
                Ok(()) => {}
                Err(ObjectError::Missing) => {
                    return Err(ObjectError::Permanent(
                        "the entry was deleted in the meantime".into(),
                    ));
                }
                Err(ObjectError::Changed) => {
                    return Err(ObjectError::Permanent(
                        "the entry was changed while it was read".into(),
                    ));
                }
                Err(why) if failures == REQUEST_TRIES && got > 0 => {
                    let what = format!("truncated: got {got} of {length} bytes: {why}");
                    return Err(ObjectError::Permanent(what));
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// Makes one request for a range, and appends the bytes of the response.
    async fn some(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), ObjectError> {
        let options = ObjectClient::range(range.start, range.end, self.etag.as_ref());
        let answer = self.hub.store.get_opts(&self.path, options).await;
        let answer: GetResult = answer.map_err(|e| ObjectError::from_library(&e))?;
        if answer.meta.size != self.size {
            return Err(ObjectError::Changed);
        }
        let most = range.end - range.start;
        let mut got = 0;
        let mut body = answer.into_stream();
        while let Some(piece) = poll_fn(|context| body.as_mut().poll_next(context)).await {
            let piece = piece.map_err(|e| ObjectError::from_library(&e))?;
            got += piece.len() as u64;
            if got > most {
                let what = "the server sent more bytes than requested".to_owned();
                return Err(ObjectError::Temporary { what, wait: None });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(())
    }
}

impl prefetch::Source for Object {
    fn wire(&self) -> &RetryingClient {
        &self.hub.wire
    }

    fn ahead(&self) -> &ByteSemaphore {
        &self.hub.ahead
    }

    fn size(&self) -> u64 {
        self.size
    }

    async fn range(&self, range: Range<u64>) -> Result<Vec<u8>, Lost> {
        self.all(range).await.map_err(|e| Lost::Failed(e.into()))
    }

    /// Always fails: every object store supports ranges.
    async fn spool(&self) -> Result<Spooled> {
        Err(anyhow!("the server does not support range requests"))
    }
}
