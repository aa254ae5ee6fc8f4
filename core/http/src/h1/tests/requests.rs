use super::*;
use crate::{KnownHeader, SpellingRules};

/// `GET / HTTP/1.1` with a host and these lines.
fn get(lines: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn post(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
}

fn line(first: &str) -> Vec<u8> {
    format!("{first}\r\nHost: a\r\n\r\n").into_bytes()
}

/// The entries that come behind `:method: GET|:path: /|:authority: a`.
fn fields(raw: &[u8]) -> String {
    let (_, head, consumed) = request(raw).unwrap_or_else(|e| panic!("{}: {e}", raw.escape_ascii()));
    assert_eq!(consumed, raw.len());
    let text = text(&head);
    let rest = text.split_once(":authority: a").expect("an authority").1;
    rest.trim_start_matches('|').to_owned()
}

fn refused(raw: &[u8]) -> (u16, &'static str) {
    match request(raw) {
        Err(error) => (error.status(), error.details()),
        Ok((_, head, _)) => panic!("accepted {}: {}", raw.escape_ascii(), text(&head)),
    }
}

const CODEC: (u16, &str) = (400, "http1.codec_error");
const CHARACTERS: (u16, &str) = (400, "http1.invalid_characters");
const URL: (u16, &str) = (400, "http1.invalid_url");
const AUTHORITY: (u16, &str) = (400, "http.invalid_authority");
const LOW: (u16, &str) = (426, "low_version");
const CODING: (u16, &str) = (501, "http1.invalid_transfer_encoding");
const CONFLICT: (u16, &str) = (400, "http1.content_length_and_chunked_not_allowed");
const NOMINATED: (u16, &str) = (400, "http1.connection_header_rejected");

#[test]
fn a_plain_request_is_read() {
    let (info, head, _) = request(&get("User-Agent: x\r\nX-Y:  z \r\n")).unwrap();
    assert_eq!(text(&head), ":method: GET|:path: /|:authority: a|user-agent: x|x-y: z");
    assert_eq!(info.body, BodyLength::None);
    assert_eq!(info.version, Version::Http11);
    assert!(info.keep_alive && !info.upgrade && !info.connect && !info.head && !info.expect_continue);
}

#[test]
fn request_lines_that_envoy_takes() {
    let path = |raw: &[u8]| String::from_utf8(request(raw).unwrap().1.path().to_vec()).unwrap();
    for raw in [
        "GET  /  HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "GET / HTTP/1.1 ",
        "\r\nGET / HTTP/1.1",
        "\n\nGET / HTTP/1.1",
    ] {
        assert_eq!(path(&line(raw)), "/", "{raw:?}");
    }
    for raw in [
        "GET / HTTP/1.1\r",
        "GET / HTTP/1.1 \r ",
        "GET / \rHTTP/1.1",
        "GET / HTTP/1.1\t",
        "\r\r\n\nGET / HTTP/1.1",
    ] {
        assert_eq!(path(&line(raw)), "/", "{raw:?}");
    }
    assert_eq!(path(&line("GET /a\"<>b#c HTTP/1.1")), "/a\"<>b#c");
    assert_eq!(path(&line("OPTIONS *x HTTP/1.1")), "*x");
    for method in ["PATCH", "PROPFIND", "MERGE", "SOURCE", "LINK", "ACL", "TRACE", "QUERY"] {
        assert_eq!(request(&line(&format!("{method} / HTTP/1.1"))).unwrap().1.method(), method.as_bytes());
    }
}

#[test]
fn request_lines_that_envoy_refuses() {
    for raw in [" GET / HTTP/1.1", "GET /a b HTTP/1.1", "GET / HTTP/1.1x", "GET / HTTP/11", "GET / http/1.1"]
    {
        assert_eq!(refused(&line(raw)), CODEC, "{raw:?}");
    }
    for raw in ["GET /\u{e9} HTTP/1.1", "GET /a\tb HTTP/1.1", "GET ?a HTTP/1.1", "GET x HTTP/1.1"] {
        assert_eq!(refused(&line(raw)), CODEC, "{raw:?}");
    }
    for method in ["FOO", "get", "PRI", "M-SEARCH", "BREW", "G=T"] {
        assert_eq!(refused(&line(&format!("{method} / HTTP/1.1"))), CODEC, "{method}");
    }
    for raw in ["GET /a\rb HTTP/1.1", "G\rET / HTTP/1.1", "GET"] {
        assert_eq!(refused(&line(raw)), CODEC, "{raw:?}");
    }
    for raw in ["GET / HTTP/1.1\u{c}", "GET /a\u{1} HTTP/1.1", "GET /a\u{c}b HTTP/1.1"] {
        assert_eq!(refused(&line(raw)), CHARACTERS, "{raw:?}");
    }
    for raw in ["GET /", "GET / HTTP/1.0", "GET / HTTP/1.2", "GET / HTTP/2.0", "GET / HTTP/0.9"] {
        assert_eq!(refused(&line(raw)), LOW, "{raw:?}");
    }
}

#[test]
fn only_a_control_character_at_the_start_is_refused_before_the_line_ends() {
    for first in 0..=255u8 {
        let result = parse_request(
            &[first],
            &mut HeadProgress::default(),
            &RequestOptions::default(),
            &mut HeaderMap::new(),
        );
        let refused = first <= b' ' && !matches!(first, b'\r' | b'\n');
        let expected = if refused { Err(RequestError::CodecError) } else { Ok(Parsed::Partial) };
        assert_eq!(result, expected, "{first:#x}");
    }
    assert_eq!(refused(b"\x16\x03\x01\r\n\r\n"), CODEC);
}

#[test]
fn a_line_without_version_is_a_whole_request() {
    let old = RequestOptions { accept_http_10: true, ..Default::default() };
    for raw in ["GET /x\r\n", "GET /x \t\n", "GET /x\r\nfoo\r\n\r\n"] {
        assert_eq!(refused(raw.as_bytes()), LOW, "{raw:?}");
        let (info, head, consumed) = request_with(raw.as_bytes(), &old).unwrap();
        assert_eq!((info.version, consumed), (Version::Http10, raw.find('\n').unwrap() + 1));
        assert_eq!(text(&head), ":method: GET|:path: /x");
    }
    let (info, head, consumed) = request(b"GET http://h/bHTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!((info.version, consumed), (Version::Http11, 24));
    assert_eq!((head.path(), head.authority()), (&b"/bHTTP/1.1"[..], &b"h"[..]));
    assert_eq!(request(b"GET /HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().1.get_str(":authority"), None);
}

#[test]
fn a_refusal_has_the_reason_phrase_as_its_body() {
    assert_eq!(RequestError::LowVersion.body(), "Upgrade Required");
    assert_eq!(RequestError::CodecError.body(), "Bad Request");
    assert_eq!(RequestError::TooManyHeaders.body(), "Request Header Fields Too Large");
    assert_eq!(RequestError::InvalidTransferEncoding.body(), "Not Implemented");
}

#[test]
fn absolute_targets_give_scheme_authority_and_path() {
    for (target, expected) in [
        ("http://h.com/p?q", "http h.com /p?q"),
        ("http://h.com", "http h.com /"),
        ("http://h.com?x=1", "http h.com ?x=1"),
        ("https://h.com/", "https h.com /"),
        ("http://h.com:80/", "http h.com:80 /"),
        ("http://h.com:0080/", "http h.com:0080 /"),
        ("http://u:p@h.com/", "http h.com /"),
        ("HTTP://H.com/A", "http H.com /A"),
        ("http://h.com/a#b", "http h.com /a#b"),
        ("http://[::1]:81/a", "http [::1]:81 /a"),
    ] {
        let (_, head, _) = request(&line(&format!("GET {target} HTTP/1.1"))).unwrap();
        let parts =
            [head.scheme(), head.authority(), head.path()].map(|b| String::from_utf8_lossy(b).into_owned());
        assert_eq!(parts.join(" "), expected);
    }
    for target in [
        "http:///x",
        "http://h.com:99999/",
        "http://h.com:a/",
        "http://h.com:/",
        "http://h_a.com/",
        "x+y://h/",
    ] {
        assert_eq!(refused(&line(&format!("GET {target} HTTP/1.1"))), URL, "{target}");
    }
    assert_eq!(refused(&line("GET ftp://h.com/ HTTP/1.1")), (400, "http1.invalid_scheme"));
    let options = RequestOptions { allow_absolute_url: false, ..Default::default() };
    let (_, head, _) = request_with(&line("GET http://h.com/p HTTP/1.1"), &options).unwrap();
    assert_eq!((head.path(), head.authority()), (&b"http://h.com/p"[..], &b"a"[..]));
}

#[test]
fn connect_takes_an_authority_and_no_body() {
    let (info, head, _) = request(&line("CONNECT b:80 HTTP/1.1")).unwrap();
    assert_eq!(text(&head), ":method: CONNECT|:authority: b:80");
    assert_eq!((info.body, info.connect), (BodyLength::UntilClose, true));
    for target in ["a", "/", "a:80/x"] {
        assert_eq!(refused(&line(&format!("CONNECT {target} HTTP/1.1"))), URL, "{target}");
    }
    let with = |field: &str| format!("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n").into_bytes();
    assert!(request(&with("content-length: 0")).is_ok());
    assert_eq!(refused(&with("content-length: 3")), (400, "http1.body_disallowed"));
    assert_eq!(refused(&with("transfer-encoding: chunked")), CODING);
}

#[test]
fn field_lines_that_envoy_takes() {
    for (lines, expected) in [
        ("x: a\r\n   b\r\n\tc\r\n", "x: a   b\\tc"),
        ("x:\r\n b\r\n", "x: b"),
        ("x: a\r\n \r\n", "x: a"),
        ("x: a\n b\n", "x: a b"),
        ("x: a\rb\r\n", "x: ab"),
        ("x: a\r\r\n", "x: a"),
        ("x: \t a b \t \r\n", "x: a b"),
        ("x: a\tb\r\n", "x: a\\tb"),
        ("x: \u{e9}\r\n", "x: \\xc3\\xa9"),
        ("x:\r\n", "x: "),
        ("a_b: 1\r\n", "a_b: 1"),
    ] {
        assert_eq!(fields(&get(lines)), expected, "{lines:?}");
    }
    assert_eq!(fields(b"GET / HTTP/1.1\nHost: a\nx: 1\n\n"), "x: 1");
    let long = "N".repeat(100);
    assert_eq!(fields(&get(&format!("{long}: 1\r\n"))), format!("{}: 1", long.to_lowercase()));
}

#[test]
fn field_lines_that_envoy_refuses() {
    for lines in [
        "foo : b\r\n",
        ": b\r\n",
        "foo\r\n",
        "fo o: b\r\n",
        "fo\u{e9}: b\r\n",
        "f(o: b\r\n",
        ":path: /x\r\n",
        "x\r: b\r\n",
        "\rz: 1\r\n",
        "\r\r\n",
    ] {
        assert_eq!(refused(&get(lines)), CODEC, "{lines:?}");
    }
    for lines in ["x: a\u{1}b\r\n", "x: a\u{7f}b\r\n", "x: a\u{b}b\r\n", "x: a\u{0}b\r\n", "x\u{0}: ab\r\n"] {
        assert_eq!(refused(&get(lines)), CHARACTERS, "{lines:?}");
    }
    assert_eq!(refused(b"GET / HTTP/1.1\r\n x: a\r\nHost: a\r\n\r\n"), CODEC);
}

#[test]
fn hosts_are_joined_and_checked() {
    let authority = |lines: &str| {
        let raw = format!("GET / HTTP/1.1\r\n{lines}\r\n\r\n").into_bytes();
        request(&raw).map(|(_, head, _)| head.get_str(":authority").map(|v| v.escape_ascii().to_string()))
    };
    assert_eq!(authority("host: a\r\nhost: b"), Ok(Some("a,b".into())));
    assert_eq!(authority("host:"), Ok(Some(String::new())));
    assert_eq!(authority("x: y"), Ok(None));
    for good in ["a@b", "a:99999999", "a_b", "[::1]:80"] {
        assert_eq!(authority(&format!("host: {good}")), Ok(Some(good.into())));
    }
    for bad in ["a b", "a/b", "\u{e9}", "\"", "a#b", "a?b", "a\\b"] {
        assert_eq!(authority(&format!("host: {bad}")), Err(RequestError::InvalidAuthority), "{bad}");
    }
    assert_eq!(refused(b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n"), AUTHORITY);
    assert_eq!(authority("host: a b\r\nconnection: host\r\n"), Ok(None));
}

#[test]
fn framing_is_never_ambiguous() {
    for (lines, expected) in [
        ("", BodyLength::None),
        ("content-length: 0\r\n", BodyLength::None),
        ("content-length: 3\r\n", BodyLength::Length(3)),
        ("content-length: 03\r\n", BodyLength::Length(3)),
        ("content-length: 18446744073709551615\r\n", BodyLength::Length(u64::MAX)),
        ("transfer-encoding: Chunked\r\n", BodyLength::Chunked),
    ] {
        assert_eq!(request(&post(lines)).unwrap().0.body, expected, "{lines:?}");
    }
    for value in ["3,3", "+3", "-1", "", "99999999999999999999", "18446744073709551616", "0x3", "3 3"] {
        assert_eq!(refused(&post(&format!("content-length: {value}\r\n"))), CODEC, "{value:?}");
    }
    assert_eq!(refused(&post("content-length: 3\r\ncontent-length: 3\r\n")), CODEC);
    assert_eq!(refused(&post("content-length: 3\r\ntransfer-encoding: chunked\r\n")), CONFLICT);
    assert_eq!(refused(&post("transfer-encoding: bogus\r\ncontent-length: 3\r\n")), CONFLICT);
    for value in ["chunked, chunked", "gzip, chunked", "", "bogus", "identity", "chunked,"] {
        assert_eq!(refused(&post(&format!("transfer-encoding: {value}\r\n"))), CODING, "{value:?}");
    }
    assert_eq!(refused(&post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n")), CODING);
}

#[test]
fn a_length_beside_chunks_can_be_allowed() {
    let options = RequestOptions { allow_chunked_length: true, ..Default::default() };
    let raw = post("content-length: 3\r\ntransfer-encoding: chunked\r\n");
    let (info, head, _) = request_with(&raw, &options).unwrap();
    assert_eq!(info.body, BodyLength::Chunked);
    assert_eq!(head.get_str("content-length"), None);
}

#[test]
fn nominated_headers_go_with_the_connection_header() {
    for (lines, expected) in [
        ("connection: x-a, x-b\r\nx-a: 1\r\nx-b: 2\r\nx-c: 3\r\n", "x-c: 3"),
        ("connection: a,b,c,d,e,f,g,h,i\r\n", ""),
        ("connection: te\r\nte: gzip, trailers\r\n", "connection: te|te: trailers"),
        ("connection: te\r\nte: gzip\r\n", ""),
        ("connection: connection, x\r\nx: 1\r\n", ""),
        ("connection: x\r\nconnection: y\r\nx: 1\r\ny: 1\r\nz: 1\r\n", "z: 1"),
        ("connection: cookie\r\ncookie: a=b\r\n", ""),
        ("connection: close, x-a\r\nx-a: 1\r\n", "connection: close"),
    ] {
        assert_eq!(fields(&get(lines)), expected, "{lines:?}");
    }
    for lines in [
        "connection: x-forwarded-for\r\n",
        "connection: X-Forwarded-Host\r\n",
        "connection: x-forwarded-proto\r\n",
        "connection: :path\r\n",
        "connection: a,b,c,d,e,f,g,h,i,j\r\n",
        "connection: close,close,close,close,close,close,close,close,close,close\r\n",
    ] {
        assert_eq!(refused(&get(lines)), NOMINATED, "{lines:?}");
    }
    assert_eq!(refused(&get(&format!("connection: te\r\nte: {}\r\n", "a".repeat(256)))), NOMINATED);
    let (info, head, _) = request(&get("connection: host\r\n")).unwrap();
    assert_eq!((head.get_str(":authority"), info.body), (None, BodyLength::None));
    let (info, ..) = request(&post("connection: content-length\r\ncontent-length: 3\r\n")).unwrap();
    assert_eq!(info.body, BodyLength::Length(3));
}

#[test]
fn keep_alive_follows_connection_and_version() {
    let keeps = |raw: &[u8]| {
        request_with(raw, &RequestOptions { accept_http_10: true, ..Default::default() })
            .unwrap()
            .0
            .keep_alive
    };
    assert!(keeps(&get("")));
    assert!(!keeps(&get("connection: foo, Close\r\n")));
    assert!(!keeps(&get("proxy-connection: close\r\n")));
    assert!(!keeps(&line("GET / HTTP/1.0")));
    assert!(keeps(b"GET / HTTP/1.0\r\nconnection: Keep-Alive\r\nhost: a\r\n\r\n"));
}

#[test]
fn http_10_takes_the_default_host() {
    let options = RequestOptions {
        accept_http_10: true,
        default_host_for_http_10: Some("d.example".into()),
        ..Default::default()
    };
    let (info, head, _) = request_with(b"GET / HTTP/1.0\r\n\r\n", &options).unwrap();
    assert_eq!((head.authority(), info.version), (&b"d.example"[..], Version::Http10));
    let (_, head, _) = request_with(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n", &options).unwrap();
    assert_eq!(head.authority(), b"a");
    let nominated = b"GET / HTTP/1.0\r\nhost: a\r\nconnection: host\r\n\r\n";
    let (_, head, _) = request_with(nominated, &options).unwrap();
    assert_eq!(head.authority(), b"d.example");
}

#[test]
fn upgrades_keep_their_headers_and_h2c_is_not_one() {
    let (info, head, _) = request(&get("connection: Upgrade\r\nupgrade: websocket\r\n")).unwrap();
    assert!(info.upgrade);
    assert_eq!(info.body, BodyLength::UntilClose);
    assert!(text(&head).ends_with("connection: Upgrade|upgrade: websocket"));
    let (info, head, _) =
        request(&get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"))
            .unwrap();
    assert!(!info.upgrade);
    assert_eq!(text(&head), ":method: GET|:path: /|:authority: a");
    assert!(!request(&get("upgrade: websocket\r\n")).unwrap().0.upgrade);
}

#[test]
fn expectation_is_reported() {
    assert!(request(&post("expect: 100-Continue\r\ncontent-length: 3\r\n")).unwrap().0.expect_continue);
    assert!(!request(&post("expect: foo\r\n")).unwrap().0.expect_continue);
}

#[test]
fn repeats_of_slotted_headers_are_joined_and_others_kept_apart() {
    let raw = get(
        "accept: a\r\naccept: b\r\nUser-Agent: a\r\ncookie: a\r\nuser-agent: b\r\ncookie: b\r\nx-foo: a\r\n\
         x-foo: b\r\nx-forwarded-for:\r\nx-forwarded-for: b\r\nforwarded: a\r\nforwarded: b\r\n",
    );
    let expected = "accept: a,b|user-agent: a,b|cookie: a|cookie: b|x-foo: a|x-foo: b|x-forwarded-for: b|\
                    forwarded: a|forwarded: b";
    assert_eq!(fields(&raw), expected);
}

#[test]
fn thousands_of_repeats_count_once_and_cost_their_bytes() {
    let raw = get(&"via: a\r\naccept: b\r\n".repeat(3000));
    let (_, head, _) = request(&raw).unwrap();
    assert_eq!(head.len(), 5);
    assert_eq!(head.get_str("via").unwrap().len(), 5999);
    assert!(head.capacity_bytes() < 1024 * 1024, "{}", head.capacity_bytes());
}

#[test]
fn limits_are_those_of_envoy() {
    let sized = |total: usize| {
        let fixed = get("x: \r\n").len();
        get(&format!("x: {}\r\n", "a".repeat(total - fixed)))
    };
    assert_eq!(sized(61440).len(), 61440);
    assert!(request(&sized(61440)).is_ok());
    assert_eq!(refused(&sized(61441)), (431, "http1.headers_too_large"));
    assert!(request(&get(&"x:1\r\n".repeat(99))).is_ok());
    assert_eq!(refused(&get(&"x:1\r\n".repeat(100))), (431, "http1.too_many_headers"));
    let unfinished = &sized(70000)[..62000];
    let mut progress = HeadProgress::default();
    let result = parse_request(unfinished, &mut progress, &RequestOptions::default(), &mut HeaderMap::new());
    assert_eq!(result, Err(RequestError::HeadersTooLarge));
}

#[test]
fn underscores_follow_the_option() {
    let raw = get("a_b: 1\r\nc: 2\r\n");
    let with = |underscores| request_with(&raw, &RequestOptions { underscores, ..Default::default() });
    assert_eq!(with(Underscores::Reject).unwrap_err().details(), "http1.unexpected_underscore");
    assert!(text(&with(Underscores::Drop).unwrap().1).ends_with(":authority: a|c: 2"));
}

#[test]
fn custom_methods_are_tokens() {
    let options = RequestOptions { allow_custom_methods: true, ..Default::default() };
    assert_eq!(request_with(&line("brew / HTTP/1.1"), &options).unwrap().1.method(), b"brew");
    assert_eq!(request_with(&line("b(w / HTTP/1.1"), &options).unwrap_err(), RequestError::CodecError);
}

#[test]
fn a_reused_map_holds_only_the_last_request() {
    let mut head = HeaderMap::new();
    for raw in [get("x: 1\r\naccept: b\r\n"), get("")] {
        parse_request(&raw, &mut HeadProgress::default(), &RequestOptions::default(), &mut head).unwrap();
    }
    assert_eq!(text(&head), ":method: GET|:path: /|:authority: a");
}

#[test]
fn ignored_upgrades_leave_an_ordinary_request() {
    let ignored = UpgradeFilter::new(|protocol| protocol.starts_with(b"TLS/"));
    let options = RequestOptions { ignored_upgrades: Some(ignored), ..Default::default() };
    let with = |upgrade: &str| {
        let raw = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: {upgrade}\r\n\r\n");
        let mut head = HeaderMap::new();
        let parsed = parse_request(raw.as_bytes(), &mut HeadProgress::default(), &options, &mut head);
        let Ok(Parsed::Complete { info, .. }) = parsed else { panic!("{parsed:?}") };
        (info.upgrade, head.get_str("upgrade").map(<[u8]>::to_vec), head.get_str("connection").is_some())
    };
    assert_eq!(with("TLS/1.2"), (false, None, false));
    assert_eq!(with("TLS/1.2, foo"), (true, Some(b"foo".to_vec()), true));
}

#[test]
fn names_are_written_again_as_they_came() {
    let options = RequestOptions { spelling: Some(SpellingRules::default()), ..Default::default() };
    let raw = b"POST / HTTP/1.1\r\nHOST: a\r\nX-ReQ: 1\r\nTransfer-ENCODING: chunked\r\n\r\n";
    let mut head = HeaderMap::new();
    parse_request(raw, &mut HeadProgress::default(), &options, &mut head).unwrap();
    head.append(b"x-new", b"2");
    let mut out = Vec::new();
    write_request_head(&mut out, &head, RequestWriteOptions::default(), false);
    let expected = "POST / HTTP/1.1\r\nHOST: a\r\nX-ReQ: 1\r\nx-new: 2\r\nTransfer-ENCODING: chunked\r\n\r\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    head.clear();
    head.append_known(KnownHeader::Method, b"GET");
    head.append_known(KnownHeader::Authority, b"a");
    let mut out = Vec::new();
    write_request_head(&mut out, &head, RequestWriteOptions::default(), true);
    assert_eq!(out, b"GET  HTTP/1.1\r\nhost: a\r\n\r\n", "the spelling goes with the head it came with");
}

#[test]
fn errors_of_whole_heads_are_answered_in_their_version() {
    let old = RequestOptions { accept_http_10: true, ..Default::default() };
    let raw = b"\r\nGET / HTTP/1.0\r\nhost: a\r\n\r\n";
    assert_eq!(RequestError::InvalidTransferEncoding.version(raw, &old), Version::Http10);
    assert_eq!(RequestError::CodecError.version(raw, &old), Version::Http11);
    let unheard_of = b"GET / HTTP/1.2\r\nhost: a\r\n\r\n";
    assert_eq!(RequestError::InvalidAuthority.version(unheard_of, &old), Version::Http10);
    assert_eq!(
        RequestError::InvalidTransferEncoding.version(raw, &RequestOptions::default()),
        Version::Http11
    );
}
