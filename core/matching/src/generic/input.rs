//! Inputs: which value of the data a predicate or a tree looks at.

use std::borrow::Cow;
use std::net::IpAddr;

use dhow_base::{ConfigError, FieldPath, is_loopback};
use dhow_http::{HeaderMap, HeaderName};
use dhow_proto::any::{self, Resolved};
use dhow_proto::envoy::extensions::matching::common_inputs::environment_variable::v3 as environment;
use dhow_proto::envoy::extensions::matching::common_inputs::network::v3 as network;
use dhow_proto::envoy::extensions::matching::common_inputs::transport_socket::v3 as host;
use dhow_proto::supplement::HttpAttributesCelMatchInput;
use dhow_proto::{Message, Name};

use super::data::{CertificateName, HostPart, MatchData};
use crate::pb::matcher as http;
use crate::pb::protobuf::{Value, value::Kind};
use crate::pb::xds::core::v3::TypedExtensionConfig;
use crate::percent::percent_decoded;
use crate::query::query_parameter;

/// Which inputs make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputFamily {
    /// Those of a connection.
    Network,
    /// Those of a connection, and those of requests and responses.
    Http,
    /// Those of a host that a connection is made to.
    Host,
}

/// Where a value comes from.
#[derive(Clone, Debug)]
pub(super) enum Input {
    RequestHeader(HeaderName),
    RequestTrailer(HeaderName),
    ResponseHeader(HeaderName),
    ResponseTrailer(HeaderName),
    QueryParameter(Box<[u8]>),
    StatusCode,
    StatusCodeClass,
    LocalReply,
    DestinationIp,
    DestinationPort,
    SourceIp,
    SourcePort,
    DirectSourceIp,
    SourceType,
    ServerName,
    TransportProtocol,
    ApplicationProtocols,
    NetworkNamespace,
    Certificate(CertificateName),
    FilterState {
        key: Box<str>,
        field: Box<str>,
    },
    DynamicMetadata {
        namespace: Box<str>,
        path: Box<[Box<str>]>,
    },
    HostMetadata {
        part: HostPart,
        namespace: Box<str>,
        path: Box<[Box<str>]>,
    },
    /// All there is, for expressions.
    Attributes,
    /// Known when the configuration is read.
    Constant(Option<Box<[u8]>>),
}

/// What an input gives.
#[derive(Debug)]
pub(super) enum InputValue<'a> {
    /// Nothing yet.
    Unavailable,
    /// There is no such value.
    Absent,
    /// A text.
    Text(Cow<'a, [u8]>),
    /// A value of metadata.
    Metadata(&'a Value),
    /// Whatever an expression asks for.
    Attributes,
}

impl Input {
    /// Compiles the extension. `admit` may refuse the type by name.
    pub(super) fn compile(
        message: Option<&TypedExtensionConfig>,
        path: &FieldPath,
        family: InputFamily,
        admit: &dyn Fn(&str) -> Result<(), String>,
    ) -> Result<Self, ConfigError> {
        let TypedExtensionConfig { name, typed_config } =
            message.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let path = path.field("typed_config");
        let config =
            typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let resolved = any::resolve(config).map_err(|error| error.under(&path))?;
        let unknown = || {
            let reason = format!(
                "Didn't find a registered implementation for '{name}' with type URL: '{}'",
                resolved.type_name
            );
            ConfigError::new(path.clone(), reason)
        };
        if let Some(constant) = environment_variable(&resolved, &path)? {
            return Ok(constant);
        }
        let input = match family {
            InputFamily::Host => host_input(&resolved, &path)?,
            InputFamily::Network => network_input(&resolved, &path)?,
            InputFamily::Http => match network_input(&resolved, &path)? {
                None => http_input(&resolved, &path)?,
                input => input,
            },
        };
        let input = input.ok_or_else(unknown)?;
        admit(&resolved.type_name).map_err(|reason| ConfigError::new(path, reason))?;
        Ok(input)
    }

    /// Whether it gives texts, as trees and string matchers need.
    pub(super) fn is_text(&self) -> bool {
        !matches!(self, Self::DynamicMetadata { .. } | Self::Attributes)
    }

    /// What Envoy calls what it gives.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Attributes => "cel_data_input",
            Self::DynamicMetadata { .. } => "the input does not give a string",
            _ => "string",
        }
    }

    pub(super) fn read<'a>(&'a self, data: &'a dyn MatchData) -> InputValue<'a> {
        match self {
            Self::RequestHeader(name) => header(data.request_headers(), name),
            Self::RequestTrailer(name) => header(data.request_trailers(), name),
            Self::ResponseHeader(name) => header(data.response_headers(), name),
            Self::ResponseTrailer(name) => header(data.response_trailers(), name),
            Self::QueryParameter(name) => match data.request_headers() {
                None => InputValue::Unavailable,
                Some(headers) => text(query_parameter(headers.path(), name).map(percent_decoded)),
            },
            Self::StatusCode => status(data, |code| code.to_string()),
            Self::StatusCodeClass => status(data, |code| format!("{}xx", code / 100)),
            Self::LocalReply => match data.is_local_reply() {
                None => InputValue::Unavailable,
                Some(local) => text(Some(Cow::Borrowed(if local { b"true" } else { &b"false"[..] }))),
            },
            Self::DestinationIp => display(data.destination().map(|address| address.ip())),
            Self::DestinationPort => display(data.destination().map(|address| address.port())),
            Self::SourceIp => display(data.source().map(|address| address.ip())),
            Self::SourcePort => display(data.source().map(|address| address.port())),
            Self::DirectSourceIp => display(data.direct_source().map(|address| address.ip())),
            Self::SourceType => {
                let source = data.direct_source().or(data.source()).map(|address| address.ip());
                let local = is_local(source, data.destination().map(|address| address.ip()));
                text(local.then_some(Cow::Borrowed(b"local")))
            }
            Self::ServerName => words(data.server_name()),
            Self::TransportProtocol => words(data.transport_protocol()),
            Self::ApplicationProtocols => application_protocols(data),
            Self::NetworkNamespace => words(data.network_namespace()),
            Self::Certificate(name) => match data.certificate(*name) {
                Some(Cow::Borrowed(names)) => words(Some(names)),
                Some(Cow::Owned(names)) if !names.is_empty() => InputValue::Text(names.into_bytes().into()),
                _ => InputValue::Absent,
            },
            Self::FilterState { key, field } => {
                let mut out = Vec::new();
                let found = data.filter_state(key, field, &mut out);
                text(found.then(|| out.into()))
            }
            Self::DynamicMetadata { namespace, path } => metadata(data, namespace, path),
            Self::HostMetadata { part, namespace, path } => {
                let mut out = Vec::new();
                let found = data.host_metadata(*part, namespace, path, &mut out) && !out.is_empty();
                text(found.then(|| out.into()))
            }
            Self::Attributes => InputValue::Attributes,
            Self::Constant(value) => text(value.as_deref().map(Cow::Borrowed)),
        }
    }
}

/// An input that is used without a tree: for the text that it gives.
#[derive(Clone, Debug)]
pub struct MatchInput(Input);

impl MatchInput {
    /// Compiles the extension.
    ///
    /// # Errors
    /// When it is not known as an input of the family.
    pub fn compile(
        message: &TypedExtensionConfig,
        path: &FieldPath,
        family: InputFamily,
    ) -> Result<Self, ConfigError> {
        Input::compile(Some(message), path, family, &|_| Ok(())).map(Self)
    }

    /// The text; `None` when there is none, or not yet.
    pub fn text<'a>(&'a self, data: &'a dyn MatchData) -> Option<Cow<'a, [u8]>> {
        match self.0.read(data) {
            InputValue::Text(text) => Some(text),
            InputValue::Unavailable
            | InputValue::Absent
            | InputValue::Metadata(_)
            | InputValue::Attributes => None,
        }
    }
}

fn decode<M: Message + Name + Default>(
    resolved: &Resolved<'_>,
    path: &FieldPath,
) -> Result<Option<M>, ConfigError> {
    if resolved.type_name != M::full_name() {
        return Ok(None);
    }
    M::decode(&*resolved.value).map(Some).map_err(|error| ConfigError::new(path.clone(), error.to_string()))
}

fn environment_variable(resolved: &Resolved<'_>, path: &FieldPath) -> Result<Option<Input>, ConfigError> {
    let Some(environment::Config { name }) = decode(resolved, path)? else { return Ok(None) };
    let value = std::env::var_os(name).map(|value| value.into_encoded_bytes().into_boxed_slice());
    Ok(Some(Input::Constant(value)))
}

fn network_input(resolved: &Resolved<'_>, path: &FieldPath) -> Result<Option<Input>, ConfigError> {
    const PREFIX: &str = "envoy.extensions.matching.common_inputs.";
    let Some(name) = resolved.type_name.strip_prefix(PREFIX) else { return Ok(None) };
    if let Some(network::FilterStateInput { key, field }) = decode(resolved, path)? {
        return Ok(Some(Input::FilterState { key: key.into(), field: field.into() }));
    }
    if let Some(network::DynamicMetadataInput { filter, path: segments }) = decode(resolved, path)? {
        let keys = segments.into_iter().map(|network::dynamic_metadata_input::PathSegment { segment }| {
            let Some(network::dynamic_metadata_input::path_segment::Segment::Key(key)) = segment else {
                return Err(ConfigError::new(path.field("path"), "segment is required"));
            };
            Ok(key.into_boxed_str())
        });
        let keys = keys.collect::<Result<_, _>>()?;
        return Ok(Some(Input::DynamicMetadata { namespace: filter.into(), path: keys }));
    }
    Ok(Some(match name {
        "network.v3.DestinationIPInput" => Input::DestinationIp,
        "network.v3.DestinationPortInput" => Input::DestinationPort,
        "network.v3.SourceIPInput" => Input::SourceIp,
        "network.v3.SourcePortInput" => Input::SourcePort,
        "network.v3.DirectSourceIPInput" => Input::DirectSourceIp,
        "network.v3.SourceTypeInput" => Input::SourceType,
        "network.v3.ServerNameInput" => Input::ServerName,
        "network.v3.TransportProtocolInput" => Input::TransportProtocol,
        "network.v3.ApplicationProtocolInput" => Input::ApplicationProtocols,
        "network.v3.NetworkNamespaceInput" => Input::NetworkNamespace,
        "ssl.v3.UriSanInput" => Input::Certificate(CertificateName::UriSans),
        "ssl.v3.DnsSanInput" => Input::Certificate(CertificateName::DnsSans),
        "ssl.v3.SubjectInput" => Input::Certificate(CertificateName::Subject),
        _ => return Ok(None),
    }))
}

fn host_input(resolved: &Resolved<'_>, path: &FieldPath) -> Result<Option<Input>, ConfigError> {
    use host::{endpoint_metadata_input as of_endpoint, locality_metadata_input as of_locality};
    let metadata = |part, filter: String, keys: Vec<String>| {
        let namespace = if filter.is_empty() { "envoy.lb".into() } else { filter.into_boxed_str() };
        let path = keys.into_iter().map(String::into_boxed_str).collect();
        Ok(Some(Input::HostMetadata { part, namespace, path }))
    };
    // Segments without a key are passed over, as in Envoy.
    if let Some(host::EndpointMetadataInput { filter, path: segments }) = decode(resolved, path)? {
        let key = |of_endpoint::PathSegment { segment }| {
            segment.map(|of_endpoint::path_segment::Segment::Key(key)| key)
        };
        return metadata(HostPart::Endpoint, filter, segments.into_iter().filter_map(key).collect());
    }
    if let Some(host::LocalityMetadataInput { filter, path: segments }) = decode(resolved, path)? {
        let key = |of_locality::PathSegment { segment }| {
            segment.map(|of_locality::path_segment::Segment::Key(key)| key)
        };
        return metadata(HostPart::Locality, filter, segments.into_iter().filter_map(key).collect());
    }
    let state: Option<host::FilterStateInput> = decode(resolved, path)?;
    Ok(state.map(|host::FilterStateInput { key }| Input::FilterState { key: key.into(), field: "".into() }))
}

fn http_input(resolved: &Resolved<'_>, path: &FieldPath) -> Result<Option<Input>, ConfigError> {
    let named = |name: String| {
        if name.is_empty() {
            let field = path.field("header_name");
            return Err(ConfigError::new(field, "value length must be at least 1 characters"));
        }
        Ok(HeaderName::new(&name))
    };
    if let Some(http::HttpRequestHeaderMatchInput { header_name }) = decode(resolved, path)? {
        return Ok(Some(Input::RequestHeader(named(header_name)?)));
    }
    if let Some(http::HttpRequestTrailerMatchInput { header_name }) = decode(resolved, path)? {
        return Ok(Some(Input::RequestTrailer(named(header_name)?)));
    }
    if let Some(http::HttpResponseHeaderMatchInput { header_name }) = decode(resolved, path)? {
        return Ok(Some(Input::ResponseHeader(named(header_name)?)));
    }
    if let Some(http::HttpResponseTrailerMatchInput { header_name }) = decode(resolved, path)? {
        return Ok(Some(Input::ResponseTrailer(named(header_name)?)));
    }
    if let Some(http::HttpRequestQueryParamMatchInput { query_param }) = decode(resolved, path)? {
        return Ok(Some(Input::QueryParameter(query_param.into_bytes().into())));
    }
    if let Some(http::HttpResponseStatusCodeMatchInput {}) = decode(resolved, path)? {
        return Ok(Some(Input::StatusCode));
    }
    if let Some(http::HttpResponseStatusCodeClassMatchInput {}) = decode(resolved, path)? {
        return Ok(Some(Input::StatusCodeClass));
    }
    if let Some(http::HttpResponseLocalReplyMatchInput {}) = decode(resolved, path)? {
        return Ok(Some(Input::LocalReply));
    }
    if let Some(HttpAttributesCelMatchInput {}) = decode(resolved, path)? {
        return Ok(Some(Input::Attributes));
    }
    Ok(None)
}

fn text(value: Option<Cow<'_, [u8]>>) -> InputValue<'_> {
    value.map_or(InputValue::Absent, InputValue::Text)
}

/// An empty word counts as none, as in Envoy.
fn words(value: Option<&str>) -> InputValue<'_> {
    text(value.filter(|value| !value.is_empty()).map(|value| Cow::Borrowed(value.as_bytes())))
}

fn display<'a>(value: Option<impl ToString>) -> InputValue<'a> {
    text(value.map(|value| Cow::Owned(value.to_string().into_bytes())))
}

/// All values of a header, joined with commas.
fn header<'a>(headers: Option<&'a HeaderMap>, name: &'a HeaderName) -> InputValue<'a> {
    let Some(headers) = headers else { return InputValue::Unavailable };
    let mut values = headers.get_all(name);
    let Some(first) = values.next() else { return InputValue::Absent };
    let Some(second) = values.next() else { return InputValue::Text(Cow::Borrowed(first)) };
    let mut joined = [first, b",", second].concat();
    for value in values {
        joined.push(b',');
        joined.extend_from_slice(value);
    }
    InputValue::Text(joined.into())
}

fn status<'a>(data: &'a dyn MatchData, write: impl Fn(u16) -> String) -> InputValue<'a> {
    match data.response_headers() {
        None => InputValue::Unavailable,
        Some(headers) => text(headers.status().map(|code| Cow::Owned(write(code).into_bytes()))),
    }
}

/// The client is on this machine: a loopback address, or that of the listener.
fn is_local(source: Option<IpAddr>, destination: Option<IpAddr>) -> bool {
    source.is_some_and(|address| is_loopback(address) || destination == Some(address))
}

/// `'h2','http/1.1'`
fn application_protocols(data: &dyn MatchData) -> InputValue<'_> {
    let mut list = Vec::new();
    data.application_protocols(&mut |protocol| {
        if !list.is_empty() {
            list.push(b',');
        }
        list.push(b'\'');
        list.extend_from_slice(protocol);
        list.push(b'\'');
    });
    text((!list.is_empty()).then(|| list.into()))
}

fn metadata<'a>(data: &'a dyn MatchData, namespace: &str, path: &[Box<str>]) -> InputValue<'a> {
    let Some((last, parents)) = path.split_last() else { return InputValue::Absent };
    let mut fields = data.dynamic_metadata(namespace);
    for key in parents {
        fields = match fields.and_then(|fields| fields.fields.get(&**key)?.kind.as_ref()) {
            Some(Kind::StructValue(inner)) => Some(inner),
            _ => None,
        };
    }
    fields.and_then(|fields| fields.fields.get(&**last)).map_or(InputValue::Absent, InputValue::Metadata)
}
