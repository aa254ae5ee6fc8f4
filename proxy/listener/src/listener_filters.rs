//! The listener filters: those that look at the first bytes of a connection.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::Message;
use dhow_proto::envoy::config::listener::v3 as pb;
use dhow_proto::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use dhow_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;

use crate::config::warn;
use crate::filter_disabled::FilterScope;
use crate::inspect::TlsInspection;
use crate::proxy_protocol::ProxyProtocolConfig;

/// What listener filters come to.
#[derive(Default)]
pub(crate) struct Inspections {
    pub(crate) tls: FilterScope,
    /// How a TLS hello is looked for.
    pub(crate) tls_inspection: TlsInspection,
    pub(crate) http: FilterScope,
    pub(crate) original_dst: FilterScope,
    pub(crate) proxy_protocol: Option<(ProxyProtocolConfig, FilterScope)>,
}

/// How a TLS hello is looked for. Says what of the inspector's settings has no effect.
fn lower_tls_inspector(
    message: &[u8],
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<TlsInspection, ConfigError> {
    let TlsInspector {
        enable_ja3_fingerprinting,
        enable_ja4_fingerprinting,
        initial_read_buffer_size,
        close_connection_on_client_hello_parsing_errors,
        max_client_hello_size,
    } = TlsInspector::decode(message).map_err(|error| ConfigError::new(path.clone(), error.to_string()))?;
    for (field, asked) in [
        ("enable_ja3_fingerprinting", enable_ja3_fingerprinting.is_some_and(|wanted| wanted.value)),
        ("enable_ja4_fingerprinting", enable_ja4_fingerprinting.is_some_and(|wanted| wanted.value)),
    ] {
        if asked {
            warn(warnings, path, field, "without effect: fingerprints of clients are not taken");
        }
    }
    if initial_read_buffer_size.is_some() {
        warn(warnings, path, "initial_read_buffer_size", "without effect: the buffer grows as bytes come");
    }
    let mut inspection = TlsInspection {
        only_tls: close_connection_on_client_hello_parsing_errors,
        ..TlsInspection::default()
    };
    if let Some(size) = max_client_hello_size {
        inspection.max_size = size.value as usize;
    }
    Ok(inspection)
}

/// Lowers the filters in their order.
///
/// # Errors
/// The first one that is not acceptable.
pub(crate) fn lower_listener_filters(
    filters: Vec<pb::ListenerFilter>,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Inspections, ConfigError> {
    let mut found = Inspections::default();
    for (i, filter) in filters.into_iter().enumerate() {
        let path = path.field("listener_filters").index(i);
        let pb::ListenerFilter { name, filter_disabled, config_type } = filter;
        let scope = FilterScope::lower(filter_disabled);
        let type_url = match &config_type {
            Some(pb::listener_filter::ConfigType::TypedConfig(any)) => any.type_url.as_str(),
            Some(pb::listener_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(ConfigError::unsupported(path.field("config_discovery")));
            }
            None => "",
        };
        let type_name = type_url.rsplit('/').next().unwrap_or_default();
        match type_name {
            "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector" => {
                if let Some(pb::listener_filter::ConfigType::TypedConfig(any)) = &config_type {
                    found.tls_inspection =
                        lower_tls_inspector(&any.value, &path.field("typed_config"), warnings)?;
                }
                found.tls = scope;
            }
            "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector" => found.http = scope,
            "envoy.extensions.filters.listener.original_dst.v3.OriginalDst" => found.original_dst = scope,
            "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol" => {
                let Some(pb::listener_filter::ConfigType::TypedConfig(any)) = &config_type else { continue };
                let path = path.field("typed_config");
                if found.tls.is_there() || found.http.is_there() || found.proxy_protocol.is_some() {
                    let reason = "this filter has to be the first of the listener filters that read bytes";
                    return Err(ConfigError::new(path, reason));
                }
                let message = ProxyProtocol::decode(&*any.value)
                    .map_err(|error| ConfigError::new(path.clone(), error.to_string()))?;
                let config = ProxyProtocolConfig::lower(message)
                    .map_err(|reason| ConfigError::new(path.field("disallowed_versions"), reason))?;
                found.proxy_protocol = Some((config, scope));
            }
            _ => {
                return Err(ConfigError::new(
                    path,
                    format!(
                        "Didn't find a registered implementation for '{name}' with type URL: '{type_name}'"
                    ),
                ));
            }
        }
    }
    Ok(found)
}
