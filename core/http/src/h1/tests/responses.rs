use super::*;

fn ok(lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

fn info(raw: &[u8]) -> ResponseInfo {
    response(raw, Answering::Ordinary).unwrap_or_else(|e| panic!("{}: {e}", raw.escape_ascii())).0
}

fn refused(raw: &[u8]) -> ResponseError {
    match response(raw, Answering::Ordinary) {
        Err(error) => error,
        Ok((_, head, _)) => panic!("accepted {}: {}", raw.escape_ascii(), text(&head)),
    }
}

#[test]
fn a_plain_response_is_read() {
    let raw = ok("Content-Length: 2\r\nX: y\r\n");
    let (info, head, consumed) = response(&raw, Answering::Ordinary).unwrap();
    assert_eq!(text(&head), ":status: 200|content-length: 2|x: y");
    assert_eq!((info.status, info.body, consumed), (200, BodyLength::Length(2), raw.len()));
    assert!(info.keep_alive && !info.informational);
}

#[test]
fn status_lines_that_envoy_takes() {
    for line in
        ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1  200  OK", "HTTP/1.1\t200\tOK", "HTTP/1.1 200 \u{e9}"]
    {
        assert_eq!(info(format!("{line}\r\ncontent-length: 2\r\n\r\n").as_bytes()).status, 200, "{line:?}");
    }
    assert_eq!(info(b"HTTP/1.1 999 x\r\n\r\n").status, 999);
    assert_eq!(info(b"HTTP/1.1 200 OK\ncontent-length: 2\nx: a\n\n").body, BodyLength::Length(2));
}

#[test]
fn status_lines_that_envoy_refuses() {
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 abc OK",
        "HTTP/1.1 200x OK",
        "200 OK",
        "http/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "\nHTTP/1.1 200 OK",
        "garbage",
        "ICY 200 OK",
        "HTTP/1.1",
    ] {
        assert_eq!(refused(format!("{line}\r\n\r\n").as_bytes()), ResponseError::CodecError, "{line:?}");
    }
    assert_eq!(refused(b"HTTP/1.1 200 a\x01b\r\n\r\n"), ResponseError::InvalidCharacters);
}

#[test]
fn the_end_of_the_body_is_known() {
    for (lines, body, keep_alive) in [
        ("", BodyLength::UntilClose, false),
        ("content-length: 0\r\n", BodyLength::None, true),
        ("content-length: 2\r\nconnection: close\r\n", BodyLength::Length(2), false),
        ("transfer-encoding: CHUNKED\r\n", BodyLength::Chunked, true),
    ] {
        let info = info(&ok(lines));
        assert_eq!((info.body, info.keep_alive), (body, keep_alive), "{lines:?}");
    }
    let old = info(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\n");
    assert_eq!((old.body, old.keep_alive, old.version), (BodyLength::Length(2), true, Version::Http10));
    assert!(!info(b"HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\n").keep_alive);
}

#[test]
fn framing_is_never_ambiguous() {
    for lines in [
        "content-length: 2\r\ncontent-length: 2\r\n",
        "content-length: x\r\n",
        "content-length: \r\n",
        "content-length: +2\r\n",
    ] {
        assert_eq!(refused(&ok(lines)), ResponseError::CodecError, "{lines:?}");
    }
    let both = ok("content-length: 2\r\ntransfer-encoding: chunked\r\n");
    assert_eq!(refused(&both), ResponseError::ContentLengthAndChunkedNotAllowed);
    for coding in ["bogus", "identity", "gzip, chunked"] {
        let raw = ok(&format!("transfer-encoding: {coding}\r\n"));
        assert_eq!(refused(&raw), ResponseError::InvalidTransferEncoding, "{coding}");
    }
}

#[test]
fn statuses_without_body() {
    for raw in [
        "204 x\r\n",
        "204 x\r\ncontent-length: 0\r\n",
        "304 x\r\ncontent-length: 5\r\n",
        "304 x\r\ntransfer-encoding: chunked\r\n",
    ] {
        let info = info(format!("HTTP/1.1 {raw}\r\n").as_bytes());
        assert_eq!(
            (info.body, info.keep_alive, info.informational),
            (BodyLength::None, true, false),
            "{raw:?}"
        );
    }
    assert_eq!(
        refused(b"HTTP/1.1 204 x\r\ncontent-length: 2\r\n\r\n"),
        ResponseError::ContentLengthNotAllowed
    );
    assert_eq!(
        refused(b"HTTP/1.1 204 x\r\ncontent-length: 00\r\n\r\n"),
        ResponseError::ContentLengthNotAllowed
    );
    let chunked = b"HTTP/1.1 204 x\r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(refused(chunked), ResponseError::TransferEncodingNotAllowed);
    assert_eq!(info(b"HTTP/1.1 205 x\r\ncontent-length: 2\r\n\r\n").body, BodyLength::Length(2));
}

#[test]
fn interim_responses_are_told_from_final_ones() {
    for status in [100, 102, 103, 199] {
        let info = info(format!("HTTP/1.1 {status} x\r\nlink: y\r\n\r\n").as_bytes());
        assert!(info.informational, "{status}");
    }
    assert_eq!(
        refused(b"HTTP/1.1 100 C\r\ncontent-length: 2\r\n\r\n"),
        ResponseError::ContentLengthNotAllowed
    );
    let plain = info(b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n");
    assert_eq!((plain.informational, plain.body, plain.keep_alive), (false, BodyLength::None, false));
}

#[test]
fn the_request_decides_about_heads_and_tunnels() {
    let raw = ok("content-length: 9\r\n");
    assert_eq!(response(&raw, Answering::Head).unwrap().0.body, BodyLength::None);
    assert_eq!(response(&raw, Answering::Connect).unwrap().0.body, BodyLength::UntilClose);
    let refusal = b"HTTP/1.1 403 x\r\ncontent-length: 9\r\n\r\n";
    assert_eq!(response(refusal, Answering::Connect).unwrap().0.body, BodyLength::Length(9));
    let switch = b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n";
    assert_eq!(response(switch, Answering::Upgrade).unwrap().0.body, BodyLength::UntilClose);
}

#[test]
fn field_lines_are_read_as_in_requests() {
    for (lines, expected) in [
        ("x: a\r\n b\r\n", "x: a b"),
        ("x: a\rb\r\n", "x: ab"),
        ("x: \u{e9}\r\n", "x: \\xc3\\xa9"),
        ("a_b: y\r\n", "a_b: y"),
    ] {
        let (_, head, _) = response(&ok(lines), Answering::Ordinary).unwrap();
        assert_eq!(text(&head), format!(":status: 200|{expected}"), "{lines:?}");
    }
    for lines in ["x : y\r\n", "xy\r\n", "(: y\r\n", ": y\r\n", ":status: 404\r\n"] {
        assert_eq!(refused(&ok(lines)), ResponseError::CodecError, "{lines:?}");
    }
    for lines in ["x: a\u{1}\r\n", "x: a\u{0}\r\n"] {
        assert_eq!(refused(&ok(lines)), ResponseError::InvalidCharacters, "{lines:?}");
    }
}

#[test]
fn repeats_of_slotted_headers_are_joined_and_others_kept_apart() {
    let mut lines = String::new();
    for name in
        ["date", "set-cookie", "location", "vary", "etag", "www-authenticate", "accept", "cookie", "host"]
    {
        lines.push_str(&format!("{name}: a\r\n{name}: b\r\n"));
    }
    let (_, head, _) = response(&ok(&lines), Answering::Ordinary).unwrap();
    let expected = ":status: 200|date: a,b|set-cookie: a|set-cookie: b|location: a,b|vary: a,b|etag: a,b|\
                    www-authenticate: a|www-authenticate: b|accept: a|accept: b|cookie: a|cookie: b|host: a|host: b";
    assert_eq!(text(&head), expected);
}

#[test]
fn limits_are_those_of_envoy() {
    assert!(response(&ok(&"x: y\r\n".repeat(100)), Answering::Ordinary).is_ok());
    assert_eq!(refused(&ok(&"x: y\r\n".repeat(101))), ResponseError::TooManyHeaders);
    let sized = |total: usize| ok(&format!("x: {}\r\n", "a".repeat(total - ok("x: \r\n").len())));
    assert!(response(&sized(80 * 1024), Answering::Ordinary).is_ok());
    assert_eq!(refused(&sized(80 * 1024 + 1)), ResponseError::HeadersTooLarge);
}
