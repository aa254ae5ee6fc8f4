use super::*;
use crate::context::{EmptyContext, NumberFact, TextFact};
use dhow_http::HeaderMap;
use std::borrow::Cow;

struct Request(HeaderMap);

impl FormatContext for Request {
    fn request_headers(&self) -> Option<&HeaderMap> {
        Some(&self.0)
    }

    fn number(&self, fact: NumberFact) -> Option<u64> {
        match fact {
            NumberFact::ConnectionId => Some(7),
            NumberFact::BytesReceived => Some(5),
            NumberFact::ResponseCode => Some(404),
            _ => None,
        }
    }

    fn text(&self, fact: TextFact) -> Option<Cow<'_, str>> {
        (fact == TextFact::Protocol).then_some("HTTP/2".into())
    }
}

fn request() -> Request {
    let mut map = HeaderMap::new();
    for (name, value) in [
        (":path", "/a/b?x=1"),
        (":method", "GET"),
        (":authority", "host:80"),
        ("x", "1"),
        ("m", "1"),
        ("m", "2"),
    ] {
        map.append(name.as_bytes(), value.as_bytes());
    }
    Request(map)
}

fn print(text: &str) -> String {
    let mut out = Vec::new();
    let expression = CelExpression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    if expression.append(&request(), &mut out) { String::from_utf8(out).unwrap() } else { "-".to_owned() }
}

#[test]
fn values_print_as_envoy_prints_them() {
    for (text, expected) in [
        ("\"abc\"", "abc"),
        ("1u", "1"),
        ("2.0", "2"),
        ("1e30", "1e+30"),
        ("1.0/3.0", "0.333333"),
        ("123456789.0", "1.23457e+08"),
        ("0.00001", "1e-05"),
        ("0.0001", "0.0001"),
        ("null", "NULL"),
        ("b\"a\\xff\" == b\"a\\377\"", "true"),
        (r#"r"a\d""#, r"a\d"),
        (r#""\u00e4\x41\101""#, "äAA"),
        ("\"\"\"tri\"ple\"\"\"", "tri\"ple"),
        ("[1]", "CelList value"),
        ("{\"a\": 1}", "CelMap value"),
        ("type(1)", "CelType value"),
        ("request", "CelMap value"),
        ("timestamp(\"2020-01-01T00:00:00.5+01:00\")", "2019-12-31T23:00:00.5+00:00"),
        ("duration(\"90m\")", "1h30m"),
        ("duration(\"1.5s\")", "1.5s"),
        ("duration(\"-1ms\")", "-1ms"),
        ("duration(\"274746ns\")", "274.746us"),
        ("duration(\"0s\")", "0"),
        ("0x1F", "31"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("1 // comment", "1"),
    ] {
        assert_eq!(print(text), expected, "{text}");
    }
}

#[test]
fn operators_bind_and_compare_as_in_the_language() {
    for (text, expected) in [
        ("1 + 2 * 3 - 4 / 2", "5"),
        ("(1 + 2) * 3", "9"),
        ("-7/2", "-3"),
        ("1 < 2 && 2 < 3", "true"),
        ("1 > 2 ? \"a\" : 2 > 1 ? \"b\" : \"c\"", "b"),
        ("1 == 1u", "true"),
        ("1 < 1.5", "true"),
        ("\"a\" == 1", "false"),
        ("[1, 2.0] == [1, 2]", "true"),
        ("{1: 2} == {1: 2}", "true"),
        ("2 in [1, 2]", "true"),
        ("\"a\" in {\"a\": 1}", "true"),
        ("{\"a\": {\"b\": 1}}.a.b", "1"),
        ("[1, 2][1]", "2"),
        ("double(\"nan\") == double(\"nan\")", "false"),
        ("type(\"a\") == string", "true"),
        ("size(\"äb\")", "2"),
        ("\"abc\".matches(\"b\")", "true"),
        ("\"abc\".matches(\"^b\")", "false"),
        ("timestamp(\"2020-01-02T03:04:05.678Z\").getMilliseconds()", "678"),
        ("timestamp(\"2020-01-02T03:04:05Z\").getHours(\"+02:00\")", "5"),
        ("timestamp(\"2020-03-01T00:00:00Z\").getDayOfYear()", "60"),
        ("timestamp(\"2020-01-02T00:00:00Z\") - timestamp(\"2020-01-01T00:00:00Z\")", "24h"),
        ("int(timestamp(\"2000-03-01T00:00:00Z\"))", "951868800"),
    ] {
        assert_eq!(print(text), expected, "{text}");
    }
}

#[test]
fn what_has_no_value_has_none() {
    for text in [
        "1/0",
        "1+1u",
        "9223372036854775807 + 1",
        "\"a\"+\"b\"",
        "[1]+[2]",
        "foo",
        "foo.bar",
        "has(foo.bar)",
        "request.foo",
        "request.headers.q == \"a\"",
        "!(request.headers.q == \"a\")",
        "foo || false",
        "int(\"a\")",
        "uint(-1)",
        "[1][5]",
    ] {
        assert_eq!(print(text), "-", "{text}");
    }
    assert_eq!((print("foo || true"), print("foo && false")), ("true".to_owned(), "false".to_owned()));
}

#[test]
fn attributes_are_those_of_the_stream() {
    for (text, expected) in [
        ("request.path", "/a/b?x=1"),
        ("request.url_path", "/a/b"),
        ("request.query", "x=1"),
        ("request.host", "host:80"),
        ("request.headers[\"X\"]", "1"),
        ("request.headers.m", "1,2"),
        ("request.headers.size()", "6"),
        ("has(request.headers.x) && !has(request.headers.q)", "true"),
        ("request.size", "5"),
        ("request.protocol", "HTTP/2"),
        ("response.code", "404"),
        ("response.grpc_status", "12"),
        ("connection.id == 7u", "true"),
        ("connection.mtls", "false"),
        ("xds.route_name == \"\"", "true"),
    ] {
        assert_eq!(print(text), expected, "{text}");
    }
}

#[test]
fn only_truth_holds() {
    let holds = |text| CelExpression::parse(text).unwrap().holds(&request());
    assert!(holds("request.headers.x == \"1\""));
    assert!(!holds("request.headers.x"));
    assert!(!holds("request.headers.q == \"1\""));
    assert!(!CelExpression::parse("request.path == \"\"").unwrap().holds(&EmptyContext));
}

#[test]
fn what_is_not_an_expression_is_refused() {
    for (text, reason) in [
        (
            "1 +",
            "Not able to parse expression: INVALID_ARGUMENT: ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>'",
        ),
        ("\"a\" matches", "ERROR: <input>:1:5: Syntax error"),
        ("`a`", "ERROR: <input>:1:1: Syntax error"),
        ("a.?b", "unsupported syntax '.?'"),
        ("\"a", "Syntax error"),
        ("request.headers.all(x, true)", "failed to create an expression: Comprehension support is disabled"),
        (
            "string(1)",
            "failed to create an expression: No overload found in reference resolve step for string",
        ),
        ("\"a\".upperAscii()", "No overload found in reference resolve step for upperAscii"),
        ("x.matches(\"(\")", "failed to create an expression: invalid regular expression: "),
        ("xds.node.id", "the attribute xds.node is not supported"),
        ("upstream[\"locality\"]", "the attribute upstream.locality is not supported"),
        ("request.time.getHours(\"Europe/Berlin\")", "time zone 'Europe/Berlin'"),
        ("google.protobuf.Int32Value{value: 1}", "messages are not supported"),
    ] {
        let error = CelExpression::parse(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
    let deep = "(".repeat(5000) + "1" + &")".repeat(5000);
    assert!(CelExpression::parse(&deep).unwrap_err().contains("recursion limit"));
}

#[test]
fn messages_mean_what_their_text_means() {
    let json = r#"{"call_expr": {"function": "_&&_", "args": [
        {"call_expr": {"function": "_==_", "args": [
            {"call_expr": {"function": "_[_]", "args": [
                {"select_expr": {"operand": {"ident_expr": {"name": "request"}}, "field": "headers"}},
                {"const_expr": {"string_value": "x"}}]}},
            {"const_expr": {"string_value": "1"}}]}},
        {"call_expr": {"function": "startsWith", "target":
            {"select_expr": {"operand": {"ident_expr": {"name": "request"}}, "field": "path"}},
            "args": [{"const_expr": {"string_value": "/a"}}]}}]}}"#;
    let message: expr::Expr =
        dhow_proto::load_json(json, &dhow_proto::LoadOptions::default()).unwrap().message;
    let expression = CelExpression::from_message(&message).unwrap();
    assert!(expression.holds(&request()));
    assert!(!expression.holds(&EmptyContext));
    assert!(CelExpression::from_message(&expr::Expr::default()).is_err());
}

#[test]
fn the_response_may_be_unimportant() {
    let already = |text| CelExpression::parse(text).unwrap().holds_already(&request());
    assert_eq!(already("response.code == 200"), None);
    assert_eq!(already("response.code == 200 || request.headers.x == \"1\""), Some(true));
    assert_eq!(already("false && response.flags == 0"), Some(false));
    assert_eq!(already("request.headers.x == \"2\""), Some(false));
    // What is missing but the response will not come.
    assert_eq!(already("request.headers.q == \"1\""), Some(false));
}

#[test]
fn matchers_take_parsed_expressions_of_any_age() {
    let read = |json: &str| {
        let options = dhow_proto::LoadOptions::default();
        let matcher = format!(r#"{{"expr_match": {json}}}"#);
        let matcher: dhow_proto::supplement::CelMatcher =
            dhow_proto::load_json(&matcher, &options).unwrap().message;
        CelExpression::for_matcher(&matcher.expr_match.unwrap())
    };
    let constant = |value: bool| format!(r#"{{"expr": {{"const_expr": {{"bool_value": {value}}}}}}}"#);
    let (yes, no) = (constant(true), constant(false));
    for (json, expected) in [
        (format!(r#"{{"cel_expr_parsed": {yes}}}"#), true),
        (format!(r#"{{"cel_expr_checked": {yes}, "cel_expr_parsed": {no}}}"#), true),
        (format!(r#"{{"parsed_expr": {yes}}}"#), true),
        (format!(r#"{{"checked_expr": {yes}, "cel_expr_parsed": {no}}}"#), false),
    ] {
        let expression = read(&json).unwrap();
        let expression = expression.downcast_ref::<CelExpression>().unwrap();
        assert_eq!(expression.holds(&EmptyContext), expected, "{json}");
    }
    let unset = "failed to create an expression: CEL expression not set.";
    assert_eq!(read(r#"{"cel_expr_string": "true"}"#).unwrap_err(), unset);
}
