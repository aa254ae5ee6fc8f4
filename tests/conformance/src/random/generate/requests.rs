//! HTTP/1 requests, byte by byte.

use serde_json::{Value, json};

use super::super::case::NUMBER;
use super::super::dice::Dice;

const PATHS: &[&str] = &[
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/api/v1/users",
    "/api/v1/users/42",
    "//a//b",
    "/a/../b",
    "/a/./b",
    "/a/%2e%2e/b",
    "/a%2Fb",
    "/a%2fb/..%2Fc",
    "/a%5Cb",
    "/a\\b",
    "/a?x=1",
    "/a?x=1&y=2&x=3",
    "/b?",
    "/a;p=1/b",
    "/a;p=1?x=2",
    "/A/B",
    "/a%20b",
    "/%41",
    "/a/b/",
    "/x#frag",
    "/aa",
    "/api",
    "/api/",
    "/old/path/here",
    "/re/123/abc",
    "/re/12",
    "/u/jo/profile",
    "/q?debug",
    "/q?debug=",
    "/q?debug=true&n=5",
    "/q?n=99",
    "/é",
    "/a%ZZ",
    "/a%00b",
    "/..",
    "/a/..",
    "/.",
    "/a?b#c",
    "/a//",
    "/%2E%2E/x",
    "/a?x=%2F",
    "/a/b;x",
    "/long/zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
];

const HOSTS: &[&str] = &[
    "a.com",
    "www.a.com",
    "A.com",
    "a.com:80",
    "a.com:8080",
    "x.b.com",
    "y.x.b.com",
    "c.org",
    "c.net",
    "d",
    "127.0.0.1",
    "[::1]:90",
    "a.com.",
    "a.com.:80",
    "",
    "héllo",
    "a.com:",
    "a.com:x",
];

const METHODS: &[&str] = &[
    "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "POST", "POST", "POST", "HEAD", "HEAD", "PUT",
    "DELETE", "OPTIONS", "PATCH", "TRACE", "FOO", "get",
];

/// Headers of requests, each with the values it may have.
pub const HEADERS: &[(&str, &[&str])] = &[
    (
        "x-forwarded-for",
        &[
            "1.2.3.4",
            "10.0.0.1",
            "1.2.3.4, 10.0.0.1",
            "1.2.3.4,5.6.7.8,9.9.9.9",
            "garbage",
            "::1",
            " 1.1.1.1 , ,2.2.2.2",
        ],
    ),
    ("x-forwarded-proto", &["http", "https", "ftp", "HTTPS", "http,https"]),
    ("x-forwarded-host", &["q.com"]),
    ("x-forwarded-port", &["99", "x"]),
    (
        "x-request-id",
        &["abc", "7b674932-635d-4ceb-b907-12674f8c7267", "7b674932-635d-9ceb-b907-12674f8c7267", ""],
    ),
    ("x-envoy-retry-on", &["5xx"]),
    ("x-envoy-upstream-rq-timeout-ms", &["5000", "x"]),
    ("x-envoy-force-trace", &["true"]),
    ("x-envoy-foo", &["1"]),
    ("x-envoy-original-path", &["/zz"]),
    ("x-envoy-internal", &["true", "false"]),
    ("x-envoy-external-address", &["9.8.7.6"]),
    ("x-envoy-decorator-operation", &["op"]),
    ("x-envoy-max-retries", &["2"]),
    ("x-envoy-expected-rq-timeout-ms", &["44"]),
    ("x-envoy-downstream-service-cluster", &["zz"]),
    ("x-envoy-attempt-count", &["7"]),
    ("x-envoy-ip-tags", &["t"]),
    ("x-envoy-peer-metadata", &["m"]),
    ("x-client-trace-id", &["c1"]),
    ("x-b3-traceid", &["463ac35c9f6413ad"]),
    ("traceparent", &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
    ("te", &["trailers", "gzip", "trailers, gzip", ""]),
    (
        "connection",
        &[
            "close",
            "keep-alive",
            "x-hop",
            "te",
            "close, x-hop",
            "upgrade",
            "Keep-Alive, Upgrade",
            "host",
            "",
            ",,",
        ],
    ),
    ("x-hop", &["1"]),
    ("keep-alive", &["timeout=5"]),
    ("proxy-connection", &["keep-alive", "close"]),
    ("upgrade", &["websocket", "h2c", "foo"]),
    ("expect", &["100-continue", "nope"]),
    ("referer", &["http://a.com/x", "r1", "", "http://a.com/x#f", "https://u:p@a.com/", "//x", "ftp://x/y"]),
    ("user-agent", &["ua/1", "", "Mozilla/5.0"]),
    ("cookie", &["a=1; b=2", "a=1", "sess=\"q\"; a=3", "=;;;"]),
    ("via", &["1.1 x"]),
    ("server", &["mine"]),
    ("date", &["now"]),
    ("accept", &["*/*", "text/html, */*"]),
    ("origin", &["http://a.com", "https://evil.com", "null"]),
    ("access-control-request-method", &["GET"]),
    ("x_under", &["1"]),
    ("x-UPPER-Case", &["Vv"]),
    ("x-num", &["5", "99", "-3", "abc", "7.5", " 8 "]),
    ("x-team", &["blue", "red", "BLUE", ""]),
    ("x-multi", &["a", "b", "a,b"]),
    ("content-type", &["application/grpc", "text/plain", "application/json"]),
    ("grpc-timeout", &["1S", "5m", "bad"]),
    ("authorization", &["Bearer x"]),
    ("range", &["bytes=0-1"]),
    ("if-none-match", &["*"]),
    ("trailer", &["x-t"]),
    ("x-weight", &["0", "37", "99", "100", "a"]),
    ("x-cluster", &["one", "two", "nope", ""]),
    ("x-empty", &[""]),
    ("x-ff-client", &["x"]),
    ("forwarded", &["for=1.1.1.1"]),
    ("x-forwarded-client-cert", &["By=x;URI=y"]),
    ("x-spaces", &["  a   b\t"]),
    ("x-bytes", &["é"]),
    ("x-envoy-fault-abort-request", &["418", "99"]),
];

/// A method, mostly one that is common.
pub fn method(dice: &mut Dice) -> &'static str {
    dice.pick(METHODS)
}

/// A path with its query.
pub fn path(dice: &mut Dice) -> &'static str {
    dice.pick(PATHS)
}

/// A host, in half of the cases `a.com`.
pub fn host(dice: &mut Dice) -> &'static str {
    if dice.chance(50) { dice.pick(HOSTS) } else { "a.com" }
}

/// Some headers.
pub fn headers(dice: &mut Dice) -> Vec<(&'static str, &'static str)> {
    let mut headers = Vec::new();
    for _ in 0..dice.pick(&[0, 1, 1, 2, 2, 3, 4, 6]) {
        let (name, values) = dice.pick(HEADERS);
        headers.push((name, dice.pick(values)));
        if dice.chance(10) {
            headers.push((name, dice.pick(values)));
        }
    }
    headers
}

/// The step that sends request `number` over HTTP/1 on a connection of its own.
pub fn http1(dice: &mut Dice, number: usize) -> Value {
    let method = method(dice);
    let mut target = path(dice).to_owned();
    if dice.chance(5) {
        target = format!("http://{}{target}", dice.pick(&["a.com", "c.org:81", "z"]));
    }
    let version = if dice.chance(96) { "HTTP/1.1" } else { dice.pick(&["HTTP/1.0", "HTTP/1.2"]) };
    let mut lines = Vec::new();
    if dice.chance(97) {
        lines.push(format!("host: {}", host(dice)));
    }
    lines.extend(headers(dice).into_iter().map(|(name, value)| format!("{name}: {value}")));
    let mut body = String::new();
    if matches!(method, "POST" | "PUT" | "PATCH") || dice.chance(4) {
        let content = "x".repeat(dice.pick(&[0, 1, 10, 1000]));
        if dice.chance(30) {
            lines.push("transfer-encoding: chunked".to_owned());
            if !content.is_empty() {
                body = format!("{:x}\r\n{content}\r\n", content.len());
            }
            body.push_str("0\r\n");
            if dice.chance(20) {
                body.push_str("x-trailer: t\r\n");
            }
            body.push_str("\r\n");
        } else {
            lines.push(format!("content-length: {}", content.len()));
            body = content;
        }
    }
    dice.shuffle(&mut lines);
    lines.push(format!("{NUMBER}: {number}"));
    let raw = format!("{method} {target} {version}\r\n{}\r\n\r\n{body}", lines.join("\r\n"));
    json!({ "raw": raw, "method": method, "read": "then_glance" })
}
