//! HTTP/1 downstream: one stream at a time on its connection.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use dhow_http::h1::{
    BodyFraming, BodyLength, CONTINUE, CONTINUE_OLD, HeaderKeyFormat, RequestInfo, ResponseWriteOptions,
    TrailerLimits, Version, write_response_head,
};
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::Protocol;
use dhow_proxy_runtime::clock;

use super::Downstream;
use crate::body::{BodySink, BodySource, BodyState};
use crate::reset::{Reset, ResetKind};
use crate::watermarks::Pressure;
use crate::wire::Wire;

/// Bytes of following requests that are read ahead while one is served, so that a closed connection is noticed.
const PIPELINE_LIMIT: usize = 64 * 1024;

/// The request under way on an HTTP/1 connection.
#[derive(Debug)]
pub(crate) struct H1Downstream {
    wire: Wire,
    request: RequestInfo,
    request_done: bool,
    response_started: bool,
    /// The whole response was given to the connection.
    finishing: bool,
    close: bool,
    /// The client does not expect the end of the connection, and may still be sending.
    delay_close: bool,
    /// The client is left a while even where it expects the end.
    lingers: bool,
    keys: HeaderKeyFormat,
    pass_trailers: bool,
    /// Since when the connection drains: responses say that they are the last, and clients that go on are served.
    drains_from: Option<Instant>,
    /// A response that says so is the last.
    ends_with_drain: bool,
}

impl H1Downstream {
    /// A connection whose header names are written in this form, and on which trailers are passed on or dropped
    /// (`enable_trailers`).
    pub(crate) fn new(wire: Wire, keys: HeaderKeyFormat, pass_trailers: bool) -> Self {
        let request = RequestInfo {
            version: Version::Http11,
            body: BodyLength::None,
            keep_alive: true,
            upgrade: false,
            connect: false,
            head: false,
            expect_continue: false,
        };
        Self {
            wire,
            request,
            request_done: true,
            response_started: false,
            finishing: false,
            close: false,
            delay_close: false,
            lingers: false,
            keys,
            pass_trailers,
            drains_from: None,
            ends_with_drain: false,
        }
    }

    /// Gives up the connection to another codec.
    pub(crate) fn into_wire(self) -> Wire {
        self.wire
    }

    pub(crate) fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Starts the next request, whose head was just parsed.
    pub(crate) fn begin(&mut self, request: RequestInfo, limits: TrailerLimits) {
        self.request = request;
        self.request_done = request.body == BodyLength::None;
        self.response_started = false;
        self.finishing = false;
        // Draining comes before what the client says, as in Envoy.
        self.close = !request.keep_alive && !self.drains();
        self.delay_close = false;
        self.lingers = false;
        self.wire.begin_body(request.body, limits);
    }

    /// Starts the answer to a request whose head is not known.
    pub(crate) fn begin_unread(&mut self, version: Version) {
        self.request = RequestInfo {
            version,
            body: BodyLength::None,
            keep_alive: false,
            upgrade: false,
            connect: false,
            head: false,
            expect_continue: false,
        };
        self.request_done = false;
        self.response_started = false;
        self.close = true;
    }

    /// Buffers the answer to `expect: 100-continue`; it leaves before the body is waited for.
    pub(crate) fn send_continue(&mut self) {
        let old = self.request.version == Version::Http10;
        self.wire.out().extend_from_slice(if old { CONTINUE_OLD } else { CONTINUE });
    }

    /// Drains the connection from this time on: responses say that they are the last, and are when `ends`.
    pub(crate) fn drain_from(&mut self, at: Option<Instant>, ends: bool) {
        (self.drains_from, self.ends_with_drain) = (at, ends);
    }

    /// Whether the connection drains.
    pub(crate) fn drains(&self) -> bool {
        self.drains_from.is_some_and(|at| at <= clock::now())
    }

    /// Ends the connection after the response to this request.
    pub(crate) fn close_after_response(&mut self) {
        self.close = true;
    }

    /// Whether another request can be read from the connection after this stream.
    pub(crate) fn reusable(&self) -> bool {
        !self.close && self.request_done
    }

    /// Whether the client is to have a while for ending the connection itself.
    pub(crate) fn closes_with_delay(&self) -> bool {
        self.delay_close || self.lingers
    }

    /// Counts the trailers of a request that is complete.
    fn meter_trailers(&self) {
        if let Some((meter, trailers)) = self.wire.meter.as_ref().zip(self.trailers()) {
            meter.on_http1_trailers_received(trailers);
        }
    }

    fn write_options(&self) -> ResponseWriteOptions {
        ResponseWriteOptions {
            keys: self.keys,
            version: self.request.version,
            to_head: self.request.head,
            to_connect: self.request.connect,
        }
    }
}

impl BodySource for H1Downstream {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        let polled = self.wire.poll_body(cx);
        if polled.is_pending() && !self.response_started {
            // A client that waits for 100 (Continue) sends nothing before it has it.
            if let Poll::Ready(Err(error)) = self.wire.poll_flush(cx) {
                return Poll::Ready(Err(Reset::of_io(&error)));
            }
        }
        let state = ready!(polled)?;
        if state == BodyState::End && !std::mem::replace(&mut self.request_done, true) {
            self.meter_trailers();
        }
        Poll::Ready(Ok(state))
    }

    fn chunk(&self) -> &[u8] {
        self.wire.chunk()
    }

    fn consume(&mut self, count: usize) {
        self.wire.consume(count);
        if self.wire.body_is_consumed() && !std::mem::replace(&mut self.request_done, true) {
            self.meter_trailers();
        }
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.wire.trailers().filter(|_| self.pass_trailers)
    }
}

impl BodySink for H1Downstream {
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

    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: Option<&HeaderMap>) -> Poll<Result<(), Reset>> {
        let trailers = trailers.filter(|_| self.pass_trailers);
        self.finishing = true;
        self.wire.poll_finish(cx, trailers).map_err(|e| Reset::of_io(&e))
    }
}

impl Downstream for H1Downstream {
    fn protocol(&self) -> Protocol {
        match self.request.version {
            Version::Http10 => Protocol::Http10,
            Version::Http11 => Protocol::Http11,
        }
    }

    fn request_complete(&self) -> bool {
        self.request_done
    }

    fn unflushed(&self) -> usize {
        if self.finishing { self.wire.unwritten() } else { 0 }
    }

    fn waits_for_others(&self) -> bool {
        self.wire.waits_for_others()
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        while self.wire.read.len() < PIPELINE_LIMIT {
            match ready!(self.wire.poll_fill(cx)) {
                Ok(count) if count > 0 => {}
                _ => return Poll::Ready(Reset::new(ResetKind::ConnectionTermination)),
            }
        }
        Poll::Pending
    }

    fn send_informational(&mut self, head: &HeaderMap) {
        let options = self.write_options();
        let before = self.wire.out().len();
        write_response_head(self.wire.out(), head, options, true);
        self.wire.meter_head(before);
    }

    fn send_head(&mut self, head: &mut HeaderMap, end: bool, close: bool) {
        self.response_started = true;
        let status = head.status().unwrap_or(0);
        let upgraded = status == 101 || (self.request.connect && (200..300).contains(&status));
        let drains = self.drains();
        // Clients of HTTP/1.0 are told the length first, or that there is nothing to come.
        let unbounded =
            self.request.version == Version::Http10 && !head.contains_known(KnownHeader::ContentLength);
        self.delay_close = close || drains && self.ends_with_drain || upgraded || !self.request_done;
        self.close |= self.delay_close || unbounded && !upgraded;
        if (self.close || drains) && !upgraded {
            head.set_known(KnownHeader::Connection, b"close");
        } else if self.request.version == Version::Http10 {
            head.set_known(KnownHeader::Connection, b"keep-alive");
        }
        let options = self.write_options();
        let before = self.wire.out().len();
        let framing = write_response_head(self.wire.out(), head, options, end);
        self.wire.meter_head(before);
        let until_close =
            framing == BodyFraming::Identity && !head.contains_known(KnownHeader::ContentLength);
        self.close |= until_close;
        self.wire.begin_write(framing);
    }

    fn begin_drain(&mut self) -> bool {
        let begins = !self.drains();
        if begins {
            self.drains_from = Some(clock::now());
            self.close &= self.request.keep_alive;
        }
        begins
    }

    fn linger(&mut self) {
        self.lingers = true;
    }

    fn reset(&mut self) {
        self.close = true;
    }
}
