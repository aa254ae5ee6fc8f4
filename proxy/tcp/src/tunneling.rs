//! `tunneling_config`: the request that carries a connection, and what of its answer is kept.

use std::rc::Rc;

use dhow_base::{ConfigError, FieldPath, Rng, Uuid};
use dhow_expr::{FilterStateObject, Format, append_json_string, check_formatters};
use dhow_http::{HeaderMap, HeaderName, KnownHeader};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::RequestIdExtension;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig;
use dhow_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use dhow_proxy_api::{FilterStateValue, StreamFormat, StreamInfo};
use dhow_routing::HeaderMutations;

/// The only kind of request ids.
const UUID_REQUEST_ID: &str = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";
/// Where the id is kept for logs.
const METADATA: &str = "envoy.filters.network.tcp_proxy";
/// The object with the head of the answer.
const RESPONSE_HEADERS: &str = "envoy.tcp_proxy.propagate_response_headers";
/// The object with its trailers.
const RESPONSE_TRAILERS: &str = "envoy.tcp_proxy.propagate_response_trailers";
/// The object that turns tunneling off for a connection.
const DISABLED: &str = "envoy.tcp_proxy.disable_tunneling";

/// How connections are carried inside of requests.
#[derive(Debug)]
pub(crate) struct Tunneling {
    /// `hostname`: the request's authority.
    hostname: Format,
    /// The path of a POST (`use_post`, `post_path`); without one the request is CONNECT.
    post_path: Option<Box<str>>,
    /// `headers_to_add`.
    headers: HeaderMutations,
    /// `propagate_response_headers`.
    keeps_headers: bool,
    /// `propagate_response_trailers`.
    keeps_trailers: bool,
    /// `request_id_extension`: the request has an id.
    request_id: Option<RequestId>,
}

/// Where the id of a request goes.
#[derive(Debug)]
struct RequestId {
    /// `request_id_header`.
    header: HeaderName,
    /// `request_id_metadata_key`.
    key: Box<str>,
}

impl Tunneling {
    /// Lowers the message.
    pub(crate) fn from_message(message: TunnelingConfig, path: &FieldPath) -> Result<Self, ConfigError> {
        let TunnelingConfig {
            hostname,
            use_post,
            headers_to_add,
            propagate_response_headers,
            post_path,
            propagate_response_trailers,
            request_id_extension,
            request_id_header,
            request_id_metadata_key,
            formatters,
        } = message;
        if !use_post && !post_path.is_empty() {
            let reason = "Can't set a post path when POST method isn't used";
            return Err(ConfigError::new(path.field("post_path"), reason));
        }
        check_formatters(&formatters, &path.field("formatters"))?;
        let headers_path = path.field("headers_to_add");
        let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
        let extension = &path.field("request_id_extension");
        Ok(Self {
            hostname: Format::parse(&hostname).map_err(|error| error.under(&path.field("hostname")))?,
            post_path: use_post.then(|| or(post_path, "/").into()),
            headers: HeaderMutations::compile(&headers_to_add, &headers_path, &[], path)?,
            keeps_headers: propagate_response_headers,
            keeps_trailers: propagate_response_trailers,
            request_id: match request_id_extension {
                None => None,
                Some(message) => {
                    check_request_id(message, extension)?;
                    let header = HeaderName::new(&or(request_id_header, "x-request-id"));
                    Some(RequestId { header, key: or(request_id_metadata_key, "tunnel_request_id").into() })
                }
            },
        })
    }

    /// Whether the connection is to go without a tunnel.
    pub(crate) fn is_disabled(stream: &StreamInfo) -> bool {
        matches!(stream.filter_state.get(DISABLED), Some(FilterStateValue::Bool(true)))
    }

    /// The request for a connection, to a host that is spoken to by TLS when `secure`.
    pub(crate) fn request(&self, stream: &mut StreamInfo, secure: bool, random: u64) -> HeaderMap {
        let mut head = HeaderMap::new();
        let method: &[u8] = if self.post_path.is_some() { b"POST" } else { b"CONNECT" };
        head.set_known(KnownHeader::Method, method);
        head.set_known(KnownHeader::Authority, &self.hostname.to_bytes(&StreamFormat::new(stream)));
        if let Some(path) = &self.post_path {
            head.set_known(KnownHeader::Path, path.as_bytes());
            head.set_known(KnownHeader::Scheme, if secure { b"https" } else { b"http" });
        }
        if let Some(RequestId { header, key }) = &self.request_id {
            let id = Uuid::random(&mut Rng::seeded(random)).encode();
            head.set(header, &id);
            let id = String::from_utf8_lossy(&id);
            stream.dynamic_metadata.set_text(METADATA, key, &id);
            stream.connection.record_mut().borrow_mut().dynamic_metadata.set_text(METADATA, key, &id);
        }
        if !self.headers.is_empty() {
            self.headers.apply_to_request(&mut head, &StreamFormat::new(stream));
        }
        head
    }

    /// Keeps the head of the answer for filters and logs, where that is wanted.
    pub(crate) fn keep_headers(&self, stream: &mut StreamInfo, response: &HeaderMap) {
        if self.keeps_headers {
            keep(stream, RESPONSE_HEADERS, response);
        }
    }

    /// Keeps the trailers of the answer for filters and logs, where that is wanted.
    pub(crate) fn keep_trailers(&self, stream: &mut StreamInfo, trailers: &HeaderMap) {
        if self.keeps_trailers {
            keep(stream, RESPONSE_TRAILERS, trailers);
        }
    }
}

fn check_request_id(message: RequestIdExtension, path: &FieldPath) -> Result<(), ConfigError> {
    let RequestIdExtension { typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.unwrap_or_default();
    match dhow_proto::any::type_name(&config.type_url) {
        UUID_REQUEST_ID => {
            // Both concern the sampling of traces, of which there are none.
            let UuidRequestIdConfig { pack_trace_reason: _, use_request_id_for_trace_sampling: _ } =
                dhow_proto::any::unpack(&config).map_err(|error| error.under(&path))?;
            Ok(())
        }
        other => {
            let reason = format!("Didn't find a registered implementation for type: '{other}'");
            Err(ConfigError::new(path, reason))
        }
    }
}

fn keep(stream: &mut StreamInfo, key: &str, headers: &HeaderMap) {
    let object = FilterStateValue::Object(Rc::new(KeptHeaders(headers.clone())));
    stream.filter_state.set(key, object.clone());
    // The connection's other filters and its listener's log see it as well.
    stream.connection.record_mut().borrow_mut().filter_state.set(key, object);
}

/// Headers of the answer. They have the form of JSON alone.
#[derive(Debug)]
struct KeptHeaders(HeaderMap);

impl FilterStateObject for KeptHeaders {
    fn append_text(&self, _out: &mut Vec<u8>) -> bool {
        false
    }

    fn append_json(&self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(b"{\"headers\":[");
        for (at, (_, name, value)) in self.0.iter().enumerate() {
            out.extend_from_slice(if at == 0 { b"{\"key\":" } else { b",{\"key\":" });
            append_json_string(name, out);
            out.extend_from_slice(b",\"value\":");
            append_json_string(value, out);
            out.push(b'}');
        }
        out.extend_from_slice(b"]}");
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> TunnelingConfig {
        TunnelingConfig { hostname: "a:1".into(), ..TunnelingConfig::default() }
    }

    #[test]
    fn a_path_is_for_post_alone() {
        let path = FieldPath::root();
        let with = |use_post| TunnelingConfig { use_post, post_path: "/x".into(), ..message() };
        let error = Tunneling::from_message(with(false), &path).unwrap_err();
        assert!(error.to_string().contains("Can't set a post path when POST method isn't used"), "{error}");
        assert_eq!(Tunneling::from_message(with(true), &path).unwrap().post_path.as_deref(), Some("/x"));
        let post = TunnelingConfig { use_post: true, ..message() };
        assert_eq!(Tunneling::from_message(post, &path).unwrap().post_path.as_deref(), Some("/"));
        assert!(Tunneling::from_message(message(), &path).unwrap().post_path.is_none());
    }

    #[test]
    fn a_name_that_is_no_format_is_refused() {
        let wrong = TunnelingConfig { hostname: "%FOO%".into(), ..message() };
        let error = Tunneling::from_message(wrong, &FieldPath::root()).unwrap_err();
        assert!(error.to_string().contains("hostname"), "{error}");
    }

    #[test]
    fn kept_headers_have_the_form_of_json() {
        let mut head = HeaderMap::new();
        head.set_status(200);
        head.append(b"x-a", b"\"1\"");
        let mut out = Vec::new();
        let kept = KeptHeaders(head);
        assert!(!kept.append_text(&mut out) && out.is_empty());
        assert!(kept.append_json(&mut out));
        let expected = r#"{"headers":[{"key":":status","value":"200"},{"key":"x-a","value":"\"1\""}]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
