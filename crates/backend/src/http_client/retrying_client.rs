//! HTTP requests: connections, timeouts, and pauses before retries.

use super::redact::redacted;
use super::runtime::{Engine, Names};
use crate::options::{NetworkTimeouts, Secret};
use crate::retry_limits::{LONGEST_RETRY_AFTER, REQUEST_TRIES};
use anyhow::{Result, anyhow};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, RequestBuilder, Response};
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{self, Poll};
use std::time::{Duration, Instant};
use storecache_runtime::RunContext;
use storecache_runtime::liveness::seconds;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tracing::{debug, trace};

/// The longest response body that is read, except from a blob server, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// Why a try failed.
#[derive(Debug)]
pub enum RequestError {
    /// A temporary failure. A retry may succeed, but not before the time that the server named.
    Temporary { what: String, wait: Option<Duration> },
    /// The URL is not valid any more.
    Expired(String),
    /// The server sends the whole blob although a range was requested.
    NoRanges,
    /// A permanent failure.
    Permanent(anyhow::Error),
}

impl RequestError {
    pub fn temporary(what: impl Into<String>) -> Self {
        RequestError::Temporary { what: what.into(), wait: None }
    }
}

/// The run was canceled while it waited for the network, for this reason.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct CalledOff(String);

/// How often to check for cancellation.
const LOOK: Duration = Duration::from_millis(50);

/// How often to report that a server has not answered yet.
const THINKING: Duration = Duration::from_secs(1);

/// The response to one try, of any status, with its whole body.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// Connections of one backend.
pub struct RetryingClient {
    /// The run that uses the connections. They report activity to it, and waits end if it is canceled.
    run: RunContext,
    engine: Engine,
    service: Client,
    blobs: Client,
    /// Opens a new connection for every request.
    fresh: Client,
    pub timeouts: NetworkTimeouts,
    pub token: Secret,
    /// Name of the server, for messages.
    who: &'static str,
    /// Seconds by which our clock was ahead of the server's at its first answer.
    ahead: OnceLock<i64>,
}

impl RetryingClient {
    pub fn new(
        run: &RunContext,
        who: &'static str,
        token: Secret,
        timeouts: NetworkTimeouts,
    ) -> Result<Self> {
        // Fails if another part of this process has installed one before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let engine = Engine::start()?;
        let client = |change: fn(ClientBuilder) -> ClientBuilder| {
            let builder = || {
                let builder = Client::builder()
                    .user_agent(concat!("storecache/", env!("CARGO_PKG_VERSION")))
                    .connect_timeout(timeouts.stall)
                    .dns_resolver(Names)
                    // Lets the kernel check that an idle connection still stands.
                    .tcp_keepalive(timeouts.stall / 2)
                    .tcp_keepalive_interval((timeouts.stall / 6).max(Duration::from_secs(1)))
                    .tcp_keepalive_retries(3)
                    .http1_only();
                change(builder)
            };
            // If no certificates are installed, servers without TLS still work.
            let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
            client.map_err(|e| anyhow!("set up the network: {}", told(&e)))
        };
        Ok(RetryingClient {
            run: run.clone(),
            engine,
            service: client(|builder| builder.redirect(Policy::none()))?,
            blobs: client(|builder| builder.redirect(Policy::limited(5)))?,
            fresh: client(|builder| {
                builder.redirect(Policy::limited(5)).pool_max_idle_per_host(0)
            })?,
            timeouts,
            token,
            who,
            ahead: OnceLock::new(),
        })
    }

    /// Returns the seconds by which our clock is ahead of the server's, if a response stated its time.
    pub fn ahead(&self) -> Option<i64> {
        self.ahead.get().copied()
    }

    /// Returns the run that uses the connections.
    pub fn run(&self) -> &RunContext {
        &self.run
    }

    pub fn runtime(&self) -> &Runtime {
        self.engine.runtime()
    }

    /// Waits for network I/O, unless the run is canceled.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, CalledOff> {
        self.runtime().block_on(async {
            let mut future = pin!(future);
            while !self.run.is_canceled() {
                if let Ok(done) = timeout(LOOK, future.as_mut()).await {
                    return Ok(done);
                }
            }
            Err(CalledOff(self.run.cancel_reason()))
        })
    }

    /// Returns the client for a blob request. A retry gets a new connection.
    pub fn blobs(&self, failures: u32) -> &Client {
        if failures == 0 { &self.blobs } else { &self.fresh }
    }

    /// Returns how long to sleep before the next try. The time doubles with each failure and has a random part, so
    /// that the jobs of a matrix do not retry at the same time.
    pub fn pause(&self, failures: u32, wait: Option<Duration>) -> Duration {
        let doubled = self.timeouts.pause * (1 << failures.saturating_sub(1).min(6));
        let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
        doubled.mul_f64(0.75 + random / 2.0).max(wait.unwrap_or_default())
    }

    /// Waits until a retry makes sense after a temporary failure `what`, which is added to `failures`. `wait` is the
    /// time that the server named.
    ///
    /// # Errors
    /// If no retry makes sense: `what`, with the reason.
    pub async fn before_retry(
        &self,
        failures: &mut u32,
        what: String,
        wait: Option<Duration>,
    ) -> Result<(), String> {
        *failures += 1;
        match wait.filter(|&wait| wait > LONGEST_RETRY_AFTER) {
            Some(wait) => Err(format!("{what}; it asks to retry in {} s", wait.as_secs())),
            None if *failures == REQUEST_TRIES => Err(format!("{what} ({REQUEST_TRIES} tries)")),
            None => {
                let pause = self.pause(*failures, wait);
                debug!(
                    attempt = *failures + 1,
                    of = REQUEST_TRIES,
                    reason = what,
                    wait_ms = pause.as_millis(),
                    "retry a request to {}",
                    self.who
                );
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }

    /// Returns the client for requests that must not follow redirects.
    pub fn service(&self) -> &Client {
        &self.service
    }

    /// Records how far our clock is ahead, from the time in a response.
    pub fn note_time(&self, headers: &HeaderMap) {
        if let Some(theirs) = time_of(headers) {
            self.ahead.get_or_init(|| Timestamp::now().as_second() - theirs.as_second());
        }
    }

    fn thought(&self, since: Instant) -> String {
        let time = seconds(since.elapsed());
        format!("{} did not answer for {time}, but the connection is open", self.who)
    }

    /// Makes one request to a server other than the cache service, without following redirects.
    ///
    /// # Errors
    /// [`RequestError::Temporary`] if no response came within `limit`, or if it is too long.
    pub async fn once(
        &self,
        limit: Duration,
        request: impl FnOnce(&Client) -> RequestBuilder,
    ) -> Result<Whole, RequestError> {
        self.whole(request(&self.service), limit).await
    }

    /// Sends a request and reads its whole response. The first byte may take until `limit`, each further one as long
    /// as the stall timeout.
    pub async fn whole(
        &self,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<Whole, RequestError> {
        let began = Instant::now();
        let mut response = self.first_byte(limit, request.send()).await?;
        let mut body = Vec::new();
        while let Some(piece) = self.within(response.chunk()).await? {
            if body.len() + piece.len() > LONGEST_ANSWER {
                return Err(RequestError::temporary("the response is too long"));
            }
            body.extend_from_slice(&piece);
        }
        let status = response.status().as_u16();
        trace!(
            host = response.url().host_str(),
            status,
            bytes = body.len(),
            ms = began.elapsed().as_millis(),
            "received a response"
        );
        Ok(Whole { status, headers: std::mem::take(response.headers_mut()), body })
    }

    /// Waits for a response to begin. A server that has not answered yet counts as active while its connection
    /// stands.
    pub async fn first_byte<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, RequestError> {
        let mut answer = pin!(answer);
        let began = Instant::now();
        loop {
            let left = limit.saturating_sub(began.elapsed());
            if left.is_zero() {
                let time = seconds(limit);
                return Err(RequestError::temporary(format!(
                    "no answer in time: no bytes received for {time}"
                )));
            }
            match timeout(left.min(THINKING.min(limit / 4)), answer.as_mut()).await {
                Ok(done) => return done.map_err(|e| RequestError::temporary(told(&e))),
                Err(_) => self.run.report_active(self.thought(began)),
            }
        }
    }

    /// Sends a body. Fails if no byte moves for as long as the answer timeout.
    ///
    /// # Errors
    /// [`RequestError::Temporary`] if no response arrives.
    pub async fn send(
        &self,
        request: RequestBuilder,
        bytes: Bytes,
    ) -> Result<Response, RequestError> {
        let moved = Arc::new(Mutex::new(Instant::now()));
        let body = TrackedBody {
            run: self.run.clone(),
            rest: bytes,
            moved: Arc::clone(&moved),
            who: self.who,
        };
        let mut sending = pin!(request.body(reqwest::Body::wrap(body)).send());
        // Not the stall timeout: the last bytes may still be on their way, and the server has to store them.
        let limit = self.timeouts.answer;
        loop {
            let last = *moved.lock().unwrap_or_else(PoisonError::into_inner);
            let quiet = last.elapsed();
            if quiet >= limit {
                let seconds = limit.as_secs_f64();
                return Err(RequestError::temporary(format!(
                    "no bytes transferred for {seconds} s"
                )));
            }
            match timeout((limit - quiet).min(THINKING.min(limit / 4)), sending.as_mut()).await {
                Ok(done) => return done.map_err(|e| RequestError::temporary(told(&e))),
                Err(_) => self.run.report_active(self.thought(last)),
            }
        }
    }

    /// Waits for one step of a download, up to the stall timeout.
    pub async fn within<T>(
        &self,
        step: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, RequestError> {
        match timeout(self.timeouts.stall, step).await {
            Ok(Ok(step)) => {
                self.run.report_progress(format!("bytes from {}", self.who));
                Ok(step)
            }
            Ok(Err(e)) => Err(RequestError::temporary(told(&e))),
            Err(_) => {
                let seconds = self.timeouts.stall.as_secs_f64();
                Err(RequestError::temporary(format!("no bytes received for {seconds} s")))
            }
        }
    }
}

/// Returns when a response was made, to the second (RFC 9110, section 6.6.1).
fn time_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(reqwest::header::DATE)?.to_str().ok()?;
    jiff::fmt::rfc2822::parse(date).ok().map(|time| time.timestamp())
}

/// Returns how long the server asks the client to wait.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Describes a network failure by its first cause, without its URL.
pub fn told(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(below) = cause.source() {
        cause = below;
    }
    if error.is_timeout() {
        return "no answer in time".into();
    }
    if cause.source().is_none() && std::ptr::addr_eq(cause, error) {
        // The text of the error itself contains the URL.
        return "the request failed".into();
    }
    let text = redacted(&cause.to_string(), &Secret::new(""));
    if error.is_connect() { format!("no connection: {text}") } else { text }
}

/// A request body that records when its bytes are taken.
struct TrackedBody {
    run: RunContext,
    rest: Bytes,
    moved: Arc<Mutex<Instant>>,
    who: &'static str,
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const PIECE: usize = 64 << 10;
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let bytes_to = format!("bytes to {}", self.who);
        self.run.report_progress(bytes_to);
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
