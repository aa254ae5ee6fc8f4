//! An HTTP/1 connection to an upstream host: one request at a time.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use dhow_http::h1::{
    Answering, BodyLength, HeadProgress, HeaderKeyFormat, Parsed, RequestWriteOptions, ResponseInfo,
    ResponseOptions, TrailerLimits, is_keep_alive, is_upgrade, parse_response, write_request_head,
};
use dhow_http::{ByteMeter, HeaderMap};
use dhow_proxy_runtime::clock;
use dhow_proxy_upstream::{
    ClosedBy, ConnectionGuard, HeaderKeyFormat as KeyFormat, Http1Options, HttpOptions, UpstreamProtocol,
};

use crate::body::{BodySink, BodySource, BodyState};
use crate::reset::{Reset, ResetKind};
use crate::watermarks::Pressure;
use crate::wire::Wire;

/// A connection to a host, and the request on it.
#[derive(Debug)]
pub(crate) struct H1Upstream {
    wire: Wire,
    guard: ConnectionGuard,
    settings: H1Settings,
    progress: HeadProgress,
    answering: Answering,
    keep_alive: bool,
    request_done: bool,
    head_done: bool,
    /// What follows are bytes of another protocol.
    switched: bool,
    /// It is this side that ends the connection.
    ends_here: bool,
    requests: u64,
    /// When the connection became idle.
    pub(crate) idle_since: Instant,
    /// Whether `max_connection_duration` is over, where there is one.
    expired: Option<Rc<Cell<bool>>>,
}

/// How a cluster's HTTP/1 connections are spoken on.
#[derive(Clone, Debug)]
pub(crate) struct H1Settings {
    /// What responses may look like.
    pub(crate) response: ResponseOptions,
    /// How request heads are written.
    pub(crate) request: RequestWriteOptions,
    /// `enable_trailers`: trailers are passed on in both directions.
    pub(crate) trailers: bool,
}

impl H1Settings {
    /// The settings of a cluster.
    pub(crate) fn of(http: &HttpOptions) -> Self {
        let defaults = Http1Options::default();
        let options = match &http.protocol {
            UpstreamProtocol::Http1(options)
            | UpstreamProtocol::Auto(options, _)
            | UpstreamProtocol::Downstream(options, _) => options,
            UpstreamProtocol::Http2(_) => &defaults,
        };
        let (keys, spelling) = match options.header_key_format {
            KeyFormat::ProperCaseWords => (HeaderKeyFormat::ProperCase, None),
            // The spelling that came from downstream goes with the request; what is kept here is that of the response.
            KeyFormat::PreserveCase(rules) => (HeaderKeyFormat::Lower, Some(rules)),
            KeyFormat::Lower => (HeaderKeyFormat::Lower, None),
        };
        Self {
            response: ResponseOptions {
                max_head_bytes: http.max_response_headers_kb as usize * 1024,
                max_headers: http.max_headers_count as usize,
                allow_chunked_length: options.allow_chunked_length,
                spelling,
            },
            request: RequestWriteOptions { keys, absolute_target: options.send_fully_qualified_url },
            trailers: options.enable_trailers,
        }
    }
}

impl H1Upstream {
    /// The request that has the connection is given up before anything of it is sent, and the connection ends with it.
    pub(super) fn abandon(&mut self) {
        self.keep_alive = false;
        self.request_done = false;
    }

    /// The connection ends here with the request, whoever ended its direction before.
    pub(super) fn end_here(&mut self) {
        self.keep_alive = false;
        self.ends_here = true;
    }

    pub(crate) fn new(
        wire: Wire,
        guard: ConnectionGuard,
        settings: H1Settings,
        expired: Option<Rc<Cell<bool>>>,
    ) -> Self {
        Self {
            wire,
            guard,
            settings,
            progress: HeadProgress::default(),
            answering: Answering::Ordinary,
            keep_alive: true,
            request_done: true,
            head_done: true,
            switched: false,
            ends_here: false,
            requests: 0,
            idle_since: clock::now(),
            expired,
        }
    }

    /// What counts the connection.
    pub(crate) fn guard(&self) -> &ConnectionGuard {
        &self.guard
    }

    /// Whether so many bytes wait for the host that no more are taken.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.wire.is_backed_up()
    }

    /// Whether the end of the request waits for other messages of the worker, and is sent when it is asked for again.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.wire.waits_for_others()
    }

    /// Whether the connection is to carry no further request because of its age.
    pub(crate) fn has_expired(&self) -> bool {
        self.expired.as_ref().is_some_and(|expired| expired.get())
    }

    /// Requests sent on this connection so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Counts the bytes of the next request and its response, or of none.
    pub(crate) fn set_meter(&mut self, meter: Option<Arc<ByteMeter>>) {
        self.wire.meter = meter;
    }

    /// Starts a request; its head leaves with the first body bytes or the next flush.
    pub(crate) fn begin(&mut self, head: &HeaderMap, end: bool) {
        self.requests = self.guard.count_request();
        self.guard.set_requests_active(true);
        self.answering = match head.method() {
            b"HEAD" => Answering::Head,
            b"CONNECT" => Answering::Connect,
            _ if is_upgrade(head) => Answering::Upgrade,
            _ => Answering::Ordinary,
        };
        self.progress = HeadProgress::default();
        self.request_done = end;
        self.head_done = false;
        self.keep_alive = false;
        let before = self.wire.out().len();
        let framing = write_request_head(self.wire.out(), head, self.settings.request, end);
        self.wire.meter_head(before);
        self.wire.begin_write(framing);
        self.wire.expect_quiet();
    }

    /// Reads the response head, or an informational one that precedes it.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<ResponseInfo, Reset>> {
        loop {
            if !self.wire.read.is_empty() {
                let parsed = parse_response(
                    self.wire.read.filled(),
                    &mut self.progress,
                    self.answering,
                    &self.settings.response,
                    head,
                );
                match parsed {
                    Ok(Parsed::Complete { consumed, info }) => {
                        if let Some(meter) = &self.wire.meter {
                            meter.on_http1_head_received(&self.wire.read.filled()[..consumed]);
                        }
                        self.wire.read.consume(consumed);
                        self.on_head(info, head);
                        return Poll::Ready(Ok(info));
                    }
                    Ok(Parsed::Partial) => {}
                    // What is wrong with a response is not told, as in Envoy.
                    Err(_) => return Poll::Ready(Err(Reset::new(ResetKind::ProtocolError))),
                }
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(0) => {
                    // A message that began does not end here.
                    let began = !self.wire.read.is_empty();
                    if began {
                        self.guard.set_closed_by(ClosedBy::Remote);
                    }
                    let kind =
                        if began { ResetKind::ProtocolError } else { ResetKind::ConnectionTermination };
                    return Poll::Ready(Err(Reset::new(kind)));
                }
                Ok(_) => {}
                Err(error) => {
                    // Reading fails where the host reset the connection.
                    self.guard.set_closed_by(ClosedBy::Remote);
                    if let Some(tls) = self.guard.info().stats.tls() {
                        tls.count(Err(&error));
                    }
                    return Poll::Ready(Err(Reset::of_io(&error)));
                }
            }
        }
    }

    fn on_head(&mut self, info: ResponseInfo, head: &HeaderMap) {
        self.progress = HeadProgress::default();
        if info.informational {
            return;
        }
        self.head_done = true;
        self.switched = self.switches(info);
        self.keep_alive = info.keep_alive;
        // What ends with its connection need not say so.
        if !info.keep_alive && !self.switched && !is_keep_alive(info.version, head) {
            self.guard.info().stats.upstream_cx_close_notify().inc();
        }
        self.wire.begin_body(info.body, TrailerLimits::default());
        if info.body == BodyLength::None {
            self.wire.read.release_if_empty();
        }
    }

    /// Whether the response ends HTTP on the connection: what follows are bytes of another protocol.
    fn switches(&self, info: ResponseInfo) -> bool {
        match self.answering {
            Answering::Upgrade => info.status == 101,
            Answering::Connect => (200..300).contains(&info.status),
            _ => false,
        }
    }

    /// Whether the connection can carry another request: both messages ended and nothing unasked for arrived.
    pub(crate) fn reusable(&self) -> bool {
        let complete = self.request_done && self.head_done && self.wire.body_is_consumed();
        self.guard.set_requests_active(!complete);
        if self.wire.peer_ended() && !self.ends_here {
            self.guard.set_closed_by(ClosedBy::Remote);
        }
        if complete && !self.wire.read.is_empty() {
            self.guard.info().stats.upstream_cx_protocol_error().inc();
        }
        let open = self.keep_alive && self.wire.read.is_empty() && !self.wire.peer_ended();
        complete && open && !self.has_expired()
    }

    /// Whether the host closed the connection, or sent something unasked for, while it was idle. Reads nothing unless
    /// the event loop saw the socket readable.
    pub(crate) fn is_stale(&mut self) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if self.wire.poll_readable(&mut cx).is_pending() {
            return false;
        }
        // Readable: either the end, or bytes that no request asked for. TLS may be readable without plaintext.
        let filled = self.wire.poll_fill(&mut cx);
        let stale = filled.is_ready();
        if stale && (self.wire.peer_ended() || matches!(filled, Poll::Ready(Err(_)))) {
            self.guard.set_closed_by(ClosedBy::Remote);
        } else if stale && !self.wire.read.is_empty() {
            self.guard.info().stats.upstream_cx_protocol_error().inc();
        }
        stale
    }
}

impl BodySource for H1Upstream {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        let result = ready!(self.wire.poll_body(cx));
        if matches!(result, Ok(BodyState::End))
            && let Some((meter, trailers)) = self.wire.meter.as_ref().zip(self.trailers())
        {
            meter.on_http1_trailers_received(trailers);
        }
        if self.switched && matches!(result, Ok(BodyState::End)) {
            // Another protocol has no end that HTTP knows of.
            return Poll::Ready(Err(Reset::new(ResetKind::ConnectionTermination)));
        }
        Poll::Ready(result.or_else(|reset| match reset.kind {
            // A connection of which the host's end is the body's may end in any way.
            ResetKind::ConnectionTermination if !self.switched && self.wire.end_with_connection() => {
                self.guard.set_closed_by(ClosedBy::Remote);
                Ok(BodyState::End)
            }
            // The end of the connection in the middle of a body breaks the protocol, orderly or not.
            ResetKind::ConnectionTermination if !self.switched => {
                self.guard.set_closed_by(ClosedBy::Remote);
                Err(Reset::new(ResetKind::ProtocolError))
            }
            // What is wrong with a response is not told, as in Envoy.
            ResetKind::ProtocolError => Err(Reset::new(ResetKind::ProtocolError)),
            _ => Err(reset),
        }))
    }

    fn chunk(&self) -> &[u8] {
        self.wire.chunk()
    }

    fn consume(&mut self, count: usize) {
        self.wire.consume(count);
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.wire.trailers().filter(|_| self.settings.trailers)
    }
}

impl BodySink for H1Upstream {
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
        let trailers = trailers.filter(|_| self.settings.trailers);
        ready!(self.wire.poll_finish(cx, trailers)).map_err(|e| Reset::of_io(&e))?;
        if self.answering == Answering::Connect && !self.request_done {
            // The end of a tunnel in this direction is that of the connection.
            ready!(self.wire.poll_shutdown(cx)).map_err(|e| Reset::of_io(&e))?;
        }
        self.request_done = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use dhow_proxy_upstream::Http2Options;

    use super::*;

    #[test]
    fn the_clusters_options_reach_the_connection() {
        let options = Http1Options {
            header_key_format: KeyFormat::ProperCaseWords,
            enable_trailers: true,
            allow_chunked_length: true,
            send_fully_qualified_url: true,
        };
        let both = (options.clone(), Http2Options::default());
        for protocol in [
            UpstreamProtocol::Http1(options),
            UpstreamProtocol::Auto(both.0.clone(), both.1.clone()),
            UpstreamProtocol::Downstream(both.0, both.1),
        ] {
            let http = HttpOptions { protocol, max_response_headers_kb: 2, ..HttpOptions::default() };
            let settings = H1Settings::of(&http);
            assert_eq!(settings.request.keys, HeaderKeyFormat::ProperCase);
            assert!(settings.request.absolute_target && settings.trailers);
            assert!(settings.response.allow_chunked_length);
            assert_eq!((settings.response.max_head_bytes, settings.response.max_headers), (2048, 100));
        }
        let defaults = H1Settings::of(&HttpOptions::default());
        assert_eq!(defaults.request.keys, HeaderKeyFormat::Lower);
        assert!(!defaults.trailers && !defaults.request.absolute_target);
        assert!(!defaults.response.allow_chunked_length);
    }
}
