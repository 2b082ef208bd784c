//! Requests: connections, stall clocks, and how often and when a request is made again.

use super::secret::{Secret, redacted};
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response};
use serde_json::Value;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Time without a byte after which a connection counts as dead.
    pub stall: Duration,
    /// Pause before the second try; it doubles with each further one.
    pub pause: Duration,
    /// Age at which a signed URL is renewed unasked.
    pub old: Duration,
}

/// Signed URLs are said to be valid for 10 minutes (tonistiigi/go-actions-cache#40).
pub const OLD: Duration = Duration::from_secs(8 * 60);

/// How often a request is made before its failure counts.
pub const TRIES: u32 = 5;

/// The longest `Retry-After` that is waited for: a job should rather run without its cache.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The longest answer that is read, unless it is that of a blob server, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// What the service says when the storage of the repository is used up.
pub const USED_UP: &str = "insufficient usage";

/// Why a try did not succeed.
#[derive(Debug)]
pub enum Fault {
    /// May go better next time, and not before the time that the server named.
    Passing { what: String, wait: Option<Duration> },
    /// The URL is not valid any more.
    Expired(String),
    /// The server sends the whole blob where a range was asked for.
    NoRanges,
    /// Will not go better.
    Lasting(anyhow::Error),
}

impl Fault {
    pub fn passing(what: impl Into<String>) -> Self {
        Fault::Passing { what: what.into(), wait: None }
    }
}

/// Somebody called the run off while it waited for the network.
#[derive(Debug, thiserror::Error)]
#[error("cancelled by a signal")]
pub struct CalledOff;

/// How soon that is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// What a server without an error said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Null when the body is no JSON.
    pub json: Value,
    /// An earlier try may have been carried out, though its answer never came.
    pub repeated: bool,
    /// The server's words, fit to be printed.
    pub said: String,
}

/// The answer to one try, of any status, read to its end.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Connections of one backend.
pub struct Wire {
    runtime: Option<Runtime>,
    service: Client,
    blobs: Client,
    /// Opens a new connection for every request.
    fresh: Client,
    pub patience: Patience,
    pub token: Secret,
    /// Set when nobody waits for an answer any more.
    pub called_off: OnceLock<Arc<AtomicBool>>,
    /// Seconds by which our clock was ahead of the server's at its first answer.
    ahead: OnceLock<i64>,
}

impl Wire {
    pub fn new(token: Secret, patience: Patience) -> Result<Self> {
        // Somebody else in this process may have chosen one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("start the network threads")?;
        let client = |change: fn(ClientBuilder) -> ClientBuilder| {
            let builder = || {
                let builder = Client::builder()
                    .user_agent(concat!("storecache/", env!("CARGO_PKG_VERSION")))
                    .connect_timeout(patience.stall)
                    .http1_only();
                change(builder)
            };
            // Without any certificates, servers without TLS can still be talked to.
            let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
            client.map_err(|e| anyhow!("set up the network: {}", told(&e)))
        };
        Ok(Wire {
            runtime: Some(runtime),
            service: client(|builder| builder.redirect(Policy::none()))?,
            blobs: client(|builder| builder.redirect(Policy::limited(5)))?,
            fresh: client(|builder| {
                builder.redirect(Policy::limited(5)).pool_max_idle_per_host(0)
            })?,
            patience,
            token,
            called_off: OnceLock::new(),
            ahead: OnceLock::new(),
        })
    }

    /// Seconds by which our clock is ahead of that of the cache service, as far as an answer told its time.
    pub fn ahead(&self) -> Option<i64> {
        self.ahead.get().copied()
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("only drop takes it")
    }

    /// Waits for something of the network, unless the run is called off meanwhile.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, CalledOff> {
        let called_off = || self.called_off.get().is_some_and(|flag| flag.load(Ordering::Relaxed));
        self.runtime().block_on(async {
            let mut future = pin!(future);
            while !called_off() {
                if let Ok(done) = timeout(LOOK, future.as_mut()).await {
                    return Ok(done);
                }
            }
            Err(CalledOff)
        })
    }

    /// The client for a blob request; a repeated one gets a connection of its own.
    pub fn blobs(&self, failures: u32) -> &Client {
        if failures == 0 { &self.blobs } else { &self.fresh }
    }

    /// What to sleep before the next try: doubling, with a random part, so that the jobs of a matrix do
    /// not come all at once.
    pub fn pause(&self, failures: u32, wait: Option<Duration>) -> Duration {
        let doubled = self.patience.pause * (1 << failures.saturating_sub(1).min(6));
        let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
        doubled.mul_f64(0.75 + random / 2.0).max(wait.unwrap_or_default())
    }

    /// Asks the cache service; makes the request again on lost connections, overload and errors of the
    /// server. `expects_json`: success comes with a body.
    ///
    /// # Errors
    /// When no answer came, or when the server asks to wait long. Refusals are answers.
    pub async fn ask(
        &self,
        what: &str,
        expects_json: bool,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer> {
        let mut failures = 0;
        let mut repeated = false;
        loop {
            let patience = self.patience.stall * 3;
            let request = request(&self.service).bearer_auth(self.token.reveal()).timeout(patience);
            let fault = match self.answer(request, expects_json).await {
                Ok(answer) => return Ok(Answer { repeated, ..answer }),
                Err(fault) => fault,
            };
            let Fault::Passing { what: why, wait } = fault else {
                bail!("{what}: the cache service gave no usable answer");
            };
            failures += 1;
            if let Some(wait) = wait.filter(|&wait| wait > LONGEST_WAIT) {
                bail!("{what}: {why}; it asks to come back in {} s", wait.as_secs());
            }
            if failures == TRIES {
                bail!("{what}: {why} ({TRIES} tries)");
            }
            // A server that is too busy has not done it; of any other nobody knows.
            repeated |= wait.is_none();
            tokio::time::sleep(self.pause(failures, wait)).await;
        }
    }

    async fn answer(&self, request: RequestBuilder, expects_json: bool) -> Result<Answer, Fault> {
        let Whole { status, headers, body } = whole(request).await?;
        if let Some(theirs) = time_of(&headers) {
            self.ahead.get_or_init(|| Timestamp::now().as_second() - theirs.as_second());
        }
        let wait = retry_after(&headers);
        // Azure DevOps begins its errors with a byte order mark.
        let text = String::from_utf8_lossy(&body);
        let text = text.trim_start_matches('\u{feff}');
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        // `msg` in Twirp, `message` in v1 and in answers that are no errors.
        let said = ["msg", "message"].iter().find_map(|name| json[name].as_str());
        let said = said.unwrap_or(if json.is_null() { text } else { "" });
        let said = redacted(said, &self.token);
        match status {
            // Nothing that waiting mends (actions/toolkit `cacheTwirpClient.ts`).
            _ if said.contains(USED_UP) => Ok(Answer { status, json, repeated: false, said }),
            429 => Err(Fault::Passing {
                what: with(format!("it is asked too much (HTTP {status})"), &said),
                wait: wait.or(Some(Duration::ZERO)),
            }),
            408 | 500.. => Err(Fault::Passing {
                what: with(format!("the server failed (HTTP {status})"), &said),
                wait,
            }),
            // With nothing in it, or from somebody in between: a page to log in, say.
            200..300 if json.is_null() && (expects_json || !text.trim().is_empty()) => {
                Err(Fault::passing(format!("the answer is no JSON (HTTP {status})")))
            }
            _ => Ok(Answer { status, json, repeated: false, said }),
        }
    }

    /// One try at another server than the cache service, by a client that follows no redirects.
    ///
    /// # Errors
    /// [`Fault::Passing`] when no answer came in `limit`, or one of undue length.
    pub async fn once(
        &self,
        limit: Duration,
        request: impl FnOnce(&Client) -> RequestBuilder,
    ) -> Result<Whole, Fault> {
        whole(request(&self.service).timeout(limit)).await
    }

    /// Sends bytes; gives up when none moves for the time of a stall.
    ///
    /// # Errors
    /// [`Fault::Passing`] when there is no answer.
    pub async fn send(&self, request: RequestBuilder, bytes: Bytes) -> Result<Response, Fault> {
        let moved = Arc::new(Mutex::new(Instant::now()));
        let body = Watched { rest: bytes, moved: Arc::clone(&moved) };
        let mut sending = pin!(request.body(reqwest::Body::wrap(body)).send());
        // What was taken last may still be on its way, and the server has to store it.
        let limit = self.patience.stall * 3;
        loop {
            let quiet = moved.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
            if quiet >= limit {
                let seconds = limit.as_secs_f64();
                return Err(Fault::passing(format!("nothing moved for {seconds} s")));
            }
            if let Ok(done) = timeout(limit - quiet, sending.as_mut()).await {
                return done.map_err(|e| Fault::passing(told(&e)));
            }
        }
    }

    /// The same clock for one step of a download.
    pub async fn within<T>(
        &self,
        step: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, Fault> {
        match timeout(self.patience.stall, step).await {
            Ok(done) => done.map_err(|e| Fault::passing(told(&e))),
            Err(_) => {
                let seconds = self.patience.stall.as_secs_f64();
                Err(Fault::passing(format!("not a byte came for {seconds} s")))
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Not waiting for a look-up of a host name that hangs.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Sends a request and reads all of its answer.
async fn whole(request: RequestBuilder) -> Result<Whole, Fault> {
    let lost = |e: reqwest::Error| Fault::passing(told(&e));
    let mut response = request.send().await.map_err(lost)?;
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(lost)? {
        if body.len() + piece.len() > LONGEST_ANSWER {
            return Err(Fault::passing("the answer is longer than any should be"));
        }
        body.extend_from_slice(&piece);
    }
    let status = response.status().as_u16();
    Ok(Whole { status, headers: std::mem::take(response.headers_mut()), body })
}

/// When an answer was made, to the second (RFC 9110, section 6.6.1).
fn time_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|time| time.timestamp())
}

/// What a blob server without success means for the request.
pub fn blob_fault(response: &Response) -> Fault {
    let status = response.status().as_u16();
    // The body is not shown: Azure writes the signed text into it.
    let code = response.headers().get("x-ms-error-code").and_then(|code| code.to_str().ok());
    let code: String = code.unwrap_or_default().chars().filter(|c| c.is_alphanumeric()).collect();
    let what = with(format!("the blob server answered HTTP {status}"), &code);
    match status {
        408 | 429 | 500.. => match retry_after(response.headers()) {
            Some(wait) if wait > LONGEST_WAIT => {
                Fault::Lasting(anyhow!("{what}, and asks to come back in {} s", wait.as_secs()))
            }
            wait => Fault::Passing { what, wait },
        },
        401 | 403 | 410 => Fault::Expired(what),
        404 => Fault::Lasting(anyhow!("the entry was deleted in the meantime ({what})")),
        412 => Fault::Lasting(anyhow!("the entry was changed while it was read ({what})")),
        _ => Fault::Lasting(anyhow!(what)),
    }
}

/// How long the server asks to be left alone.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn with(what: String, said: &str) -> String {
    if said.is_empty() { what } else { format!("{what}: {said}") }
}

/// A failure of the network, without its URL, down to the first cause.
pub fn told(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    if error.is_timeout() {
        return "no answer in time".into();
    }
    if cause.source().is_none() && std::ptr::addr_eq(cause, error) {
        // The error's own text has the URL in it.
        return "the request failed".into();
    }
    let text = redacted(&cause.to_string(), &Secret::new(""));
    if error.is_connect() { format!("no connection: {text}") } else { text }
}

/// A body that tells when its bytes are taken.
struct Watched {
    rest: Bytes,
    moved: Arc<Mutex<Instant>>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: usize = 64 << 10;
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = PIECE.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
