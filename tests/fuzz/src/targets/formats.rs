//! Format strings of access logs and headers, and the JSON that comes of them.

use std::time::{Duration, UNIX_EPOCH};

use dhow_base::{FieldPath, Rng};
use dhow_expr::{
    EmptyContext, Format, JsonFormat, TimeFormat, WithRequestHeaders, WithResponseHeaders, append_json_string,
};
use dhow_http::HeaderMap;
use dhow_proto::google::protobuf::value::Kind;
use dhow_proto::google::protobuf::{Struct, Value};

use super::Target;
use crate::input::{Input, assemble};

/// Format strings.
pub const FORMATS: Target = Target {
    name: "formats",
    about: "text stays text, what is printed does not depend on what is around it, and JSON formats print JSON",
    run,
    generate,
};

const PARTS: &[&[u8]] = &[
    b"text ",
    b"%%",
    b"%",
    b"%REQ(:METHOD)%",
    b"%REQ(X-A?:PATH):3%",
    b"%RESP(content-type)%",
    b"%START_TIME(%s.%3f)%",
    b"%START_TIME(%Y-%m-%dT%H:%M:%E3S%z)%",
    b"%RESPONSE_CODE%",
    b"%RESPONSE_FLAGS%",
    b"%DYNAMIC_METADATA(a:b:c):9%",
    b"%FILTER_STATE(a:PLAIN)%",
    b"%DURATION%",
    b"%PROTOCOL%",
    b"%ENVIRONMENT(X):1%",
    b"%COALESCE({\"operators\":[\"PROTOCOL\"]})%",
    b"%BYTES_SENT:2%",
    b"%(",
    b")%",
    b":0%",
    b"\"",
    b"\\",
    b"\n",
    b"\xc3\xa9",
    b"%GRPC_STATUS(SNAKE_STRING)%",
];

fn generate(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![rng.next_u32() as u8];
    bytes.extend(assemble(rng, PARTS, 8));
    bytes
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let raw = input.rest();
    let text = input.text();
    json_string(raw);
    let time = TimeFormat::parse(&text);
    let mut out = Vec::new();
    time.append(UNIX_EPOCH + Duration::from_millis(u64::from(kind) * 987_654_321), &mut out);
    let Ok(format) = Format::parse(&text) else {
        assert!(text.contains('%'), "refused, though it is only text");
        return;
    };
    printed(&format, &text);
    json_format(&text, kind & 1 == 1);
}

fn printed(format: &Format, text: &str) {
    let empty = format.to_bytes(&EmptyContext);
    if !text.contains('%') {
        assert_eq!(empty, text.as_bytes());
        assert_eq!(format.as_literal(), Some(text.as_bytes()));
    }
    let mut request = HeaderMap::new();
    let mut response = HeaderMap::new();
    for (name, value) in [(":method", "GET"), (":path", "/p?q"), ("x-a", "a\"b\\c\u{1}")] {
        request.append(name.as_bytes(), value.as_bytes());
    }
    response.set_status(200);
    response.append(b"content-type", b"text/\xff\xfe");
    let with_request = WithRequestHeaders { headers: &request, below: &EmptyContext };
    let context = WithResponseHeaders { headers: &response, below: &with_request };
    let mut out = b"kept ".to_vec();
    format.append(&context, &mut out);
    assert_eq!(&out[..5], b"kept ");
    assert_eq!(&out[5..], format.to_bytes(&context));
    // What is missing prints a dash, or nothing: never more.
    let omitted = format.clone().omitting_empty(true).to_bytes(&EmptyContext);
    assert!(omitted.len() <= empty.len());
}

fn json_string(raw: &[u8]) {
    let mut out = Vec::new();
    append_json_string(raw, &mut out);
    let parsed: Result<String, _> = serde_json::from_slice(&out);
    let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {}", out.escape_ascii()));
    if let Ok(text) = std::str::from_utf8(raw) {
        assert_eq!(parsed, text);
    }
}

fn json_format(text: &str, omit: bool) {
    let value = |kind| Value { kind: Some(kind) };
    let inner =
        Struct { fields: [("in \"ner".to_owned(), value(Kind::StringValue(text.to_owned())))].into() };
    let fields = Struct {
        fields: [
            (text.to_owned(), value(Kind::StringValue(text.to_owned()))),
            ("nested".to_owned(), value(Kind::StructValue(inner))),
            ("number".to_owned(), value(Kind::NumberValue(1.5))),
        ]
        .into(),
    };
    let Ok(format) = JsonFormat::compile(&fields, omit, &FieldPath::root()) else { return };
    let mut out = Vec::new();
    format.append(&EmptyContext, &mut Vec::new(), &mut out);
    let parsed: Result<serde_json::Value, _> = serde_json::from_slice(&out);
    assert!(parsed.is_ok(), "not JSON: {}", out.escape_ascii());
}
