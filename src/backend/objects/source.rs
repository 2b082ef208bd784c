//! Ranges of one object, and never of another object that takes its name.

use super::hub::Hub;
use super::trouble::Trouble;
use crate::backend::network::{TRIES, Wire};
use crate::backend::reader::{self, Lost, Spooled};
use crate::budget::Allowance;
use anyhow::{Result, anyhow, bail};
use object_store::path::Path;
use object_store::{GetResult, ObjectMeta};
use std::future::poll_fn;
use std::ops::Range;
use std::sync::Arc;

pub struct Object {
    hub: Arc<Hub>,
    path: Path,
    size: u64,
    etag: Option<String>,
}

impl Object {
    /// Requests size and entity tag of an object, and its first `count` bytes.
    ///
    /// # Errors
    /// [`Trouble::Missing`] if there is no such object.
    pub async fn probe(hub: Arc<Hub>, path: Path, count: u64) -> Result<(Object, Vec<u8>)> {
        let meta = hub.head(&path).await?.ok_or(Trouble::Missing)?;
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
    async fn all(&self, range: Range<u64>) -> Result<Vec<u8>> {
        let length = range.end - range.start;
        let mut bytes = Vec::with_capacity(usize::try_from(length)?);
        let mut failures = 0;
        loop {
            let from = range.start + bytes.len() as u64;
            let what = match self.some(from..range.end, &mut bytes).await {
                Ok(()) if bytes.len() as u64 == length => return Ok(bytes),
                Ok(()) => Trouble::Passing { what: "the body ended early".into(), wait: None },
                Err(trouble) => trouble,
            };
            let got = bytes.len() as u64;
            match self.hub.pause(what, &mut failures).await {
                Ok(()) => {}
                Err(Trouble::Missing) => bail!("the entry was deleted in the meantime"),
                Err(Trouble::Changed) => bail!("the entry was changed while it was read"),
                Err(why) if failures == TRIES && got > 0 => {
                    bail!("truncated: got {got} of {length} bytes: {why}")
                }
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Makes one request for a range, and appends the bytes of the response.
    async fn some(&self, range: Range<u64>, bytes: &mut Vec<u8>) -> Result<(), Trouble> {
        let options = Hub::range(range.start, range.end, self.etag.as_ref());
        let answer = self.hub.store.get_opts(&self.path, options).await;
        let answer: GetResult = answer.map_err(|e| Trouble::of(&e))?;
        if answer.meta.size != self.size {
            return Err(Trouble::Changed);
        }
        let most = range.end - range.start;
        let mut got = 0;
        let mut body = answer.into_stream();
        while let Some(piece) = poll_fn(|context| body.as_mut().poll_next(context)).await {
            let piece = piece.map_err(|e| Trouble::of(&e))?;
            got += piece.len() as u64;
            if got > most {
                let what = "the server sent more than was asked for".to_owned();
                return Err(Trouble::Passing { what, wait: None });
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(())
    }
}

impl reader::Source for Object {
    fn wire(&self) -> &Wire {
        &self.hub.wire
    }

    fn ahead(&self) -> &Allowance {
        &self.hub.ahead
    }

    fn size(&self) -> u64 {
        self.size
    }

    async fn range(&self, range: Range<u64>) -> Result<Vec<u8>, Lost> {
        self.all(range).await.map_err(Lost::Failed)
    }

    /// Always fails: every object store supports ranges.
    async fn spool(&self) -> Result<Spooled> {
        Err(anyhow!("the server knows no ranges"))
    }
}
