//! One compiled command and its value.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use dhow_http::{HeaderMap, HeaderName, KnownHeader, format_decimal};
use dhow_matching::percent_decoded;

use crate::address::PrefixLength;
use crate::cel::CelExpression;
use crate::choices::{self, ServerNameChoice};
use crate::context::{AddressFact, FormatContext, MetadataSource, NumberFact, TextFact};
use crate::duration::DurationCommand;
use crate::grpc_status::{self, GrpcStatusStyle};
use crate::json::append_quoted;
use crate::metadata::{MetadataCommand, append_struct_path, append_struct_path_json};
use crate::time::TimeFormat;

/// Which message's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Headers {
    Request,
    Response,
    Trailers,
}

impl Headers {
    fn of(self, context: &dyn FormatContext) -> Option<&HeaderMap> {
        match self {
            Self::Request => context.request_headers(),
            Self::Response => context.response_headers(),
            Self::Trailers => context.response_trailers(),
        }
    }
}

/// Which part of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AddressPart {
    WithPort,
    WithoutPort,
    Port,
    /// Endpoint id of an internal address.
    EndpointId,
    Masked(PrefixLength),
    /// Nothing of it, if there is one.
    Empty,
}

/// What is told of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptedPart {
    Address,
    AddressWithoutPort,
    HostName,
    HostNameWithoutPort,
    ConnectionId,
}

/// Which path `%PATH%` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathChoice {
    Original,
    Current,
    OriginalOrCurrent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FilterStateStyle {
    Plain,
    Typed,
}

impl Command {
    /// Whether it comes from the formatter extension that Envoy only has where a format names it.
    pub(crate) fn is_of_extension(&self) -> bool {
        match &self.kind {
            Kind::HeaderWithoutQuery { .. } => true,
            Kind::FirstOf(commands) => commands.iter().any(Self::is_of_extension),
            _ => false,
        }
    }
}

/// A command, with everything that can be decided at configuration time decided.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) kind: Kind,
    /// Longest output in bytes.
    pub(crate) limit: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Header {
        headers: Headers,
        name: HeaderName,
        otherwise: Option<HeaderName>,
    },
    HeaderBytes(Headers),
    Text(TextFact),
    Number(NumberFact),
    Address(AddressFact, AddressPart),
    Duration(DurationCommand),
    StartTime {
        format: TimeFormat,
        local: bool,
    },
    EmitTime {
        format: TimeFormat,
        local: bool,
    },
    /// An end of a certificate's validity.
    Validity(NumberFact, TimeFormat),
    /// Number of the upstream connection; 0 when there was none.
    UpstreamConnectionId,
    /// What the last attempt that got a connection went to.
    Attempted(AttemptedPart),
    HeaderWithoutQuery {
        name: HeaderName,
        otherwise: Option<HeaderName>,
    },
    Cel(CelExpression),
    Flags {
        long: bool,
    },
    GrpcStatus(GrpcStatusStyle),
    Metadata(MetadataCommand),
    FilterState {
        upstream: bool,
        key: Box<str>,
        style: FilterStateStyle,
        field: Option<Box<str>>,
    },
    QueryParam(Box<[u8]>),
    QueryParams {
        decoded: bool,
    },
    RequestedServerName(ServerNameChoice),
    Path {
        with_query: bool,
        choice: PathChoice,
    },
    UpstreamHostNameWithoutPort,
    /// Known at configuration time (`%ENVIRONMENT(X)%`).
    Fixed(Option<Box<[u8]>>),
    /// The first of the commands that has a value (`%COALESCE(...)%`).
    FirstOf(Box<[Command]>),
}

impl Command {
    /// Appends the value as text; false, and nothing appended, when there is none.
    pub(crate) fn append(&self, context: &dyn FormatContext, out: &mut Vec<u8>) -> bool {
        self.append_within(self.limit, context, out)
    }

    fn append_within(&self, limit: Option<usize>, context: &dyn FormatContext, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let any = self.kind.append(context, out);
        if !any {
            out.truncate(start);
            return false;
        }
        if let Some(limit) = limit {
            out.truncate(start + limit.min(out.len() - start));
        }
        true
    }

    /// Whether the value is a string in JSON whenever there is one.
    pub(crate) fn is_string(&self) -> bool {
        match &self.kind {
            kind if kind.is_number() => false,
            Kind::FilterState { style, field, .. } => *style != FilterStateStyle::Typed || field.is_some(),
            Kind::Metadata(_) | Kind::FirstOf(_) => false,
            _ => true,
        }
    }

    /// Appends the value as JSON, numbers as numbers; false, and nothing appended, when there is none. Only strings are cut.
    pub(crate) fn append_json(
        &self,
        context: &dyn FormatContext,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        self.append_json_within(self.limit, context, scratch, out)
    }

    fn append_json_within(
        &self,
        limit: Option<usize>,
        context: &dyn FormatContext,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> bool {
        match &self.kind {
            kind if kind.is_number() => {
                let start = out.len();
                return self.append(context, out) && out.len() > start;
            }
            Kind::Metadata(command) => {
                let limit = limit.unwrap_or(usize::MAX);
                let found = command.find(context);
                return found
                    .is_some_and(|fields| append_struct_path_json(fields, &command.path, limit, out));
            }
            Kind::FilterState { upstream, key, style: FilterStateStyle::Typed, field: None } => {
                return context.filter_state(*upstream, key).is_some_and(|object| object.append_json(out));
            }
            Kind::FirstOf(commands) => {
                return commands.iter().any(|command| {
                    let limit = command.limit.into_iter().chain(limit).min();
                    command.append_json_within(limit, context, scratch, out)
                });
            }
            _ => {}
        }
        append_quoted(scratch, out, |out| self.append_within(limit, context, out))
    }
}

fn append_number(number: u64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(format_decimal(number, &mut [0; 20]));
    true
}

fn append_some(value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    match value {
        Some(value) => {
            out.extend_from_slice(value);
            true
        }
        None => false,
    }
}

impl Kind {
    /// Whether the value is a JSON number.
    fn is_number(&self) -> bool {
        match self {
            Self::Number(_) | Self::Duration(_) | Self::HeaderBytes(_) | Self::UpstreamConnectionId => true,
            Self::Address(_, part) => *part == AddressPart::Port,
            Self::GrpcStatus(style) => *style == GrpcStatusStyle::Number,
            _ => false,
        }
    }

    fn append(&self, context: &dyn FormatContext, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Header { headers, name, otherwise } => {
                let Some(map) = headers.of(context) else { return false };
                let value = map.get(name).or_else(|| otherwise.as_ref().and_then(|name| map.get(name)));
                append_some(value, out)
            }
            Self::HeaderBytes(headers) => {
                append_number(headers.of(context).map_or(0, |map| map.byte_size() as u64), out)
            }
            Self::Text(fact) => append_text(context, *fact, out),
            Self::Number(fact) => context.number(*fact).is_some_and(|number| append_number(number, out)),
            Self::Address(fact, part) => append_address(context, *fact, *part, out),
            Self::Duration(command) => {
                command.value(context).is_some_and(|number| append_number(number, out))
            }
            Self::StartTime { format, local: false } => {
                context.start_time().is_some_and(|at| format.append(at, out))
            }
            Self::StartTime { format, local: true } => {
                context.start_time().is_some_and(|at| format.append_local(at, out))
            }
            Self::EmitTime { format, local: false } => context.now().is_some_and(|at| format.append(at, out)),
            Self::EmitTime { format, local: true } => {
                context.now().is_some_and(|at| format.append_local(at, out))
            }
            Self::Validity(fact, format) => {
                let seconds = context.number(*fact);
                seconds.is_some_and(|at| format.append(UNIX_EPOCH + Duration::from_secs(at), out))
            }
            Self::UpstreamConnectionId => {
                append_number(context.number(NumberFact::UpstreamConnectionId).unwrap_or(0), out)
            }
            Self::Attempted(part) => append_attempted(context, *part, out),
            Self::HeaderWithoutQuery { name, otherwise } => {
                let Some(map) = context.request_headers() else { return false };
                let value = map.get(name).or_else(|| otherwise.as_ref().and_then(|name| map.get(name)));
                append_some(value.map(|value| value.split(|&b| b == b'?').next().unwrap_or_default()), out)
            }
            Self::Cel(expression) => expression.append(context, out),
            Self::Flags { long } => append_flags(context, *long, out),
            Self::GrpcStatus(style) => grpc_status::append(context, *style, out),
            Self::Metadata(command) => {
                command.find(context).is_some_and(|fields| append_struct_path(fields, &command.path, out))
            }
            Self::FilterState { upstream, key, style, field } => {
                let Some(object) = context.filter_state(*upstream, key) else { return false };
                match (field, style) {
                    (Some(field), _) => object.append_field(field, out),
                    (None, FilterStateStyle::Plain) => object.append_text(out),
                    (None, FilterStateStyle::Typed) => object.append_json(out),
                }
            }
            Self::QueryParam(name) => {
                append_some(query_of(context).and_then(|query| query_param(query, name)).as_deref(), out)
            }
            Self::QueryParams { decoded: false } => append_some(query_of(context), out),
            Self::QueryParams { decoded: true } => {
                append_some(query_of(context).map(choices::visible_decoded).as_deref(), out)
            }
            Self::RequestedServerName(choice) => choice.append(context, out),
            Self::Path { with_query, choice } => append_path(context, *with_query, *choice, out),
            Self::UpstreamHostNameWithoutPort => {
                let Some(name) = context.text(TextFact::UpstreamHostName) else { return false };
                out.extend_from_slice(without_port(&name).as_bytes());
                true
            }
            Self::Fixed(value) => append_some(value.as_deref(), out),
            Self::FirstOf(commands) => commands.iter().any(|command| command.append(context, out)),
        }
    }
}

pub(crate) fn append_text(context: &dyn FormatContext, fact: TextFact, out: &mut Vec<u8>) -> bool {
    match context.text(fact) {
        // A reply without body has an empty one.
        Some(text) if !text.is_empty() || fact == TextFact::LocalReplyBody => {
            // These two go into lines whose fields are separated by blanks; Envoy replaces them too.
            let replace = matches!(
                fact,
                TextFact::UpstreamTransportFailureReason | TextFact::DownstreamTransportFailureReason
            );
            if replace {
                out.extend(text.bytes().map(|b| if b == b' ' { b'_' } else { b }));
            } else {
                out.extend_from_slice(text.as_bytes());
            }
            true
        }
        _ => false,
    }
}

fn append_address(
    context: &dyn FormatContext,
    fact: AddressFact,
    part: AddressPart,
    out: &mut Vec<u8>,
) -> bool {
    if part == AddressPart::WithPort
        && let Some(text) = context.address_text(fact)
    {
        out.extend_from_slice(text.as_bytes());
        return true;
    }
    let Some(address) = context.address(fact) else { return false };
    match part {
        AddressPart::WithPort => address.append(out),
        AddressPart::WithoutPort => address.append_without_port(out),
        AddressPart::Empty => {}
        // Other addresses than those of IP have an empty network, port and endpoint id.
        AddressPart::Masked(mask) => _ = address.append_masked(mask, out),
        AddressPart::Port => {
            if let Some(port) = address.port() {
                append_number(u64::from(port), out);
            }
        }
        AddressPart::EndpointId => {
            if let crate::Address::Internal(_, endpoint) = address {
                out.extend_from_slice(endpoint.as_bytes());
            }
        }
    }
    true
}

/// Envoy notes a host as attempted once there is a connection, for each attempt anew.
fn append_attempted(context: &dyn FormatContext, part: AttemptedPart, out: &mut Vec<u8>) -> bool {
    let Some(id) = context.number(NumberFact::UpstreamConnectionId) else { return false };
    match part {
        AttemptedPart::Address => {
            append_address(context, AddressFact::UpstreamHost, AddressPart::WithPort, out)
        }
        AttemptedPart::AddressWithoutPort => {
            append_address(context, AddressFact::UpstreamHost, AddressPart::WithoutPort, out)
        }
        AttemptedPart::HostName => append_text(context, TextFact::UpstreamHostName, out),
        AttemptedPart::HostNameWithoutPort => Kind::UpstreamHostNameWithoutPort.append(context, out),
        AttemptedPart::ConnectionId => append_number(id, out),
    }
}

fn append_flags(context: &dyn FormatContext, long: bool, out: &mut Vec<u8>) -> bool {
    let flags = context.response_flags();
    if flags.is_empty() {
        // Envoy's value for none, in JSON too.
        out.push(b'-');
        return true;
    }
    for (at, flag) in flags.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(if long { flag.long_name() } else { flag.short_name() }.as_bytes());
    }
    true
}

fn query_of(context: &dyn FormatContext) -> Option<&[u8]> {
    let path = context.request_headers()?.get_known(KnownHeader::Path)?;
    let at = path.iter().position(|&b| b == b'?')?;
    Some(&path[at + 1..])
}

/// The first value of a parameter. Names and values are decoded, unlike where routes match by them.
fn query_param<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|&b| b == b'&').find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        let found = *percent_decoded(&pair[..at]) == *name;
        found.then(|| percent_decoded(pair.get(at + 1..).unwrap_or_default()))
    })
}

fn append_path(context: &dyn FormatContext, with_query: bool, choice: PathChoice, out: &mut Vec<u8>) -> bool {
    let Some(headers) = context.request_headers() else { return false };
    let original = headers.get_known(KnownHeader::XEnvoyOriginalPath);
    let current = headers.get_known(KnownHeader::Path);
    let path = match choice {
        PathChoice::Original => original,
        PathChoice::Current => current,
        PathChoice::OriginalOrCurrent => original.or(current),
    };
    let path =
        if with_query { path } else { path.map(|p| p.split(|&b| b == b'?').next().unwrap_or_default()) };
    append_some(path, out)
}

fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        Some(at)
            if !host[at + 1..].is_empty()
                && host[at + 1..].bytes().all(|b| b.is_ascii_digit())
                && (host[..at].ends_with(']') || !host[..at].contains(':')) =>
        {
            &host[..at]
        }
        _ => host,
    }
}

/// The sources that `%METADATA(TYPE:...)%` knows.
pub(crate) fn metadata_source(name: &str) -> Option<MetadataSource> {
    Some(match name {
        "DYNAMIC" => MetadataSource::Dynamic,
        "CLUSTER" => MetadataSource::Cluster,
        "UPSTREAM_HOST" => MetadataSource::UpstreamHost,
        "ROUTE" => MetadataSource::Route,
        "VIRTUAL_HOST" => MetadataSource::VirtualHost,
        "LISTENER" => MetadataSource::Listener,
        "LISTENER_FILTER_CHAIN" => MetadataSource::FilterChain,
        _ => return None,
    })
}
