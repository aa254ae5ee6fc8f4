//! What a format string can ask a stream or a connection for.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use dhow_base::ResponseFlags;
use dhow_http::{ByteDirection, ByteKind, HeaderMap};

use crate::address::Address;
use crate::pb::protobuf::Struct;

/// A moment in the life of a stream; durations are differences of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimePoint {
    /// The request's first byte was received (`DS_RX_BEG`).
    DownstreamRxBegin,
    /// The request's last byte was received (`DS_RX_END`).
    DownstreamRxEnd,
    /// Connecting to the upstream began (`US_CX_BEG`).
    UpstreamConnectBegin,
    /// The upstream connection was established (`US_CX_END`).
    UpstreamConnectEnd,
    /// The upstream TLS handshake was complete (`US_HS_END`).
    UpstreamHandshakeEnd,
    /// The request's first byte was sent upstream (`US_TX_BEG`).
    UpstreamTxBegin,
    /// The request's last byte was sent upstream (`US_TX_END`).
    UpstreamTxEnd,
    /// The response's first byte was received (`US_RX_BEG`).
    UpstreamRxBegin,
    /// The first byte of the response's body was received (`US_RX_BODY_BEG`).
    UpstreamRxBodyBegin,
    /// The response's last byte was received (`US_RX_END`).
    UpstreamRxEnd,
    /// The response's first byte was sent downstream (`DS_TX_BEG`).
    DownstreamTxBegin,
    /// The response's last byte was sent downstream (`DS_TX_END`).
    DownstreamTxEnd,
    /// The downstream TLS handshake was complete, counted from the beginning of the connection.
    DownstreamHandshakeEnd,
    /// The stream was complete; `%DURATION%` ends here.
    StreamEnd,
    /// A connection was asked for.
    UpstreamPoolBegin,
    /// It was there, or there was none to be had.
    UpstreamPoolReady,
}

/// A number of a stream or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the command of the same name in upper case")]
pub enum NumberFact {
    ResponseCode,
    BytesReceived,
    BytesSent,
    BytesRetransmitted,
    PacketsRetransmitted,
    ConnectionId,
    UpstreamConnectionId,
    UpstreamRequestAttemptCount,
    RouteResolutionCount,
    /// 1 when the client showed a certificate.
    DownstreamPeerPresented,
    /// 1 when the client showed a certificate that was verified.
    DownstreamPeerVerified,
    /// Start of validity of the client's certificate, in seconds since 1970.
    DownstreamPeerCertVStart,
    /// End of validity.
    DownstreamPeerCertVEnd,
    /// Start of validity of the host's certificate, in seconds since 1970.
    UpstreamPeerCertVStart,
    /// End of validity.
    UpstreamPeerCertVEnd,
    /// `%DOWNSTREAM_WIRE_BYTES_RECEIVED%` and its like.
    StreamBytes(StreamSide, ByteKind, ByteDirection),
}

/// Which side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum StreamSide {
    Downstream,
    Upstream,
}

/// A text of a stream or connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the command of the same name in upper case")]
pub enum TextFact {
    /// Of the downstream: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`, `HTTP/3`.
    Protocol,
    UpstreamProtocol,
    ResponseCodeDetails,
    ConnectionTerminationDetails,
    /// Name or alternative stat name of the cluster.
    UpstreamCluster,
    /// Name of the cluster.
    UpstreamClusterRaw,
    /// Host name of the upstream host, as configured.
    UpstreamHostName,
    UpstreamTransportFailureReason,
    DownstreamTransportFailureReason,
    DownstreamLocalCloseReason,
    DownstreamDetectedCloseType,
    UpstreamLocalCloseReason,
    UpstreamDetectedCloseType,
    RouteName,
    VirtualHostName,
    VirtualClusterName,
    FilterChainName,
    ListenerName,
    RequestedServerName,
    StreamId,
    /// A new UUID each time.
    UniqueId,
    /// Server name that was asked for in the TLS handshake with the host.
    UpstreamServerName,
    TraceId,
    SpanId,
    /// Name of the machine.
    Hostname,
    LocalReplyBody,
    AccessLogType,
    /// About the downstream connection's TLS session.
    Downstream(TlsFact),
    /// About the upstream connection's TLS session.
    Upstream(TlsFact),
}

/// A text about a TLS session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each variant is the end of the command of the same name in upper case")]
pub enum TlsFact {
    TlsCipher,
    TlsVersion,
    TlsGroup,
    PeerSubject,
    PeerIssuer,
    PeerUriSan,
    PeerDnsSan,
    PeerIpSan,
    PeerEmailSan,
    PeerOtherNameSan,
    LocalSubject,
    LocalUriSan,
    LocalDnsSan,
    LocalIpSan,
    LocalEmailSan,
    LocalOtherNameSan,
    PeerSerial,
    PeerFingerprint256,
    /// SHA-1 of the certificate.
    PeerFingerprint1,
    /// SHA-1 of each certificate of the chain.
    PeerChainFingerprints1,
    /// SHA-256 of each certificate of the chain.
    PeerChainFingerprints256,
    /// Serial number of each certificate of the chain.
    PeerChainSerials,
    /// The certificate as PEM, encoded as in a URL.
    PeerCert,
}

/// Which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressFact {
    /// The upstream host as chosen (`%UPSTREAM_HOST%`).
    UpstreamHost,
    /// The remote end of the upstream connection.
    UpstreamRemote,
    /// The local end of the upstream connection.
    UpstreamLocal,
    /// The local end of the downstream connection, after original-destination or PROXY protocol.
    DownstreamLocal,
    /// The local end of the downstream connection as accepted.
    DownstreamDirectLocal,
    /// The client, after `x-forwarded-for` or PROXY protocol.
    DownstreamRemote,
    /// The peer of the downstream connection.
    DownstreamDirectRemote,
}

/// Where metadata is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetadataSource {
    /// Set by filters on the stream.
    Dynamic,
    /// Of the upstream cluster.
    Cluster,
    /// Of the upstream host.
    UpstreamHost,
    /// Of the route.
    Route,
    /// Of the virtual host.
    VirtualHost,
    /// Of the listener.
    Listener,
    /// Of the listener's filter chain.
    FilterChain,
}

/// A filter-state object as format strings see it.
pub trait FilterStateObject {
    /// Appends the object as text; false when it has none (`PLAIN`, and the default).
    fn append_text(&self, out: &mut Vec<u8>) -> bool;

    /// Appends the object as JSON; false when it has none (`TYPED`).
    fn append_json(&self, out: &mut Vec<u8>) -> bool {
        let mut text = Vec::new();
        let any = self.append_text(&mut text);
        if any {
            crate::json::append_json_string(&text, out);
        }
        any
    }

    /// Appends one field as text; false when there is no such field (`FIELD:<name>`).
    fn append_field(&self, _field: &str, _out: &mut Vec<u8>) -> bool {
        false
    }
}

/// The values of a stream or connection. Everything is optional: what is not there prints as `-`.
///
/// New facts are new enum variants, so an implementation that matches on them decides about each.
pub trait FormatContext {
    /// The request's headers as they are now; after rewriting, the rewritten ones.
    fn request_headers(&self) -> Option<&HeaderMap> {
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

    /// When the stream began, in wall-clock time.
    fn start_time(&self) -> Option<SystemTime> {
        None
    }

    /// The wall-clock time now (`%EMIT_TIME%`).
    fn now(&self) -> Option<SystemTime> {
        None
    }

    /// When something happened, counted from the beginning of the stream.
    fn time(&self, _point: TimePoint) -> Option<Duration> {
        None
    }

    /// A number.
    fn number(&self, _fact: NumberFact) -> Option<u64> {
        None
    }

    /// A text; empty text prints as `-` too.
    fn text(&self, _fact: TextFact) -> Option<Cow<'_, str>> {
        None
    }

    /// An address.
    fn address(&self, _fact: AddressFact) -> Option<Address<'_>> {
        None
    }

    /// An address as [`Address::append`] prints it, where that text is at hand.
    fn address_text(&self, _fact: AddressFact) -> Option<&str> {
        None
    }

    /// The response flags.
    fn response_flags(&self) -> ResponseFlags {
        ResponseFlags::NONE
    }

    /// The metadata of a namespace (`filter_metadata`).
    fn metadata(&self, _source: MetadataSource, _namespace: &str) -> Option<&Struct> {
        None
    }

    /// An object of the stream's filter state, or of the upstream connection's.
    fn filter_state(&self, _upstream: bool, _key: &str) -> Option<&dyn FilterStateObject> {
        None
    }
}

/// A context in which nothing has a value.
#[derive(Clone, Copy, Debug, Default)]
pub struct EmptyContext;

impl FormatContext for EmptyContext {}
