//! The `HttpConnectionManager` message itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::any;
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::config::trace::v3::tracing::{self, Http as Tracer};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use dhow_proxy_access_log::LogWriter;
use dhow_proxy_api::{FilterContext, RouteFilterContext};
use dhow_runtime_config::Current;
use dhow_stats::Store;

use crate::client_certificate::{ClientCertificateConfig, compile_choice};
use crate::local_reply::LocalReplyConfig;
use crate::original_ip::AddressDetector;
use crate::proxy_status::ProxyStatusConfig;
use crate::scoped_routes::ScopedRoutes;

use super::filters::{FilterRegistry, lower_filters};
use super::forwarding::{check_request_id_extension, lower_early_mutations, lower_internal, lower_scheme};
use super::protocol_options::{lower_common, lower_http1, lower_http2};
use super::routes::{compile_routes, lower_rds};
use super::scalar::{is_true, timeout_or, warn};
use super::upgrades::lower_upgrades;
use super::{
    CodecType, ConnectionManagerConfig, EscapedSlashes, ForwardingConfig, HttpFilterChain, LogMoments,
    NormalizationConfig, ProtoPorts, RouteSource, ServerHeader, StripPort, Timeouts, UserAgent,
    runtime_defaults,
};

/// What lowering needs from its surroundings.
pub struct LowerContext<'a> {
    /// The HTTP filters that exist.
    pub registry: FilterRegistry,
    /// Where filters register what they count.
    pub store: &'a Store,
    /// Where access logs go.
    pub log_writer: &'a Arc<LogWriter>,
    /// Whether a cluster of this name exists, for inline routes.
    pub cluster_exists: &'a dyn Fn(&str) -> bool,
    /// `node.cluster`, for `add_user_agent`.
    pub node_cluster: &'a str,
    /// `cluster_manager.local_cluster_name`; empty when there is none.
    pub local_cluster: &'a str,
    /// `node.id`, for `add_user_agent`.
    pub node_id: &'a str,
    /// The node's own address, which stands for peers on the loopback in `x-forwarded-for`.
    pub node_address: IpAddr,
}

/// Lowers the message.
///
/// # Errors
/// The first field that is not acceptable.
pub fn lower(
    message: pb::HttpConnectionManager,
    context: &LowerContext<'_>,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<ConnectionManagerConfig, ConfigError> {
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let pb::HttpConnectionManager {
        codec_type,
        stat_prefix,
        http_filters,
        add_user_agent,
        tracing,
        common_http_protocol_options,
        http1_safe_max_connection_duration,
        http_protocol_options,
        http2_protocol_options,
        http3_protocol_options,
        server_name,
        server_header_transformation,
        scheme_header_transformation,
        max_request_headers_kb,
        stream_idle_timeout,
        stream_flush_timeout,
        request_timeout,
        request_headers_timeout,
        drain_timeout,
        drain_timeout_jitter,
        delayed_close_timeout,
        access_log,
        access_log_flush_interval,
        flush_access_log_on_new_request,
        access_log_options,
        use_remote_address,
        xff_num_trusted_hops,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        internal_address_config,
        skip_xff_append,
        via,
        generate_request_id,
        preserve_external_request_id,
        always_set_request_id_in_response,
        forward_client_cert_details,
        set_current_client_cert_details,
        forward_client_cert_matcher,
        proxy_100_continue,
        represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        upgrade_configs,
        normalize_path,
        merge_slashes,
        path_with_escaped_slashes_action,
        request_id_extension,
        local_reply_config,
        strip_matching_host_port,
        stream_error_on_invalid_http_message,
        path_normalization_options,
        strip_trailing_host_dot,
        proxy_status_config,
        typed_header_validation_config,
        append_x_forwarded_port,
        append_local_overload,
        add_proxy_protocol_connection_state,
        forward_proto_config,
        route_specifier,
        strip_port_mode,
    } = message;
    let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
    refuse(http3_protocol_options.is_some(), "http3_protocol_options")?;
    if codec_type == hcm::CodecType::Http3 as i32 {
        let reason = "HTTP/3 codec configured on non-QUIC listener.";
        return Err(ConfigError::new(path.field("codec_type"), reason));
    }
    let log_moments = lower_log_moments(
        access_log_options,
        flush_access_log_on_new_request,
        timeout_or(access_log_flush_interval, None),
        path,
    )?;
    check_request_id_extension(request_id_extension, &path.field("request_id_extension"))?;
    if let Some(validation) = typed_header_validation_config {
        let core::TypedExtensionConfig { name, typed_config: _ } = validation;
        let reason = format!("This Envoy binary does not support header validator extensions.: '{name}'");
        return Err(ConfigError::new(path.field("typed_header_validation_config"), reason));
    }
    if represent_ipv4_remote_address_as_ipv4_mapped_ipv6 {
        let field = "represent_ipv4_remote_address_as_ipv4_mapped_ipv6";
        warn(warnings, path, field, "without effect, as in Envoy 1.40");
    }
    if add_proxy_protocol_connection_state.is_some_and(|state| !state.value) {
        let why = "without effect: PROXY protocol upstreams are told the client's address all the same";
        warn(warnings, path, "add_proxy_protocol_connection_state", why);
    }
    if path_normalization_options.is_some() {
        warn(warnings, path, "path_normalization_options", "without effect, as in Envoy 1.40");
    }
    if !original_ip_detection_extensions.is_empty() {
        let mixed = [
            (is_true(use_remote_address), "use_remote_address"),
            (xff_num_trusted_hops > 0, "xff_num_trusted_hops"),
        ];
        if let Some((_, field)) = mixed.iter().find(|(is_set, _)| *is_set) {
            let reason = format!("Original IP detection extensions and {field} may not be mixed");
            return Err(ConfigError::new(path.field("original_ip_detection_extensions"), reason));
        }
    }
    if let Some(tracing) = tracing {
        check_tracer(tracing.provider.as_ref(), &path.field("tracing"))?;
        warn(warnings, path, "tracing", "without effect: spans are not reported yet");
    }

    let field_limit = http2_protocol_options.as_ref().and_then(|options| options.max_header_field_size_kb);
    let head_limit =
        max_request_headers_kb.map_or_else(|| runtime_defaults::max_head_kb(&Current), |limit| limit.value);
    if field_limit.is_some_and(|limit| limit.value > head_limit) {
        let reason = "max_header_field_size_kb must not exceed max_request_headers_kb";
        return Err(ConfigError::new(path.field("http2_protocol_options"), reason));
    }
    let common = lower_common(common_http_protocol_options, &path.field("common_http_protocol_options"))?;
    let http1 =
        lower_http1(http_protocol_options, head_limit, &common, &path.field("http_protocol_options"))?;
    let http2 = lower_http2(
        http2_protocol_options,
        http1.request.max_head_bytes,
        is_true(stream_error_on_invalid_http_message),
        &path.field("http2_protocol_options"),
        warnings,
    )?;
    let filter_prefix = format!("http.{stat_prefix}.");
    let mut lower_chain = |filters, path: &FieldPath| {
        let mut filter_context = FilterContext {
            stat_prefix: &filter_prefix,
            stats: context.store,
            name: "".into(),
            node_cluster: context.node_cluster,
            local_cluster: context.local_cluster,
            check_dns_cache: dhow_proxy_upstream::check_dns_cache,
            warnings,
        };
        lower_filters(filters, context.registry, context.log_writer, &mut filter_context, path)
            .map(|(filters, router)| HttpFilterChain { filters, router })
    };
    let chain = lower_chain(http_filters, &path.field("http_filters"))?;
    let upgrades = lower_upgrades(upgrade_configs, &path.field("upgrade_configs"), lower_chain)?;
    let route_context = RouteFilterContext { stats: context.store, local_cluster: context.local_cluster };
    let routes = match route_specifier {
        Some(hcm::RouteSpecifier::RouteConfig(config)) => RouteSource::Static(compile_routes(
            &config,
            context.registry,
            &route_context,
            context.cluster_exists,
            true,
            &path.field("route_config"),
            warnings,
        )?),
        Some(hcm::RouteSpecifier::Rds(rds)) => lower_rds(rds, &path.field("rds"))?,
        Some(hcm::RouteSpecifier::ScopedRoutes(scopes)) => {
            let compile = |config: &_, path: &_| {
                let exists = context.cluster_exists;
                compile_routes(config, context.registry, &route_context, exists, true, path, warnings)
            };
            RouteSource::Scoped(Arc::new(ScopedRoutes::lower(scopes, &path.field("scoped_routes"), compile)?))
        }
        None => return Err(ConfigError::new(path.clone(), "RouteSpecifier: value is required")),
    };
    let strip_any = strip_port_mode.is_some_and(|hcm::StripPortMode::StripAnyHostPort(any)| any);
    if strip_any && strip_matching_host_port {
        let reason = "Error: Only one of `strip_matching_host_port` or `strip_any_host_port` can be set.";
        return Err(ConfigError::new(path.field("strip_any_host_port"), reason));
    }
    let stream_idle = timeout_or(stream_idle_timeout, Some(Duration::from_secs(300)));
    let server_name = if server_name.is_empty() { "envoy".to_owned() } else { server_name };
    let proxy_status = match proxy_status_config {
        None => None,
        Some(config) => {
            let path = path.field("proxy_status_config");
            Some(ProxyStatusConfig::lower(config, &server_name, context.node_id, &path)?)
        }
    };
    let local_replies = match local_reply_config {
        None => None,
        Some(config) => Some(LocalReplyConfig::lower(config, &path.field("local_reply_config"))?),
    };
    Ok(ConnectionManagerConfig {
        codec: match hcm::CodecType::try_from(codec_type) {
            Ok(hcm::CodecType::Http1) => CodecType::Http1,
            Ok(hcm::CodecType::Http2) => CodecType::Http2,
            _ => CodecType::Auto,
        },
        http1: http1.request,
        http1_keys: http1.keys,
        http1_trailers: http1.trailers,
        http1_stream_errors: http1
            .stream_errors
            .unwrap_or_else(|| is_true(stream_error_on_invalid_http_message)),
        http2: http2.settings,
        keepalive: http2.keepalive,
        server_name: server_name.into_bytes(),
        server_header: match hcm::ServerHeaderTransformation::try_from(server_header_transformation) {
            Ok(hcm::ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
            Ok(hcm::ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
            _ => ServerHeader::Overwrite,
        },
        append_local_overload,
        max_requests_per_connection: common.max_requests_per_connection,
        proxy_100_continue,
        upgrades,
        forwarding: ForwardingConfig {
            use_remote_address: is_true(use_remote_address),
            xff_num_trusted_hops,
            skip_xff_append,
            append_x_forwarded_port,
            proto_ports: forward_proto_config.map(|message| {
                let pb::ForwardProtoConfig { https_destination_ports, http_destination_ports } = message;
                Box::new(ProtoPorts {
                    https: https_destination_ports.into(),
                    http: http_destination_ports.into(),
                })
            }),
            internal_addresses: lower_internal(
                internal_address_config,
                &path.field("internal_address_config"),
            )?,
            detectors: AddressDetector::lower_all(
                original_ip_detection_extensions,
                &path.field("original_ip_detection_extensions"),
            )?,
            scheme: lower_scheme(scheme_header_transformation),
            early_mutations: lower_early_mutations(
                early_header_mutation_extensions,
                &path.field("early_header_mutation_extensions"),
            )?,
            generate_request_id: generate_request_id.is_none_or(|b| b.value),
            preserve_external_request_id,
            always_set_request_id_in_response,
            via: via.into_bytes(),
            user_agent: is_true(add_user_agent)
                .then(|| UserAgent { cluster: context.node_cluster.into(), node: context.node_id.into() }),
            node_address: context.node_address,
        },
        client_certificate: ClientCertificateConfig::lower(
            forward_client_cert_details,
            set_current_client_cert_details,
            path,
        )?,
        client_certificate_by: forward_client_cert_matcher
            .map(|matcher| compile_choice(&matcher, &path.field("forward_client_cert_matcher")))
            .transpose()?,
        normalization: NormalizationConfig {
            normalize_path: normalize_path
                .map_or_else(|| runtime_defaults::normalize_path(&Current), |normalize| normalize.value),
            merge_slashes,
            escaped_slashes: lower_escaped_slashes(path_with_escaped_slashes_action),
            strip_port: match (strip_any, strip_matching_host_port) {
                (true, _) => StripPort::Any,
                (false, true) => StripPort::Matching,
                (false, false) => StripPort::Keep,
            },
            strip_trailing_host_dot,
        },
        timeouts: Timeouts {
            idle: common.idle,
            max_connection_duration: common.max_connection_duration,
            max_connection_duration_jitter: common.max_connection_duration_jitter,
            max_stream_duration: common.max_stream_duration,
            stream_idle,
            stream_flush: timeout_or(stream_flush_timeout, stream_idle),
            request: timeout_or(request_timeout, None),
            request_headers: timeout_or(request_headers_timeout, None),
            drain: timeout_or(drain_timeout, Some(Duration::from_secs(5))).unwrap_or_default(),
            drain_jitter: drain_timeout_jitter.map_or(0.0, |percent| percent.value),
            safe_max_connection_duration: http1_safe_max_connection_duration,
            delayed_close: timeout_or(delayed_close_timeout, Some(Duration::from_secs(1))),
        },
        local_replies,
        proxy_status,
        routes,
        chain,
        access_logs: dhow_proxy_access_log::lower(access_log, context.log_writer, &path.field("access_log"))?,
        log_moments,
        stat_prefix: stat_prefix.into(),
    })
}

/// `access_log_options`, or the older fields in its place.
fn lower_log_moments(
    options: Option<hcm::HcmAccessLogOptions>,
    on_new_request: bool,
    interval: Option<Duration>,
    path: &FieldPath,
) -> Result<LogMoments, ConfigError> {
    let Some(options) = options else {
        return Ok(LogMoments { start: on_new_request, tunnel: false, interval });
    };
    let path = path.field("access_log_options");
    for (is_set, field) in [
        (on_new_request, "flush_access_log_on_new_request"),
        (interval.is_some(), "access_log_flush_interval"),
    ] {
        if is_set {
            let reason = format!("Only one of {field} or access_log_options can be specified.");
            return Err(ConfigError::new(path, reason));
        }
    }
    let hcm::HcmAccessLogOptions {
        access_log_flush_interval,
        flush_access_log_on_new_request,
        flush_log_on_tunnel_successfully_established,
    } = options;
    Ok(LogMoments {
        start: flush_access_log_on_new_request,
        tunnel: flush_log_on_tunnel_successfully_established,
        interval: timeout_or(access_log_flush_interval, None),
    })
}

fn lower_escaped_slashes(action: i32) -> EscapedSlashes {
    use hcm::PathWithEscapedSlashesAction as Action;
    if !runtime_defaults::escaped_slashes_enabled(&Current) {
        return EscapedSlashes::Keep;
    }
    match Action::try_from(action) {
        Ok(Action::RejectRequest) => EscapedSlashes::Reject,
        Ok(Action::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Ok(Action::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Ok(Action::KeepUnchanged) | Err(_) => EscapedSlashes::Keep,
        Ok(Action::ImplementationSpecificDefault) => runtime_defaults::escaped_slashes(&Current),
    }
}

/// A provider that Envoy does not know is refused although no spans are reported: its name may be misspelt.
fn check_tracer(provider: Option<&Tracer>, path: &FieldPath) -> Result<(), ConfigError> {
    let Some(Tracer { name, config_type }) = provider else { return Ok(()) };
    let type_name = match config_type {
        Some(tracing::http::ConfigType::TypedConfig(config)) => any::type_name(&config.type_url),
        None => "",
    };
    let families = ["envoy.config.trace.v3.", "envoy.extensions.tracers."];
    if families.iter().any(|family| type_name.starts_with(family)) {
        return Ok(());
    }
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
    Err(ConfigError::new(path.field("provider"), reason))
}
