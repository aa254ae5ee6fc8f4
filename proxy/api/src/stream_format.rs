//! The facts of a stream as format strings ask for them.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime};

use dhow_base::{ResponseFlags, Rng, Uuid};
use dhow_expr::{
    Address, AddressFact, FilterStateObject, FormatContext, MetadataSource, NumberFact, TextFact, TimePoint,
    TlsFact,
};
use dhow_http::HeaderMap;
use dhow_net::StreamAddress;
use dhow_proto::google::protobuf::Struct;
use dhow_proxy_runtime::clock;
use dhow_tls::{CertificateFacts, TlsInfo, sha1_fingerprint, url_encoded};

use crate::connection_record::CloseType;
use crate::filter_state::Sharing;
use crate::stream_info::{LogMoment, StreamInfo};

/// A stream, or a TCP connection, with the heads that are there at the moment.
#[derive(Clone, Copy, Debug)]
pub struct StreamFormat<'a> {
    /// The facts.
    pub info: &'a StreamInfo,
    /// Request head.
    pub request: Option<&'a HeaderMap>,
    /// Response head.
    pub response: Option<&'a HeaderMap>,
    /// Body of the local reply being made.
    pub local_reply_body: &'a [u8],
}

/// An address as formats print it.
fn printed(address: &StreamAddress) -> Address<'_> {
    match address {
        StreamAddress::Ip(address) => Address::Ip(*address),
        StreamAddress::Pipe(path) => Address::Pipe(path),
    }
}

impl<'a> StreamFormat<'a> {
    /// A stream without heads.
    pub fn new(info: &'a StreamInfo) -> Self {
        Self { info, request: None, response: None, local_reply_body: b"" }
    }

    fn since_start(&self, at: Option<Instant>) -> Option<Duration> {
        Some(at?.saturating_duration_since(self.info.start))
    }

    fn upstream_address(&self) -> Option<Address<'_>> {
        let host = self.info.upstream.host.as_deref()?;
        Some(host.parse().map_or(Address::Pipe(host), Address::Ip))
    }

    /// Seconds since 1970; none for what was before.
    fn validity(tls: Option<&TlsInfo>, end: bool) -> Option<u64> {
        let peer = tls?.peer.as_deref()?;
        u64::try_from(if end { peer.not_after } else { peer.not_before }).ok()
    }

    /// A text about either side's TLS session.
    fn tls(tls: &TlsInfo, fact: TlsFact) -> Option<Cow<'_, str>> {
        let named = |name: &'static str| Some(name).filter(|name| !name.is_empty()).map(Cow::Borrowed);
        let (peer, local) = (tls.peer.as_deref(), tls.local.as_deref());
        match fact {
            TlsFact::TlsVersion => named(tls.version),
            TlsFact::TlsCipher => named(tls.cipher),
            TlsFact::TlsGroup => named(tls.group),
            TlsFact::PeerUriSan => join(&peer?.uris),
            TlsFact::PeerDnsSan => join(&peer?.dns_names),
            TlsFact::PeerSubject => Some(peer?.subject.as_str().into()),
            TlsFact::PeerIssuer => Some(peer?.issuer.as_str().into()),
            TlsFact::LocalUriSan => join(&local?.uris),
            TlsFact::LocalDnsSan => join(&local?.dns_names),
            TlsFact::LocalSubject => Some(local?.subject.as_str().into()),
            TlsFact::PeerIpSan => join_addresses(&peer?.addresses),
            TlsFact::PeerEmailSan => join(&peer?.emails),
            TlsFact::LocalIpSan => join_addresses(&local?.addresses),
            TlsFact::LocalEmailSan => join(&local?.emails),
            TlsFact::PeerSerial => Some(peer?.serial.as_str().into()),
            TlsFact::PeerFingerprint256 => Some(peer?.fingerprint.as_str().into()),
            TlsFact::PeerFingerprint1 => Some(sha1_fingerprint(&peer?.der).into()),
            TlsFact::PeerCert => Some(url_encoded(&peer?.to_pem()).into()),
            TlsFact::PeerChainFingerprints1 => join_chain(tls, |der| Some(sha1_fingerprint(der))),
            TlsFact::PeerChainFingerprints256 => {
                join_chain(tls, |der| facts_of(der).map(|facts| facts.fingerprint))
            }
            TlsFact::PeerChainSerials => join_chain(tls, |der| facts_of(der).map(|facts| facts.serial)),
            // Names of other kinds are not read from certificates.
            TlsFact::PeerOtherNameSan | TlsFact::LocalOtherNameSan => None,
        }
    }
}

fn join_addresses(addresses: &[IpAddr]) -> Option<Cow<'static, str>> {
    let texts: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(",").into())
}

fn facts_of(der: &[u8]) -> Option<CertificateFacts> {
    CertificateFacts::of_der(der)
}

fn join_chain(tls: &TlsInfo, tell: impl Fn(&[u8]) -> Option<String>) -> Option<Cow<'static, str>> {
    let told: Vec<_> = tls.peer_chain.iter().filter_map(|der| tell(der)).collect();
    (!told.is_empty()).then(|| told.join(",").into())
}

/// The name of the machine, which does not change while the process runs.
fn hostname() -> Option<&'static str> {
    static NAME: OnceLock<Option<String>> = OnceLock::new();
    let read =
        || std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim_end().to_owned());
    NAME.get_or_init(read).as_deref()
}

fn join(names: &[String]) -> Option<Cow<'_, str>> {
    match names {
        [] => None,
        [one] => Some(one.as_str().into()),
        many => Some(many.join(",").into()),
    }
}

impl FormatContext for StreamFormat<'_> {
    fn request_headers(&self) -> Option<&HeaderMap> {
        self.request
    }

    fn response_headers(&self) -> Option<&HeaderMap> {
        self.response
    }

    fn response_trailers(&self) -> Option<&HeaderMap> {
        self.info.response_trailers.as_deref()
    }

    fn start_time(&self) -> Option<SystemTime> {
        Some(clock::wall_at(self.info.start))
    }

    fn now(&self) -> Option<SystemTime> {
        Some(SystemTime::now())
    }

    fn time(&self, point: TimePoint) -> Option<Duration> {
        let info = self.info;
        let upstream = &info.upstream;
        match point {
            TimePoint::DownstreamRxBegin => Some(Duration::ZERO),
            TimePoint::DownstreamRxEnd => self.since_start(info.request_complete),
            TimePoint::UpstreamTxBegin => self.since_start(upstream.first_tx),
            TimePoint::UpstreamTxEnd => self.since_start(upstream.last_tx),
            TimePoint::UpstreamRxBegin => self.since_start(upstream.first_rx),
            TimePoint::UpstreamRxEnd => self.since_start(upstream.last_rx),
            TimePoint::DownstreamTxBegin => self.since_start(info.first_downstream_tx),
            TimePoint::DownstreamTxEnd | TimePoint::StreamEnd => self.since_start(info.end),
            TimePoint::UpstreamConnectBegin => self.since_start(upstream.connect.map(|(begun, _)| begun)),
            TimePoint::UpstreamConnectEnd => self.since_start(upstream.connect?.1),
            TimePoint::UpstreamHandshakeEnd => {
                self.since_start(upstream.connect.and(upstream.tls.as_deref()?.completed))
            }
            TimePoint::UpstreamPoolBegin => self.since_start(upstream.pool.map(|(begun, _)| begun)),
            TimePoint::UpstreamPoolReady => self.since_start(upstream.pool.map(|(_, ready)| ready)),
            TimePoint::DownstreamHandshakeEnd => {
                let completed = info.connection.tls.session()?.completed?;
                Some(completed.saturating_duration_since(info.connection.start))
            }
            // Commands that ask for it are refused.
            TimePoint::UpstreamRxBodyBegin => None,
        }
    }

    fn number(&self, fact: NumberFact) -> Option<u64> {
        let info = self.info;
        match fact {
            NumberFact::ResponseCode => Some(info.response_code.unwrap_or(0).into()),
            NumberFact::BytesReceived => Some(info.bytes_received),
            NumberFact::BytesSent => Some(info.bytes_sent),
            NumberFact::StreamBytes(side, kind, direction) => Some(info.stream_bytes(side, kind, direction)),
            NumberFact::ConnectionId => Some(info.connection.id),
            NumberFact::UpstreamConnectionId => info.upstream.connection_id,
            NumberFact::UpstreamRequestAttemptCount => Some(info.upstream.attempts.into()),
            NumberFact::RouteResolutionCount => Some(info.route_resolutions.into()),
            NumberFact::DownstreamPeerPresented => {
                Some(info.connection.tls.session().is_some_and(|tls| tls.peer.is_some()).into())
            }
            NumberFact::DownstreamPeerVerified => {
                Some(info.connection.tls.session().is_some_and(|tls| tls.peer_verified).into())
            }
            NumberFact::DownstreamPeerCertVStart => Self::validity(info.connection.tls.session(), false),
            NumberFact::DownstreamPeerCertVEnd => Self::validity(info.connection.tls.session(), true),
            NumberFact::UpstreamPeerCertVStart => Self::validity(info.upstream.tls.as_deref(), false),
            NumberFact::UpstreamPeerCertVEnd => Self::validity(info.upstream.tls.as_deref(), true),
            // As Envoy prints them where the kernel is not asked.
            NumberFact::BytesRetransmitted | NumberFact::PacketsRetransmitted => Some(0),
        }
    }

    fn text(&self, fact: TextFact) -> Option<Cow<'_, str>> {
        let info = self.info;
        match fact {
            TextFact::Protocol => info.protocol.map(|p| p.as_str().into()),
            TextFact::ResponseCodeDetails => info.details.as_deref().map(Into::into),
            TextFact::ConnectionTerminationDetails => {
                info.connection_termination_details.as_deref().map(Into::into)
            }
            TextFact::UpstreamCluster => info.upstream.cluster.as_deref().map(Into::into),
            TextFact::UpstreamClusterRaw => {
                let name = info.upstream.cluster_name.as_ref().or(info.upstream.cluster.as_ref());
                name.map(|name| (&**name).into())
            }
            TextFact::UpstreamHostName => {
                let name = info.upstream.hostname.as_deref().filter(|name| !name.is_empty());
                name.or(info.upstream.host.as_deref()).map(Into::into)
            }
            TextFact::UpstreamProtocol => info.upstream.protocol.map(|p| p.as_str().into()),
            TextFact::DownstreamDetectedCloseType => {
                let noted = info.connection.record().map(|record| record.borrow().close_type);
                Some(noted.unwrap_or_default().as_str().into())
            }
            TextFact::UpstreamDetectedCloseType => {
                // Resets are told apart where bytes are proxied.
                let of_stream = info.upstream.host.as_ref().map(|_| CloseType::Normal);
                info.upstream.close_type.or(of_stream).map(|kind| kind.as_str().into())
            }
            TextFact::UpstreamTransportFailureReason => {
                info.upstream.transport_failure.as_deref().map(Into::into)
            }
            TextFact::RouteName => info.route_name().map(Cow::Borrowed),
            TextFact::VirtualClusterName => {
                let mut names = info.route.as_ref()?.virtual_host().virtual_cluster_names();
                names.nth(info.virtual_cluster?.into()).map(Into::into)
            }
            TextFact::VirtualHostName => info.virtual_host_name().map(Cow::Borrowed),
            TextFact::FilterChainName => Some((&*info.connection.filter_chain_name).into()),
            TextFact::ListenerName => Some((&*info.connection.listener_name).into()),
            TextFact::RequestedServerName => info.connection.requested_server_name.as_deref().map(Into::into),
            TextFact::AccessLogType => {
                let moment = match info.log_moment {
                    LogMoment::Start => "DownstreamStart",
                    LogMoment::TunnelEstablished => "DownstreamTunnelSuccessfullyEstablished",
                    LogMoment::Periodic => "DownstreamPeriodic",
                    LogMoment::UpstreamStream => "UpstreamPoolReady",
                    LogMoment::UpstreamPeriodic => "UpstreamPeriodic",
                    LogMoment::UpstreamEnd => "UpstreamEnd",
                    LogMoment::TcpStart => "TcpConnectionStart",
                    LogMoment::TcpConnected => "TcpUpstreamConnected",
                    LogMoment::TcpPeriodic => "TcpPeriodic",
                    LogMoment::ConnectionEnd => "NotSet",
                    // What is made of a stream that goes on is no log.
                    LogMoment::End if info.end.is_none() => "NotSet",
                    LogMoment::End if info.protocol.is_none() => "TcpConnectionEnd",
                    LogMoment::End => "DownstreamEnd",
                };
                Some(moment.into())
            }
            TextFact::StreamId => {
                let of_attempt =
                    matches!(info.log_moment, LogMoment::UpstreamStream | LogMoment::UpstreamEnd);
                (!of_attempt).then(|| info.stream_id.to_string().into())
            }
            TextFact::LocalReplyBody => Some(String::from_utf8_lossy(self.local_reply_body)),
            TextFact::UniqueId => Some(Uuid::random(&mut Rng::from_entropy()).to_string().into()),
            TextFact::UpstreamServerName => {
                info.upstream.tls.as_deref()?.server_name.as_deref().map(Into::into)
            }
            TextFact::Hostname => hostname().map(Into::into),
            TextFact::Downstream(TlsFact::TlsVersion) => {
                info.connection.tls.version().filter(|name| !name.is_empty()).map(Into::into)
            }
            TextFact::Downstream(fact) => Self::tls(info.connection.tls.session()?, fact),
            TextFact::Upstream(fact) => Self::tls(info.upstream.tls.as_deref()?, fact),
            TextFact::DownstreamTransportFailureReason => {
                let record = info.connection.record()?;
                let record = record.borrow();
                let as_whole = info.protocol.is_none() || info.log_moment == LogMoment::ConnectionEnd;
                let inspected = record.inspection_failure.as_deref().filter(|_| as_whole);
                record.transport_failure.as_deref().or(inspected).map(|reason| reason.to_owned().into())
            }
            TextFact::DownstreamLocalCloseReason => {
                let record = info.connection.record()?;
                record.borrow().local_close_reason.clone()
            }
            TextFact::UpstreamLocalCloseReason => info.upstream.local_close_reason.clone(),
            // Nothing is traced.
            TextFact::TraceId | TextFact::SpanId => None,
        }
    }

    fn address_text(&self, fact: AddressFact) -> Option<&str> {
        match fact {
            AddressFact::UpstreamHost => self.info.upstream.host.as_deref(),
            _ => None,
        }
    }

    fn address(&self, fact: AddressFact) -> Option<Address<'_>> {
        let connection = &self.info.connection;
        match fact {
            AddressFact::UpstreamHost => self.upstream_address(),
            AddressFact::UpstreamRemote => self.info.upstream.connection_id.and(self.upstream_address()),
            AddressFact::UpstreamLocal => self.info.upstream.local_address.map(Address::Ip),
            AddressFact::DownstreamLocal => Some(printed(&connection.local_address)),
            AddressFact::DownstreamDirectLocal => Some(printed(connection.direct_local_address())),
            AddressFact::DownstreamRemote => Some(printed(&self.info.client_address)),
            AddressFact::DownstreamDirectRemote => Some(printed(connection.direct_remote_address())),
        }
    }

    fn response_flags(&self) -> ResponseFlags {
        self.info.flags
    }

    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Struct> {
        let info = self.info;
        let of = match source {
            MetadataSource::Dynamic => return info.dynamic_metadata.get(namespace),
            MetadataSource::Cluster => info.upstream.cluster_metadata.as_deref(),
            MetadataSource::UpstreamHost => info.upstream.host_metadata.as_deref(),
            MetadataSource::Route => info.route.as_ref().and_then(|route| route.entry().metadata()),
            MetadataSource::VirtualHost => {
                info.route.as_ref().and_then(|route| route.virtual_host().metadata())
            }
            MetadataSource::Listener => info.connection.listener_metadata.as_deref(),
            MetadataSource::FilterChain => info.connection.filter_chain_metadata.as_deref(),
        };
        of?.filter_metadata.get(namespace)
    }

    fn filter_state(&self, upstream: bool, key: &str) -> Option<&dyn FilterStateObject> {
        // Objects shared with the upstream connection are the same objects.
        let entry = self.info.filter_state.iter().find(|entry| *entry.key == *key)?;
        (!upstream || entry.sharing != Sharing::None).then_some(&entry.value as &dyn FilterStateObject)
    }
}
