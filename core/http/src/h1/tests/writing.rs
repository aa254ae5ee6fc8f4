use super::*;

fn request_head(entries: &[(&str, &str)], options: RequestWriteOptions, end: bool) -> (String, BodyFraming) {
    let mut head = HeaderMap::new();
    for (name, value) in entries {
        head.append(name.as_bytes(), value.as_bytes());
    }
    let mut out = Vec::new();
    let framing = write_request_head(&mut out, &head, options, end);
    (String::from_utf8(out).unwrap(), framing)
}

fn response_head(
    entries: &[(&str, &str)],
    options: ResponseWriteOptions,
    end: bool,
) -> (String, BodyFraming) {
    let mut head = HeaderMap::new();
    for (name, value) in entries {
        head.append(name.as_bytes(), value.as_bytes());
    }
    let mut out = Vec::new();
    let framing = write_response_head(&mut out, &head, options, end);
    (String::from_utf8(out).unwrap(), framing)
}

const START: [(&str, &str); 4] = [(":method", "GET"), (":path", "/p?q"), ("x-a", "1"), (":authority", "h")];

#[test]
fn a_request_has_host_first_and_then_the_order_of_the_map() {
    let (text, framing) = request_head(&START, RequestWriteOptions::default(), true);
    assert_eq!(text, "GET /p?q HTTP/1.1\r\nhost: h\r\nx-a: 1\r\n\r\n");
    assert_eq!(framing, BodyFraming::None);
}

#[test]
fn a_request_without_body_has_a_length_where_the_method_usually_has_one() {
    for (method, expected) in
        [("POST", true), ("PUT", true), ("PATCH", true), ("OPTIONS", true), ("PROPFIND", true)]
            .into_iter()
            .chain(["GET", "HEAD", "DELETE", "TRACE"].map(|method| (method, false)))
    {
        let (text, _) =
            request_head(&[(":method", method), (":path", "/")], RequestWriteOptions::default(), true);
        assert_eq!(text.contains("content-length: 0\r\n"), expected, "{method}");
    }
}

#[test]
fn a_request_with_a_body_of_unknown_length_is_chunked() {
    let (text, framing) = request_head(&START, RequestWriteOptions::default(), false);
    assert_eq!(text, "GET /p?q HTTP/1.1\r\nhost: h\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(framing, BodyFraming::Chunked);
    let mut with_length = START.to_vec();
    with_length.push(("content-length", "5"));
    let (text, framing) = request_head(&with_length, RequestWriteOptions::default(), false);
    assert!(text.ends_with("content-length: 5\r\n\r\n"), "{text}");
    assert_eq!(framing, BodyFraming::Identity);
}

#[test]
fn connect_and_absolute_targets() {
    let (text, framing) = request_head(
        &[(":method", "CONNECT"), (":authority", "h:80")],
        RequestWriteOptions::default(),
        false,
    );
    assert_eq!(
        (text.as_str(), framing),
        ("CONNECT h:80 HTTP/1.1\r\nhost: h:80\r\n\r\n", BodyFraming::Identity)
    );
    let mut entries = START.to_vec();
    entries.push((":scheme", "http"));
    let options = RequestWriteOptions { absolute_target: true, ..Default::default() };
    assert!(request_head(&entries, options, true).0.starts_with("GET http://h/p?q HTTP/1.1\r\n"));
}

#[test]
fn names_can_be_written_in_proper_case() {
    let options = RequestWriteOptions { keys: HeaderKeyFormat::ProperCase, ..Default::default() };
    let entries = [(":method", "GET"), (":path", "/"), (":authority", "h"), ("foo$b#$are-x9y", "v")];
    assert_eq!(
        request_head(&entries, options, true).0,
        "GET / HTTP/1.1\r\nHost: h\r\nFoo$B#$Are-X9y: v\r\n\r\n"
    );
}

#[test]
fn a_response_keeps_the_order_of_the_map_and_ends_with_its_framing() {
    let entries = [(":status", "200"), ("b", "1"), ("transfer-encoding", "x"), ("a", "2")];
    let (text, framing) = response_head(&entries, ResponseWriteOptions::default(), false);
    assert_eq!(text, "HTTP/1.1 200 OK\r\nb: 1\r\na: 2\r\ntransfer-encoding: chunked\r\n\r\n");
    assert_eq!(framing, BodyFraming::Chunked);
    let (text, framing) = response_head(&entries, ResponseWriteOptions::default(), true);
    assert_eq!(text, "HTTP/1.1 200 OK\r\nb: 1\r\na: 2\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(framing, BodyFraming::None);
}

#[test]
fn statuses_without_body_have_no_framing_header() {
    for status in ["100", "204", "304"] {
        let (text, framing) = response_head(&[(":status", status)], ResponseWriteOptions::default(), true);
        assert!(!text.contains(": "), "{text}");
        assert_eq!(framing, BodyFraming::None);
    }
    for (status, phrase) in [("425", "Too Early"), ("599", "Last Unassigned Server Error Code")] {
        let (text, _) = response_head(&[(":status", status)], ResponseWriteOptions::default(), true);
        assert!(text.starts_with(&format!("HTTP/1.1 {status} {phrase}\r\n")), "{text}");
    }
    let (text, _) = response_head(&[(":status", "418")], ResponseWriteOptions::default(), true);
    assert!(text.starts_with("HTTP/1.1 418 Unknown\r\n"));
}

#[test]
fn answers_to_head_announce_but_have_no_body() {
    let options = ResponseWriteOptions { to_head: true, ..Default::default() };
    for end in [true, false] {
        let (text, framing) = response_head(&[(":status", "200")], options, end);
        assert_eq!(text, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        assert_eq!(framing, BodyFraming::None);
    }
    let (_, framing) = response_head(&[(":status", "200"), ("content-length", "9")], options, false);
    assert_eq!(framing, BodyFraming::None);
}

#[test]
fn http_10_answers_have_no_chunks() {
    let options = ResponseWriteOptions { version: Version::Http10, ..Default::default() };
    let (text, framing) = response_head(&[(":status", "200")], options, false);
    assert_eq!((text.as_str(), framing), ("HTTP/1.0 200 OK\r\n\r\n", BodyFraming::Identity));
}

#[test]
fn chunks_are_read_back_as_they_were_written() {
    let mut out = Vec::new();
    for length in [1usize, 9, 15, 16, 255, 4096, 70_000] {
        write_chunk(&mut out, &vec![b'x'; length]);
    }
    write_chunk(&mut out, b"");
    let mut trailers = HeaderMap::new();
    trailers.append(b"grpc-status", b"0");
    trailers.append(b"transfer-encoding", b"chunked");
    write_trailers(&mut out, &trailers);
    let mut reader = BodyReader::new(BodyLength::Chunked);
    let (mut at, mut lengths, mut read) = (0, Vec::new(), HeaderMap::new());
    while !reader.is_end() {
        let step = reader.read(&out[at..], &mut read).unwrap();
        at += step.consumed;
        lengths.push(step.data.len());
    }
    assert_eq!(lengths, [1, 9, 15, 16, 255, 4096, 70_000, 0]);
    assert_eq!((at, text(&read).as_str()), (out.len(), "grpc-status: 0|transfer-encoding: chunked"));
    assert_eq!(ChunkStart::new(usize::MAX).as_bytes(), b"ffffffffffffffff\r\n");
    assert_eq!(ChunkStart::new(26).as_bytes(), b"1a\r\n");
}
