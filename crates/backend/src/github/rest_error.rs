//! Error messages for refusals of GitHub's REST API: what failed, why, and what to do.

use super::transport::{Lost, NO_ANSWER};
use crate::InventoryError;
use crate::http_client::{redacted, retry_after};
use crate::options::{RestApi, Secret, host};
use crate::retry_limits::REST_REQUEST_TRIES;
use anyhow::anyhow;
use octocrab::{Error, GitHubError};
use storecache_runtime::advice::{Advice, WithAdvice};

/// A call of the API.
pub struct Call {
    /// A description for messages.
    pub what: &'static str,
    /// The permission that the token needs, as GitHub names it in `permissions:`.
    pub right: &'static str,
}

/// Who has to correct the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    /// The author of the workflow: a save of a job uses the token of its step to delete older entries.
    Step,
    /// The user, who has set a token in the environment.
    Person,
}

/// Converts an error of octocrab into one for people.
pub fn told(call: &Call, error: Error, asker: Asker, api: &RestApi) -> InventoryError {
    let what = call.what;
    match error {
        Error::GitHub { source, .. } => refused(call, &source, asker, api),
        Error::Service { source, .. } if source.is::<Lost>() => anyhow!("{what}: {source}").into(),
        // It may quote a response that it could not parse, which may contain anything.
        _ => anyhow!("{what}: {NO_ANSWER}").into(),
    }
}

fn refused(call: &Call, error: &GitHubError, asker: Asker, api: &RestApi) -> InventoryError {
    let Call { what, right } = call;
    let status = error.status_code.as_u16();
    let nothing = Secret::new("");
    let said = redacted(&error.message, api.token.as_ref().unwrap_or(&nothing));
    let answered = format!("HTTP {status}: {said}");
    let header = |name| Some(error.headers.as_ref()?.get(name)?.to_str().ok()?.to_owned());
    let wait = error.headers.as_ref().and_then(retry_after);
    let busy = header("x-ratelimit-remaining").as_deref() == Some("0")
        || header("retry-after").is_some()
        || error.message.to_lowercase().contains("rate limit");
    let host = host(api.url.as_deref().unwrap_or_default());
    let repository = api.repository.as_deref().unwrap_or_default();
    let forbidden = |text: String, hint: String| InventoryError::Forbidden {
        text: format!("{what}: {text}"),
        advice: Advice::hint(hint),
        wait: None,
    };
    match (status, asker) {
        (429, _) | (403, _) if status == 429 || busy => {
            let note = wait.map(|wait| format!("it asks to retry in {} s", wait.as_secs()));
            InventoryError::Forbidden {
                text: format!("{what}: too many requests to {host} ({answered})"),
                advice: Advice { notes: note.into_iter().collect(), hint: None },
                wait,
            }
        }
        (401, Asker::Step) => forbidden(
            format!("{host} does not accept the token ({answered})"),
            "set the input token to one with `actions: write`".into(),
        ),
        (401, Asker::Person) => forbidden(
            format!(
                "{host} does not accept the token of GITHUB_TOKEN or GH_TOKEN ({answered}), which \
                 may have expired"
            ),
            "set another token".into(),
        ),
        (403, Asker::Step) => forbidden(
            format!("the token is not permitted to ({answered})"),
            "give the job `permissions:` with `actions: write`, and with `contents: read` and \
                 all others that it needs, because those that are not listed are removed"
                .into(),
        ),
        (403, Asker::Person) => forbidden(
            format!("the token is not permitted to ({answered})"),
            format!(
                "it needs `{right}`: in a job under `permissions:`, elsewhere as a permission of \
                 the token for {repository}, or the scope `repo` of a classic token"
            ),
        ),
        (404, Asker::Step) => anyhow!(
            "{what}: {host} has no list of entries for this token ({answered})"
        )
        .note(
            "only GitHub's servers have such a list, and they show it to tokens that can read the \
             repository",
        )
        .into(),
        (404, Asker::Person) => {
            anyhow!("{what}: {host} has no repository {repository} for this token ({answered})")
                .hint(
                    "check the name, and whether the token can read it: servers other than \
                     GitHub's have no list of entries",
                )
                .into()
        }
        (301 | 307 | 308, Asker::Person) => {
            anyhow!("{what}: {host} refused ({answered}): {repository} was renamed")
                .hint("give its new name with --repository")
                .into()
        }
        (408 | 500.., _) => {
            anyhow!("{what}: the server failed ({answered}; {REST_REQUEST_TRIES} tries)")
                .hint("try again later")
                .into()
        }
        _ => anyhow!("{what}: {host} refused ({answered})").into(),
    }
}
