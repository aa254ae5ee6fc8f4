//! `HttpProtocolOptions`, `Http1ProtocolOptions` and `Http2ProtocolOptions` of downstream connections.

use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_http::h1::{HeaderKeyFormat, RequestOptions, Underscores};
use dhow_http::h2::Settings;
use dhow_proto::envoy::config::core::v3 as core;

use super::scalar::{is_true, timeout_or, warn};

/// `common_http_protocol_options`, as far as several protocols read it.
pub(super) struct Common {
    pub(super) idle: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_stream_duration: Option<Duration>,
    pub(super) max_requests_per_connection: u32,
    max_headers: usize,
    underscores: Underscores,
}

pub(super) fn lower_common(
    options: Option<core::HttpProtocolOptions>,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Common, ConfigError> {
    let core::HttpProtocolOptions {
        idle_timeout,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = options.unwrap_or_default();
    ConfigError::refuse_if(max_connection_duration_jitter.is_some(), path, "max_connection_duration_jitter")?;
    if max_response_headers_kb.is_some() {
        warn(warnings, path, "max_response_headers_kb", "without effect on downstream connections");
    }
    Ok(Common {
        idle: timeout_or(idle_timeout, Some(Duration::from_secs(3600))),
        max_connection_duration: timeout_or(max_connection_duration, None),
        max_stream_duration: timeout_or(max_stream_duration, None),
        max_requests_per_connection: max_requests_per_connection.map_or(0, |max| max.value),
        max_headers: max_headers_count.map_or(100, |max| max.value as usize),
        underscores: match headers_with_underscores_action {
            1 => Underscores::Reject,
            2 => Underscores::Drop,
            _ => Underscores::Allow,
        },
    })
}

pub(super) fn lower_http1(
    options: Option<core::Http1ProtocolOptions>,
    max_head_kb: u32,
    common: &Common,
    path: &FieldPath,
) -> Result<(RequestOptions, HeaderKeyFormat), ConfigError> {
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let core::Http1ProtocolOptions {
        allow_absolute_url,
        accept_http_10,
        default_host_for_http_10,
        header_key_format,
        enable_trailers,
        allow_chunked_length,
        override_stream_error_on_invalid_http_message,
        send_fully_qualified_url: _, // concerns upstream connections
        use_balsa_parser: _,         // there is one parser, which follows Envoy's default one
        allow_custom_methods,
        ignore_http_11_upgrade,
    } = options.unwrap_or_default();
    ConfigError::refuse_if(enable_trailers, path, "enable_trailers")?;
    ConfigError::refuse_if(
        is_true(override_stream_error_on_invalid_http_message),
        path,
        "override_stream_error_on_invalid_http_message",
    )?;
    ConfigError::refuse_if(!ignore_http_11_upgrade.is_empty(), path, "ignore_http_11_upgrade")?;
    use core::http1_protocol_options::header_key_format::HeaderFormat;
    let keys = match header_key_format.and_then(|format| format.header_format) {
        None => HeaderKeyFormat::Lower,
        Some(HeaderFormat::ProperCaseWords(_)) => HeaderKeyFormat::ProperCase,
        Some(HeaderFormat::StatefulFormatter(_)) => {
            return Err(ConfigError::unsupported(
                path.field("header_key_format").field("stateful_formatter"),
            ));
        }
    };
    let request = RequestOptions {
        max_head_bytes: max_head_kb as usize * 1024,
        max_headers: common.max_headers,
        underscores: common.underscores,
        allow_absolute_url: allow_absolute_url.is_none_or(|b| b.value),
        accept_http_10,
        default_host_for_http_10: Some(default_host_for_http_10).filter(|host| !host.is_empty()),
        allow_chunked_length,
        allow_custom_methods,
    };
    Ok((request, keys))
}

pub(super) fn lower_http2(
    options: Option<core::Http2ProtocolOptions>,
    max_head_bytes: usize,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Settings, ConfigError> {
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let core::Http2ProtocolOptions {
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
    } = options.unwrap_or_default();
    ConfigError::refuse_if(allow_metadata, path, "allow_metadata")?;
    ConfigError::refuse_if(!custom_settings_parameters.is_empty(), path, "custom_settings_parameters")?;
    ConfigError::refuse_if(max_metadata_size.is_some(), path, "max_metadata_size")?;
    ConfigError::refuse_if(max_header_field_size_kb.is_some(), path, "max_header_field_size_kb")?;
    ConfigError::refuse_if(is_true(disallow_obs_text), path, "disallow_obs_text")?;
    let codec_limits = [
        (max_outbound_frames.is_some(), "max_outbound_frames"),
        (max_outbound_control_frames.is_some(), "max_outbound_control_frames"),
        (
            max_consecutive_inbound_frames_with_empty_payload.is_some(),
            "max_consecutive_inbound_frames_with_empty_payload",
        ),
        (max_inbound_priority_frames_per_stream.is_some(), "max_inbound_priority_frames_per_stream"),
        (
            max_inbound_window_update_frames_per_data_frame_sent.is_some(),
            "max_inbound_window_update_frames_per_data_frame_sent",
        ),
        (stream_error_on_invalid_http_messaging, "stream_error_on_invalid_http_messaging"),
        (
            is_true(override_stream_error_on_invalid_http_message),
            "override_stream_error_on_invalid_http_message",
        ),
        (enable_huffman_encoding.is_some(), "enable_huffman_encoding"),
        (stream_reset_burst.is_some(), "stream_reset_burst"),
        (stream_reset_rate.is_some(), "stream_reset_rate"),
    ];
    for (is_set, field) in codec_limits {
        if is_set {
            warn(warnings, path, field, "the codec has a limit of its own for this");
        }
    }
    if connection_keepalive.is_some() {
        warn(warnings, path, "connection_keepalive", "no pings are sent yet");
    }
    let defaults = Settings::default();
    Ok(Settings {
        header_table_size: hpack_table_size.map_or(defaults.header_table_size, |v| v.value),
        max_concurrent_streams: max_concurrent_streams.map_or(defaults.max_concurrent_streams, |v| v.value),
        stream_window: initial_stream_window_size.map_or(defaults.stream_window, |v| v.value),
        connection_window: initial_connection_window_size.map_or(defaults.connection_window, |v| v.value),
        allow_extended_connect: allow_connect,
        max_header_bytes: u32::try_from(max_head_bytes).unwrap_or(u32::MAX),
        ..defaults
    })
}
