//! Requests to the cache service and responses of its blob server: which failures are retried. How often, is in
//! `retry_limits.rs`.

use crate::http_client::{RequestError, RetryingClient, Whole, redacted, retry_after};
use anyhow::{Result, anyhow, bail};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use std::time::Duration;

/// Part of the error message of the service when the storage quota of the repository is used up.
pub const USED_UP: &str = "insufficient usage";

/// A response of the service, unless the server failed.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Null if the body is not JSON.
    pub json: Value,
    /// An earlier try may have been carried out although its response never came.
    pub repeated: bool,
    /// The message of the server, in a form that may be printed.
    pub said: String,
}

impl RetryingClient {
    /// Makes a request to the cache service. Retries after lost connections, overload and errors of the server.
    /// `expects_json`: a successful response has a body.
    ///
    /// # Errors
    /// If no response came, or if the server asks for a long wait. A refusal is an answer, not an error.
    pub async fn ask(
        &self,
        what: &str,
        expects_json: bool,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Answer> {
        let mut failures = 0;
        let mut repeated = false;
        loop {
            let request = request(self.service()).bearer_auth(self.token.reveal());
            let fault = match self.answer(request, expects_json).await {
                Ok(answer) => return Ok(Answer { repeated, ..answer }),
                Err(fault) => fault,
            };
            let RequestError::Temporary { what: why, wait } = fault else {
                bail!("{what}: no usable response from the cache service");
            };
            // A server that is too busy has not carried out the request. After any other failure that is unknown.
            repeated |= wait.is_none();
            let retry = self.before_retry(&mut failures, why, wait).await;
            retry.map_err(|why| anyhow!("{what}: {why}"))?;
        }
    }

    async fn answer(
        &self,
        request: RequestBuilder,
        expects_json: bool,
    ) -> Result<Answer, RequestError> {
        let Whole { status, headers, body } = self.whole(request, self.timeouts.answer).await?;
        self.note_time(&headers);
        let wait = retry_after(&headers);
        // Azure DevOps begins its errors with a byte order mark.
        let text = String::from_utf8_lossy(&body);
        let text = text.trim_start_matches('\u{feff}');
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        // `msg` in Twirp, `message` in v1 and in responses that are not errors.
        let said = ["msg", "message"].iter().find_map(|name| json[name].as_str());
        let said = said.unwrap_or(if json.is_null() { text } else { "" });
        let said = redacted(said, &self.token);
        match status {
            // Waiting does not help here (actions/toolkit `cacheTwirpClient.ts`).
            _ if said.contains(USED_UP) => Ok(Answer { status, json, repeated: false, said }),
            429 => Err(RequestError::Temporary {
                what: with(format!("too many requests (HTTP {status})"), &said),
                wait: wait.or(Some(Duration::ZERO)),
            }),
            408 | 500.. => Err(RequestError::Temporary {
                what: with(format!("the server failed (HTTP {status})"), &said),
                wait,
            }),
            // An empty body, or a response from a server in between, such as a login page.
            200..300 if json.is_null() && (expects_json || !text.trim().is_empty()) => {
                Err(RequestError::temporary(format!("the response is not JSON (HTTP {status})")))
            }
            _ => Ok(Answer { status, json, repeated: false, said }),
        }
    }
}

/// Classifies an unsuccessful response of a blob server.
pub fn blob_fault(response: &Response) -> RequestError {
    let status = response.status().as_u16();
    // The body is not shown, because Azure includes the text that it signs.
    let code = response.headers().get("x-ms-error-code").and_then(|code| code.to_str().ok());
    let code: String = code.unwrap_or_default().chars().filter(|c| c.is_alphanumeric()).collect();
    let what = with(format!("the blob server answered HTTP {status}"), &code);
    match status {
        408 | 429 | 500.. => {
            RequestError::Temporary { what, wait: retry_after(response.headers()) }
        }
        401 | 403 | 410 => RequestError::Expired(what),
        404 => RequestError::Permanent(anyhow!("the entry was deleted in the meantime ({what})")),
        412 => RequestError::Permanent(anyhow!("the entry was changed while it was read ({what})")),
        _ => RequestError::Permanent(anyhow!(what)),
    }
}

fn with(what: String, said: &str) -> String {
    if said.is_empty() { what } else { format!("{what}: {said}") }
}
