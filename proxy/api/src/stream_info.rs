//! The facts of one stream, which access logs, header formats, filters and stats read.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dhow_base::{ResponseFlag, ResponseFlags};
use dhow_expr::StreamSide;
use dhow_http::{ByteDirection, ByteKind, ByteMeter, HeaderMap};
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_routing::SelectedRoute;
use dhow_tls::TlsInfo;

use crate::connection::ConnectionInfo;
use crate::connection_record::{CloseType, ConnectionRecord};
use crate::dynamic_metadata::DynamicMetadata;
use crate::filter_state::FilterState;

/// Response-code details: why the status is what it is, as Envoy's `%RESPONSE_CODE_DETAILS%` words it.
pub type Details = Cow<'static, str>;

/// Protocol of the downstream stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// The name that `%PROTOCOL%` prints.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// The upstream side of a stream, as far as it got. Holds what the last attempt used.
#[derive(Clone, Debug, Default)]
pub struct UpstreamInfo {
    /// Name of the cluster in statistics: `alt_stat_name`, or its name.
    pub cluster: Option<Arc<str>>,
    /// Address of the host as `%UPSTREAM_HOST%` prints it.
    pub host: Option<Arc<str>>,
    /// Name of the host, when it has one.
    pub hostname: Option<Arc<str>>,
    /// Protocol of the upstream stream; none before there is one, and for bytes.
    pub protocol: Option<Protocol>,
    /// Metadata of the cluster, when it has some.
    pub cluster_metadata: Option<Arc<Metadata>>,
    /// Metadata of the host, when it has some.
    pub host_metadata: Option<Arc<Metadata>>,
    /// Local address of the upstream connection.
    pub local_address: Option<SocketAddr>,
    /// Number of the upstream connection: `%UPSTREAM_CONNECTION_ID%`.
    pub connection_id: Option<u64>,
    /// Attempts made, retries included.
    pub attempts: u32,
    /// Why the transport failed: `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Box<str>>,
    /// `%UPSTREAM_DETECTED_CLOSE_TYPE%`, where bytes are proxied.
    pub close_type: Option<CloseType>,
    /// `%UPSTREAM_LOCAL_CLOSE_REASON%`: why this side ended the connection.
    pub local_close_reason: Option<Details>,
    /// Facts of the upstream connection's TLS session, when it has one.
    pub tls: Option<Arc<TlsInfo>>,
    /// When connecting began and when it succeeded, of a connection that was made for this stream.
    pub connect: Option<(Instant, Option<Instant>)>,
    /// When a connection was asked for, and when there was one or none to be had.
    pub pool: Option<(Instant, Instant)>,
    /// Name of the cluster where `cluster` is its `alt_stat_name`.
    pub cluster_name: Option<Arc<str>>,
    /// First byte of the request was sent.
    pub first_tx: Option<Instant>,
    /// Last byte of the request was sent.
    pub last_tx: Option<Instant>,
    /// First byte of the response arrived.
    pub first_rx: Option<Instant>,
    /// Last byte of the response arrived.
    pub last_rx: Option<Instant>,
}

/// The host that a filter asks the load balancer for (`stateful_session`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideHost {
    /// Address and port, as `%UPSTREAM_HOST%` prints them.
    pub address: Box<str>,
    /// Whether the request fails when the host is not there or not healthy; else another one is chosen.
    pub strict: bool,
    /// Status of the reply when it fails.
    pub status: u16,
}

/// The facts of one stream.
#[derive(Debug)]
pub struct StreamInfo {
    /// Facts of the connection.
    pub connection: Rc<ConnectionInfo>,
    /// Monotonic clock at the first byte of the request.
    pub start: Instant,
    /// Protocol of the downstream stream; none for TCP.
    pub protocol: Option<Protocol>,
    /// Trusted client address, after X-Forwarded-For and original-IP detection.
    pub client_address: StreamAddress,
    /// Bytes of request body received from downstream.
    pub bytes_received: u64,
    /// Bytes of response body sent downstream.
    pub bytes_sent: u64,
    /// Bytes between the client and here, where a format asks for them.
    pub downstream_bytes: Option<Arc<ByteMeter>>,
    /// Bytes between here and hosts, of all attempts, where a format asks for them.
    pub upstream_bytes: Option<Arc<ByteMeter>>,
    /// The last byte of the request arrived.
    pub request_complete: Option<Instant>,
    /// First byte of the response was sent downstream.
    pub first_downstream_tx: Option<Instant>,
    /// The stream ended.
    pub end: Option<Instant>,
    /// Status sent downstream; none when the stream ended before one was.
    pub response_code: Option<u16>,
    /// The trailers of the response that was sent downstream, where something is logged.
    pub response_trailers: Option<Box<HeaderMap>>,
    /// Flags that say what went wrong.
    pub flags: ResponseFlags,
    /// Why the status is what it is.
    pub details: Option<Details>,
    /// Why the connection was ended by the proxy.
    pub connection_termination_details: Option<Details>,
    /// The selected route, if there is one.
    pub route: Option<SelectedRoute>,
    /// How often a route was looked for.
    pub route_resolutions: u32,
    /// Metadata set by filters.
    pub dynamic_metadata: DynamicMetadata,
    /// Objects set by filters.
    pub filter_state: FilterState,
    /// The request is somebody's health check: it is not counted as a request.
    pub health_check: bool,
    /// Which virtual cluster of the virtual host the router counts the request under.
    pub virtual_cluster: Option<u16>,
    /// The host that a filter asked for.
    pub override_host: Option<Box<OverrideHost>>,
    /// The upstream side.
    pub upstream: UpstreamInfo,
    /// The moment that is being logged.
    pub log_moment: LogMoment,
    /// Number of this stream for `%STREAM_ID%` and stable sampling.
    pub stream_id: u64,
}

/// When in the life of a stream an access log is written (`%ACCESS_LOG_TYPE%`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogMoment {
    /// A request begins (`flush_access_log_on_new_request`).
    Start,
    /// An upgrade or CONNECT is granted (`flush_log_on_tunnel_successfully_established`).
    TunnelEstablished,
    /// The stream goes on (`access_log_flush_interval`).
    Periodic,
    /// An attempt has its stream to a host (`flush_upstream_log_on_upstream_stream`).
    UpstreamStream,
    /// An attempt goes on (`upstream_log_flush_interval`).
    UpstreamPeriodic,
    /// An attempt is over.
    UpstreamEnd,
    /// A TCP connection begins (`flush_access_log_on_start`).
    TcpStart,
    /// A TCP connection has its upstream connection (`flush_access_log_on_connected`).
    TcpConnected,
    /// A TCP connection goes on (`access_log_flush_interval`).
    TcpPeriodic,
    /// A connection is over, as its listener logs it.
    ConnectionEnd,
    /// The stream is over.
    #[default]
    End,
}

impl StreamInfo {
    /// Facts of a stream that starts now.
    pub fn new(
        connection: Rc<ConnectionInfo>,
        protocol: Option<Protocol>,
        now: Instant,
        stream_id: u64,
    ) -> Self {
        let client_address = connection.remote_address.clone();
        let filter_state = connection.record().map(|record| record.borrow().filter_state.clone());
        Self {
            connection,
            start: now,
            protocol,
            client_address,
            bytes_received: 0,
            bytes_sent: 0,
            downstream_bytes: None,
            upstream_bytes: None,
            request_complete: None,
            first_downstream_tx: None,
            end: None,
            response_code: None,
            response_trailers: None,
            flags: ResponseFlags::NONE,
            details: None,
            connection_termination_details: None,
            route: None,
            route_resolutions: 0,
            dynamic_metadata: DynamicMetadata::default(),
            filter_state: filter_state.unwrap_or_default(),
            health_check: false,
            virtual_cluster: None,
            override_host: None,
            upstream: UpstreamInfo::default(),
            log_moment: LogMoment::End,
            stream_id,
        }
    }

    /// The facts of a connection as a whole: with what is noted about it.
    pub fn of_connection(connection: Rc<ConnectionInfo>, stream_id: u64) -> Self {
        let (start, record) = (connection.start, connection.record());
        let mut info = Self::new(connection, None, start, stream_id);
        if let Some(record) = record {
            let record = record.borrow();
            info.absorb(&record);
            info.upstream = record.upstream.clone();
            info.protocol = record.protocol;
            info.bytes_received = record.bytes_received.get();
            info.bytes_sent = record.bytes_sent.get();
        }
        info
    }

    /// Begins to count bytes, where a format asks for them: those of the client with what its codec counted already.
    pub fn count_bytes(&mut self, downstream: Option<Arc<ByteMeter>>) {
        if downstream.is_some() {
            self.downstream_bytes = downstream;
            self.upstream_bytes = Some(Arc::default());
        }
    }

    /// Bytes of one side. Of proxied connections all bytes count, and none are heads.
    pub fn stream_bytes(&self, side: StreamSide, kind: ByteKind, direction: ByteDirection) -> u64 {
        let meter = match side {
            StreamSide::Downstream => &self.downstream_bytes,
            StreamSide::Upstream => &self.upstream_bytes,
        };
        if let Some(meter) = meter {
            return meter.get(kind, direction);
        }
        let is_tcp = self.protocol.is_none();
        let connected = side == StreamSide::Downstream || self.upstream.local_address.is_some();
        if !is_tcp || !connected || kind != ByteKind::Wire {
            return 0;
        }
        match (side, direction) {
            (StreamSide::Downstream, ByteDirection::Received)
            | (StreamSide::Upstream, ByteDirection::Sent) => self.bytes_received,
            (StreamSide::Downstream, ByteDirection::Sent)
            | (StreamSide::Upstream, ByteDirection::Received) => self.bytes_sent,
        }
    }

    /// Takes over what filters noted about the connection.
    pub fn absorb(&mut self, record: &ConnectionRecord) {
        self.flags = self.flags.union(record.flags);
        self.details = self.details.take().or_else(|| record.details.clone());
        let why = &record.termination_details;
        self.connection_termination_details =
            self.connection_termination_details.take().or_else(|| why.clone());
        self.dynamic_metadata = record.dynamic_metadata.clone();
        self.filter_state = record.filter_state.clone();
    }

    /// Name of the selected route; none when there is no route, or it has no name.
    pub fn route_name(&self) -> Option<&str> {
        self.route.as_ref().map(|route| route.entry().name()).filter(|name| !name.is_empty())
    }

    /// Name of the selected route's virtual host.
    pub fn virtual_host_name(&self) -> Option<&str> {
        self.route.as_ref().map(|route| route.virtual_host().name())
    }

    /// Adds a response flag.
    pub fn flag(&mut self, flag: ResponseFlag) {
        self.flags.insert(flag);
    }
}
