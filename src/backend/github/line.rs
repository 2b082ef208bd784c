//! Carries octocrab's requests over the connections of `wire.rs`, so that there is one TLS stack, with the
//! same clocks and limits, and one place that makes requests again.

use crate::backend::network::{Fault, Whole, Wire};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use octocrab::{AuthState, OctoBody, Octocrab, OctocrabBuilder};
use serde::de::IgnoredAny;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use tower_service::Service;

/// How often a request is made. Fewer times than one of the cache service: a job waits for it that has
/// done all its work.
pub const TRIES: u32 = 3;

pub const NO_ANSWER: &str = "the answer is none of GitHub's REST API";

/// The way to one API, with the token that it takes.
#[derive(Clone)]
pub struct Line {
    pub wire: Arc<Wire>,
    /// URL of the API, without a slash at its end.
    pub base: String,
    pub bearer: HeaderValue,
}

/// No usable answer came.
#[derive(Debug, thiserror::Error)]
#[error("{0} ({TRIES} tries)")]
pub struct Lost(String);

impl Line {
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
            let answer = wire.once(wire.patience.stall, |client| {
                let request = client.request(method.clone(), &url);
                let request = request.header("authorization", self.bearer.clone());
                let request = request.header("accept", "application/vnd.github+json");
                request.header("x-github-api-version", "2022-11-28")
            });
            let answer = answer.await.and_then(|answer| checked(&method, answer));
            failures += 1;
            match answer {
                Ok(answer) if failures == TRIES || !passes(answer.status) => {
                    let mut response = Response::new(answer.body.into());
                    *response.status_mut() =
                        StatusCode::from_u16(answer.status).map_err(|e| Lost(e.to_string()))?;
                    *response.headers_mut() = answer.headers;
                    return Ok(response);
                }
                Err(Fault::Passing { what, .. }) if failures == TRIES => return Err(Lost(what)),
                Ok(_) | Err(Fault::Passing { .. }) => {}
                Err(_) => return Err(Lost("no usable answer came".into())),
            }
            tokio::time::sleep(wire.pause(failures, None)).await;
        }
    }
}

/// Whether the same request may go better in a moment.
fn passes(status: u16) -> bool {
    matches!(status, 408 | 500..)
}

/// Success has a form. Anything else comes from somebody in between: a page to log in, say.
fn checked(method: &Method, answer: Whole) -> Result<Whole, Fault> {
    let fits = match answer.status {
        204 => method == Method::DELETE,
        200..300 => {
            method == Method::GET && serde_json::from_slice::<IgnoredAny>(&answer.body).is_ok()
        }
        _ => true,
    };
    if fits { Ok(answer) } else { Err(Fault::passing(NO_ANSWER)) }
}

impl Service<Request<OctoBody>> for Line {
    type Response = Response<reqwest::Body>;
    type Error = Lost;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Lost>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Lost>> {
        Poll::Ready(Ok(()))
    }

    /// None of the calls in use has a body.
    fn call(&mut self, request: Request<OctoBody>) -> Self::Future {
        let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
        Box::pin(self.clone().carry(request.method().clone(), path))
    }
}
