//! The commands by name.

use std::ffi::OsString;

use dhow_http::{ByteDirection, ByteKind, ByteMeter, HeaderName};

use crate::address::PrefixLength;
use crate::cel::{CelExpression, CelOptions};
use crate::choices::{self, ServerNameChoice};
use crate::coalesce;
use crate::command::{AddressPart, AttemptedPart, Command, FilterStateStyle, Headers, Kind, metadata_source};
use crate::context::{AddressFact, MetadataSource, NumberFact, StreamSide, TextFact, TimePoint, TlsFact};
use crate::duration::DurationCommand;
use crate::grpc_status::GrpcStatusStyle;
use crate::metadata::MetadataCommand;
use crate::time::TimeFormat;

/// Commands of Envoy that are known and not implemented, and why: refused by name.
const NOT_SUPPORTED: &[(&str, &str)] = &[
    ("DOWNSTREAM_CX_RTT", "the kernel is not asked for round-trip times"),
    ("ROUTE_RESOLUTION_TIME_US", "the choice of routes is not timed"),
    ("DOWNSTREAM_TLS_SESSION_ID", SESSION_IDS),
    ("UPSTREAM_TLS_SESSION_ID", SESSION_IDS),
    ("DOWNSTREAM_PEER_ISSUER_FINGERPRINT_256", ISSUERS),
    ("DOWNSTREAM_PEER_ISSUER_SERIAL", ISSUERS),
    ("TLS_JA3_FINGERPRINT", FINGERPRINTS),
    ("TLS_JA4_FINGERPRINT", FINGERPRINTS),
];

const SESSION_IDS: &str = "the TLS library does not tell session ids";
const ISSUERS: &str = "the trusted certificate that signed the client's is not kept";
const FINGERPRINTS: &str = "TLS hellos are not fingerprinted";

/// Compiles a command from its parts.
///
/// # Errors
/// In Envoy's words.
pub(crate) fn command(
    name: &str,
    args: &str,
    limit: Option<usize>,
    cel: CelOptions,
) -> Result<Command, String> {
    if let Some(kind) = plain(name) {
        if !args.is_empty() || limit.is_some() {
            return Err(format!("{name} does not take any parameters or length"));
        }
        return Ok(Command { kind, limit: None });
    }
    if let Some((_, reason)) = NOT_SUPPORTED.iter().find(|(known, _)| *known == name) {
        return Err(format!("the command operator {name} is not supported: {reason}"));
    }
    let takes_args = REQUIRES_ARGS.contains(&name);
    if takes_args && args.is_empty() {
        return Err(format!("{name} requires parameters"));
    }
    let kind =
        with_args(name, args, cel)?.ok_or_else(|| format!("Not supported field in StreamInfo: {name}"))?;
    if limit.is_some() {
        match &kind {
            Kind::Address(_, AddressPart::WithPort | AddressPart::Port | AddressPart::EndpointId) => {
                return Err(format!("{name} does not take any parameters or length"));
            }
            kind if !can_be_cut(name, kind) => {
                return Err(format!("{name} does not allow length to be specified."));
            }
            _ => {}
        }
    }
    Ok(Command { kind, limit })
}

/// Whether a command may have a length.
fn can_be_cut(name: &str, kind: &Kind) -> bool {
    match kind {
        Kind::Address(..)
        | Kind::Duration(_)
        | Kind::EmitTime { .. }
        | Kind::GrpcStatus(_)
        | Kind::StartTime { .. }
        | Kind::Validity(..) => false,
        // Unlike the same by way of METADATA.
        _ => !matches!(
            name,
            "CLUSTER_METADATA" | "UPSTREAM_METADATA" | "REQUESTED_SERVER_NAME" | "RESPONSE_CODE_DETAILS"
        ),
    }
}

const REQUIRES_ARGS: &[&str] = &[
    "REQ",
    "REQUEST_HEADER",
    "RESP",
    "RESPONSE_HEADER",
    "TRAILER",
    "RESPONSE_TRAILER",
    "DYNAMIC_METADATA",
    "CLUSTER_METADATA",
    "UPSTREAM_METADATA",
    "COMMON_DURATION",
    "ENVIRONMENT",
    "QUERY_PARAM",
    "COALESCE",
    "REQ_WITHOUT_QUERY",
];

fn with_args(name: &str, args: &str, cel: CelOptions) -> Result<Option<Kind>, String> {
    Ok(Some(match name {
        "REQ" | "REQUEST_HEADER" => header(Headers::Request, args)?,
        "RESP" | "RESPONSE_HEADER" => header(Headers::Response, args)?,
        "TRAILER" | "RESPONSE_TRAILER" => header(Headers::Trailers, args)?,
        "START_TIME" => Kind::StartTime { format: TimeFormat::parse(args), local: false },
        "START_TIME_LOCAL" => Kind::StartTime { format: TimeFormat::parse_local(args), local: true },
        "EMIT_TIME" => Kind::EmitTime { format: TimeFormat::parse(args), local: false },
        "EMIT_TIME_LOCAL" => Kind::EmitTime { format: TimeFormat::parse_local(args), local: true },
        "DOWNSTREAM_PEER_CERT_V_START" => validity(NumberFact::DownstreamPeerCertVStart, args),
        "DOWNSTREAM_PEER_CERT_V_END" => validity(NumberFact::DownstreamPeerCertVEnd, args),
        "UPSTREAM_PEER_CERT_V_START" => validity(NumberFact::UpstreamPeerCertVStart, args),
        "UPSTREAM_PEER_CERT_V_END" => validity(NumberFact::UpstreamPeerCertVEnd, args),
        "CEL" => expression(args, cel)?,
        "REQ_WITHOUT_QUERY" => match header(Headers::Request, args)? {
            Kind::Header { name, otherwise, .. } => Kind::HeaderWithoutQuery { name, otherwise },
            other => other,
        },
        "COMMON_DURATION" => Kind::Duration(DurationCommand::parse(args)?),
        "GRPC_STATUS" => Kind::GrpcStatus(match args {
            "" | "CAMEL_STRING" => GrpcStatusStyle::Camel,
            "SNAKE_STRING" => GrpcStatusStyle::Snake,
            "NUMBER" => GrpcStatusStyle::Number,
            other => {
                return Err(format!(
                    "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: {other}"
                ));
            }
        }),
        "DYNAMIC_METADATA" => Kind::Metadata(MetadataCommand::parse(MetadataSource::Dynamic, args)),
        "CLUSTER_METADATA" => Kind::Metadata(MetadataCommand::parse(MetadataSource::Cluster, args)),
        "UPSTREAM_METADATA" => Kind::Metadata(MetadataCommand::parse(MetadataSource::UpstreamHost, args)),
        "METADATA" => {
            let (source, rest) = args.split_once(':').unwrap_or((args, ""));
            let source = metadata_source(source)
                .ok_or_else(|| format!("{source} is not supported type of metadata"))?;
            Kind::Metadata(MetadataCommand::parse(source, rest))
        }
        "FILTER_STATE" => filter_state(false, args)?,
        "UPSTREAM_FILTER_STATE" => filter_state(true, args)?,
        "ENVIRONMENT" => {
            // A variable that is not there is a dash, also where what is empty is left out.
            let value = std::env::var_os(args).map_or(b"-".to_vec(), OsString::into_encoded_bytes);
            Kind::Fixed(Some(value.into()))
        }
        "QUERY_PARAM" => Kind::QueryParam(args.as_bytes().into()),
        "QUERY_PARAMS" => Kind::QueryParams { decoded: choices::decoded(args)? },
        "PATH" => choices::path(args)?,
        "REQUESTED_SERVER_NAME" => Kind::RequestedServerName(ServerNameChoice::parse(args)?),
        // Whether blanks may stay in them makes no difference: there are none.
        "RESPONSE_CODE_DETAILS" => Kind::Text(TextFact::ResponseCodeDetails),
        "COALESCE" => coalesce::parse(args)?,
        _ => return Ok(address(name, args)?.map(|(fact, part)| Kind::Address(fact, part))),
    }))
}

fn header(headers: Headers, args: &str) -> Result<Kind, String> {
    let mut names = args.split('?');
    let name = names.next().unwrap_or_default();
    let otherwise = names.next();
    if names.next().is_some() {
        return Err(format!("More than 1 alternative header specified in token: {args}"));
    }
    if !is_header_name(name) || !otherwise.is_none_or(is_header_name) {
        return Err("Invalid header configuration. Format string contains invalid characters.".to_owned());
    }
    let (name, otherwise) = (HeaderName::new(name), otherwise.map(HeaderName::new));
    Ok(Kind::Header { headers, name, otherwise })
}

/// Whether it is nothing, or what may name a header, a pseudo header too.
fn is_header_name(name: &str) -> bool {
    let name = name.strip_prefix(':').unwrap_or(name);
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn validity(fact: NumberFact, format: &str) -> Kind {
    Kind::Validity(fact, TimeFormat::parse(format))
}

fn expression(text: &str, options: CelOptions) -> Result<Kind, String> {
    let expression = CelExpression::parse_with(text, options)?;
    if !expression.is_printable() {
        return Err(format!("the value of '{text}' is a message, and printing messages is not supported"));
    }
    Ok(Kind::Cel(expression))
}

fn filter_state(upstream: bool, args: &str) -> Result<Kind, String> {
    let mut parts = args.split(':');
    let key = parts.next().unwrap_or_default();
    if key.is_empty() {
        return Err("Invalid filter state configuration, key cannot be empty.".to_owned());
    }
    let (style, field) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let style = match style {
        "" | "TYPED" => FilterStateStyle::Typed,
        "PLAIN" | "FIELD" => FilterStateStyle::Plain,
        _ => return Err("Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.".to_owned()),
    };
    if field.is_empty() == args.split(':').nth(1).is_some_and(|style| style == "FIELD") {
        return Err(
            "Invalid filter state serialize type, FIELD should be used with the field name.".to_owned()
        );
    }
    let field = (!field.is_empty()).then(|| field.into());
    Ok(Kind::FilterState { upstream, key: key.into(), style, field })
}

fn address(name: &str, args: &str) -> Result<Option<(AddressFact, AddressPart)>, String> {
    let stems = [
        ("UPSTREAM_REMOTE", AddressFact::UpstreamRemote),
        ("UPSTREAM_LOCAL", AddressFact::UpstreamLocal),
        ("DOWNSTREAM_LOCAL", AddressFact::DownstreamLocal),
        ("DOWNSTREAM_DIRECT_LOCAL", AddressFact::DownstreamDirectLocal),
        ("DOWNSTREAM_REMOTE", AddressFact::DownstreamRemote),
        ("DOWNSTREAM_DIRECT_REMOTE", AddressFact::DownstreamDirectRemote),
    ];
    for (stem, fact) in stems {
        let Some(part) = name.strip_prefix(stem) else { continue };
        let part = match part {
            "_ADDRESS" => AddressPart::WithPort,
            "_ADDRESS_WITHOUT_PORT" => prefix_length(args),
            "_PORT" => AddressPart::Port,
            "_ADDRESS_ENDPOINT_ID" if has_endpoint_id(fact) => AddressPart::EndpointId,
            _ => continue,
        };
        if !args.is_empty() && !name.ends_with("_WITHOUT_PORT") {
            return Err(format!("{name} does not take any parameters or length"));
        }
        return Ok(Some((fact, part)));
    }
    Ok(None)
}

/// Which addresses Envoy tells the endpoint id of.
fn has_endpoint_id(fact: AddressFact) -> bool {
    matches!(
        fact,
        AddressFact::UpstreamRemote | AddressFact::DownstreamLocal | AddressFact::DownstreamDirectLocal
    )
}

/// What an argument makes of an address without port: the network with so many bits where it is a number, else nothing else.
fn prefix_length(args: &str) -> AddressPart {
    match args.trim_ascii().parse::<i32>() {
        Ok(bits) if bits < 0 => AddressPart::Empty,
        Ok(bits) => {
            let bits = u8::try_from(bits).unwrap_or(u8::MAX);
            AddressPart::Masked(PrefixLength { v4: bits, v6: bits })
        }
        Err(_) => AddressPart::WithoutPort,
    }
}

fn tls(name: &str) -> Option<TlsFact> {
    Some(match name {
        "TLS_CIPHER" => TlsFact::TlsCipher,
        "TLS_VERSION" => TlsFact::TlsVersion,
        "TLS_GROUP" => TlsFact::TlsGroup,
        "PEER_SUBJECT" => TlsFact::PeerSubject,
        "PEER_ISSUER" => TlsFact::PeerIssuer,
        "PEER_URI_SAN" => TlsFact::PeerUriSan,
        "PEER_DNS_SAN" => TlsFact::PeerDnsSan,
        "PEER_IP_SAN" => TlsFact::PeerIpSan,
        "PEER_EMAIL_SAN" => TlsFact::PeerEmailSan,
        "PEER_OTHERNAME_SAN" => TlsFact::PeerOtherNameSan,
        "LOCAL_SUBJECT" => TlsFact::LocalSubject,
        "LOCAL_URI_SAN" => TlsFact::LocalUriSan,
        "LOCAL_DNS_SAN" => TlsFact::LocalDnsSan,
        "LOCAL_IP_SAN" => TlsFact::LocalIpSan,
        "LOCAL_EMAIL_SAN" => TlsFact::LocalEmailSan,
        "LOCAL_OTHERNAME_SAN" => TlsFact::LocalOtherNameSan,
        "PEER_SERIAL" => TlsFact::PeerSerial,
        "PEER_FINGERPRINT_256" => TlsFact::PeerFingerprint256,
        "PEER_FINGERPRINT_1" => TlsFact::PeerFingerprint1,
        "PEER_CHAIN_FINGERPRINTS_1" => TlsFact::PeerChainFingerprints1,
        "PEER_CHAIN_FINGERPRINTS_256" => TlsFact::PeerChainFingerprints256,
        "PEER_CHAIN_SERIALS" => TlsFact::PeerChainSerials,
        "PEER_CERT" => TlsFact::PeerCert,
        _ => return None,
    })
}

/// Envoy tells less of hosts than of clients.
fn told_of_upstream(fact: TlsFact) -> bool {
    matches!(
        fact,
        TlsFact::TlsCipher
            | TlsFact::TlsVersion
            | TlsFact::TlsGroup
            | TlsFact::PeerSubject
            | TlsFact::PeerIssuer
            | TlsFact::PeerUriSan
            | TlsFact::PeerDnsSan
            | TlsFact::PeerIpSan
            | TlsFact::PeerCert
            | TlsFact::LocalUriSan
            | TlsFact::LocalDnsSan
            | TlsFact::LocalIpSan
    )
}

fn number(name: &str) -> Option<NumberFact> {
    Some(match name {
        "RESPONSE_CODE" => NumberFact::ResponseCode,
        "BYTES_RECEIVED" => NumberFact::BytesReceived,
        "BYTES_SENT" => NumberFact::BytesSent,
        "BYTES_RETRANSMITTED" => NumberFact::BytesRetransmitted,
        "PACKETS_RETRANSMITTED" => NumberFact::PacketsRetransmitted,
        "CONNECTION_ID" => NumberFact::ConnectionId,
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => NumberFact::UpstreamRequestAttemptCount,
        "ROUTE_RESOLUTION_COUNT" => NumberFact::RouteResolutionCount,
        _ => return stream_bytes(name),
    })
}

/// `DOWNSTREAM_WIRE_BYTES_RECEIVED` and its like, which are counted from now on.
fn stream_bytes(name: &str) -> Option<NumberFact> {
    let (side, rest) = name.split_once('_')?;
    let (kind, direction) = rest.split_once("_BYTES_")?;
    let side = match side {
        "DOWNSTREAM" => StreamSide::Downstream,
        "UPSTREAM" => StreamSide::Upstream,
        _ => return None,
    };
    let kind = match kind {
        "WIRE" => ByteKind::Wire,
        "HEADER" => ByteKind::Header,
        "DECOMPRESSED_HEADER" => ByteKind::DecompressedHeader,
        _ => return None,
    };
    let direction = match direction {
        "RECEIVED" => ByteDirection::Received,
        "SENT" => ByteDirection::Sent,
        _ => return None,
    };
    ByteMeter::want();
    Some(NumberFact::StreamBytes(side, kind, direction))
}

fn text(name: &str) -> Option<TextFact> {
    Some(match name {
        "PROTOCOL" => TextFact::Protocol,
        "UPSTREAM_PROTOCOL" => TextFact::UpstreamProtocol,
        "CONNECTION_TERMINATION_DETAILS" => TextFact::ConnectionTerminationDetails,
        "UPSTREAM_CLUSTER" => TextFact::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => TextFact::UpstreamClusterRaw,
        "UPSTREAM_HOST_NAME" => TextFact::UpstreamHostName,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => TextFact::UpstreamTransportFailureReason,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => TextFact::DownstreamTransportFailureReason,
        "DOWNSTREAM_LOCAL_CLOSE_REASON" => TextFact::DownstreamLocalCloseReason,
        "DOWNSTREAM_DETECTED_CLOSE_TYPE" => TextFact::DownstreamDetectedCloseType,
        "UPSTREAM_LOCAL_CLOSE_REASON" => TextFact::UpstreamLocalCloseReason,
        "UPSTREAM_DETECTED_CLOSE_TYPE" => TextFact::UpstreamDetectedCloseType,
        "ROUTE_NAME" => TextFact::RouteName,
        "VIRTUAL_CLUSTER_NAME" => TextFact::VirtualClusterName,
        "FILTER_CHAIN_NAME" => TextFact::FilterChainName,
        "LISTENER_NAME" => TextFact::ListenerName,
        "STREAM_ID" => TextFact::StreamId,
        "UNIQUE_ID" => TextFact::UniqueId,
        "UPSTREAM_SERVER_NAME" => TextFact::UpstreamServerName,
        "TRACE_ID" => TextFact::TraceId,
        "SPAN_ID" => TextFact::SpanId,
        "HOSTNAME" => TextFact::Hostname,
        "LOCAL_REPLY_BODY" => TextFact::LocalReplyBody,
        "ACCESS_LOG_TYPE" => TextFact::AccessLogType,
        _ => {
            if let Some(rest) = name.strip_prefix("DOWNSTREAM_") {
                return tls(rest).map(TextFact::Downstream);
            }
            let fact = name.strip_prefix("UPSTREAM_").and_then(tls);
            return fact.filter(|fact| told_of_upstream(*fact)).map(TextFact::Upstream);
        }
    })
}

/// Commands that take neither arguments nor a length.
fn plain(name: &str) -> Option<Kind> {
    if let Some(fact) = text(name) {
        return Some(Kind::Text(fact));
    }
    if let Some(fact) = number(name) {
        return Some(Kind::Number(fact));
    }
    let until = |to| Kind::Duration(DurationCommand::until(to));
    Some(match name {
        "DURATION" => until(TimePoint::StreamEnd),
        "REQUEST_DURATION" => until(TimePoint::DownstreamRxEnd),
        "REQUEST_TX_DURATION" => until(TimePoint::UpstreamTxEnd),
        "RESPONSE_DURATION" => until(TimePoint::UpstreamRxBegin),
        "RESPONSE_TX_DURATION" => {
            Kind::Duration(DurationCommand::between(TimePoint::UpstreamRxBegin, TimePoint::DownstreamTxEnd))
        }
        "DOWNSTREAM_HANDSHAKE_DURATION" => until(TimePoint::DownstreamHandshakeEnd),
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => Kind::Duration(DurationCommand::between(
            TimePoint::UpstreamPoolBegin,
            TimePoint::UpstreamPoolReady,
        )),
        // Measured by QUIC alone.
        "ROUNDTRIP_DURATION" => Kind::Fixed(None),
        "UPSTREAM_CONNECTION_ID" => Kind::UpstreamConnectionId,
        "UPSTREAM_HOSTS_ATTEMPTED" => Kind::Attempted(AttemptedPart::Address),
        "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT" => Kind::Attempted(AttemptedPart::AddressWithoutPort),
        "UPSTREAM_HOST_NAMES_ATTEMPTED" => Kind::Attempted(AttemptedPart::HostName),
        "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT" => Kind::Attempted(AttemptedPart::HostNameWithoutPort),
        "UPSTREAM_CONNECTION_IDS_ATTEMPTED" => Kind::Attempted(AttemptedPart::ConnectionId),
        "RESPONSE_FLAGS" => Kind::Flags { long: false },
        "RESPONSE_FLAGS_LONG" => Kind::Flags { long: true },
        "GRPC_STATUS_NUMBER" => Kind::GrpcStatus(GrpcStatusStyle::Number),
        "UPSTREAM_HOST" => Kind::Address(AddressFact::UpstreamHost, AddressPart::WithPort),
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Kind::UpstreamHostNameWithoutPort,
        // No filter sets flags of its own.
        "CUSTOM_FLAGS" => Kind::Fixed(Some(Box::default())),
        "REQUEST_HEADERS_BYTES" => Kind::HeaderBytes(Headers::Request),
        "RESPONSE_HEADERS_BYTES" => Kind::HeaderBytes(Headers::Response),
        "RESPONSE_TRAILERS_BYTES" => Kind::HeaderBytes(Headers::Trailers),
        _ => return None,
    })
}
