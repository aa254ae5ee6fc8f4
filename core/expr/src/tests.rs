//! Format strings against a made-up stream.

use std::borrow::Cow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dhow_base::{FieldPath, ResponseFlag, ResponseFlags};
use dhow_http::HeaderMap;

use crate::pb::core::{
    DataSource, SubstitutionFormatString, data_source::Specifier,
    substitution_format_string::Format as Choice,
};
use crate::pb::protobuf::{ListValue, Struct, Value, value::Kind};
use crate::{
    Address, AddressFact, DEFAULT_ACCESS_LOG_FORMAT, EmptyContext, FilterStateObject, Format, FormatContext,
    LogFormat, MetadataSource, NumberFact, TextFact, TimeFormat, TimePoint, TlsFact,
};

struct Stream {
    request: HeaderMap,
    response: HeaderMap,
    trailers: HeaderMap,
    metadata: Struct,
}

struct Text(&'static str);

impl FilterStateObject for Text {
    fn append_text(&self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(self.0.as_bytes());
        true
    }
    fn append_field(&self, field: &str, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(field.as_bytes());
        field != "none"
    }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(name.as_bytes(), value.as_bytes());
    }
    map
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn fields<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    Struct { fields: fields.into_iter().map(|(key, kind)| (key.to_owned(), value(kind))).collect() }
}

fn stream() -> Stream {
    Stream {
        request: headers(&[
            (":method", "GET"),
            (":path", "/new?a=1&b"),
            (":authority", "example.com"),
            ("x-envoy-original-path", "/old?a=1"),
            ("user-agent", "curl"),
            ("content-type", "application/grpc"),
        ]),
        response: headers(&[(":status", "200"), ("x-envoy-upstream-service-time", "3")]),
        trailers: headers(&[("grpc-status", "4")]),
        metadata: fields([
            ("text", Kind::StringValue("a b".to_owned())),
            ("number", Kind::NumberValue(2.0)),
            ("inner", Kind::StructValue(fields([("flag", Kind::BoolValue(true))]))),
            (
                "list",
                Kind::ListValue(ListValue {
                    values: vec![value(Kind::NumberValue(1.5)), value(Kind::NullValue(0))],
                }),
            ),
        ]),
    }
}

impl FormatContext for Stream {
    fn request_headers(&self) -> Option<&HeaderMap> {
        Some(&self.request)
    }
    fn response_headers(&self) -> Option<&HeaderMap> {
        Some(&self.response)
    }
    fn response_trailers(&self) -> Option<&HeaderMap> {
        Some(&self.trailers)
    }
    fn start_time(&self) -> Option<SystemTime> {
        Some(UNIX_EPOCH + Duration::new(1_521_084_893, 387_000_001))
    }
    fn time(&self, point: TimePoint) -> Option<Duration> {
        match point {
            TimePoint::StreamEnd => Some(Duration::from_micros(12_345)),
            TimePoint::UpstreamRxBegin => Some(Duration::from_millis(5)),
            TimePoint::DownstreamTxEnd => Some(Duration::from_millis(9)),
            _ => None,
        }
    }
    fn number(&self, fact: NumberFact) -> Option<u64> {
        match fact {
            NumberFact::ResponseCode => Some(200),
            NumberFact::BytesSent => Some(154),
            NumberFact::BytesReceived => Some(0),
            _ => None,
        }
    }
    fn text(&self, fact: TextFact) -> Option<Cow<'_, str>> {
        match fact {
            TextFact::Protocol => Some("HTTP/1.1".into()),
            TextFact::UpstreamTransportFailureReason => Some("TLS error: bad".into()),
            TextFact::UpstreamHostName => Some("host.example:8080".into()),
            TextFact::Downstream(TlsFact::TlsVersion) => Some("TLSv1.3".into()),
            TextFact::RouteName => Some("".into()),
            _ => None,
        }
    }
    fn address(&self, fact: AddressFact) -> Option<Address<'_>> {
        match fact {
            AddressFact::UpstreamHost => Some(Address::Ip("10.0.35.28:80".parse().unwrap())),
            AddressFact::DownstreamRemote => Some(Address::Ip("10.1.2.3:4567".parse().unwrap())),
            AddressFact::DownstreamLocal => Some(Address::Ip("[2001:db8::1]:80".parse().unwrap())),
            AddressFact::UpstreamRemote => Some(Address::Internal("encap", "e1")),
            AddressFact::UpstreamLocal => Some(Address::Pipe("/tmp/x")),
            _ => None,
        }
    }
    fn response_flags(&self) -> ResponseFlags {
        ResponseFlags::from(ResponseFlag::UpstreamConnectionFailure)
            .with(ResponseFlag::UpstreamRetryLimitExceeded)
    }
    fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Struct> {
        (source == MetadataSource::Dynamic && namespace == "ns").then_some(&self.metadata)
    }
    fn filter_state(&self, upstream: bool, key: &str) -> Option<&dyn FilterStateObject> {
        (!upstream && key == "k").then_some(&Text("state"))
    }
}

fn formatted(format: &str) -> String {
    let format = Format::parse(format).unwrap_or_else(|error| panic!("{format}: {error}"));
    String::from_utf8(format.to_bytes(&stream())).unwrap()
}

#[test]
fn the_default_format_is_envoys() {
    assert_eq!(
        formatted(DEFAULT_ACCESS_LOG_FORMAT),
        "[2018-03-15T03:34:53.387Z] \"GET /old?a=1 HTTP/1.1\" 200 UF,URX 0 154 12 3 \"-\" \"curl\" \"-\" \"example.com\" \
         \"10.0.35.28:80\"\n"
    );
}

#[test]
fn commands() {
    for (format, expected) in [
        ("a%%b", "a%b"),
        ("%REQ(user-agent):2%", "cu"),
        ("%REQ(X-NOPE?USER-AGENT)%", "curl"),
        ("%RESP(x)%", "-"),
        ("%TRAILER(GRPC-STATUS)%", "4"),
        ("%GRPC_STATUS%", "DeadlineExceeded"),
        ("%GRPC_STATUS(SNAKE_STRING)%", "DEADLINE_EXCEEDED"),
        ("%GRPC_STATUS_NUMBER%", "4"),
        ("%START_TIME(%Y/%m/%dT%H:%M:%S%z %s)%", "2018/03/15T03:34:53+0000 1521084893"),
        ("%START_TIME(%3f %f %E3S %E*S)%", "387 387000001 53.387 53.387000001"),
        ("%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:us)%", "5000"),
        ("%COMMON_DURATION(DS_TX_END:US_RX_BEG:us)%", "-"),
        ("%RESPONSE_DURATION% %RESPONSE_TX_DURATION% %REQUEST_DURATION%", "5 4 -"),
        ("%RESPONSE_FLAGS_LONG%", "UpstreamConnectionFailure,UpstreamRetryLimitExceeded"),
        ("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT%", "10.1.2.3:4567 4567"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "10.1.2.3"),
        ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16)%", "10.1.0.0/16"),
        (
            "%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(32)%",
            "[2001:db8::1]:80 2001:db8::/32",
        ),
        ("%UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID%", "envoy://encap/e1 e1"),
        ("%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_LOCAL_PORT%", "/tmp/x "),
        ("%UPSTREAM_TRANSPORT_FAILURE_REASON%", "TLS_error:_bad"),
        ("%UPSTREAM_HOST_NAME_WITHOUT_PORT%", "host.example"),
        ("%DOWNSTREAM_TLS_VERSION% %UPSTREAM_TLS_VERSION%", "TLSv1.3 -"),
        ("%ROUTE_NAME%", "-"),
        ("%QUERY_PARAM(a)% %QUERY_PARAM(b)% %QUERY_PARAM(c)% %QUERY_PARAMS%", "1  - a=1&b"),
        ("%PATH% %PATH(NQ)% %PATH(WQ:PATH)% %PATH(NQ:ORIG)%", "/old?a=1 /old /new?a=1&b /old"),
        ("%DYNAMIC_METADATA(ns:text)% %DYNAMIC_METADATA(ns:text):1%", "a b a"),
        ("%DYNAMIC_METADATA(ns:inner)% %DYNAMIC_METADATA(ns:inner:flag)%", "{\"flag\":true} true"),
        ("%METADATA(DYNAMIC:ns:list)% %DYNAMIC_METADATA(no)%", "[1.5,null] -"),
        (
            "%FILTER_STATE(k)% %FILTER_STATE(k:PLAIN)% %FILTER_STATE(k:FIELD:f)% %FILTER_STATE(x)%",
            "\"state\" state f -",
        ),
        (
            "%COALESCE({\"operators\": [\"HOSTNAME\", {\"command\": \"REQ\", \"param\": \"user-agent\"}]})%",
            "curl",
        ),
        ("%REQUEST_HEADERS_BYTES%", &stream().request.byte_size().to_string()),
    ] {
        assert_eq!(formatted(format), expected, "{format}");
    }
}

#[test]
fn errors_are_envoys() {
    for (format, expected) in [
        ("%FOO%", "Not supported field in StreamInfo: FOO"),
        ("100%", "Incorrect configuration: 100%. Couldn't find valid command at position 3"),
        ("a %req(a)%", "Incorrect configuration: a %req(a)%. Couldn't find valid command at position 2"),
        (
            "%RESPONSE_CODE:x%",
            "Incorrect configuration: %RESPONSE_CODE:x%. Couldn't find valid command at position 0",
        ),
        ("%REQ%", "REQ requires parameters"),
        ("%REQ()%", "REQ requires parameters"),
        ("%PROTOCOL(x)%", "PROTOCOL does not take any parameters or length"),
        ("%PROTOCOL:3%", "PROTOCOL does not take any parameters or length"),
        ("%REQ(a?b?c)%", "More than 1 alternative header specified in token: a?b?c"),
        ("%FILTER_STATE(a:FOO)%", "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD."),
        ("%REQ(a b)%", "Invalid header configuration. Format string contains invalid characters."),
        ("%RESP(a?b:c)%", "Invalid header configuration. Format string contains invalid characters."),
        (
            "%START_TIME(%Y\n)%",
            "Incorrect configuration: %START_TIME(%Y\n)%. Couldn't find valid command at position 0",
        ),
        ("%FILTER_STATE(:PLAIN)%", "Invalid filter state configuration, key cannot be empty."),
        (
            "%FILTER_STATE(a:FIELD:)%",
            "Invalid filter state serialize type, FIELD should be used with the field name.",
        ),
        (
            "%FILTER_STATE(a:PLAIN:x)%",
            "Invalid filter state serialize type, FIELD should be used with the field name.",
        ),
        ("%METADATA(FOO:a)%", "FOO is not supported type of metadata"),
        (
            "%REQUESTED_SERVER_NAME(SNI_FIRST):3%",
            "REQUESTED_SERVER_NAME does not allow length to be specified.",
        ),
        (
            "%REQUESTED_SERVER_NAME(FOO)%",
            "Invalid REQUESTED_SERVER_NAME option: 'FOO', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed",
        ),
        ("%QUERY_PARAMS(RAW)%", "Invalid QUERY_PARAMS option: 'RAW', only 'ORIG'/'DECODED' are allowed"),
        (
            r#"%COALESCE({"operators": ["PROTOCOL", "FOO"]})%"#,
            "COALESCE: failed to parse operator at index 1: unknown command: 'FOO'",
        ),
        (
            r#"%COALESCE({"operators": [{"command": "REQ", "param": "a", "max_length": 0}]})%"#,
            "COALESCE: failed to parse operator at index 0: 'max_length' must be a positive integer",
        ),
        (
            r#"%COALESCE({"operators": "PROTOCOL"})%"#,
            "COALESCE: 'operators' must be an array: key 'operators' missing or not an array from lines 1-1",
        ),
        ("%COMMON_DURATION(a)%", "Invalid common duration configuration: a."),
        ("%COMMON_DURATION(DS_RX_BEG:DS_TX_END:xx)%", "Invalid common duration precision: xx."),
        (
            "%GRPC_STATUS(X)%",
            "GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER. Got: X",
        ),
        ("%COALESCE({})%", "COALESCE: JSON configuration must contain 'operators' array"),
        (
            "%DOWNSTREAM_CX_RTT%",
            "the command operator DOWNSTREAM_CX_RTT is not supported: the kernel is not asked for round-trip times",
        ),
    ] {
        assert_eq!(Format::parse(format).unwrap_err().to_string(), expected, "{format}");
    }
}

#[test]
fn literals_need_no_context() {
    assert_eq!(Format::parse("a%%b").unwrap().as_literal(), Some(&b"a%b"[..]));
    assert_eq!(Format::parse("").unwrap().as_literal(), Some(&b""[..]));
    assert_eq!(Format::parse("%HOSTNAME%").unwrap().as_literal(), None);
    assert_eq!(Format::parse("x%HOSTNAME%").unwrap().omitting_empty(true).to_bytes(&EmptyContext), b"x");
}

fn compile(format: Choice, omit_empty_values: bool) -> (LogFormat, String) {
    let message = SubstitutionFormatString {
        omit_empty_values,
        format: Some(format),
        ..SubstitutionFormatString::default()
    };
    let read =
        |_: &DataSource, path: &FieldPath| -> Result<String, _> { panic!("nothing to read at {path}") };
    LogFormat::compile(&message, &FieldPath::root(), &read).unwrap()
}

fn json(root: Struct, omit: bool) -> String {
    let (format, content_type) = compile(Choice::JsonFormat(root), omit);
    assert_eq!(content_type, "application/json");
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    format.append(&stream(), &mut scratch, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn lengths_are_refused_where_envoy_does() {
    let refused =
        |format: &str| Format::parse(format).err().map(|error| error.to_string()).unwrap_or_default();
    for name in
        ["START_TIME", "EMIT_TIME(%s)", "GRPC_STATUS", "CLUSTER_METADATA(m)", "DOWNSTREAM_PEER_CERT_V_END"]
    {
        let text = refused(&format!("%{name}:5%"));
        let name = name.split('(').next().unwrap_or_default();
        assert!(text.contains(&format!("{name} does not allow length to be specified.")), "{text}");
    }
    let text = refused("%DOWNSTREAM_REMOTE_PORT:5%");
    assert!(text.contains("DOWNSTREAM_REMOTE_PORT does not take any parameters or length"), "{text}");
    for format in
        ["%METADATA(CLUSTER:m):5%", "%DYNAMIC_METADATA(m):5%", "%REQ(a):5%", "%ENVIRONMENT(HOME):5%"]
    {
        assert_eq!(refused(format), "");
    }
    assert!(
        refused("%REQ_WITHOUT_QUERY(:PATH)%")
            .contains("Not supported field in StreamInfo: REQ_WITHOUT_QUERY")
    );
}

#[test]
fn json_keeps_types_and_sorts_keys() {
    let text = |text: &str| Kind::StringValue(text.to_owned());
    let root = || {
        fields([
            ("z", text("%RESPONSE_CODE%")),
            ("a", text("code %RESPONSE_CODE%")),
            ("missing", text("%HOSTNAME%")),
            ("meta", text("%DYNAMIC_METADATA(ns:inner)%")),
            ("agent", text("\"%REQ(user-agent)%\"")),
            ("fixed", Kind::NumberValue(7.0)),
            ("gone", Kind::StructValue(fields([("x", text("%HOSTNAME%"))]))),
        ])
    };
    assert_eq!(
        json(root(), false),
        "{\"a\":\"code 200\",\"agent\":\"\\\"curl\\\"\",\"fixed\":7,\"gone\":{\"x\":null},\"meta\":{\"flag\":true},\
         \"missing\":null,\"z\":200}\n"
    );
    assert_eq!(
        json(root(), true),
        "{\"a\":\"code 200\",\"agent\":\"\\\"curl\\\"\",\"fixed\":7,\"meta\":{\"flag\":true},\"z\":200}\n"
    );
    assert_eq!(json(fields([("x", text("%HOSTNAME%"))]), true), "{}\n");
}

#[test]
fn text_sources_are_written_as_they_are() {
    let source = DataSource {
        specifier: Some(Specifier::InlineString("%RESPONSE_CODE%!".to_owned())),
        ..DataSource::default()
    };
    let (format, content_type) = compile(Choice::TextFormatSource(source), false);
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    format.append(&stream(), &mut scratch, &mut out);
    assert_eq!((out.as_slice(), content_type.as_str()), (&b"200!"[..], "text/plain"));
}

#[test]
fn numbers_are_written_in_the_shorter_of_two_ways() {
    let table = [
        (100_000.0, "1e+05"),
        (120_000.0, "120000"),
        (-100_000.0, "-1e+05"),
        (99_999_999_999.0, "99999999999"),
        (123_456_789.123, "123456789.123"),
        (12_345_678_901_234_567.0, "12345678901234568"),
        (1e15, "1e+15"),
        (1e300, "1e+300"),
        (0.001, "0.001"),
        (0.0001, "1e-04"),
        (-2.5, "-2.5"),
        (0.0, "0"),
        (-0.0, "-0"),
        (123_456_700_000_000_000_000.0, "1.234567e+20"),
        (f64::NAN, "null"),
    ];
    for (number, expected) in table {
        let mut out = Vec::new();
        crate::json::append_value(Some(&Kind::NumberValue(number)), &mut out);
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}

#[test]
fn json_strings_are_escaped() {
    let mut out = Vec::new();
    crate::append_json_string(b"a\"\\\n\x01\xff\xc3\xa9", &mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "\"a\\\"\\\\\\n\\u0001\u{fffd}\u{e9}\"");
}

#[test]
fn dates_before_and_after_the_epoch() {
    let print = |seconds: i64, format: &str| {
        let at = if seconds < 0 {
            UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs())
        } else {
            UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs())
        };
        let mut out = Vec::new();
        TimeFormat::parse(format).append(at, &mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(print(0, "%a %b %e %T %Y %j"), "Thu Jan  1 00:00:00 1970 001");
    assert_eq!(print(951_782_400, "%F %A %u"), "2000-02-29 Tuesday 2");
    assert_eq!(print(1_735_689_599, "%F %T %j %I %p"), "2024-12-31 23:59:59 366 11 PM");
    assert_eq!(print(-1, "%F %T"), "1969-12-31 23:59:59");
    assert_eq!(print(0, "%Q %"), "%Q %");
    assert_eq!(print(0, "%E4Y%ET%:z %E*z %::z %P %-d/%-m %-j %-H %^a %^B %p"), {
        "1970T+00:00 +00:00:00 +00:00:00 am 1/1 1 0 THU JANUARY AM"
    });
    for (seconds, weeks) in [
        (1_609_459_200, "2020-53 20 00 00"),
        (1_767_225_600, "2026-01 26 00 00"),
        (1_735_516_800, "2025-01 25 52 53"),
        (1_325_376_000, "2011-52 11 01 00"),
        (1_609_372_800, "2020-53 20 52 52"),
        (1_795_305_600, "2026-47 26 47 46"),
        (1_672_531_200, "2022-52 22 01 00"),
        (1_451_779_200, "2015-53 15 01 00"),
    ] {
        assert_eq!(print(seconds, "%G-%V %g %U %W"), weeks, "{seconds}");
    }
}

#[test]
fn no_flags_are_a_dash_even_where_what_is_missing_is_left_out() {
    let mut out = Vec::new();
    let format = Format::parse("%RESPONSE_FLAGS%%RESPONSE_FLAGS_LONG%%PROTOCOL%").unwrap();
    format.omitting_empty(true).append(&EmptyContext, &mut out);
    assert_eq!(out, b"--");
}
