//! Access logs as MeshConfig asks for them.

use dhow_control_model::AccessLogEncoding;
use dhow_proto::envoy::config::accesslog::v3::{AccessLog, access_log};
use dhow_proto::envoy::config::core::v3::{
    DataSource, SubstitutionFormatString, data_source, substitution_format_string,
};
use dhow_proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};

use dhow_proto::google::protobuf::Struct;

use crate::ProxyContext;
use crate::messages::{any, string_value, structure};

/// The fields of Istio's log line: the name in JSON, and the command.
const FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("route_name", "%ROUTE_NAME%"),
];

/// Fields that the text form puts between quotes.
const QUOTED: [&str; 6] = [
    "upstream_transport_failure_reason",
    "x_forwarded_for",
    "user_agent",
    "request_id",
    "authority",
    "upstream_host",
];

pub(super) fn loggers(context: &ProxyContext<'_>) -> Vec<AccessLog> {
    let mesh = &context.push.mesh;
    if mesh.access_log_file.is_empty() {
        return Vec::new();
    }
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text if mesh.access_log_format.is_empty() => text(text_format()),
        AccessLogEncoding::Text => text(format!("{}\n", mesh.access_log_format.trim_end_matches('\n'))),
        AccessLogEncoding::Json => {
            substitution_format_string::Format::JsonFormat(json_fields(&mesh.access_log_format))
        }
    };
    let log = FileAccessLog {
        path: mesh.access_log_file.clone(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format),
            ..SubstitutionFormatString::default()
        })),
    };
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(any(&log))),
        ..AccessLog::default()
    }]
}

/// The object that `accessLogFormat` describes; Istio's own where it is empty or describes none, of which MeshConfig's
/// decoding has warned.
fn json_fields(format: &str) -> Struct {
    let own = || structure(FIELDS.map(|(name, command)| (name, string_value(command))));
    if format.is_empty() {
        return own();
    }
    dhow_proto::load_json(format, &dhow_proto::LoadOptions::default())
        .map_or_else(|_| own(), |loaded| loaded.message)
}

fn text(format: String) -> substitution_format_string::Format {
    substitution_format_string::Format::TextFormatSource(DataSource {
        specifier: Some(data_source::Specifier::InlineString(format)),
        ..DataSource::default()
    })
}

/// `[start] "METHOD PATH PROTOCOL" code flags ...`
fn text_format() -> String {
    let mut text = String::new();
    for (index, (name, command)) in FIELDS.iter().enumerate() {
        let separator = if index == 0 { "" } else { " " };
        let (before, after) = match *name {
            "start_time" => ("[", "]"),
            "method" => ("\"", ""),
            "protocol" => ("", "\""),
            name if QUOTED.contains(&name) => ("\"", "\""),
            _ => ("", ""),
        };
        text.push_str(&format!("{separator}{before}{command}{after}"));
    }
    text.push('\n');
    text
}
