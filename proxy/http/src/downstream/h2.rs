//! HTTP/2 downstream: one stream of a connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dhow_http::h2::{MetadataPort, RecvBody, ResetCode, Responder, SendBody};
use dhow_http::{ByteDirection, ByteMeter, HeaderMap};
use dhow_proxy_api::Protocol;

use super::Downstream;
use crate::body::{BodySink, BodySource, BodyState};
use crate::h2_body::ReceivedBody;
use crate::h2_send::SendQueue;
use crate::reset::{Reset, ResetKind};
use crate::stats::ClientFamily;
use crate::upgrade;
use crate::watermarks::Pressure;

/// The streams of one connection.
#[derive(Debug)]
pub(crate) struct Streams {
    /// How many are served.
    pub(crate) active: Cell<usize>,
    /// When the last one ended.
    pub(crate) last_end: Cell<Instant>,
    /// The codec gave up the connection because of what the client sent.
    pub(crate) codec_failed: Cell<bool>,
    /// The connection is to end: the client is told to open no further streams.
    pub(crate) draining: Cell<bool>,
    /// What the first request told of the client.
    pub(crate) family: Cell<ClientFamily>,
    pub(crate) resets: PrematureResets,
}

/// Streams that the client gave up at once: many of them are an attack. Envoy's
/// `overload.premature_reset_total_stream_count` and `overload.premature_reset_min_stream_lifetime_seconds`, with their defaults.
#[derive(Debug, Default)]
pub(crate) struct PrematureResets {
    ended: Cell<u64>,
    premature: Cell<u64>,
    task: RefCell<Option<Waker>>,
}

impl PrematureResets {
    /// Streams after which the connection is judged by the share of those that were given up.
    const STREAMS: u64 = 500;
    /// Streams that live longer, in whole seconds, are not given up at once.
    const LIFETIME_S: u64 = 1;

    /// Counts a stream that ended after some time, with or without a response.
    pub(crate) fn on_end(&self, lifetime: Duration, answered: bool) {
        self.ended.set(self.ended.get() + 1);
        if answered || lifetime.as_secs() > Self::LIFETIME_S {
            return;
        }
        self.premature.set(self.premature.get() + 1);
        if self.are_too_many()
            && let Some(task) = self.task.take()
        {
            task.wake();
        }
    }

    /// Whether half of the streams were given up, or will have been whatever the rest do.
    pub(crate) fn are_too_many(&self) -> bool {
        let premature = self.premature.get();
        premature > 0 && premature * 2 >= self.ended.get().max(Self::STREAMS)
    }

    /// Wakes this task when they are.
    pub(crate) fn watch(&self, cx: &Context<'_>) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }
}

impl Streams {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            active: Cell::new(0),
            last_end: Cell::new(now),
            codec_failed: Cell::new(false),
            draining: Cell::new(false),
            family: Cell::default(),
            resets: PrematureResets::default(),
        }
    }
}

/// A request stream on an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct H2Downstream {
    body: ReceivedBody,
    responder: Responder,
    sender: Option<SendBody>,
    queue: SendQueue,
    siblings: Rc<Streams>,
    head_failed: bool,
    head_ends: bool,
    is_head_request: bool,
    finished: bool,
    meter: Option<Arc<ByteMeter>>,
    overlooked: Option<&'static str>,
}

impl H2Downstream {
    /// A stream whose response may wait for the client's window with up to `limit` bytes.
    pub(crate) fn new(
        body: RecvBody,
        responder: Responder,
        is_head_request: bool,
        limit: u32,
        siblings: Rc<Streams>,
    ) -> Self {
        Self {
            body: ReceivedBody::new(body),
            responder,
            sender: None,
            queue: SendQueue::new(limit),
            siblings,
            head_failed: false,
            head_ends: false,
            is_head_request,
            finished: false,
            meter: None,
            overlooked: None,
        }
    }

    /// Counts the bytes of responses in this; those of the request's head are counted.
    pub(crate) fn set_meter(&mut self, meter: Option<Arc<ByteMeter>>) {
        self.meter = meter;
    }

    /// Remembers what the codec overlooked in the head.
    pub(crate) fn set_overlooked(&mut self, what: &'static str) {
        self.overlooked = Some(what);
    }
}

impl H2Downstream {
    /// The reset as the stream sees it: that of its connection, if that is over because of the client.
    fn explain(&self, reset: Reset) -> Reset {
        if reset.transport.is_some() {
            return reset;
        }
        if !self.siblings.codec_failed.get() {
            return Reset { transport: self.overlooked.map(Into::into), ..reset };
        }
        Reset::with_transport(ResetKind::ProtocolError, "codec_error:The_user_callback_function_failed")
    }

    /// An error when the head of the response could not be sent.
    fn check_head(&self) -> Result<(), Reset> {
        match self.head_failed {
            true => Err(self.explain(Reset::new(ResetKind::LocalReset))),
            false => Ok(()),
        }
    }
}

impl BodySource for H2Downstream {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        let polled = self.body.poll_body(cx);
        polled.map_err(|reset| self.explain(reset))
    }

    fn chunk(&self) -> &[u8] {
        self.body.chunk()
    }

    fn consume(&mut self, count: usize) {
        self.body.consume(count);
    }

    fn split(&mut self, max: usize) -> Bytes {
        self.body.split(max)
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.body.trailers()
    }
}

impl BodySink for H2Downstream {
    fn poll_write<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
    ) -> Poll<Result<usize, Reset>> {
        let Some(sender) = &mut self.sender else {
            // The head ended the stream, as for HEAD: what upstream sends beyond it goes nowhere.
            let count = source.chunk().len();
            source.consume(count);
            return Poll::Ready(Ok(count));
        };
        let polled = self.queue.poll_write(cx, sender, source);
        polled.map_err(|reset| self.explain(reset))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        self.check_head()?;
        match &mut self.sender {
            Some(sender) => self.queue.poll_drain(cx, sender),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: Option<&HeaderMap>) -> Poll<Result<(), Reset>> {
        self.check_head()?;
        if let Some(sender) = &mut self.sender {
            ready!(self.queue.poll_finish(cx, sender, trailers))?;
            self.sender = None;
        }
        self.finished = true;
        Poll::Ready(Ok(()))
    }

    fn take_pressure(&mut self) -> Pressure {
        self.queue.take_pressure()
    }
}

impl Downstream for H2Downstream {
    fn protocol(&self) -> Protocol {
        Protocol::Http2
    }

    fn request_complete(&self) -> bool {
        self.body.is_complete()
    }

    fn unflushed(&self) -> usize {
        self.queue.unfinished()
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        let polled = match &mut self.sender {
            Some(sender) => sender.poll_reset(cx),
            None if self.head_ends => return Poll::Pending,
            None => self.responder.poll_reset(cx),
        };
        polled.map(|error| self.explain(error.into()))
    }

    fn send_informational(&mut self, head: &HeaderMap) {
        // A stream that is gone is noticed by the next operation on it.
        let _ = self.responder.send_informational(head);
    }

    fn send_head(&mut self, head: &mut HeaderMap, end: bool, _close: bool) {
        let end = end || self.is_head_request;
        let upgraded = upgrade::answer_to_http2(head);
        let sent = self.responder.send_response(head, end);
        if let Some(meter) = &self.meter {
            meter.on_decompressed(ByteDirection::Sent, head);
        }
        if upgraded {
            head.set_status(101);
        }
        match sent {
            Ok(sender) => {
                self.sender = (!end).then_some(sender);
                self.head_ends = end;
                self.finished = end;
            }
            Err(_) => {
                self.head_failed = true;
                self.responder.reset(ResetCode::InternalError);
            }
        }
    }

    fn begin_drain(&mut self) -> bool {
        !self.siblings.draining.replace(true)
    }

    fn metadata_port(&self) -> Option<MetadataPort> {
        self.body.metadata_port()
    }

    fn overlooked(&self) -> Option<&'static str> {
        self.overlooked
    }

    fn reset(&mut self) {
        match &mut self.sender {
            Some(sender) => sender.reset(ResetCode::InternalError),
            None if !self.finished => self.responder.reset(ResetCode::InternalError),
            None => {}
        }
    }
}

impl Drop for H2Downstream {
    fn drop(&mut self) {
        // A stream with a complete response whose request is not wanted any more is reset (NO_ERROR) by the codec once the
        // response is on its way; doing so here would overtake it.
        if !self.finished {
            self.reset();
        }
    }
}
