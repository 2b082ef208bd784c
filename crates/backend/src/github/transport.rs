//! Transport for octocrab: sends its requests over the connections of [`RetryingClient`], so that there is one TLS
//! stack, one set of timeouts and limits, and one place that retries.

use crate::http_client::{RequestError, RetryingClient, Whole};
use crate::retry_limits::REST_REQUEST_TRIES;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use serde::de::IgnoredAny;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use tower_service::Service;
use tracing::debug;

pub const NO_ANSWER: &str = "the response is not from GitHub's REST API";

/// The transport for one API, with its token.
#[derive(Clone)]
pub struct HttpTransport {
    pub wire: Arc<RetryingClient>,
    /// URL of the API, without a slash at its end.
    pub base: String,
    pub bearer: HeaderValue,
}

/// No usable response came.
#[derive(Debug, thiserror::Error)]
#[error("{0} ({REST_REQUEST_TRIES} tries)")]
pub struct Lost(String);

impl HttpTransport {
    pub fn octocrab(self) -> Octocrab {
        let crab = OctocrabBuilder::new_empty().with_service(self).with_auth(AuthState::None);
        let Ok(crab) = crab.build() as Result<_, Infallible>;
        crab
    }

    async fn carry(self, method: Method, path: String) -> Result<Response<reqwest::Body>, Lost> {
        let wire = &self.wire;
        let url = format!("{}{path}", self.base);
        let mut failures = 0;
        loop {
            let answer = wire.once(wire.timeouts.stall, |client| {
                let request = client.request(method.clone(), &url);
                let request = request.header("authorization", self.bearer.clone());
                let request = request.header("accept", "application/vnd.github+json");
                request.header("x-github-api-version", "2022-11-28")
            });
            let answer = answer.await.and_then(|answer| checked(&method, answer));
            failures += 1;
            match answer {
                Ok(answer) if failures == REST_REQUEST_TRIES || !is_temporary(answer.status) => {
                    let mut response = Response::new(answer.body.into());
                    *response.status_mut() =
                        StatusCode::from_u16(answer.status).map_err(|e| Lost(e.to_string()))?;
                    *response.headers_mut() = answer.headers;
                    return Ok(response);
                }
                Err(RequestError::Temporary { what, .. }) if failures == REST_REQUEST_TRIES => {
                    return Err(Lost(what));
                }
                Ok(Whole { status, .. }) => {
                    debug!(attempt = failures + 1, status, "retry a request to the REST API");
                }
                Err(RequestError::Temporary { what, .. }) => {
                    debug!(
                        attempt = failures + 1,
                        reason = what,
                        "retry a request to the REST API"
                    );
                }
                Err(_) => return Err(Lost("no usable response".into())),
            }
            tokio::time::sleep(wire.pause(failures, None)).await;
        }
    }
}

/// Returns whether a retry of the request may soon succeed. That is not so for 429: the caller waits for as long as the
/// server requests, which may be minutes.
fn is_temporary(status: u16) -> bool {
    matches!(status, 408 | 500..)
}

/// Checks the form of a successful response. Any other form comes from a server in between, such as a login page.
fn checked(method: &Method, answer: Whole) -> Result<Whole, RequestError> {
    let fits = match answer.status {
        204 => method == Method::DELETE,
        200..300 => {
            method == Method::GET && serde_json::from_slice::<IgnoredAny>(&answer.body).is_ok()
        }
        _ => true,
    };
    if fits { Ok(answer) } else { Err(RequestError::temporary(NO_ANSWER)) }
}

impl Service<Request<OctoBody>> for HttpTransport {
    type Response = Response<reqwest::Body>;
    type Error = Lost;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Lost>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Lost>> {
        Poll::Ready(Ok(()))
    }

    /// The body of the request is ignored: none of the calls in use has one.
    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        Box::pin(self.clone().carry(request.method().clone(), path))
    }
}
