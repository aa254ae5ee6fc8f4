//! Requests that a [`Responder`] answers in the place of filters and a router.

use std::future::poll_fn;
use std::task::Poll;

use dhow_http::{HeaderMap, HeaderName};
use dhow_proxy_api::LocalReply;
use dhow_proxy_runtime::{DeadlineTimer, clock};

use super::exchange::{BoxedEnding, Ending, Exchange};
use super::pump::Interruption;
use super::request_body::RequestBody;
use crate::body::{BodySource, BodyState, BufferedBody};
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};

/// What a responder is shown of a request's body at most, in bytes. The rest is read and dropped.
const MAX_BODY: usize = 1 << 20;

/// Answers all requests of a connection manager itself, on one thread.
pub trait Responder {
    /// Answers a request once it is there whole.
    fn respond(&self, request: &HeaderMap, body: &[u8]) -> Response;
}

/// A response whose length is not told ahead of it.
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: &'static str,
    /// Headers.
    pub headers: Vec<(HeaderName, Vec<u8>)>,
    /// Makes the body. Called once the head is on its way, and so counted.
    pub body: Box<dyn FnOnce() -> Vec<u8>>,
}

impl Exchange {
    /// Answers a request for which there is no router.
    #[cold]
    pub(super) fn respond<'a, D: Downstream>(
        &'a mut self,
        down: &'a mut D,
        timer: &'a mut DeadlineTimer,
    ) -> BoxedEnding<'a> {
        Box::pin(self.read_and_respond(down, timer))
    }

    async fn read_and_respond<D: Downstream>(&mut self, down: &mut D, timer: &mut DeadlineTimer) -> Ending {
        let Some(responder) = self.manager.responder.clone() else {
            let reply = LocalReply::new(404, &b""[..], "route_not_found");
            return self.reply(down, timer, reply).await;
        };
        let mut body = Vec::new();
        if !self.end_stream
            && let Err(interruption) = self.read_request(down, timer, &mut body).await
        {
            return self.interrupted(down, timer, interruption).await;
        }
        let Response { status, details, headers, body } = responder.respond(&self.request, &body);
        self.response.clear();
        self.response.set_status(status);
        headers.iter().for_each(|(name, value)| self.response.append_name(name, value));
        self.info.details = Some(details.into());
        let without_body = self.request.method() == b"HEAD";
        self.send_response_head(down, without_body, false);
        let body = if without_body { Vec::new() } else { body() };
        self.send_whole(down, timer, &mut BufferedBody::new(&body, None)).await
    }

    async fn read_request<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        body: &mut Vec<u8>,
    ) -> Result<(), Interruption> {
        let upgrade = self.upgrade;
        let (stream, deadlines) = self.parts();
        let mut source = RequestBody { down, kept: None, stream };
        poll_fn(|cx| {
            loop {
                match source.poll_body(cx) {
                    Poll::Ready(Ok(BodyState::Data)) => {
                        let part = source.chunk();
                        let count = part.len();
                        body.extend_from_slice(&part[..count.min(MAX_BODY - body.len())]);
                        source.consume(count);
                        deadlines.touch(clock::now());
                    }
                    // What follows a request for another protocol ends with its connection.
                    Poll::Ready(Ok(BodyState::End)) if upgrade => {
                        let gone = Reset::new(ResetKind::ConnectionTermination);
                        return Poll::Ready(Err(Interruption::Downstream(gone)));
                    }
                    Poll::Ready(Ok(BodyState::End)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(reset)) => return Poll::Ready(Err(Interruption::Downstream(reset))),
                    Poll::Pending => {
                        return deadlines
                            .poll_expired(cx, timer)
                            .map(|expired| Err(Interruption::Expired(expired)));
                    }
                }
            }
        })
        .await?;
        self.info.request_complete.get_or_insert_with(clock::now);
        Ok(())
    }
}
