//! `proxy-status` (RFC 9209): which proxy failed the request, and why.

use std::fmt::Write as _;

use dhow_base::{ConfigError, FieldPath, ResponseFlag};
use dhow_http::{HeaderMap, HeaderName};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use dhow_proxy_api::StreamInfo;

/// `proxy_status_config`.
#[derive(Clone, Debug)]
pub struct ProxyStatusConfig {
    name: String,
    header: HeaderName,
    details: bool,
    connection_termination_details: bool,
    response_flags: bool,
    set_recommended_response_code: bool,
}

/// What the header says about each response flag, in the order in which flags are looked at, with the status that is
/// recommended for the error.
const ERRORS: &[(ResponseFlag, &str, Option<u16>)] = &[
    (ResponseFlag::FailedLocalHealthCheck, "destination_unavailable", Some(503)),
    (ResponseFlag::NoHealthyUpstream, "destination_unavailable", Some(503)),
    (ResponseFlag::UpstreamRequestTimeout, "http_response_timeout", Some(504)),
    (ResponseFlag::LocalReset, "connection_timeout", Some(504)),
    (ResponseFlag::UpstreamRemoteReset, "connection_terminated", Some(502)),
    (ResponseFlag::UpstreamConnectionFailure, "connection_refused", Some(502)),
    (ResponseFlag::UpstreamConnectionTermination, "connection_terminated", Some(502)),
    (ResponseFlag::UpstreamOverflow, "connection_limit_reached", Some(503)),
    (ResponseFlag::NoRouteFound, "destination_not_found", Some(500)),
    (ResponseFlag::RateLimited, "connection_limit_reached", Some(503)),
    (ResponseFlag::RateLimitServiceError, "connection_limit_reached", Some(503)),
    (ResponseFlag::UpstreamRetryLimitExceeded, "destination_unavailable", Some(503)),
    (ResponseFlag::StreamIdleTimeout, "http_response_timeout", Some(504)),
    (ResponseFlag::InvalidEnvoyRequestHeaders, "http_request_error", None),
    (ResponseFlag::DownstreamProtocolError, "http_request_error", None),
    (ResponseFlag::UpstreamMaxStreamDurationReached, "http_response_timeout", Some(504)),
    (ResponseFlag::NoFilterConfigFound, "proxy_configuration_error", Some(500)),
    (ResponseFlag::UpstreamProtocolError, "http_protocol_error", Some(502)),
    (ResponseFlag::NoClusterFound, "destination_unavailable", Some(503)),
    (ResponseFlag::DnsResolutionFailed, "dns_error", Some(502)),
    (ResponseFlag::FaultInjected, "http_request_error", None),
];

impl ProxyStatusConfig {
    /// Lowers the message.
    ///
    /// # Errors
    /// When the proxy's name cannot be written in a header.
    pub(crate) fn lower(
        config: hcm::ProxyStatusConfig,
        server_name: &str,
        node_id: &str,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        let hcm::ProxyStatusConfig {
            remove_details,
            remove_connection_termination_details,
            remove_response_flags,
            set_recommended_response_code,
            proxy_name,
        } = config;
        use hcm::proxy_status_config::ProxyName;
        let name = match proxy_name {
            Some(ProxyName::UseNodeId(true)) => node_id,
            Some(ProxyName::LiteralProxyName(ref name)) if !name.is_empty() => {
                if name.bytes().any(|b| b.is_ascii_control()) {
                    let reason = "a header value must not contain control characters";
                    return Err(ConfigError::new(path.field("literal_proxy_name"), reason));
                }
                name
            }
            _ => server_name,
        };
        Ok(Self {
            name: name.to_owned(),
            header: HeaderName::new("proxy-status"),
            details: !remove_details,
            connection_termination_details: !remove_connection_termination_details,
            response_flags: !remove_response_flags,
            set_recommended_response_code,
        })
    }

    /// Says in the response head what went wrong, if anything did.
    pub(crate) fn apply(&self, info: &StreamInfo, response: &mut HeaderMap) {
        let found = ERRORS.iter().find(|(flag, ..)| info.flags.contains(*flag));
        let Some((_, error, recommended)) = found else { return };
        let mut value = Vec::new();
        if let Some(present) = response.get(&self.header) {
            value.extend_from_slice(present);
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(self.describe(info, error).as_bytes());
        response.set(&self.header, &value);
        if let Some(status) = recommended.filter(|_| self.set_recommended_response_code) {
            response.set_status(status);
        }
    }

    fn describe(&self, info: &StreamInfo, error: &str) -> String {
        let mut text = format!("{}; error={error}", self.name);
        let Some(details) = info.details.as_deref().filter(|_| self.details) else { return text };
        text.push_str("; details=\"");
        text.push_str(details);
        let closed = info.connection_termination_details.as_deref();
        if let Some(closed) = closed.filter(|_| self.connection_termination_details) {
            text.push_str("; ");
            text.push_str(closed);
        }
        if self.response_flags && !info.flags.is_empty() {
            write!(text, "; {}", info.flags).expect("a string takes any text");
        }
        text.push('"');
        text
    }
}
