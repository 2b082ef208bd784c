//! HTTP connector for the `object_store` library. It sends the requests of the library over our own connections, with
//! their timeouts, and turns unsuccessful responses into [`ObjectError`]. It does not retry; `client.rs` does.

use super::error::{ObjectError, code};
use crate::http_client::{RetryingClient, told};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use storecache_runtime::RunContext;
use tokio::time::{Instant, Sleep, sleep};

/// The longest response body that is read, in bytes. Ranges and pages of lists are much shorter.
const LONGEST: u64 = 256 << 20;

/// How much of the body of an unsuccessful response is read, in bytes.
const LONGEST_ERROR: usize = 64 << 10;

/// Creates the HTTP clients of the library.
pub struct Connector {
    pub wire: Arc<RetryingClient>,
    /// Refuses servers without TLS even if the options of the library allow them: for Google, the library allows them
    /// without being asked.
    pub strict: bool,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let allowed = options.get_config_value(&ClientConfigKey::AllowHttp);
        let plain = !self.strict && allowed.is_some_and(|allowed| allowed == "true");
        Ok(HttpClient::new(HttpTransport { wire: Arc::clone(&self.wire), plain }))
    }
}

/// The HTTP client for one server.
struct HttpTransport {
    wire: Arc<RetryingClient>,
    /// Whether a server without TLS is allowed.
    plain: bool,
}

impl fmt::Debug for HttpTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

#[async_trait]
impl HttpService for HttpTransport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        if parts.uri.scheme_str() != Some("https") && !self.plain {
            return Err(failed(ObjectError::Permanent(
                "the endpoint does not use https, so credentials would be sent unencrypted; if \
                 that is intended, set AWS_ALLOW_HTTP, GOOGLE_ALLOW_HTTP or AZURE_ALLOW_HTTP to \
                 true"
                    .into(),
            )));
        }
        let bytes = gathered(body).await?;
        let wire = &self.wire;
        let reads = matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
        let request = wire.service().request(parts.method, parts.uri.to_string());
        let request = request.headers(parts.headers);
        let answer = if bytes.is_empty() && reads {
            wire.first_byte(wire.timeouts.answer, request.send()).await
        } else {
            wire.send(request, bytes).await
        };
        let answer = answer.map_err(|fault| failed(ObjectError::of_fault(fault)))?;
        wire.note_time(answer.headers());
        let (head, body) = Response::<reqwest::Body>::from(answer).into_parts();
        let body = Clocked::new(wire.run(), body, wire.timeouts.stall);
        if head.status.is_success() {
            return Ok(HttpResponse::from_parts(head, HttpResponseBody::new(body)));
        }
        let said = body.beginning().await;
        let code = code(&head.headers, &said);
        match ObjectError::of_answer(head.status, &code, &head.headers) {
            Some(trouble) => Err(failed(trouble)),
            None => Ok(without_body(head)),
        }
    }
}

fn without_body(head: http::response::Parts) -> HttpResponse {
    let status: StatusCode = head.status;
    let mut answer = HttpResponse::new(HttpResponseBody::from(Bytes::new()));
    *answer.status_mut() = status;
    *answer.headers_mut() = head.headers;
    answer
}

/// Wraps an error in a kind that the library passes on and does not retry.
fn failed(trouble: ObjectError) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, trouble)
}

/// Returns the whole body of a request. Blocks of an upload are in one piece and are not copied.
async fn gathered(mut body: HttpRequestBody) -> Result<Bytes, HttpError> {
    let mut all: Vec<Bytes> = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        all.extend(frame?.into_data().ok());
    }
    Ok(match all.len() {
        1 => all.remove(0),
        _ => all
            .iter()
            .fold(BytesMut::new(), |mut whole, piece| {
                whole.extend_from_slice(piece);
                whole
            })
            .freeze(),
    })
}

/// A response body with a stall timeout.
struct Clocked {
    run: RunContext,
    body: reqwest::Body,
    stall: Duration,
    alarm: Pin<Box<Sleep>>,
    got: u64,
}

impl Clocked {
    fn new(run: &RunContext, body: reqwest::Body, stall: Duration) -> Self {
        Clocked { run: run.clone(), body, stall, alarm: Box::pin(sleep(stall)), got: 0 }
    }

    /// Returns the beginning of the body, up to [`LONGEST_ERROR`]. The body only explains an error, so failures to
    /// read it are ignored.
    async fn beginning(mut self) -> Vec<u8> {
        let mut said = Vec::new();
        while said.len() < LONGEST_ERROR
            && let Some(Ok(frame)) =
                poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await
        {
            said.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        said
    }
}

impl Body for Clocked {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let temporary = |what| failed(ObjectError::Temporary { what, wait: None });
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                self.run.report_progress("bytes from the object store");
                self.got += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.got > LONGEST {
                    let what = "the response is too long".to_owned();
                    return Poll::Ready(Some(Err(temporary(what))));
                }
                let next = Instant::now() + self.stall;
                self.alarm.as_mut().reset(next);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(temporary(told(&error))))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.alarm.as_mut().poll(context) {
                Poll::Ready(()) => {
                    let seconds = self.stall.as_secs_f64();
                    Poll::Ready(Some(Err(temporary(format!("no bytes received for {seconds} s")))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
