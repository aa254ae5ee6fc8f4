//! Envoy's attributes (`request.path`, `connection.mtls`, `xds.route_name`), looked up one by one.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use dhow_http::{HeaderMap, KnownHeader};

use super::ast::Node;
use super::value::Value;
use crate::context::{AddressFact, FormatContext, MetadataSource, NumberFact, TextFact, TimePoint, TlsFact};
use crate::grpc_status::{grpc_status, http_to_grpc_status};

/// A map of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Request,
    RequestHeaders,
    Response,
    ResponseHeaders,
    ResponseTrailers,
    Connection,
    Source,
    Destination,
    Upstream,
    /// `metadata`, `xds.cluster_metadata` and its like: a message with the field `filter_metadata`.
    Metadata(MetadataSource),
    /// The namespaces of metadata.
    Namespaces(MetadataSource),
    FilterState {
        upstream: bool,
    },
    Xds,
}

impl Group {
    /// The attributes that begin with a name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "request" => Self::Request,
            "response" => Self::Response,
            "connection" => Self::Connection,
            "source" => Self::Source,
            "destination" => Self::Destination,
            "upstream" => Self::Upstream,
            "metadata" => Self::Metadata(MetadataSource::Dynamic),
            "filter_state" => Self::FilterState { upstream: false },
            "upstream_filter_state" => Self::FilterState { upstream: true },
            "xds" => Self::Xds,
            _ => return None,
        })
    }

    /// How many entries there are, of the maps that can tell.
    pub(crate) fn size(self, context: &dyn FormatContext) -> Option<i64> {
        let headers = self.headers(context)?;
        i64::try_from(headers.map_or(0, HeaderMap::len)).ok()
    }

    fn headers(self, context: &dyn FormatContext) -> Option<Option<&HeaderMap>> {
        match self {
            Self::RequestHeaders => Some(context.request_headers()),
            Self::ResponseHeaders => Some(context.response_headers()),
            Self::ResponseTrailers => Some(context.response_trailers()),
            _ => None,
        }
    }
}

/// Attributes of Envoy's whose values are not known here.
const NOT_PROVIDED: &[(&str, &[&str])] = &[
    ("xds", &["node", "listener_direction", "upstream_host_locality_metadata"]),
    ("upstream", &["num_endpoints", "locality"]),
];

/// Refuses expressions that ask for what Envoy provides and this does not.
pub(crate) fn check(node: &Node) -> Result<(), String> {
    match node {
        Node::Literal(_) | Node::Type(_) | Node::Name(_) => Ok(()),
        Node::Select { of, field, .. } => refuse(of, field).and_then(|()| check(of)),
        Node::List(items) | Node::Call(_, items) => {
            if let Node::Call(_, items) = node
                && let [of, Node::Literal(super::ast::Literal::Text(field))] = &**items
            {
                refuse(of, field)?;
            }
            items.iter().try_for_each(check)
        }
        Node::Map(entries) => {
            entries.iter().try_for_each(|(key, value)| check(key).and_then(|()| check(value)))
        }
        Node::And(sides) | Node::Or(sides) => sides.iter().try_for_each(check),
        Node::Choice(nodes) => nodes.iter().try_for_each(check),
        Node::Matches(text, _) => check(text),
    }
}

fn refuse(of: &Node, field: &str) -> Result<(), String> {
    let Node::Name(name) = of else { return Ok(()) };
    let refused = NOT_PROVIDED.iter().any(|(group, fields)| *group == &**name && fields.contains(&field));
    if refused { Err(format!("the attribute {name}.{field} is not supported")) } else { Ok(()) }
}

/// Makes a top-level attribute one that has no value, wherever it occurs; false when it does not.
pub(crate) fn forget(node: &mut Node, attribute: &str) -> bool {
    let all =
        |nodes: &mut [Node]| nodes.iter_mut().fold(false, |found, node| forget(node, attribute) | found);
    match node {
        Node::Literal(_) | Node::Type(_) => false,
        Node::Name(name) => {
            let found = &**name == attribute;
            if found {
                *name = Box::default();
            }
            found
        }
        Node::Select { of, .. } | Node::Matches(of, _) => forget(of, attribute),
        Node::List(items) | Node::Call(_, items) => all(items),
        Node::Map(entries) => entries
            .iter_mut()
            .fold(false, |found, (key, value)| forget(key, attribute) | forget(value, attribute) | found),
        Node::And(sides) | Node::Or(sides) => all(&mut sides[..]),
        Node::Choice(nodes) => all(&mut nodes[..]),
    }
}

/// Whether the value is metadata as a whole, which has no text here.
pub(crate) fn is_message(node: &Node) -> bool {
    match node {
        Node::Name(name) => &**name == "metadata",
        Node::Select { of, field, test: false } => {
            matches!(&**of, Node::Name(name) if &**name == "xds") && field.ends_with("_metadata")
        }
        _ => false,
    }
}

/// One attribute; none when it has no value.
pub(crate) fn lookup<'a>(group: Group, name: &str, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    match group {
        Group::Request => request(name, context),
        Group::Response => response(name, context),
        Group::RequestHeaders | Group::ResponseHeaders | Group::ResponseTrailers => {
            header(group.headers(context)??, name)
        }
        Group::Connection => connection(name, context),
        Group::Source => address(name, AddressFact::DownstreamRemote, context),
        Group::Destination => address(name, AddressFact::DownstreamLocal, context),
        Group::Upstream => upstream(name, context),
        Group::Metadata(source) => {
            (name == "filter_metadata").then_some(Value::Group(Group::Namespaces(source)))
        }
        Group::Namespaces(source) => context.metadata(source, name).map(Value::Struct),
        Group::FilterState { upstream } => {
            let mut text = Vec::new();
            let any = context.filter_state(upstream, name)?.append_text(&mut text);
            any.then(|| Value::Bytes(text.into()))
        }
        Group::Xds => xds(name, context),
    }
}

/// The values of a header, joined as one.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<Value<'a>> {
    let mut values = headers
        .iter()
        .filter(|(_, other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, _, value)| value);
    let first = values.next()?;
    let Some(second) = values.next() else { return Some(Value::lossy(first)) };
    let mut joined = first.to_vec();
    for value in std::iter::once(second).chain(values) {
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    Some(Value::Text(String::from_utf8_lossy(&joined).into_owned().into()))
}

fn number(value: u64) -> Value<'static> {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

fn text<'a>(context: &'a dyn FormatContext, fact: TextFact) -> Option<Value<'a>> {
    context.text(fact).map(Value::Text)
}

fn bytes_of(headers: Option<&HeaderMap>) -> u64 {
    headers.map_or(0, |headers| headers.byte_size() as u64)
}

fn between(context: &dyn FormatContext, from: TimePoint, to: TimePoint) -> Option<Value<'static>> {
    let span = context.time(to)?.checked_sub(context.time(from)?)?;
    Some(nanos(span))
}

fn nanos(span: Duration) -> Value<'static> {
    Value::Duration(i128::try_from(span.as_nanos()).unwrap_or(i128::MAX))
}

fn request<'a>(name: &str, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    let known = |header| Some(Value::lossy(context.request_headers()?.get_known(header)?));
    // Of a head without a path they are empty; `path` itself is not there.
    let path = || Some(context.request_headers()?.get_known(KnownHeader::Path).unwrap_or_default());
    let received = || context.number(NumberFact::BytesReceived).unwrap_or(0);
    match name {
        "headers" => Some(Value::Group(Group::RequestHeaders)),
        "path" => known(KnownHeader::Path),
        "url_path" => Some(Value::lossy(path()?.split(|&b| b == b'?').next().unwrap_or_default())),
        "query" => {
            let query = path()?.splitn(2, |&b| b == b'?').nth(1).unwrap_or_default();
            Some(Value::lossy(query.split(|&b| b == b'#').next().unwrap_or_default()))
        }
        "host" => known(KnownHeader::Authority),
        "scheme" => known(KnownHeader::Scheme),
        "method" => known(KnownHeader::Method),
        "id" => known(KnownHeader::XRequestId),
        "referer" => header(context.request_headers()?, "referer"),
        "useragent" => header(context.request_headers()?, "user-agent"),
        "protocol" => text(context, TextFact::Protocol),
        "time" => {
            let since = context.start_time()?.duration_since(UNIX_EPOCH).ok()?;
            Some(Value::Timestamp(i128::try_from(since.as_nanos()).ok()?))
        }
        "duration" => context.time(TimePoint::StreamEnd).map(nanos),
        "size" => {
            let declared =
                context.request_headers().and_then(|map| map.get_known(KnownHeader::ContentLength));
            let declared = declared.and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
            Some(number(declared.unwrap_or_else(received)))
        }
        "total_size" => Some(number(received() + bytes_of(context.request_headers()))),
        "headers_bytes" => context.request_headers().map(|map| number(map.byte_size() as u64)),
        _ => None,
    }
}

fn response<'a>(name: &str, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    let code = || context.number(NumberFact::ResponseCode).filter(|code| *code != 0);
    let sent = || context.number(NumberFact::BytesSent).unwrap_or(0);
    match name {
        "code" => code().map(number),
        "code_details" => text(context, TextFact::ResponseCodeDetails),
        "flags" => {
            let flags = context.response_flags();
            Some(Value::Int(flags.iter().fold(0, |bits, flag| bits | 1 << flag as u8)))
        }
        "grpc_status" => match grpc_status(context) {
            Some(status) => Some(Value::Int(status)),
            None => code().map(|code| number(http_to_grpc_status(code))),
        },
        "headers" => Some(Value::Group(Group::ResponseHeaders)),
        "trailers" => Some(Value::Group(Group::ResponseTrailers)),
        "headers_bytes" => Some(number(bytes_of(context.response_headers()))),
        "size" => Some(number(sent())),
        "total_size" => Some(number(
            sent() + bytes_of(context.response_headers()) + bytes_of(context.response_trailers()),
        )),
        "backend_latency" => between(context, TimePoint::UpstreamTxBegin, TimePoint::UpstreamRxEnd),
        _ => None,
    }
}

fn address<'a>(name: &str, fact: AddressFact, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    match name {
        "address" => {
            let mut text = Vec::new();
            context.address(fact)?.append(&mut text);
            Some(Value::Text(String::from_utf8_lossy(&text).into_owned().into()))
        }
        "port" => context.address(fact)?.port().map(|port| Value::Int(port.into())),
        _ => None,
    }
}

/// What is told of a TLS session on either side.
fn tls<'a>(name: &str, side: fn(TlsFact) -> TextFact, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    let (fact, first) = match name {
        "tls_version" => (TlsFact::TlsVersion, false),
        "subject_local_certificate" => (TlsFact::LocalSubject, false),
        "subject_peer_certificate" => (TlsFact::PeerSubject, false),
        "uri_san_local_certificate" => (TlsFact::LocalUriSan, true),
        "uri_san_peer_certificate" => (TlsFact::PeerUriSan, true),
        "dns_san_local_certificate" => (TlsFact::LocalDnsSan, true),
        "dns_san_peer_certificate" => (TlsFact::PeerDnsSan, true),
        "sha256_peer_certificate_digest" => (TlsFact::PeerFingerprint256, false),
        "peer_certificate" => (TlsFact::PeerCert, false),
        _ => return None,
    };
    let is_subject = matches!(fact, TlsFact::LocalSubject | TlsFact::PeerSubject);
    let Some(value) = context.text(side(fact)) else {
        // Without a certificate it is empty, without TLS it is not there.
        let secure = is_subject && context.text(side(TlsFact::TlsVersion)).is_some();
        return secure.then(|| Value::text(""));
    };
    Some(Value::Text(match value {
        value if !first => value,
        Cow::Borrowed(names) => Cow::Borrowed(names.split(',').next().unwrap_or_default()),
        Cow::Owned(names) => Cow::Owned(names.split(',').next().unwrap_or_default().to_owned()),
    }))
}

fn connection<'a>(name: &str, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    let truth = |fact| Some(Value::Bool(context.number(fact).unwrap_or(0) != 0));
    match name {
        "id" => context.number(NumberFact::ConnectionId).map(Value::Uint),
        "mtls" => truth(NumberFact::DownstreamPeerPresented),
        "peer_certificate_valid" => truth(NumberFact::DownstreamPeerVerified),
        "requested_server_name" => {
            Some(text(context, TextFact::RequestedServerName).unwrap_or_else(|| Value::text("")))
        }
        "transport_failure_reason" => text(context, TextFact::DownstreamTransportFailureReason),
        "termination_details" => text(context, TextFact::ConnectionTerminationDetails),
        other => tls(other, TextFact::Downstream, context),
    }
}

fn upstream<'a>(name: &str, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    match name {
        "address" | "port" => address(name, AddressFact::UpstreamHost, context),
        "local_address" => address("address", AddressFact::UpstreamLocal, context),
        "request_attempt_count" => context.number(NumberFact::UpstreamRequestAttemptCount).map(number),
        "transport_failure_reason" => {
            let reason = text(context, TextFact::UpstreamTransportFailureReason);
            let reached = context.address(AddressFact::UpstreamHost).is_some();
            reason.or_else(|| reached.then(|| Value::text("")))
        }
        "cx_pool_ready_duration" => {
            between(context, TimePoint::UpstreamPoolBegin, TimePoint::UpstreamPoolReady)
        }
        "server_name" => text(context, TextFact::UpstreamServerName),
        other => tls(other, TextFact::Upstream, context),
    }
}

fn xds<'a>(name: &str, context: &'a dyn FormatContext) -> Option<Value<'a>> {
    let or_empty = |fact| Some(text(context, fact).unwrap_or_else(|| Value::text("")));
    let metadata = |source| Some(Value::Group(Group::Metadata(source)));
    match name {
        "cluster_name" => text(context, TextFact::UpstreamClusterRaw),
        "route_name" => or_empty(TextFact::RouteName),
        "virtual_host_name" => text(context, TextFact::VirtualHostName),
        "filter_chain_name" => or_empty(TextFact::FilterChainName),
        "cluster_metadata" => metadata(MetadataSource::Cluster),
        "route_metadata" => metadata(MetadataSource::Route),
        "virtual_host_metadata" => metadata(MetadataSource::VirtualHost),
        "upstream_host_metadata" => metadata(MetadataSource::UpstreamHost),
        "listener_metadata" => metadata(MetadataSource::Listener),
        _ => None,
    }
}
