//! GitHub's REST API, through octocrab: the list of cache entries and their deletion, which the cache
//! service has no calls for.
//!
//! It has a token of its own, which goes to this API alone, and knows entries of all refs, keys and
//! layouts. Source: github/rest-api-description `descriptions/api.github.com`, and github/docs
//! `content/rest/using-the-rest-api/rate-limits-for-the-rest-api.md`.

use super::Hub;
use super::secret::{Secret, host, redacted};
use super::wire::{Fault, Whole, retry_after};
use crate::options::RestApi;
use anyhow::{Context, Result, anyhow, bail};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use octocrab::models::actions::ActionsCacheItem;
use octocrab::{AuthState, Error, GitHubError, OctoBody, Octocrab, OctocrabBuilder};
use serde::de::IgnoredAny;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;
use tower_service::Service;

/// How often a request is made. Fewer times than one of the cache service: a job waits for it that has
/// done all its work.
const TRIES: u32 = 3;

/// Entries in one page, the most that GitHub gives.
const PAGE: u8 = 100;

/// Pages that are read at most. A repository has room for fewer entries.
const PAGES: u32 = 200;

const NO_ANSWER: &str = "the answer is none of GitHub's REST API";

const LIST: &str = "list the cache entries";
const DELETE: &str = "delete a cache entry";

pub struct Rest {
    hub: Arc<Hub>,
    options: RestApi,
    /// When the last deletion was answered.
    deleted: Mutex<Option<Instant>>,
}

/// What every call needs.
struct Known<'a> {
    crab: Octocrab,
    owner: &'a str,
    repository: &'a str,
    reference: &'a str,
}

impl Rest {
    pub fn new(hub: Arc<Hub>, options: RestApi) -> Self {
        Rest { hub, options, deleted: Mutex::default() }
    }

    /// For people: its host.
    pub fn describe(&self) -> &str {
        host(self.options.url.as_deref().unwrap_or_default())
    }

    /// Every entry of this run's ref whose key begins so, of any layout.
    pub async fn list(&self, prefix: &str) -> Result<Vec<ActionsCacheItem>> {
        let Known { crab, owner, repository, reference } = self.known()?;
        let actions = crab.actions();
        // Entries move from page to page while others are written.
        let mut caches = HashMap::new();
        for page in 1..=PAGES {
            let list = actions.list_repo_caches(owner, repository).key(prefix).r#ref(reference);
            let list = list.sort("created_at").direction("desc").per_page(PAGE).page(page);
            let got = list.send().await.map_err(|e| self.told(LIST, e))?.actions_caches;
            let last = got.len() < PAGE.into();
            let ours = got.into_iter().filter(|cache| cache.r#ref.as_deref() == Some(reference));
            caches.extend(ours.map(|cache| (cache.id, cache)));
            if last {
                break;
            }
        }
        Ok(caches.into_values().collect())
    }

    /// Deletes an entry by its number, in due distance to the deletion before.
    pub async fn delete(&self, number: i64) -> Result<()> {
        let Known { crab, owner, repository, .. } = self.known()?;
        let last = *self.deleted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            tokio::time::sleep(self.options.pause.saturating_sub(last.elapsed())).await;
        }
        let deleted = crab.actions().delete_repo_cache(owner, repository, number).await;
        *self.deleted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        match deleted {
            Err(Error::GitHub { source, .. }) if source.status_code == StatusCode::NOT_FOUND => {
                Ok(())
            }
            other => other.map_err(|e| self.told(DELETE, e)),
        }
    }

    /// # Errors
    /// When something is missing.
    fn known(&self) -> Result<Known<'_>> {
        let RestApi { url, repository, reference, token, .. } = &self.options;
        let token = token.as_ref().context(
            "there is no token for GitHub's REST API; set the input token, or GITHUB_TOKEN in the \
             environment",
        )?;
        let unset =
            |name| format!("{name} is not set, as it is in a job, so GitHub cannot be asked");
        let url = url.as_deref().with_context(|| unset("GITHUB_API_URL"))?;
        let repository = repository.as_deref().with_context(|| unset("GITHUB_REPOSITORY"))?;
        let reference = reference.as_deref().with_context(|| unset("GITHUB_REF"))?;
        let plain = |name: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            name.chars().all(fits) && !name.trim_matches('.').is_empty()
        };
        let Some((owner, name)) = repository.split_once('/').filter(|(o, r)| plain(o) && plain(r))
        else {
            bail!("GITHUB_REPOSITORY is {repository:?}, and no name of a repository");
        };
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|_| anyhow!("the token for GitHub's REST API has characters that none has"))?;
        bearer.set_sensitive(true);
        let base = url.trim_end_matches('/').to_owned();
        let line = Line { hub: Arc::clone(&self.hub), base, bearer };
        let crab = OctocrabBuilder::new_empty().with_service(line).with_auth(AuthState::None);
        let Ok(crab) = crab.build() as Result<_, Infallible>;
        Ok(Known { crab, owner, repository: name, reference })
    }

    /// An error as people should read it.
    fn told(&self, what: &str, error: Error) -> anyhow::Error {
        match error {
            Error::GitHub { source, .. } => self.refused(what, &source),
            Error::Service { source, .. } if source.is::<Lost>() => anyhow!("{what}: {source}"),
            // What it could not read may be anything.
            _ => anyhow!("{what}: {NO_ANSWER}"),
        }
    }

    fn refused(&self, what: &str, error: &GitHubError) -> anyhow::Error {
        let status = error.status_code.as_u16();
        let nothing = Secret::new("");
        let token = self.options.token.as_ref().unwrap_or(&nothing);
        let said = redacted(&error.message, token);
        let answered = format!("HTTP {status}: {said}");
        let header = |name| Some(error.headers.as_ref()?.get(name)?.to_str().ok()?.to_owned());
        let busy = header("x-ratelimit-remaining").as_deref() == Some("0")
            || header("retry-after").is_some()
            || error.message.to_lowercase().contains("rate limit");
        let host = self.describe();
        match status {
            429 => anyhow!("{what}: {}", self.busy(&answered, error)),
            403 if busy => anyhow!("{what}: {}", self.busy(&answered, error)),
            401 => anyhow!(
                "{what}: {host} does not take the token ({answered}); the input token has to be one \
                 with `actions: write`"
            ),
            403 => anyhow!(
                "{what}: the token is not allowed to ({answered}); give the job `permissions:` with \
                 `actions: write`, and with `contents: read` and whatever else it needs: what is not \
                 named there is taken away"
            ),
            404 => anyhow!(
                "{what}: {host} has none for this token ({answered}); servers other than GitHub's have \
                 no list of them, and GitHub shows it to tokens that can see the repository"
            ),
            408 | 500.. => anyhow!("{what}: the server failed ({answered}; {TRIES} tries)"),
            _ => anyhow!("{what}: {host} refused ({answered})"),
        }
    }

    fn busy(&self, answered: &str, error: &GitHubError) -> String {
        let wait = error.headers.as_ref().and_then(retry_after);
        let wait = wait.map(|wait| format!("; it asks to come back in {} s", wait.as_secs()));
        format!("{} is asked too much ({answered}){}", self.describe(), wait.unwrap_or_default())
    }
}

/// Carries octocrab's requests over the connections of this backend, with their clocks and limits.
#[derive(Clone)]
struct Line {
    hub: Arc<Hub>,
    base: String,
    bearer: HeaderValue,
}

/// No usable answer came.
#[derive(Debug, thiserror::Error)]
#[error("{0} ({TRIES} tries)")]
struct Lost(String);

impl Line {
    async fn carry(self, method: Method, path: String) -> Result<Response<reqwest::Body>, Lost> {
        let wire = self.hub.wire();
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
