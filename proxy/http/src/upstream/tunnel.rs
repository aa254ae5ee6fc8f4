//! A plain connection to a host as the upstream of a terminated CONNECT: the proxy answers for it, then bytes go both ways.

use std::task::{Context, Poll, ready};

use dhow_http::HeaderMap;
use dhow_http::h1::{BodyFraming, BodyLength, ResponseInfo, TrailerLimits, Version};
use dhow_proxy_upstream::{ClosedBy, ConnectionGuard};

use crate::body::{BodySink, BodySource, BodyState};
use crate::reset::{Reset, ResetKind};
use crate::watermarks::Pressure;
use crate::wire::Wire;

/// A connection whose bytes are the body of a CONNECT request and its response.
#[derive(Debug)]
pub(crate) struct Tunnel {
    wire: Wire,
    guard: ConnectionGuard,
    shut_down: bool,
}

impl Tunnel {
    /// What counts the connection.
    pub(crate) fn guard(&self) -> &ConnectionGuard {
        &self.guard
    }

    /// A tunnel over the connection; `greeting` goes to the host before everything else.
    pub(crate) fn new(mut wire: Wire, guard: ConnectionGuard, greeting: &[u8]) -> Self {
        guard.count_request();
        guard.set_requests_active(true);
        wire.begin_body(BodyLength::UntilClose, TrailerLimits::default());
        wire.begin_write(BodyFraming::Identity);
        if !greeting.is_empty() {
            wire.out().extend_from_slice(greeting);
        }
        Self { wire, guard, shut_down: false }
    }

    /// Whether so many bytes wait for the host that no more are taken.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.wire.is_backed_up()
    }

    /// The answer to CONNECT: a connection is all that it asked for.
    pub(crate) fn answer(&self, head: &mut HeaderMap) -> ResponseInfo {
        head.clear();
        head.set_status(200);
        ResponseInfo {
            version: Version::Http11,
            status: 200,
            body: BodyLength::UntilClose,
            keep_alive: false,
            informational: false,
        }
    }
}

impl BodySource for Tunnel {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        let state = ready!(self.wire.poll_body(cx))?;
        if state == BodyState::End {
            self.guard.set_closed_by(ClosedBy::Remote);
            self.guard.set_requests_active(false);
        }
        Poll::Ready(Ok(state))
    }

    fn chunk(&self) -> &[u8] {
        self.wire.chunk()
    }

    fn consume(&mut self, count: usize) {
        self.wire.consume(count);
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        None
    }
}

impl BodySink for Tunnel {
    fn poll_write<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
    ) -> Poll<Result<usize, Reset>> {
        let count = ready!(self.wire.poll_write_body(cx, source.chunk())).map_err(|e| Reset::of_io(&e))?;
        source.consume(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        self.wire.poll_flush(cx).map_err(|e| Reset::of_io(&e))
    }

    fn take_pressure(&mut self) -> Pressure {
        self.wire.take_pressure()
    }

    fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        _trailers: Option<&HeaderMap>,
    ) -> Poll<Result<(), Reset>> {
        ready!(self.wire.poll_finish(cx, None)).map_err(|e| Reset::of_io(&e))?;
        if !self.shut_down {
            // The client's end of data is the host's.
            ready!(self.wire.poll_shutdown(cx)).map_err(|_| Reset::new(ResetKind::ConnectionTermination))?;
            self.shut_down = true;
        }
        Poll::Ready(Ok(()))
    }
}
