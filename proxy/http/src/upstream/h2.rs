//! A stream on an HTTP/2 connection to an upstream host.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use dhow_http::h1::{BodyLength, ResponseInfo, Version};
use dhow_http::h2::{MetadataPort, PendingResponse, ResetCode, SendBody};
use dhow_http::{ByteDirection, ByteMeter, HeaderMap, KnownHeader};
use dhow_proxy_upstream::ConnectionGuard;

use super::h2_connection::StreamSlot;
use crate::body::{BodySink, BodySource, BodyState};
use crate::h2_body::ReceivedBody;
use crate::h2_send::SendQueue;
use crate::reset::{Reset, ResetKind};
use crate::upgrade;
use crate::watermarks::Pressure;

/// One request on an HTTP/2 connection.
#[derive(Debug)]
pub(crate) struct H2Upstream {
    slot: Rc<StreamSlot>,
    sending: Option<SendBody>,
    queue: SendQueue,
    pending: Option<PendingResponse>,
    body: Option<ReceivedBody>,
    request_done: bool,
    /// The protocol that the request asks to upgrade to.
    upgrade: Option<Box<[u8]>>,
    /// Whether the response has no body by its status.
    bodiless: bool,
    /// Counts the bytes of the stream, where a format asks for them.
    meter: Option<Arc<ByteMeter>>,
}

impl H2Upstream {
    /// What counts the connection.
    pub(crate) fn guard(&self) -> &ConnectionGuard {
        self.slot.guard()
    }

    pub(crate) fn new(slot: Rc<StreamSlot>) -> Self {
        let queue = SendQueue::new(slot.stream_buffer());
        Self {
            slot,
            sending: None,
            queue,
            pending: None,
            body: None,
            request_done: false,
            upgrade: None,
            bodiless: false,
            meter: None,
        }
    }

    /// Whether so many bytes wait for the host that no more are taken.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.queue.is_backed_up()
    }

    /// Whether all of the request was sent.
    pub(crate) fn is_request_sent(&self) -> bool {
        self.request_done
    }

    /// The metadata of the stream, where there can be any.
    pub(crate) fn metadata_port(&self) -> Option<MetadataPort> {
        self.sending.as_ref()?.metadata_port()
    }

    /// Counts the bytes of the stream once it begins.
    pub(crate) fn set_meter(&mut self, meter: Arc<ByteMeter>) {
        self.meter = Some(meter);
    }

    /// Sends the request head.
    pub(crate) fn begin(&mut self, head: &HeaderMap, end: bool) -> Result<(), Reset> {
        let converted = upgrade::request_to_http2(head);
        let (pending, sending) =
            self.slot.open(converted.as_ref().unwrap_or(head), end, self.meter.as_ref())?;
        self.upgrade = converted.and_then(|_| head.get_known(KnownHeader::Upgrade)).map(Into::into);
        self.pending = Some(pending);
        self.sending = Some(sending);
        self.request_done = end;
        Ok(())
    }

    /// Waits for the response head, or an informational one that precedes it.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut HeaderMap,
    ) -> Poll<Result<ResponseInfo, Reset>> {
        let Some(pending) = &mut self.pending else {
            return Poll::Ready(Err(Reset::new(ResetKind::LocalReset)));
        };
        let informational = match pending.poll_informational(cx, head) {
            Poll::Ready(result) => result?,
            Poll::Pending => return Poll::Pending,
        };
        let mut body = BodyLength::None;
        if !informational {
            let received = ReceivedBody::new(ready!(pending.poll_response(cx, head))?);
            if !received.is_complete() {
                body = BodyLength::UntilClose;
            }
            if let Some(meter) = &self.meter {
                meter.on_decompressed(ByteDirection::Received, head);
            }
            self.bodiless = matches!(head.status(), Some(204 | 304));
            self.body = Some(received);
            if let Some(protocol) = &self.upgrade {
                upgrade::answer_from_http2(head, protocol);
            }
        }
        Poll::Ready(Ok(ResponseInfo {
            version: Version::Http11,
            status: head.status().unwrap_or(0),
            body,
            keep_alive: true,
            informational,
        }))
    }
}

impl BodySource for H2Upstream {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        match &mut self.body {
            Some(body) => {
                let state = ready!(body.poll_body(cx));
                if self.bodiless && matches!(state, Ok(BodyState::Data)) && !body.chunk().is_empty() {
                    return Poll::Ready(Err(Reset::new(ResetKind::ProtocolError)));
                }
                Poll::Ready(state)
            }
            None => Poll::Ready(Err(Reset::new(ResetKind::LocalReset))),
        }
    }

    fn chunk(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], BodySource::chunk)
    }

    fn consume(&mut self, count: usize) {
        if let Some(body) = &mut self.body {
            body.consume(count);
        }
    }

    fn split(&mut self, max: usize) -> Bytes {
        self.body.as_mut().map_or_else(Bytes::new, |body| body.split(max))
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.body.as_ref()?.trailers()
    }
}

impl BodySink for H2Upstream {
    fn poll_write<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
    ) -> Poll<Result<usize, Reset>> {
        let Some(sending) = &mut self.sending else {
            return Poll::Ready(Err(Reset::new(ResetKind::LocalReset)));
        };
        self.queue.poll_write(cx, sending, source)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reset>> {
        // What is sent here the connection's own task writes at the end of the turn.
        match &mut self.sending {
            Some(sending) => self.queue.poll_drain(cx, sending),
            None => Poll::Ready(Ok(())),
        }
    }

    fn take_pressure(&mut self) -> Pressure {
        self.queue.take_pressure()
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>, trailers: Option<&HeaderMap>) -> Poll<Result<(), Reset>> {
        if let Some(sending) = &mut self.sending
            && !self.request_done
        {
            ready!(self.queue.poll_finish(cx, sending, trailers))?;
        }
        self.request_done = true;
        Poll::Ready(Ok(()))
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        let response_done = self.body.as_ref().is_some_and(ReceivedBody::is_complete);
        if !(response_done && self.request_done)
            && let Some(sending) = &mut self.sending
        {
            sending.reset(ResetCode::InternalError);
        }
    }
}
