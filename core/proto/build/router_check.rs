//! The input of Envoy's router check tool, which is part of Envoy but of none of its published packages. The Rust types are
//! in `src/router_check.rs`.

use crate::descriptors::{Field, Schema};
use crate::supplement::{BOOL, MESSAGE, STRING, at_least_one_item, field, push, required_message};

const UINT64: u8 = 4;
const PACKAGE: &str = "envoy.RouterCheckToolSchema";
const FILE: &str = "test/tools/router_check/validation.proto";

const HEADER: &str = "envoy.config.core.v3.HeaderValue";
const HEADER_MATCHER: &str = "envoy.config.route.v3.HeaderMatcher";
const METADATA: &str = "envoy.extensions.filters.http.set_metadata.v3.Metadata";
const TEXT: &str = "google.protobuf.StringValue";

pub fn add(schema: &mut Schema) {
    let own = |name: &str| format!("{PACKAGE}.{name}");
    let message = |name: &str, number, type_name: &str| field(name, number, MESSAGE, type_name);
    let list = |name: &str, number, type_name: &str| Field {
        repeated: true,
        ..field(name, number, MESSAGE, type_name)
    };
    let text = |name: &str, number, shortest| Field {
        rules: at_least_characters(shortest),
        ..field(name, number, STRING, "")
    };
    let tests = Field { rules: at_least_one_item(), ..list("tests", 1, &own("ValidationItem")) };
    push(schema, &own("Validation"), FILE, vec![tests], vec![]);
    let item = vec![
        text("test_name", 1, 1),
        Field { rules: required_message(), ..message("input", 2, &own("ValidationInput")) },
        Field { rules: required_message(), ..message("validate", 3, &own("ValidationAssert")) },
    ];
    push(schema, &own("ValidationItem"), FILE, item, vec![]);
    let input = vec![
        text("authority", 1, 1),
        text("path", 2, 1),
        text("method", 4, 3),
        field("random_value", 5, UINT64, ""),
        field("ssl", 6, BOOL, ""),
        field("internal", 7, BOOL, ""),
        list("additional_headers", 8, HEADER),
        field("runtime", 9, STRING, ""),
        list("additional_request_headers", 10, HEADER),
        list("additional_response_headers", 11, HEADER),
        list("dynamic_metadata", 12, METADATA),
    ];
    push(schema, &own("ValidationInput"), FILE, input, vec![]);
    let asserted = vec![
        message("cluster_name", 1, TEXT),
        message("virtual_cluster_name", 2, TEXT),
        message("virtual_host_name", 3, TEXT),
        message("host_rewrite", 4, TEXT),
        message("path_rewrite", 5, TEXT),
        message("path_redirect", 6, TEXT),
        list("header_fields", 7, HEADER),
        list("custom_header_fields", 8, HEADER),
        list("request_header_fields", 9, HEADER),
        list("response_header_fields", 10, HEADER),
        list("request_header_matches", 11, HEADER_MATCHER),
        list("response_header_matches", 12, HEADER_MATCHER),
        message("code_redirect", 13, "google.protobuf.UInt32Value"),
        message("timeout", 14, "google.protobuf.Duration"),
    ];
    push(schema, &own("ValidationAssert"), FILE, asserted, vec![]);
}

/// `validate.FieldRules { string: { min_len: shortest } }`
fn at_least_characters(shortest: u8) -> Vec<u8> {
    vec![0x72, 0x02, 0x10, shortest]
}
