//! MeshConfig's access log settings as they reach listeners.

use serde_json::{Value, json};

use super::{push_with, sidecar_of};

/// The format of the access log of the sidecar's outbound listener for HTTP.
fn log_format(mesh: Value) -> Value {
    let dump = sidecar_of(&push_with(super::SERVICES, mesh), json!({}));
    let listener = dump.listener("0.0.0.0_9080");
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    let log = &manager["access_log"][0]["typed_config"];
    assert_eq!(log["path"], "/dev/stdout", "{listener}");
    log["log_format"].clone()
}

#[test]
fn a_json_format_of_ones_own_becomes_the_json_format() {
    let format = r#"{"code": "%RESPONSE_CODE%", "nested": {"path": "%REQ(:PATH)%"}, "fixed": 1}"#;
    let mesh =
        json!({"accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON", "accessLogFormat": format});
    let expected: Value = serde_json::from_str(format).unwrap();
    let found = log_format(mesh);
    assert_eq!(found["json_format"]["code"], expected["code"]);
    assert_eq!(found["json_format"]["nested"], expected["nested"]);
    assert_eq!(found["json_format"].as_object().unwrap().len(), 3);
}

#[test]
fn without_a_usable_format_json_logs_have_istios_fields() {
    for format in ["", "no object"] {
        let mesh =
            json!({"accessLogFile": "/dev/stdout", "accessLogEncoding": "JSON", "accessLogFormat": format});
        assert_eq!(log_format(mesh)["json_format"]["route_name"], "%ROUTE_NAME%", "{format}");
    }
}

#[test]
fn a_text_format_ends_with_one_newline() {
    for format in ["%PROTOCOL%", "%PROTOCOL%\n"] {
        let mesh = json!({"accessLogFile": "/dev/stdout", "accessLogFormat": format});
        assert_eq!(log_format(mesh)["text_format_source"]["inline_string"], "%PROTOCOL%\n");
    }
}
