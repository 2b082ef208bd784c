//! Errors of requests for objects, classified for callers and readable for people. Of the response of a server, only
//! the error code is used: the text contains keys and signed requests.

use crate::http_client::{CalledOff, RequestError};
use crate::{BackendError, Refused};
use http::{HeaderMap, StatusCode};
use std::error::Error;
use std::time::Duration;

/// Why a request failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ObjectError {
    #[error("there is no such object")]
    Missing,
    #[error("the object already exists")]
    Exists,
    #[error("the object was changed in the meantime")]
    Changed,
    /// The credentials do not permit it.
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Permanent(String),
    /// A temporary failure. A retry may succeed, but not before the time that the server named.
    #[error("{what}")]
    Temporary { what: String, wait: Option<Duration> },
    #[error(transparent)]
    Canceled(#[from] CalledOff),
}

impl ObjectError {
    /// Converts an error of a write. A missing permission is not a failure, because it may be intended.
    pub fn into_write_error(self) -> BackendError {
        match self {
            ObjectError::Denied(why) => Refused::Write(why).into(),
            other => BackendError::Failed(other.into()),
        }
    }

    /// Converts an error of the library. If this program raised it, the original is among its sources.
    pub fn from_library(error: &object_store::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(seen) = error.downcast_ref::<ObjectError>() {
                return seen.clone();
            }
            cause = error.source();
        }
        match error {
            object_store::Error::NotFound { .. } => ObjectError::Missing,
            object_store::Error::AlreadyExists { .. } => ObjectError::Exists,
            object_store::Error::Precondition { .. } | object_store::Error::NotModified { .. } => {
                ObjectError::Changed
            }
            _ => ObjectError::Permanent(format!("unexpected response ({})", kind(error))),
        }
    }

    pub fn of_fault(fault: RequestError) -> Self {
        match fault {
            RequestError::Temporary { what, wait } => ObjectError::Temporary { what, wait },
            RequestError::Expired(what) => ObjectError::Denied(what),
            RequestError::NoRanges => {
                ObjectError::Permanent("the server does not support range requests".into())
            }
            RequestError::Permanent(error) => ObjectError::Permanent(format!("{error:#}")),
        }
    }

    /// Returns the meaning of an unsuccessful response, or `None` if the library handles it.
    pub fn of_answer(status: StatusCode, code: &str, headers: &HeaderMap) -> Option<Self> {
        let answered = match code {
            "" => format!("HTTP {}", status.as_u16()),
            code => format!("HTTP {} {code}", status.as_u16()),
        };
        Some(match status.as_u16() {
            404 if matches!(code, "NoSuchBucket" | "ContainerNotFound") => ObjectError::Permanent(
                format!("there is no such bucket ({answered}); create it, or name another"),
            ),
            // The clock is wrong, or the key is unknown: a retry does not help.
            401 | 403 => ObjectError::Denied(format!(
                "the server denied access ({answered}); check the credentials in the environment \
                 and their permissions"
            )),
            304 | 404 | 409 | 412 => return None,
            300..=399 => ObjectError::Permanent(format!(
                "the server redirects elsewhere ({answered}); check the region and the endpoint"
            )),
            408 | 429 | 500.. => ObjectError::Temporary {
                what: format!("the server failed ({answered})"),
                wait: crate::http_client::retry_after(headers),
            },
            _ if matches!(code, "RequestTimeout" | "SlowDown" | "ServerBusy") => {
                ObjectError::Temporary {
                    what: format!("the server failed ({answered})"),
                    wait: None,
                }
            }
            _ => ObjectError::Permanent(format!("the server refused ({answered})")),
        })
    }
}

/// Returns the kind of an error that the library detected itself, without the text that it quotes.
fn kind(error: &object_store::Error) -> &'static str {
    match error {
        object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => {
            "not supported"
        }
        object_store::Error::InvalidPath { .. } => "invalid object name",
        object_store::Error::UnknownConfigurationKey { .. } => "unknown setting",
        _ => "unrecognized error from the server",
    }
}

/// Returns the error code in a body or a header: `<Code>AccessDenied</Code>` from S3 and Google, a header from Azure.
pub fn code(headers: &HeaderMap, body: &[u8]) -> String {
    let named = headers.get("x-ms-error-code").and_then(|code| code.to_str().ok());
    let text = String::from_utf8_lossy(body);
    let inside = || {
        let (_, rest) = text.split_once("<Code>")?;
        rest.split_once("</Code>").map(|(code, _)| code)
    };
    let code = named.or_else(inside).unwrap_or_default();
    code.chars().filter(char::is_ascii_alphanumeric).take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_message_has_only_the_code_of_the_response() {
        let body = b"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIA</AWSAccessKeyId></Error>";
        let code = code(&HeaderMap::new(), body);
        let trouble =
            ObjectError::of_answer(StatusCode::FORBIDDEN, &code, &HeaderMap::new()).unwrap();
        let message = trouble.to_string();
        assert!(message.contains("HTTP 403 SignatureDoesNotMatch"), "{message}");
        assert!(!message.contains("AKIA"), "{message}");
        assert!(matches!(trouble, ObjectError::Denied(_)));
    }
}
