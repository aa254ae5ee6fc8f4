//! What trees read.

use std::any::Any;
use std::borrow::Cow;
use std::net::SocketAddr;

use dhow_http::HeaderMap;
use dhow_runtime_config::{NoRuntime, RuntimeValues};

use crate::pb::protobuf::Struct;

/// Names in the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// URI subject alternative names, joined with commas.
    UriSans,
    /// DNS subject alternative names, joined with commas.
    DnsSans,
    /// The subject.
    Subject,
}

/// What metadata of a host belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPart {
    /// The endpoint.
    Endpoint,
    /// Its locality.
    Locality,
}

/// What is known of a request and its connection. Everything is optional; headers and trailers that are `None` have not come *yet*, so
/// that a tree that needs them cannot be decided, while all other values that are `None` do not exist.
pub trait MatchData {
    /// The request's headers.
    fn request_headers(&self) -> Option<&HeaderMap> {
        None
    }
    /// The request's trailers.
    fn request_trailers(&self) -> Option<&HeaderMap> {
        None
    }
    /// The response's headers.
    fn response_headers(&self) -> Option<&HeaderMap> {
        None
    }
    /// The response's trailers.
    fn response_trailers(&self) -> Option<&HeaderMap> {
        None
    }
    /// Whether the response is the proxy's own; `None` until there is a response.
    fn is_local_reply(&self) -> Option<bool> {
        None
    }
    /// The local address of the connection, after original-destination or PROXY protocol.
    fn destination(&self) -> Option<SocketAddr> {
        None
    }
    /// The client's address, after `x-forwarded-for` or PROXY protocol.
    fn source(&self) -> Option<SocketAddr> {
        None
    }
    /// The peer of the connection.
    fn direct_source(&self) -> Option<SocketAddr> {
        None
    }
    /// The server name that the client asked for.
    fn server_name(&self) -> Option<&str> {
        None
    }
    /// The detected transport protocol: `tls` or `raw_buffer`.
    fn transport_protocol(&self) -> Option<&str> {
        None
    }
    /// Calls `each` for every application protocol (ALPN) that the client offers.
    fn application_protocols(&self, each: &mut dyn FnMut(&[u8])) {
        let _ = each;
    }
    /// Path of the network namespace of the listener's address.
    fn network_namespace(&self) -> Option<&str> {
        None
    }
    /// Names in the client's certificate.
    fn certificate(&self, name: CertificateName) -> Option<Cow<'_, str>> {
        let _ = name;
        None
    }
    /// The fields of a namespace of dynamic metadata.
    fn dynamic_metadata(&self, namespace: &str) -> Option<&Struct> {
        let _ = namespace;
        None
    }
    /// Appends the value at a path of a host's metadata: strings as they are, all else as JSON, and `null` where there is no such
    /// value. False when there is no metadata at all.
    fn host_metadata(&self, part: HostPart, namespace: &str, path: &[Box<str>], out: &mut Vec<u8>) -> bool {
        let _ = (part, namespace, path, out);
        false
    }
    /// Appends a filter-state object as text, or one field of it when `field` is not empty; false when there is none.
    fn filter_state(&self, key: &str, field: &str, out: &mut Vec<u8>) -> bool {
        let _ = (key, field, out);
        false
    }
    /// Whether an expression is true, which was compiled by the function that the tree's options named; `None` when it asks for what is
    /// not there yet.
    fn expression_holds(&self, expression: &(dyn Any + Send + Sync)) -> Option<bool> {
        let _ = expression;
        Some(false)
    }
    /// The runtime's values.
    fn runtime(&self) -> &dyn RuntimeValues {
        &NoRuntime
    }
}

/// A request's headers are data of their own where nothing else counts.
impl MatchData for HeaderMap {
    fn request_headers(&self) -> Option<&HeaderMap> {
        Some(self)
    }
}
