//! `typed_extension_protocol_options` and the older fields of `Cluster` -> HTTP and TCP options.

use std::collections::HashMap;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::h2::FrameLimits;
use dhow_proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings,
    UpstreamHttpProtocolOptions, http_protocol_options::HeadersWithUnderscoresAction,
};
use dhow_proto::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        AutoHttpConfig, ExplicitHttpConfig, OutlierDetection, UpstreamProtocolOptions,
        UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
    },
};
use dhow_proto::envoy::extensions::upstreams::tcp::v3::TcpProtocolOptions;
use dhow_proto::google::protobuf::{Any, UInt32Value};
use dhow_runtime_config::{Current, RuntimeValues};

use super::custom_settings::{NamedSettings, lower_custom_settings};
use super::fields::{Notes, duration, number, refuse, timeout, unpack};
use crate::cluster_info::{
    HeaderKeyFormat, Http1Options, Http2Keepalive, Http2Options, HttpOptions, UpstreamProtocol,
};
use crate::forwarding_options::ForwardingMessage;

pub(crate) const HTTP_KEY: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
pub(crate) const TCP_KEY: &str = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions";

const HOUR: Duration = Duration::from_secs(3600);

/// The deprecated fields of `Cluster`, used when there is no [`HttpProtocolOptions`].
pub(crate) struct LegacyHttpFields {
    pub(crate) max_requests_per_connection: Option<UInt32Value>,
    pub(crate) upstream: Option<UpstreamHttpProtocolOptions>,
    pub(crate) common: Option<CommonOptions>,
    pub(crate) http1: Option<Http1ProtocolOptions>,
    pub(crate) http2: Option<Http2ProtocolOptions>,
    pub(crate) use_downstream_protocol: bool,
}

/// Returns the HTTP options.
pub(crate) fn lower(
    typed: HashMap<String, Any>,
    legacy: LegacyHttpFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<HttpOptions, ConfigError> {
    let mut http = None;
    for (key, any) in typed {
        let path = path.field("typed_extension_protocol_options").key(&key);
        match &*key {
            HTTP_KEY => match unpack::<HttpProtocolOptions>(&any, || path.clone())? {
                Some(options) => http = Some(lower_typed(options, &path, notes)?),
                None => return Err(wrong_type(&any, path)),
            },
            TCP_KEY => match unpack::<TcpProtocolOptions>(&any, || path.clone())? {
                Some(TcpProtocolOptions { idle_timeout }) => {
                    let path = path.field("idle_timeout");
                    timeout(idle_timeout, None, || path.clone())?;
                    if idle_timeout.is_some() {
                        let reason = "without effect: connections of tcp_proxy are made for a client and are never idle in a pool";
                        notes.warn(path, reason);
                    }
                }
                None => return Err(wrong_type(&any, path)),
            },
            _ => {
                let reason = format!(
                    "Didn't find a registered network or http filter or protocol options implementation for name: '{key}'"
                );
                return Err(ConfigError::new(path, reason));
            }
        }
    }
    match http {
        Some(http) => Ok(http),
        None => lower_legacy(legacy, path, notes),
    }
}

fn wrong_type(any: &Any, path: FieldPath) -> ConfigError {
    ConfigError::new(path, format!("unexpected type {}", any.type_url))
}

fn lower_legacy(
    legacy: LegacyHttpFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<HttpOptions, ConfigError> {
    let LegacyHttpFields {
        max_requests_per_connection,
        upstream,
        common,
        http1,
        http2,
        use_downstream_protocol,
    } = legacy;
    let forwarding = match notes.hash_policy.take() {
        None => None,
        Some((hash_policy, hash_path)) => notes.forwarding.lower(ForwardingMessage {
            filters: Vec::new(),
            retry_policy: None,
            hash_policy,
            hash_path,
            mirror_policies: Vec::new(),
            outlier_errors: None,
            stat_prefix: &notes.stat_prefix,
            path,
            warnings: &mut notes.warnings,
        })?,
    };
    let mut lowered = HttpOptions { forwarding, ..HttpOptions::default() };
    lower_common(
        common.unwrap_or_default(),
        &mut lowered,
        &path.field("common_http_protocol_options"),
        notes,
    )?;
    if let Some(limit) = number(max_requests_per_connection) {
        lowered.max_requests_per_connection = (limit > 0).then_some(limit);
    }
    lower_upstream(upstream.unwrap_or_default(), &mut lowered);
    let chose_http2 = http2.is_some();
    let http1 = lower_http1(http1.unwrap_or_default(), &path.field("http_protocol_options"), notes)?;
    let http2 = lower_http2(http2.unwrap_or_default(), &path.field("http2_protocol_options"), notes)?;
    lowered.protocol = match (use_downstream_protocol, chose_http2) {
        (true, _) => UpstreamProtocol::Downstream(http1, http2),
        (false, true) => UpstreamProtocol::Http2(http2),
        (false, false) => UpstreamProtocol::Http1(http1),
    };
    Ok(lowered)
}

fn lower_typed(
    options: HttpProtocolOptions,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<HttpOptions, ConfigError> {
    let HttpProtocolOptions {
        common_http_protocol_options,
        upstream_http_protocol_options,
        http_filters,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy,
        upstream_protocol_options,
    } = options;
    refuse(&header_validation_config, || path.field("header_validation_config"))?;
    let (hash_policy, hash_path) =
        notes.hash_policy.take().unwrap_or_else(|| (hash_policy, path.field("hash_policy")));
    let forwarding = notes.forwarding.lower(ForwardingMessage {
        filters: http_filters,
        retry_policy,
        hash_policy,
        hash_path,
        mirror_policies: request_mirror_policies,
        outlier_errors: outlier_detection.and_then(|OutlierDetection { error_matcher }| error_matcher),
        stat_prefix: &notes.stat_prefix,
        path,
        warnings: &mut notes.warnings,
    })?;
    let mut lowered = HttpOptions { forwarding, ..HttpOptions::default() };
    let common = common_http_protocol_options.unwrap_or_default();
    lower_common(common, &mut lowered, &path.field("common_http_protocol_options"), notes)?;
    lower_upstream(upstream_http_protocol_options.unwrap_or_default(), &mut lowered);
    let Some(protocol) = upstream_protocol_options else {
        return Err(ConfigError::new(path.field("upstream_protocol_options"), "is required"));
    };
    lowered.protocol = lower_protocol(protocol, path, notes)?;
    Ok(lowered)
}

fn lower_protocol(
    protocol: UpstreamProtocolOptions,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<UpstreamProtocol, ConfigError> {
    let both = |http1: Option<Http1ProtocolOptions>,
                http2: Option<Http2ProtocolOptions>,
                path: &FieldPath,
                notes: &mut Notes| {
        let http1 = lower_http1(http1.unwrap_or_default(), &path.field("http_protocol_options"), notes)?;
        let http2 = lower_http2(http2.unwrap_or_default(), &path.field("http2_protocol_options"), notes)?;
        Ok::<_, ConfigError>((http1, http2))
    };
    match protocol {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config }) => {
            let path = path.field("explicit_http_config");
            match protocol_config {
                Some(ProtocolConfig::HttpProtocolOptions(http1)) => {
                    lower_http1(http1, &path.field("http_protocol_options"), notes)
                        .map(UpstreamProtocol::Http1)
                }
                Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                    lower_http2(http2, &path.field("http2_protocol_options"), notes)
                        .map(UpstreamProtocol::Http2)
                }
                Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                    Err(ConfigError::unsupported(path.field("http3_protocol_options")))
                }
                None => Err(ConfigError::new(path.field("protocol_config"), "is required")),
            }
        }
        UpstreamProtocolOptions::UseDownstreamProtocolConfig(config) => {
            let path = path.field("use_downstream_protocol_config");
            let UseDownstreamHttpConfig {
                http_protocol_options,
                http2_protocol_options,
                http3_protocol_options,
            } = config;
            refuse(&http3_protocol_options, || path.field("http3_protocol_options"))?;
            let (http1, http2) = both(http_protocol_options, http2_protocol_options, &path, notes)?;
            Ok(UpstreamProtocol::Downstream(http1, http2))
        }
        UpstreamProtocolOptions::AutoConfig(config) => {
            let path = path.field("auto_config");
            let AutoHttpConfig {
                http_protocol_options,
                http2_protocol_options,
                http3_protocol_options,
                alternate_protocols_cache_options,
            } = config;
            refuse(&http3_protocol_options, || path.field("http3_protocol_options"))?;
            refuse(&alternate_protocols_cache_options, || path.field("alternate_protocols_cache_options"))?;
            let (http1, http2) = both(http_protocol_options, http2_protocol_options, &path, notes)?;
            Ok(UpstreamProtocol::Auto(http1, http2))
        }
    }
}

fn lower_upstream(options: UpstreamHttpProtocolOptions, into: &mut HttpOptions) {
    let UpstreamHttpProtocolOptions { auto_sni, auto_san_validation, override_auto_sni_header } = options;
    into.auto_sni = auto_sni;
    into.auto_san_validation = auto_san_validation;
    into.override_auto_sni_header = override_auto_sni_header;
}

fn lower_common(
    options: CommonOptions,
    into: &mut HttpOptions,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    let CommonOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = options;
    into.idle_timeout = timeout(idle_timeout, Some(HOUR), || path.field("idle_timeout"))?;
    into.max_connection_duration =
        timeout(max_connection_duration, None, || path.field("max_connection_duration"))?;
    if max_connection_duration_jitter.is_some() {
        notes.without_effect(path.field("max_connection_duration_jitter"));
    }
    into.max_stream_duration = timeout(max_stream_duration, None, || path.field("max_stream_duration"))?;
    let by_runtime = |key: &str, default: u32| {
        Current.number(key).map_or(default, |value| u32::try_from(value).unwrap_or(u32::MAX))
    };
    into.max_headers_count = number(max_headers_count)
        .unwrap_or_else(|| by_runtime("envoy.reloadable_features.max_response_headers_count", 100));
    into.max_response_headers_kb = number(max_response_headers_kb)
        .unwrap_or_else(|| by_runtime("envoy.reloadable_features.max_response_headers_size_kb", 60));
    if headers_with_underscores_action != HeadersWithUnderscoresAction::Allow as i32 {
        notes
            .warn(path.field("headers_with_underscores_action"), "has no effect on responses of an upstream");
    }
    into.max_requests_per_connection = number(max_requests_per_connection).filter(|&limit| limit > 0);
    Ok(())
}

fn lower_http1(
    options: Http1ProtocolOptions,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Http1Options, ConfigError> {
    #[allow(deprecated, reason = "still accepted by Envoy, where it chooses a parser")]
    let Http1ProtocolOptions {
        // The next three concern requests that a server receives.
        allow_absolute_url: _,
        accept_http_10: _,
        default_host_for_http_10: _,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message: _, // concerns requests
        send_fully_qualified_url,
        use_balsa_parser: _,     // there is one parser
        allow_custom_methods: _, // concerns requests
        ignore_http_11_upgrade,
    } = options;
    if !ignore_http_11_upgrade.is_empty() {
        notes.warn(path.field("ignore_http_11_upgrade"), "has no effect on an upstream");
    }
    Ok(Http1Options {
        header_key_format: HeaderKeyFormat::lower(header_key_format, &path.field("header_key_format"))?,
        enable_trailers,
        allow_chunked_length,
        send_fully_qualified_url,
    })
}

fn lower_http2(
    options: Http2ProtocolOptions,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Http2Options, ConfigError> {
    #[allow(deprecated, reason = "still accepted by Envoy")]
    let Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec: _, // there is one codec
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = options;
    let named = NamedSettings {
        hpack_table_size: number(hpack_table_size),
        max_concurrent_streams: number(max_concurrent_streams),
        initial_stream_window_size: number(initial_stream_window_size),
    };
    let custom_settings = lower_custom_settings(&custom_settings_parameters, &named, path)?;
    for (field, is_set) in [
        ("enable_huffman_encoding", enable_huffman_encoding.is_some()),
        ("max_header_field_size_kb", max_header_field_size_kb.is_some()),
        ("disallow_obs_text", disallow_obs_text.is_some()),
        ("stream_reset_burst", stream_reset_burst.is_some()),
        ("stream_reset_rate", stream_reset_rate.is_some()),
    ] {
        if is_set {
            notes.without_effect(path.field(field));
        }
    }
    Ok(Http2Options {
        hpack_table_size: number(hpack_table_size),
        max_concurrent_streams: number(max_concurrent_streams),
        initial_stream_window_size: number(initial_stream_window_size),
        initial_connection_window_size: number(initial_connection_window_size),
        custom_settings,
        allow_connect,
        allow_metadata,
        max_metadata_size: max_metadata_size.map(|bytes| usize::try_from(bytes.value).unwrap_or(usize::MAX)),
        stream_error_on_invalid_message: override_stream_error_on_invalid_http_message
            .map_or(stream_error_on_invalid_http_messaging, |value| value.value),
        keepalive: keepalive(connection_keepalive, &path.field("connection_keepalive"))?,
        limits: FrameLimits {
            consecutive_empty: number(max_consecutive_inbound_frames_with_empty_payload)
                .unwrap_or(FrameLimits::DEFAULT.consecutive_empty),
            priorities_per_stream: number(max_inbound_priority_frames_per_stream)
                .unwrap_or(FrameLimits::DEFAULT.priorities_per_stream),
            window_updates_per_data: number(max_inbound_window_update_frames_per_data_frame_sent)
                .unwrap_or(FrameLimits::DEFAULT.window_updates_per_data),
            control_frames: number(max_outbound_control_frames)
                .unwrap_or(FrameLimits::DEFAULT.control_frames),
            frames: number(max_outbound_frames).unwrap_or(FrameLimits::DEFAULT.frames),
        },
    })
}

fn keepalive(
    settings: Option<KeepaliveSettings>,
    path: &FieldPath,
) -> Result<Option<Http2Keepalive>, ConfigError> {
    let Some(KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval }) = settings
    else {
        return Ok(None);
    };
    let timeout = duration(timeout, || path.field("timeout"))?
        .ok_or_else(|| ConfigError::new(path.field("timeout"), "is required"))?;
    Ok(Some(Http2Keepalive {
        interval: duration(interval, || path.field("interval"))?,
        timeout,
        jitter_percent: interval_jitter.map_or(15.0, |percent| percent.value),
        idle_interval: duration(connection_idle_interval, || path.field("connection_idle_interval"))?,
    }))
}
