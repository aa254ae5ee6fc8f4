//! `health_checks` -> what hosts are asked.

use std::ops::Range;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::StringMatcher;
use dhow_net::proxy_protocol::ProxyVersion;
use dhow_proto::any::type_name;
use dhow_proto::envoy::config::core::v3::{
    HealthCheck, ProxyProtocolConfig, RequestMethod, TypedExtensionConfig,
    health_check::{
        CustomHealthCheck, GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck,
        TlsOptions, custom_health_check::ConfigType, payload,
    },
    proxy_protocol_config::Version,
};
use dhow_proto::envoy::extensions::health_check::event_sinks::file::v3::HealthCheckEventFileSink;
use dhow_proto::envoy::r#type::v3::{CodecClientType, Int64Range};
use dhow_routing::HeaderMutations;

use super::fields::{Notes, duration, number, refuse, unpack};
use crate::health_check::{Check, GrpcCheck, HealthCheckConfig, HttpCheck, Intervals, TcpCheck};

/// Bytes of a body that are looked at unless `response_buffer_size` says otherwise.
const RESPONSE_BUFFER: u64 = 1024;
const MINUTE: Duration = Duration::from_secs(60);

/// The check of a cluster; Envoy takes several when they have names, which is a field that is not known here.
pub(crate) fn lower(
    messages: Vec<HealthCheck>,
    cluster_has_http2: bool,
    cluster: &str,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Option<HealthCheckConfig>, ConfigError> {
    if messages.len() > 1 {
        let reason = "health check at index 0 is missing a name; all health checks must have a name when multiple \
                      health checks are configured";
        return Err(ConfigError::new(path.clone(), reason).with_hint("configure one health check"));
    }
    let Some(message) = messages.into_iter().next() else {
        return Ok(None);
    };
    let is_grpc = matches!(message.health_checker, Some(HealthChecker::GrpcHealthCheck(_)));
    if is_grpc && !cluster_has_http2 {
        let reason = format!("{cluster} cluster must support HTTP/2 for gRPC healthchecking");
        return Err(ConfigError::new(path.index(0), reason));
    }
    lower_check(message, &path.index(0), notes).map(Some)
}

fn lower_check(
    message: HealthCheck,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<HealthCheckConfig, ConfigError> {
    #[allow(deprecated, reason = "the older place of the event log is still in use")]
    let HealthCheck {
        timeout,
        interval,
        initial_jitter,
        interval_jitter,
        interval_jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        no_traffic_interval,
        no_traffic_healthy_interval,
        unhealthy_interval,
        unhealthy_edge_interval,
        healthy_edge_interval,
        event_log_path,
        event_logger,
        event_service,
        always_log_health_check_failures,
        always_log_health_check_success,
        tls_options,
        transport_socket_match_criteria,
        health_checker,
    } = message;
    refuse(&event_service, || path.field("event_service"))?;
    if alt_port.is_some() {
        let message = "has no effect, in Envoy neither: an endpoint's health_check_config names another port";
        notes.warn(path.field("alt_port"), message);
    }
    let time = |value, field: &'static str| duration(value, || path.field(field));
    let required = |value: Option<Duration>, field: &'static str| match value {
        Some(time) if !time.is_zero() => Ok(time),
        Some(_) => Err(ConfigError::new(path.field(field), "value must be greater than 0s")),
        None => Err(ConfigError::new(path.field(field), "value is required")),
    };
    let healthy = required(time(interval, "interval")?, "interval")?;
    let unhealthy = time(unhealthy_interval, "unhealthy_interval")?.unwrap_or(healthy);
    let no_traffic = time(no_traffic_interval, "no_traffic_interval")?.unwrap_or(MINUTE);
    let intervals = Intervals {
        healthy,
        healthy_edge: time(healthy_edge_interval, "healthy_edge_interval")?.unwrap_or(healthy),
        unhealthy,
        unhealthy_edge: time(unhealthy_edge_interval, "unhealthy_edge_interval")?.unwrap_or(unhealthy),
        no_traffic,
        no_traffic_healthy: time(no_traffic_healthy_interval, "no_traffic_healthy_interval")?
            .unwrap_or(no_traffic),
        jitter: time(interval_jitter, "interval_jitter")?.unwrap_or_default(),
        jitter_percent: interval_jitter_percent,
    };
    let threshold = |value, field: &str| {
        number(value).ok_or_else(|| ConfigError::new(path.field(field), "value is required"))
    };
    let mut event_logs = Vec::new();
    if !event_log_path.is_empty() {
        event_logs.push(event_log_path);
    }
    for (index, sink) in event_logger.into_iter().enumerate() {
        event_logs.push(lower_sink(sink, &path.field("event_logger").index(index))?);
    }
    let alpn = tls_options.map(|TlsOptions { alpn_protocols }| alpn_protocols).unwrap_or_default();
    Ok(HealthCheckConfig {
        timeout: required(time(timeout, "timeout")?, "timeout")?,
        intervals,
        initial_jitter: time(initial_jitter, "initial_jitter")?.unwrap_or_default(),
        unhealthy_threshold: threshold(unhealthy_threshold, "unhealthy_threshold")?,
        healthy_threshold: threshold(healthy_threshold, "healthy_threshold")?,
        reuse_connection: reuse_connection.is_none_or(|value| value.value),
        event_logs,
        log_failures: always_log_health_check_failures,
        log_successes: always_log_health_check_success,
        alpn: alpn.into_iter().map(String::into_bytes).collect(),
        socket_criteria: transport_socket_match_criteria,
        check: lower_checker(health_checker, path)?,
    })
}

fn lower_sink(sink: TypedExtensionConfig, path: &FieldPath) -> Result<String, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = sink;
    let any = typed_config.unwrap_or_default();
    match unpack::<HealthCheckEventFileSink>(&any, || path.field("typed_config"))? {
        Some(HealthCheckEventFileSink { event_log_path }) => Ok(event_log_path),
        None => {
            let type_url = any.type_url.trim_start_matches("type.googleapis.com/");
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{type_url}'");
            Err(ConfigError::new(path.field("typed_config"), reason))
        }
    }
}

fn lower_checker(checker: Option<HealthChecker>, path: &FieldPath) -> Result<Check, ConfigError> {
    match checker {
        Some(HealthChecker::HttpHealthCheck(check)) => {
            lower_http(check, &path.field("http_health_check")).map(|check| Check::Http(Box::new(check)))
        }
        Some(HealthChecker::TcpHealthCheck(check)) => {
            lower_tcp(check, &path.field("tcp_health_check")).map(Check::Tcp)
        }
        Some(HealthChecker::GrpcHealthCheck(check)) => {
            lower_grpc(check, &path.field("grpc_health_check")).map(|check| Check::Grpc(Box::new(check)))
        }
        Some(HealthChecker::CustomHealthCheck(check)) => {
            const OF_ENVOY: [&str; 3] =
                ["envoy.health_checkers.redis", "envoy.health_checkers.thrift", "envoy.health_checkers.udp"];
            let path = path.field("custom_health_check");
            let CustomHealthCheck { name, config_type } = check;
            let type_name = match &config_type {
                Some(ConfigType::TypedConfig(any)) => type_name(&any.type_url),
                None => "",
            };
            if OF_ENVOY.contains(&&*name) || type_name.starts_with("envoy.extensions.health_checkers.") {
                return Err(ConfigError::unsupported(path));
            }
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
            Err(ConfigError::new(path, reason))
        }
        None => Err(ConfigError::new(path.field("health_checker"), "is required")),
    }
}

fn lower_http(message: HttpHealthCheck, path: &FieldPath) -> Result<HttpCheck, ConfigError> {
    let HttpHealthCheck {
        host,
        path: target,
        send,
        receive,
        response_buffer_size,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        retriable_statuses,
        codec_client_type,
        service_name_matcher,
        method,
    } = message;
    let method = method_name(method, &path.field("method"))?;
    if send.is_some() && !matches!(method, "POST" | "PUT" | "PATCH" | "OPTIONS") {
        let reason = format!(
            "HTTP health check cannot specify a request payload with method '{method}'. Only methods that support a \
             request body (POST, PUT, PATCH, OPTIONS) can be used with payload."
        );
        return Err(ConfigError::new(path.field("send"), reason));
    }
    let send =
        send.map(|payload| lower_payload(payload, &path.field("send"))).transpose()?.unwrap_or_default();
    let receive = lower_payloads(receive, &path.field("receive"))?;
    let limit = response_buffer_size.map_or(RESPONSE_BUFFER, |size| size.value);
    let length: usize = receive.iter().map(|part| part.len()).sum();
    if limit > 0 && length as u64 > limit {
        let reason = format!(
            "The expected response length '{length}' is over than http health response buffer size '{limit}'"
        );
        return Err(ConfigError::new(path.field("receive"), reason));
    }
    let expected = lower_ranges(&expected_statuses, "expected", &path.field("expected_statuses"))?;
    let http2 = match CodecClientType::try_from(codec_client_type) {
        Ok(CodecClientType::Http1) => false,
        Ok(CodecClientType::Http2) => true,
        Ok(CodecClientType::Http3) | Err(_) => {
            return Err(ConfigError::unsupported(path.field("codec_client_type")));
        }
    };
    Ok(HttpCheck {
        host,
        path: target,
        method,
        send,
        receive,
        response_buffer: usize::try_from(limit).ok().filter(|limit| *limit > 0),
        expected: if expected.is_empty() { std::iter::once(200..201).collect() } else { expected },
        retriable: lower_ranges(&retriable_statuses, "retriable", &path.field("retriable_statuses"))?,
        headers: HeaderMutations::compile(
            &request_headers_to_add,
            &path.field("request_headers_to_add"),
            &request_headers_to_remove,
            &path.field("request_headers_to_remove"),
        )?,
        service_name: service_name_matcher
            .map(|matcher| StringMatcher::compile(&matcher, &path.field("service_name_matcher")))
            .transpose()?,
        http2,
    })
}

fn method_name(method: i32, path: &FieldPath) -> Result<&'static str, ConfigError> {
    match RequestMethod::try_from(method) {
        Ok(RequestMethod::MethodUnspecified) => Ok("GET"),
        Ok(RequestMethod::Connect) => {
            Err(ConfigError::new(path.clone(), "value must not be in list [CONNECT]"))
        }
        Ok(method) => Ok(method.as_str_name()),
        Err(_) => Err(ConfigError::new(path.clone(), "value must be one of the defined enum values")),
    }
}

fn lower_ranges(ranges: &[Int64Range], kind: &str, path: &FieldPath) -> Result<Vec<Range<u16>>, ConfigError> {
    let lower = |(index, Int64Range { start, end }): (usize, &Int64Range)| {
        let refused = |what: String| {
            Err(ConfigError::new(
                path.index(index),
                format!("Invalid http {kind} status range: expecting {what}"),
            ))
        };
        // As Envoy reads them, negative bounds are beyond all statuses.
        let (start, end) = (start.cast_unsigned(), end.cast_unsigned());
        if start >= end {
            return refused(format!("start < end, but found start={start} and end={end}"));
        }
        match (u16::try_from(start), u16::try_from(end)) {
            (Ok(..100), _) => refused(format!("start >= 100, but found start={start}")),
            (Ok(start), Ok(end @ ..=600)) => Ok(start..end),
            _ => refused(format!("end <= 600, but found end={end}")),
        }
    };
    ranges.iter().enumerate().map(lower).collect()
}

fn lower_tcp(message: TcpHealthCheck, path: &FieldPath) -> Result<TcpCheck, ConfigError> {
    let TcpHealthCheck { send, receive, proxy_protocol_config } = message;
    let proxy_header = proxy_protocol_config
        .map(|config| lower_proxy_header(config, &path.field("proxy_protocol_config")))
        .transpose()?;
    let send = send.map(|payload| lower_payload(payload, &path.field("send"))).transpose()?;
    Ok(TcpCheck {
        send: send.unwrap_or_default(),
        receive: lower_payloads(receive, &path.field("receive"))?,
        proxy_header,
    })
}

fn lower_proxy_header(message: ProxyProtocolConfig, path: &FieldPath) -> Result<ProxyVersion, ConfigError> {
    let ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = message;
    // A check has no connection to take extensions from, and Envoy adds none to its own header.
    refuse(&pass_through_tlvs, || path.field("pass_through_tlvs"))?;
    refuse(&added_tlvs, || path.field("added_tlvs"))?;
    Ok(if version == Version::V1 as i32 { ProxyVersion::V1 } else { ProxyVersion::V2 })
}

fn lower_grpc(message: GrpcHealthCheck, path: &FieldPath) -> Result<GrpcCheck, ConfigError> {
    let GrpcHealthCheck { service_name, authority, initial_metadata } = message;
    let metadata_path = path.field("initial_metadata");
    let metadata = HeaderMutations::compile(&initial_metadata, &metadata_path, &[], &metadata_path)?;
    Ok(GrpcCheck { service: service_name, authority, metadata })
}

fn lower_payloads(payloads: Vec<Payload>, path: &FieldPath) -> Result<Vec<Vec<u8>>, ConfigError> {
    payloads
        .into_iter()
        .enumerate()
        .map(|(index, payload)| lower_payload(payload, &path.index(index)))
        .collect()
}

/// Bytes as they are, or as hexadecimal digits.
fn lower_payload(message: Payload, path: &FieldPath) -> Result<Vec<u8>, ConfigError> {
    let Payload { payload } = message;
    match payload {
        Some(payload::Payload::Binary(bytes)) => Ok(bytes),
        Some(payload::Payload::Text(text)) => decode_hex(&text)
            .ok_or_else(|| ConfigError::new(path.field("text"), format!("invalid hex string '{text}'"))),
        None => Err(ConfigError::new(path.field("payload"), "is required")),
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| <[u8; 2]>::try_from(pair).ok().and_then(|[a, b]| Some(digit(a)? << 4 | digit(b)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_hexadecimal() {
        assert_eq!(decode_hex("50494e47"), Some(b"PING".to_vec()));
        assert_eq!(decode_hex("zz"), None);
        assert_eq!(decode_hex("5"), None);
        assert_eq!(decode_hex(""), Some(Vec::new()));
    }

    #[test]
    fn ranges_are_half_open_and_within_the_statuses() {
        let path = FieldPath::root();
        let lower = |start, end| lower_ranges(&[Int64Range { start, end }], "expected", &path);
        assert_eq!(lower(200, 300).map(|ranges| ranges.len()), Ok(1));
        for (start, end, why) in [
            (300, 200, "expecting start < end, but found start=300 and end=200"),
            (99, 200, "expecting start >= 100, but found start=99"),
            (200, 700, "expecting end <= 600, but found end=700"),
            (200, -1, "expecting end <= 600, but found end=18446744073709551615"),
            (-1, 200, "expecting start < end, but found start=18446744073709551615 and end=200"),
        ] {
            let error = lower(start, end).expect_err("refused");
            assert_eq!(error.reason, format!("Invalid http expected status range: {why}"));
        }
    }
}
