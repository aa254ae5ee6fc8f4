//! `HttpProtocolOptions`, `Http1ProtocolOptions` and `Http2ProtocolOptions` of downstream connections.

use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_http::h1::{HeaderKeyFormat, RequestOptions, Underscores, UpgradeFilter};
use dhow_http::h2::{FrameLimits, Settings};
use dhow_matching::StringMatcher;
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::r#type::matcher::v3::StringMatcher as StringMatcherMessage;
use dhow_proto::whole_millis;
use dhow_proxy_upstream::{
    HeaderKeyFormat as KeyFormat, Http2Keepalive, NamedSettings, lower_custom_settings,
};
use dhow_runtime_config::Current;

use super::runtime_defaults;
use super::scalar::{is_true, timeout_or, warn};

/// `common_http_protocol_options`, as far as several protocols read it.
pub(super) struct Common {
    pub(super) idle: Option<Duration>,
    pub(super) max_connection_duration: Option<Duration>,
    pub(super) max_connection_duration_jitter: f64,
    pub(super) max_stream_duration: Option<Duration>,
    pub(super) max_requests_per_connection: u32,
    max_headers: usize,
    underscores: Underscores,
}

pub(super) fn lower_common(
    options: Option<core::HttpProtocolOptions>,
    path: &FieldPath,
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
    if max_response_headers_kb.is_some() {
        let reason = "Error: max_response_headers_kb cannot be set on http_connection_manager.";
        return Err(ConfigError::new(path.field("max_response_headers_kb"), reason));
    }
    Ok(Common {
        idle: timeout_or(idle_timeout, Some(Duration::from_secs(3600))),
        // Zero is no exception: the connection ends with its first response.
        max_connection_duration: max_connection_duration.map(|duration| whole_millis(&duration)),
        max_connection_duration_jitter: max_connection_duration_jitter.map_or(0.0, |percent| percent.value),
        max_stream_duration: timeout_or(max_stream_duration, None),
        max_requests_per_connection: max_requests_per_connection.map_or(0, |max| max.value),
        max_headers: max_headers_count
            .map_or_else(|| runtime_defaults::max_headers(&Current), |max| max.value)
            as usize,
        underscores: match headers_with_underscores_action {
            1 => Underscores::Reject,
            2 => Underscores::Drop,
            _ => Underscores::Allow,
        },
    })
}

/// `http_protocol_options`.
pub(super) struct Http1 {
    pub(super) request: RequestOptions,
    pub(super) keys: HeaderKeyFormat,
    pub(super) trailers: bool,
    /// `override_stream_error_on_invalid_http_message`, where it is set.
    pub(super) stream_errors: Option<bool>,
}

pub(super) fn lower_http1(
    options: Option<core::Http1ProtocolOptions>,
    max_head_kb: u32,
    common: &Common,
    path: &FieldPath,
) -> Result<Http1, ConfigError> {
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
    let (keys, spelling) = match KeyFormat::lower(header_key_format, &path.field("header_key_format"))? {
        KeyFormat::Lower => (HeaderKeyFormat::Lower, None),
        KeyFormat::ProperCaseWords => (HeaderKeyFormat::ProperCase, None),
        // What is kept here is the spelling of requests; that of responses comes with them from upstream.
        KeyFormat::PreserveCase(rules) => (HeaderKeyFormat::Lower, Some(rules)),
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
        ignored_upgrades: lower_ignored_upgrades(&ignore_http_11_upgrade, path)?,
        spelling,
    };
    Ok(Http1 {
        request,
        keys,
        trailers: enable_trailers,
        stream_errors: override_stream_error_on_invalid_http_message.map(|flag| flag.value),
    })
}

fn lower_ignored_upgrades(
    matchers: &[StringMatcherMessage],
    path: &FieldPath,
) -> Result<Option<UpgradeFilter>, ConfigError> {
    if matchers.is_empty() {
        return Ok(None);
    }
    let path = path.field("ignore_http_11_upgrade");
    let compiled = matchers.iter().enumerate().map(|(at, one)| StringMatcher::compile(one, &path.index(at)));
    let compiled = compiled.collect::<Result<Vec<_>, _>>()?;
    Ok(Some(UpgradeFilter::new(move |value| compiled.iter().any(|one| one.matches(value)))))
}

/// What is said of fields that only another of Envoy's codecs reads.
const NO_OGHTTP2: &str = "without effect, as in Envoy 1.40 with its default codec";

/// `http2_protocol_options`.
pub(super) struct Http2 {
    pub(super) settings: Settings,
    pub(super) keepalive: Option<Http2Keepalive>,
}

pub(super) fn lower_http2(
    options: Option<core::Http2ProtocolOptions>,
    max_head_bytes: usize,
    stream_errors: bool,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Http2, ConfigError> {
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
    let without_effect = [
        (enable_huffman_encoding.is_some(), "enable_huffman_encoding", NO_OGHTTP2),
        (stream_reset_burst.is_some(), "stream_reset_burst", "the codec has a limit of its own for this"),
        (stream_reset_rate.is_some(), "stream_reset_rate", "the codec has a limit of its own for this"),
        (max_header_field_size_kb.is_some(), "max_header_field_size_kb", NO_OGHTTP2),
        (is_true(disallow_obs_text), "disallow_obs_text", NO_OGHTTP2),
    ];
    for (is_set, field, why) in without_effect {
        if is_set {
            warn(warnings, path, field, why);
        }
    }
    let named = NamedSettings {
        hpack_table_size: hpack_table_size.map(|size| size.value),
        max_concurrent_streams: max_concurrent_streams.map(|max| max.value),
        initial_stream_window_size: initial_stream_window_size.map(|size| size.value),
    };
    let defaults = Settings::default();
    let limits = FrameLimits::default();
    let settings = Settings {
        header_table_size: hpack_table_size.map_or(defaults.header_table_size, |v| v.value),
        max_concurrent_streams: max_concurrent_streams.map_or(defaults.max_concurrent_streams, |v| v.value),
        stream_window: initial_stream_window_size.map_or(defaults.stream_window, |v| v.value),
        connection_window: initial_connection_window_size.map_or(defaults.connection_window, |v| v.value),
        custom: lower_custom_settings(&custom_settings_parameters, &named, path)?,
        allow_extended_connect: allow_connect,
        allow_metadata,
        max_metadata: max_metadata_size
            .map_or(defaults.max_metadata, |bytes| usize::try_from(bytes.value).unwrap_or(usize::MAX)),
        max_header_bytes: u32::try_from(max_head_bytes).unwrap_or(u32::MAX),
        stream_errors: override_stream_error_on_invalid_http_message
            .map_or(stream_error_on_invalid_http_messaging || stream_errors, |flag| flag.value),
        limits: FrameLimits {
            consecutive_empty: max_consecutive_inbound_frames_with_empty_payload
                .map_or(limits.consecutive_empty, |max| max.value),
            priorities_per_stream: max_inbound_priority_frames_per_stream
                .map_or(limits.priorities_per_stream, |max| max.value),
            window_updates_per_data: max_inbound_window_update_frames_per_data_frame_sent
                .map_or(limits.window_updates_per_data, |max| max.value),
            control_frames: max_outbound_control_frames.map_or(limits.control_frames, |max| max.value),
            frames: max_outbound_frames.map_or(limits.frames, |max| max.value),
        },
        ..defaults
    };
    Ok(Http2 { settings, keepalive: lower_keepalive(connection_keepalive, path, warnings)? })
}

fn lower_keepalive(
    settings: Option<core::KeepaliveSettings>,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<Http2Keepalive>, ConfigError> {
    let Some(settings) = settings else { return Ok(None) };
    let path = path.field("connection_keepalive");
    let core::KeepaliveSettings { interval, timeout, interval_jitter, connection_idle_interval } = settings;
    if connection_idle_interval.is_some() {
        let why = "without effect on downstream connections, where the client opens the streams";
        warn(warnings, &path, "connection_idle_interval", why);
    }
    let timeout =
        timeout_or(timeout, None).ok_or_else(|| ConfigError::new(path.field("timeout"), "is required"))?;
    Ok(Some(Http2Keepalive {
        idle_interval: None,
        interval: timeout_or(interval, None),
        timeout,
        jitter_percent: interval_jitter.map_or(15.0, |percent| percent.value),
    }))
}
