//! The two phases of a proxied exchange: the request goes up until the response head is there, then both bodies move
//! until the response is complete.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dhow_http::HeaderMap;
use dhow_http::h1::ResponseInfo;
use dhow_proxy_runtime::DeadlineTimer;

use super::deadlines::{Deadlines, Expired};
use super::request_body::RequestBody;
use crate::body::{TransferError, poll_transfer};
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::upstream::UpstreamStream;

/// Why a phase ended before its purpose was reached.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// The upstream stream ended.
    Upstream(Reset),
    /// The client went away.
    Downstream(Reset),
    /// A deadline passed.
    Expired(Expired),
}

/// One attempt under way.
#[derive(Debug)]
pub(crate) struct Pump<'a, 'b, D> {
    pub(crate) body: &'a mut RequestBody<'b, D>,
    pub(crate) upstream: &'a mut UpstreamStream,
    pub(crate) deadlines: &'a mut Deadlines,
    pub(crate) timer: &'a mut DeadlineTimer,
    /// Whether the whole request was sent upstream.
    pub(crate) request_done: bool,
    /// When the request was received whole.
    pub(crate) request_complete: &'a mut Option<Instant>,
    /// When the request was sent whole.
    pub(crate) request_sent: &'a mut Option<Instant>,
    /// The route's timeout, which starts when the request was received whole.
    pub(crate) response_timeout: Option<Duration>,
    /// The exchange was upgraded: both directions are bytes until one side closes.
    pub(crate) upgraded: bool,
}

impl<D: Downstream> Pump<'_, '_, D> {
    /// Sends the request and waits for the response head (or an informational one).
    pub(crate) async fn await_head(
        &mut self,
        response: &mut HeaderMap,
    ) -> Result<ResponseInfo, Interruption> {
        if self.request_done {
            self.on_request_sent();
        }
        poll_fn(|cx| {
            let failed = match self.poll_request(cx) {
                Poll::Ready(Err(interruption)) => return Poll::Ready(Err(interruption)),
                Poll::Ready(Ok(failed)) => failed,
                Poll::Pending => None,
            };
            match (self.upstream.poll_head(cx, response), failed) {
                (Poll::Ready(Ok(info)), _) => return Poll::Ready(Ok(info)),
                (Poll::Ready(Err(reset)), _) | (Poll::Pending, Some(reset)) => {
                    return Poll::Ready(Err(Interruption::Upstream(reset)));
                }
                (Poll::Pending, None) => {}
            }
            self.poll_deadlines(cx).map(Err)
        })
        .await
    }

    /// Sends the response body, and what is left of the request, until the response is complete. Counts its bytes.
    pub(crate) async fn relay(&mut self, sent: &mut u64) -> Result<(), Interruption> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(interruption)) = self.poll_request(cx) {
                return Poll::Ready(Err(interruption));
            }
            let before = *sent;
            let polled = poll_transfer(cx, self.upstream, self.body.down, sent);
            if *sent != before {
                self.deadlines.touch(Instant::now());
            }
            match polled {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(TransferError::Source(reset))) => {
                    return Poll::Ready(Err(Interruption::Upstream(reset)));
                }
                Poll::Ready(Err(TransferError::Sink(reset))) => {
                    return Poll::Ready(Err(Interruption::Downstream(reset)));
                }
                Poll::Pending => {}
            }
            self.poll_deadlines(cx).map(Err)
        })
        .await
    }

    /// Moves the request body. Ready with the upstream's failure to take it, which a response may yet explain.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reset>, Interruption>> {
        if self.request_done {
            return match self.body.down.poll_closed(cx) {
                Poll::Ready(reset) => Poll::Ready(Err(Interruption::Downstream(reset))),
                Poll::Pending => Poll::Pending,
            };
        }
        let mut moved = 0;
        let polled = poll_transfer(cx, self.body, self.upstream, &mut moved);
        if moved > 0 {
            self.deadlines.touch(Instant::now());
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if self.upgraded => {
                Poll::Ready(Err(Interruption::Downstream(Reset::new(ResetKind::ConnectionTermination))))
            }
            Poll::Ready(Ok(())) => {
                self.request_done = true;
                self.on_request_sent();
                Poll::Pending
            }
            Poll::Ready(Err(TransferError::Source(reset))) => {
                Poll::Ready(Err(Interruption::Downstream(reset)))
            }
            Poll::Ready(Err(TransferError::Sink(reset))) => Poll::Ready(Ok(Some(reset))),
        }
    }

    fn on_request_sent(&mut self) {
        let now = Instant::now();
        let complete = *self.request_complete.get_or_insert(now);
        *self.request_sent = Some(now);
        self.deadlines.request = None;
        if self.deadlines.response.is_none() {
            self.deadlines.response = self.response_timeout.map(|timeout| complete + timeout);
        }
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Interruption> {
        while self.timer.poll(cx, self.deadlines.next()).is_ready() {
            if let Some(expired) = self.deadlines.expired(Instant::now()) {
                return Poll::Ready(Interruption::Expired(expired));
            }
        }
        Poll::Pending
    }
}
