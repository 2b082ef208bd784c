//! Version 1 of the cache service, which GHES, `act`, Forgejo and older runners of Gitea support.

use super::cache_service::{Match, Reserved, Unfinished, Upload, refusal, unexpected};
use crate::BackendError;
use crate::http_client::RetryingClient;
use crate::options::Secret;
use anyhow::{Result, anyhow};
use serde_json::json;

const ACCEPT: &str = "application/json;api-version=6.0-preview.1";

const LOOKUP: &str = "look up the entry";
const RESERVE: &str = "reserve the entry";
const FINISH: &str = "finish the entry";

fn api(base: &str) -> String {
    format!("{base}/_apis/artifactcache")
}

/// Returns the URL of a reserved cache, for its pieces and for the request to finish it.
pub fn address(base: &str, id: i64) -> String {
    format!("{}/caches/{id}", api(base))
}

pub async fn lookup(
    wire: &RetryingClient,
    base: &str,
    version: &str,
    keys: &[String],
) -> Result<Option<Match>, BackendError> {
    let keys = escaped(&keys.join(","));
    let url = format!("{}/cache?keys={keys}&version={version}", api(base));
    let answer =
        wire.ask(LOOKUP, false, |client| client.get(&url).header("accept", ACCEPT)).await?;
    if let Some(refused) = refusal(&answer.said) {
        return Err(refused.into());
    }
    match answer.status {
        204 => Ok(None),
        200 => {
            let text = |name: &str| answer.json[name].as_str().filter(|text| !text.is_empty());
            match (text("cacheKey"), text("archiveLocation")) {
                (Some(key), Some(url)) => {
                    Ok(Some(Match { key: key.to_owned(), url: Secret::new(url) }))
                }
                _ => Err(anyhow!("{LOOKUP}: the answer of the cache service has no key or no URL")
                    .into()),
            }
        }
        _ => Err(unexpected(LOOKUP, &answer).into()),
    }
}

pub async fn reserve(
    wire: &RetryingClient,
    base: &str,
    version: &str,
    key: &str,
) -> Result<Reserved, BackendError> {
    // Without `cacheSize`, which is not known yet; clients of actions/cache@v2 omitted it too.
    let body = json!({ "key": key, "version": version }).to_string();
    let url = format!("{}/caches", api(base));
    let answer = wire
        .ask(RESERVE, true, |client| {
            let request = client.post(&url).header("accept", ACCEPT);
            request.header("content-type", "application/json").body(body.clone())
        })
        .await?;
    if let Some(refused) = refusal(&answer.said) {
        return Err(refused.into());
    }
    let exists = answer.json["typeKey"].as_str().is_some_and(|key| key.contains("AlreadyExists"));
    match answer.status {
        200..300 => match answer.json["cacheId"].as_i64() {
            Some(id) => Ok(Reserved::Here(Upload::Cache(id))),
            None => Err(anyhow!("{RESERVE}: the answer of the cache service has no number").into()),
        },
        status if status == 409 || exists => Ok(Reserved::Taken { repeated: answer.repeated }),
        _ => Err(unexpected(RESERVE, &answer).into()),
    }
}

pub async fn finalize(
    wire: &RetryingClient,
    base: &str,
    id: i64,
    size: u64,
) -> Result<(), Unfinished> {
    let url = address(base, id);
    let body = json!({ "size": size }).to_string();
    let answer = wire
        .ask(FINISH, false, |client| {
            let request = client.post(&url).header("accept", ACCEPT);
            request.header("content-type", "application/json").body(body.clone())
        })
        .await?;
    match answer.status {
        200..300 => Ok(()),
        // The service also answers this to a second request to finish the same cache.
        400 | 404 | 409 => Err(Unfinished::not_yet(&answer)),
        _ => Err(unexpected(FINISH, &answer).into()),
    }
}

/// Escapes a text as a value in a query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| match plain(byte) {
        true => (byte as char).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn keys_are_percent_encoded_in_a_query() {
        assert_eq!(super::escaped("a b,c%é+"), "a%20b%2Cc%25%C3%A9%2B");
    }
}
