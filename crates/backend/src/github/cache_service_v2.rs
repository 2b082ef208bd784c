//! Version 2 of the cache service: three Twirp calls, as JSON with the names of its proto file.

use super::cache_service::{Match, Reserved, Unfinished, Upload, refusal, unexpected};
use super::retryable_failures::Answer;
use crate::BackendError;
use crate::http_client::RetryingClient;
use crate::options::Secret;
use anyhow::{Result, anyhow};
use serde_json::{Value, json};

async fn call(
    wire: &RetryingClient,
    base: &str,
    method: &str,
    what: &str,
    body: Value,
) -> Result<Answer> {
    let url = format!("{base}/twirp/github.actions.results.api.v1.CacheService/{method}");
    wire.ask(what, true, |client| {
        let request = client.post(&url).header("content-type", "application/json");
        request.body(body.to_string())
    })
    .await
}

/// Returns a text field. Servers may write its name in snake case or camel case.
fn field<'a>(answer: &'a Answer, snake: &str, camel: &str) -> Option<&'a str> {
    let value = answer.json[snake].as_str().or_else(|| answer.json[camel].as_str());
    value.filter(|text| !text.is_empty())
}

const LOOKUP: &str = "look up the entry";
const RESERVE: &str = "reserve the entry";
const FINISH: &str = "finish the entry";

pub async fn lookup(
    wire: &RetryingClient,
    base: &str,
    version: &str,
    keys: &[String],
) -> Result<Answer> {
    let body = json!({ "key": keys[0], "restore_keys": keys[1..], "version": version });
    call(wire, base, "GetCacheEntryDownloadURL", LOOKUP, body).await
}

pub fn found(answer: Answer) -> Result<Option<Match>, BackendError> {
    if let Some(refused) = refusal(&answer.said) {
        return Err(refused.into());
    }
    match (answer.status, answer.json["code"].as_str()) {
        (200, _) if answer.json["ok"] != true => Ok(None),
        (200, _) => {
            let url = field(&answer, "signed_download_url", "signedDownloadUrl");
            let key = field(&answer, "matched_key", "matchedKey");
            match (key, url) {
                (Some(key), Some(url)) => {
                    Ok(Some(Match { key: key.to_owned(), url: Secret::new(url) }))
                }
                _ => Err(anyhow!("{LOOKUP}: the answer of the cache service has no key or no URL")
                    .into()),
            }
        }
        (404, Some("not_found")) => Ok(None),
        _ => Err(unexpected(LOOKUP, &answer).into()),
    }
}

pub async fn reserve(
    wire: &RetryingClient,
    base: &str,
    version: &str,
    key: &str,
) -> Result<Answer> {
    let body = json!({ "key": key, "version": version });
    call(wire, base, "CreateCacheEntry", RESERVE, body).await
}

pub fn reserved(answer: Answer) -> Result<Reserved, BackendError> {
    if let Some(refused) = refusal(&answer.said) {
        return Err(refused.into());
    }
    let repeated = answer.repeated;
    match answer.status {
        200 if answer.json["ok"] == true => {
            match field(&answer, "signed_upload_url", "signedUploadUrl") {
                Some(url) => Ok(Reserved::Here(Upload::Blob(Secret::new(url)))),
                None => {
                    Err(anyhow!("{RESERVE}: the answer of the cache service has no URL").into())
                }
            }
        }
        // Servers other than GitHub's report a taken name without a message.
        200 if answer.said.is_empty() => Ok(Reserved::Taken { repeated }),
        409 => Ok(Reserved::Taken { repeated }),
        _ => Err(unexpected(RESERVE, &answer).into()),
    }
}

pub async fn finalize(
    wire: &RetryingClient,
    base: &str,
    version: &str,
    key: &str,
    size: u64,
) -> Result<(), Unfinished> {
    // The JSON mapping of proto files writes 64-bit numbers as strings.
    let body = json!({ "key": key, "size_bytes": size.to_string(), "version": version });
    let answer = call(wire, base, "FinalizeCacheEntryUpload", FINISH, body).await?;
    if let Some(refused) = refusal(&answer.said) {
        return Err(refused.into());
    }
    match answer.status {
        200 if answer.json["ok"] == true => Ok(()),
        200 | 404 | 409 => Err(Unfinished::not_yet(&answer)),
        _ => Err(unexpected(FINISH, &answer).into()),
    }
}
