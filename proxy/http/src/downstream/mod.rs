//! The downstream side of a stream, by protocol.

mod h1;
mod h2;

use std::task::{Context, Poll};

use dhow_http::HeaderMap;
use dhow_http::h2::MetadataPort;
use dhow_proxy_api::Protocol;

use crate::body::{BodySink, BodySource};
use crate::reset::Reset;

pub(crate) use h1::H1Downstream;
pub(crate) use h2::{H2Downstream, Streams};

/// The downstream side of one stream: the request's body comes from it and the response goes to it.
pub(crate) trait Downstream: BodySource + BodySink {
    /// Protocol of the request.
    fn protocol(&self) -> Protocol;

    /// Whether the last byte of the request was received and consumed.
    fn request_complete(&self) -> bool;

    /// Bytes of the response that wait for the client once the whole response was given to its connection; 0 before that.
    fn unflushed(&self) -> usize;

    /// Whether the end of the response waits for other messages of the worker, and is sent when it is asked for again.
    fn waits_for_others(&self) -> bool {
        false
    }

    /// Notices that the client went away while nothing is read from it.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<Reset>;

    /// Buffers an informational response (1xx other than 101).
    fn send_informational(&mut self, head: &HeaderMap);

    /// Buffers the response head, `end` when there is no body. `close` asks for the end of the connection after this
    /// response, where the protocol has that. The head may get hop-by-hop headers of the protocol.
    fn send_head(&mut self, head: &mut HeaderMap, end: bool, close: bool);

    /// Tells the connection that it is to end because the proxy drains; false when it was told before.
    fn begin_drain(&mut self) -> bool {
        true
    }

    /// Leaves the client a while to end the connection itself, should it end after this response.
    fn linger(&mut self) {}

    /// Where the stream's metadata comes from and goes to, on a connection that has any.
    fn metadata_port(&self) -> Option<MetadataPort> {
        None
    }

    /// What the codec overlooked in the request, and brings up should the stream be reset: `%RESPONSE_CODE_DETAILS%`.
    fn overlooked(&self) -> Option<&'static str> {
        None
    }

    /// Gives the stream up without a complete response: the client must notice.
    fn reset(&mut self);
}
