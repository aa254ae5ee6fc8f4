//! A reply that the proxy makes itself.

use std::borrow::Cow;

use dhow_base::{ResponseFlag, ResponseFlags};
use dhow_http::HeaderName;

use crate::stream_info::Details;

/// A response made by the proxy. Status, body, response flag and response-code details belong together: operators find
/// the cause of a reply through all four.
#[derive(Clone, Debug)]
pub struct LocalReply {
    /// HTTP status.
    pub status: u16,
    /// Body, sent as `text/plain` when it is not empty and nobody said otherwise.
    pub body: Cow<'static, [u8]>,
    /// Type of the body, which wins over what the route's headers say.
    pub content_type: Option<Box<str>>,
    /// Flags for `%RESPONSE_FLAGS%`.
    pub flags: ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Details,
    /// Headers to add to the response.
    pub headers: Vec<(HeaderName, Vec<u8>)>,
    /// Status for gRPC requests; by default derived from the HTTP status.
    pub grpc_status: Option<u32>,
    /// Whether the downstream connection is closed after the reply.
    pub close: bool,
    /// Whether the reply goes out as it is: without the headers that the route adds, and unseen by `local_reply_config`.
    pub verbatim: bool,
}

impl LocalReply {
    /// A reply without response flag.
    pub fn new(status: u16, body: impl Into<Cow<'static, [u8]>>, details: impl Into<Details>) -> Self {
        Self {
            status,
            body: body.into(),
            content_type: None,
            flags: ResponseFlags::NONE,
            details: details.into(),
            headers: Vec::new(),
            grpc_status: None,
            close: false,
            verbatim: false,
        }
    }

    /// The answer to requests that there is no room for.
    pub fn overloaded() -> Self {
        Self::new(503, &b"envoy overloaded"[..], "overload")
    }

    /// Adds a response flag.
    pub fn flag(mut self, flag: ResponseFlag) -> Self {
        self.flags.insert(flag);
        self
    }

    /// Says what the body is.
    pub fn content_type(mut self, content_type: impl Into<Box<str>>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: impl Into<HeaderName>, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Closes the downstream connection after the reply (HTTP/1).
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Keeps the route and `local_reply_config` from changing the reply.
    pub fn verbatim(mut self) -> Self {
        self.verbatim = true;
        self
    }

    /// The gRPC status that Envoy gives for an HTTP status in a local reply to a gRPC request.
    pub fn grpc_status_of(http_status: u16) -> u32 {
        match http_status {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502 | 503 | 504 => 14,
            _ => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_status_follows_envoys_table() {
        let table = [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (504, 14), (500, 2)];
        for (http, grpc) in table {
            assert_eq!(LocalReply::grpc_status_of(http), grpc, "{http}");
        }
    }
}
