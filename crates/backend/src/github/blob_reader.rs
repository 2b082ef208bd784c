//! Ranges of one blob, whose URL is renewed when it expires.

use super::Hub;
use super::retryable_failures::blob_fault;
use crate::EntryName;
use crate::http_client::{RequestError, RetryingClient};
use crate::options::Secret;
use crate::prefetch::{self, Lost, Spooled};
use crate::retry_limits::URL_RENEWALS;
use anyhow::{Result, anyhow, bail};
use reqwest::Response;
use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use storecache_runtime::memory::ByteSemaphore;
use tokio::sync::Mutex;

pub struct Blob {
    hub: Arc<Hub>,
    name: EntryName,
    url: Mutex<Dated>,
    /// Size in bytes.
    pub size: u64,
    etag: Option<String>,
}

#[derive(Clone)]
struct Dated {
    url: Secret,
    since: Instant,
    /// How often it was renewed.
    number: u32,
}

/// The tries for one range so far.
#[derive(Default)]
struct Tries {
    failures: u32,
    renewals: u32,
    /// Number of the URL that was used last.
    url: u32,
}

/// Result of the first request.
pub enum Probed {
    /// The source, and its first bytes.
    Ranges(Blob, Vec<u8>),
    /// The whole blob, because the server does not support ranges.
    Whole(Blob, Spooled),
}

impl Blob {
    /// Requests the first `count` bytes, and takes size and entity tag from the response.
    pub async fn probe(hub: Arc<Hub>, name: EntryName, url: Secret, count: u64) -> Result<Probed> {
        let dated = Dated { url, since: Instant::now(), number: 0 };
        let mut source = Blob { hub, name, url: Mutex::new(dated), size: 0, etag: None };
        let mut tries = Tries::default();
        loop {
            match source.ask(0..count, &mut tries).await {
                Ok(response) => {
                    source.etag = etag(&response);
                    let (_, size) = content_range(&response).unwrap_or((0..0, 0));
                    source.size = size;
                    let first = 0..count.min(size);
                    return match source.fill(response, first, tries).await {
                        Ok(bytes) => Ok(Probed::Ranges(source, bytes)),
                        Err(Lost::NoRanges) => source.whole().await,
                        Err(Lost::Failed(e)) => Err(e),
                    };
                }
                Err(RequestError::NoRanges) => return source.whole().await,
                Err(fault) => source.recover(fault, 0, count, &mut tries).await?,
            }
        }
    }

    async fn one_range(&self, range: Range<u64>) -> Result<Vec<u8>, Lost> {
        let mut tries = Tries::default();
        loop {
            match self.ask(range.clone(), &mut tries).await {
                Ok(response) => return self.fill(response, range, tries).await,
                Err(RequestError::NoRanges) => return Err(Lost::NoRanges),
                Err(fault) => {
                    let length = range.end - range.start;
                    self.recover(fault, 0, length, &mut tries).await.map_err(Lost::Failed)?;
                }
            }
        }
    }

    /// Reads the body of a response. If the body breaks off, requests the missing rest of the range.
    async fn fill(
        &self,
        response: Response,
        range: Range<u64>,
        mut tries: Tries,
    ) -> Result<Vec<u8>, Lost> {
        let length = range.end - range.start;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        let mut response = Some(response);
        loop {
            let got = bytes.len() as u64;
            let done = match response.take() {
                Some(response) => self.drain(response, length, &mut bytes).await,
                None => match self.ask(range.start + got..range.end, &mut tries).await {
                    Ok(next) => {
                        response = Some(next);
                        continue;
                    }
                    Err(fault) => Err(fault),
                },
            };
            match done {
                Ok(()) => return Ok(bytes),
                Err(RequestError::NoRanges) => return Err(Lost::NoRanges),
                Err(fault) => {
                    let got = bytes.len() as u64;
                    self.recover(fault, got, length, &mut tries).await.map_err(Lost::Failed)?;
                }
            }
        }
    }

    async fn drain(
        &self,
        mut response: Response,
        length: u64,
        bytes: &mut Vec<u8>,
    ) -> Result<(), RequestError> {
        let wire = self.hub.wire();
        while let Some(piece) = wire.within(response.chunk()).await? {
            if (bytes.len() + piece.len()) as u64 > length {
                return Err(RequestError::temporary("the server sent more bytes than requested"));
            }
            bytes.extend_from_slice(&piece);
        }
        if (bytes.len() as u64) < length {
            return Err(RequestError::temporary("the body ended early"));
        }
        Ok(())
    }

    /// Requests a range. The response contains the range, or its beginning.
    async fn ask(&self, range: Range<u64>, tries: &mut Tries) -> Result<Response, RequestError> {
        let url = self.url(tries).await?;
        let wire = self.hub.wire();
        let last = range.end - 1;
        let mut request = wire.blobs(tries.failures).get(url.reveal());
        request = request.header("range", format!("bytes={}-{last}", range.start));
        // A weak entity tag does not identify bytes, and no server accepts one in this request.
        if let Some(etag) = self.etag.as_ref().filter(|etag| !etag.starts_with("W/")) {
            request = request.header("if-match", etag);
        }
        let response = wire.first_byte(wire.timeouts.answer, request.send()).await?;
        no_page(&response)?;
        match response.status().as_u16() {
            206 => {}
            200 => return Err(RequestError::NoRanges),
            416 => return Err(changed("it is shorter than before")),
            _ => return Err(blob_fault(&response)),
        }
        let odd = || RequestError::temporary("the server sent a different range than requested");
        let (sent, size) = content_range(&response).ok_or_else(odd)?;
        let known = self.size != 0;
        if known && size != self.size {
            return Err(changed("its size differs"));
        }
        if known && self.etag.is_some() && etag(&response) != self.etag {
            return Err(changed("its entity tag differs"));
        }
        let end = if known { range.end } else { range.end.min(size) };
        if sent.start != range.start || sent.end > end {
            return Err(odd());
        }
        Ok(response)
    }

    /// Pauses or renews the URL, so that the request can be repeated, or returns the final error.
    async fn recover(
        &self,
        fault: RequestError,
        got: u64,
        length: u64,
        tries: &mut Tries,
    ) -> Result<()> {
        match fault {
            RequestError::Temporary { what, wait } => {
                let retry = self.hub.wire().before_retry(&mut tries.failures, what, wait).await;
                retry.map_err(|what| match got {
                    0 => anyhow!(what),
                    got => anyhow!("truncated: got {got} of {length} bytes: {what}"),
                })
            }
            RequestError::Expired(what) => {
                tries.renewals += 1;
                if tries.renewals > URL_RENEWALS {
                    bail!("the server also refuses new URLs: {what}");
                }
                self.renew(tries.url).await
            }
            RequestError::NoRanges => Err(anyhow!("the server does not support range requests")),
            RequestError::Permanent(error) => Err(error),
        }
    }

    async fn url(&self, tries: &mut Tries) -> Result<Secret, RequestError> {
        let mut dated = self.url.lock().await.clone();
        if dated.since.elapsed() >= self.hub.wire().timeouts.old {
            self.renew(dated.number).await.map_err(RequestError::Permanent)?;
            dated = self.url.lock().await.clone();
        }
        tries.url = dated.number;
        Ok(dated.url)
    }

    /// Gets a new URL for the same entry, unless another range has done so since `number`.
    async fn renew(&self, number: u32) -> Result<()> {
        let mut dated = self.url.lock().await;
        if dated.number != number {
            return Ok(());
        }
        let key = self.name.to_string();
        // Every key is sent twice: see `Service::lookup`.
        match self.hub.service.lookup(&[key.clone(), key.clone()]).await? {
            Some(found) if super::same(&found.key, &key) => {
                let number = number + 1;
                *dated = Dated { url: found.url, since: Instant::now(), number };
                Ok(())
            }
            _ => bail!(
                "the entry was deleted in the meantime: its URL expired, and the service does not give another"
            ),
        }
    }

    /// Downloads the whole blob as one stream into an unnamed file.
    async fn whole(self) -> Result<Probed> {
        let all = self.stream_all().await?;
        Ok(Probed::Whole(self, all))
    }

    /// As [`Blob::whole`], without changing the source.
    async fn stream_all(&self) -> Result<Spooled> {
        let mut tries = Tries::default();
        loop {
            let mut got = 0;
            match self.stream(&mut tries, &mut got).await {
                Ok((file, stated)) => return Ok(Spooled { file, size: got, stated }),
                Err((fault, length)) => {
                    self.recover(fault, got, length, &mut tries).await?;
                }
            }
        }
    }

    /// Returns the file, and whether the server marked its end.
    async fn stream(
        &self,
        tries: &mut Tries,
        got: &mut u64,
    ) -> Result<(File, bool), (RequestError, u64)> {
        let url = self.url(tries).await.map_err(|fault| (fault, self.size))?;
        let wire = self.hub.wire();
        let request = wire.blobs(tries.failures).get(url.reveal());
        let mut response = wire
            .first_byte(wire.timeouts.answer, request.send())
            .await
            .map_err(|fault| (fault, self.size))?;
        no_page(&response).map_err(|fault| (fault, self.size))?;
        if response.status().as_u16() != 200 {
            return Err((blob_fault(&response), self.size));
        }
        let length = response.content_length();
        let told = length.unwrap_or(self.size);
        let length = length.or((self.size != 0).then_some(self.size));
        let stated = length.is_some() || ends_by_itself(&response);
        if self.size != 0 && length != Some(self.size) {
            return Err((changed("its size differs"), told));
        }
        if self.etag.is_some() && etag(&response) != self.etag {
            return Err((changed("its entity tag differs"), told));
        }
        let unwritten = |e: std::io::Error| {
            (RequestError::Permanent(anyhow!("write the snapshot to a temporary file: {e}")), told)
        };
        let mut file = tempfile::tempfile().map_err(unwritten)?;
        while let Some(piece) =
            wire.within(response.chunk()).await.map_err(|fault| (fault, told))?
        {
            file.write_all(&piece).map_err(unwritten)?;
            *got += piece.len() as u64;
        }
        match length {
            Some(length) if length != *got => {
                Err((RequestError::temporary("the body ended early"), told))
            }
            _ => Ok((file, stated)),
        }
    }
}

impl prefetch::Source for Blob {
    fn wire(&self) -> &RetryingClient {
        self.hub.wire()
    }

    fn ahead(&self) -> &ByteSemaphore {
        &self.hub.ahead
    }

    fn size(&self) -> u64 {
        self.size
    }

    async fn range(&self, range: Range<u64>) -> Result<Vec<u8>, Lost> {
        self.one_range(range).await
    }

    async fn spool(&self) -> Result<Spooled> {
        self.stream_all().await
    }
}

/// Returns whether a body without a length marks its end: in chunks, or in frames of HTTP/2.
fn ends_by_itself(response: &Response) -> bool {
    response.version() >= http::Version::HTTP_2
        || response.headers().contains_key("transfer-encoding")
}

/// Detects a response from a server in between, such as a login page.
fn no_page(response: &Response) -> Result<(), RequestError> {
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
    match kind.is_some_and(|kind| kind.starts_with("text/html")) && response.status().is_success() {
        true => Err(RequestError::temporary("the server sent an HTML page instead of the entry")),
        false => Ok(()),
    }
}

fn changed(how: &str) -> RequestError {
    RequestError::Permanent(anyhow!("the entry was changed while it was read: {how}"))
}

fn etag(response: &Response) -> Option<String> {
    Some(response.headers().get("etag")?.to_str().ok()?.to_owned())
}

/// Returns the range in a response, and the size of the blob.
fn content_range(response: &Response) -> Option<(Range<u64>, u64)> {
    parse_range(response.headers().get("content-range")?.to_str().ok()?)
}

fn parse_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size): (u64, u64, u64) =
        (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
    (first <= last && last < size).then_some((first..last + 1, size))
}

#[cfg(test)]
mod tests {
    use super::parse_range;

    #[test]
    fn parse_range_accepts_only_ranges_inside_the_blob() {
        assert_eq!(parse_range("bytes 0-9/20"), Some((0..10, 20)));
        assert_eq!(parse_range("bytes 19-19/20"), Some((19..20, 20)));
        for odd in ["bytes 0-20/20", "bytes 3-2/20", "bytes 0-9/*", "bytes */20", "0-9/20", ""] {
            assert_eq!(parse_range(odd), None, "{odd}");
        }
    }
}
