//! The HTTP/1 codec. The first byte says in which pieces the rest arrives.

use dhow_base::Rng;
use dhow_http::h1::{
    Answering, BodyFraming, BodyLength, BodyReader, HeadProgress, Parsed, RequestError, RequestInfo,
    RequestOptions, RequestWriteOptions, ResponseError, ResponseInfo, ResponseOptions, ResponseWriteOptions,
    Underscores, parse_request, parse_response, write_request_head, write_response_head,
};
use dhow_http::{HeaderMap, KnownHeader};

use super::Target;
use crate::input::{Input, assemble};

/// Request heads.
pub const REQUEST: Target = Target {
    name: "http1-request",
    about: "a request head cut anywhere is the whole one, and written and read again it is the same",
    run: request,
    generate: |rng| start(rng, REQUEST_PARTS),
};

/// Response heads.
pub const RESPONSE: Target = Target {
    name: "http1-response",
    about: "a response head cut anywhere is the whole one, and written and read again it is the same",
    run: response,
    generate: |rng| start(rng, RESPONSE_PARTS),
};

/// Bodies.
pub const BODY: Target = Target {
    name: "http1-body",
    about: "a body cut anywhere is the whole one, and its data is never more than its bytes",
    run: body,
    generate: |rng| start(rng, BODY_PARTS),
};

const REQUEST_PARTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b=c HTTP/1.1\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.0\r\n",
    b"GET http://h/p HTTP/1.1\r\n",
    b"host: a\r\n",
    b"Host: b:80\r\n",
    b"content-length: 3\r\n",
    b"content-length: 3, 3\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: gzip, chunked\r\n",
    b"connection: close, x-hop\r\n",
    b"connection: upgrade\r\nupgrade: websocket\r\n",
    b"expect: 100-continue\r\n",
    b"x-hop: 1\r\n",
    b"a_b: c\r\n",
    b"x:\t y \r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\xc3\xa9",
    b": ",
];

const RESPONSE_PARTS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204\r\n",
    b"HTTP/1.0 304 Not Modified\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\n",
    b"HTTP/1.1 999 \r\n",
    b"content-length: 5\r\n",
    b"content-length: 0\r\n",
    b"transfer-encoding: chunked\r\n",
    b"transfer-encoding: identity\r\n",
    b"connection: close\r\n",
    b"connection: upgrade\r\nupgrade: x\r\n",
    b"set-cookie: a\r\nset-cookie: b\r\n",
    b"X-Y: z\r\n",
    b"bad line\r\n",
    b"\r\n",
    b"\n",
    b"\0",
];

const BODY_PARTS: &[&[u8]] = &[
    b"3\r\nabc\r\n",
    b"5;x=y\r\nhello\r\n",
    b"A\r\n0123456789\r\n",
    b"1 \r\nz\r\n",
    b"0\r\n",
    b"0\r\n\r\n",
    b"x: y\r\n",
    b"\r\n",
    b"\n",
    b"ffffffffffffffff\r\n",
    b"GET / HTTP/1.1\r\n",
];

fn start(rng: &mut Rng, parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![rng.next_u32() as u8, rng.next_u32() as u8];
    // A first line first, more often than not.
    if rng.chance(3, 4) {
        bytes.extend_from_slice(parts[rng.index(5)]);
    }
    bytes.extend(assemble(rng, parts, 10));
    bytes.extend_from_slice(b"\r\n\r\n");
    bytes
}

/// The sizes of pieces, from one byte.
fn pieces(seed: u8) -> impl FnMut() -> usize {
    let mut rng = Rng::seeded(u64::from(seed));
    move || 1 + rng.index(7)
}

type Head<T, E> = Option<Result<(usize, T), E>>;

/// What `parse` says about growing prefixes of `bytes`.
fn grown<T, E>(bytes: &[u8], seed: u8, mut parse: impl FnMut(&[u8]) -> Result<Parsed<T>, E>) -> Head<T, E> {
    let mut size = pieces(seed);
    let mut length = 0;
    while length < bytes.len() {
        length = (length + size()).min(bytes.len());
        if let Some(end) = ended(parse(&bytes[..length])) {
            return Some(end);
        }
    }
    None
}

fn ended<T, E>(parsed: Result<Parsed<T>, E>) -> Head<T, E> {
    match parsed {
        Ok(Parsed::Partial) => None,
        Ok(Parsed::Complete { consumed, info }) => Some(Ok((consumed, info))),
        Err(error) => Some(Err(error)),
    }
}

/// Whether two readings agree. A head that is too large and has another fault may be refused for either: the limit can be
/// reached before the other fault has arrived.
fn agree<T: PartialEq, E: PartialEq>(one: &Head<T, E>, other: &Head<T, E>, too_large: &E) -> bool {
    match (one, other) {
        (Some(Err(one)), Some(Err(other))) => one == other || one == too_large || other == too_large,
        (one, other) => one == other,
    }
}

fn lines(map: &HeaderMap) -> Vec<(Vec<u8>, Vec<u8>)> {
    map.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn request(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (seed, choice) = (input.byte(), input.byte());
    let options = RequestOptions {
        underscores: [Underscores::Allow, Underscores::Reject, Underscores::Drop][usize::from(choice % 3)],
        allow_absolute_url: choice & 4 != 0,
        allow_chunked_length: choice & 8 != 0,
        allow_custom_methods: choice & 16 != 0,
        max_headers: if choice & 32 != 0 { 4 } else { 100 },
        max_head_bytes: if choice & 64 != 0 { 120 } else { 60 * 1024 },
        ..RequestOptions::default()
    };
    let bytes = input.rest();
    let (mut whole, mut cut) = (HeaderMap::new(), HeaderMap::new());
    let at_once = ended(parse_request(bytes, &mut HeadProgress::default(), &options, &mut whole));
    let mut progress = HeadProgress::default();
    let by_pieces = grown(bytes, seed, |bytes| parse_request(bytes, &mut progress, &options, &mut cut));
    let agreed = agree(&at_once, &by_pieces, &RequestError::HeadersTooLarge);
    assert!(agreed, "{at_once:?} at once, {by_pieces:?} in pieces");
    let Some(Ok((consumed, info))) = at_once else { return };
    assert!(consumed <= bytes.len());
    assert_eq!(lines(&whole), lines(&cut));
    request_again(&whole, info, &options);
}

/// Writes what was read, and reads it again: no request may turn into another one on its way.
fn request_again(head: &HeaderMap, info: RequestInfo, options: &RequestOptions) {
    // The connection manager answers any other path itself.
    if !info.connect && !head.path().starts_with(b"/") && head.path() != b"*" {
        return;
    }
    let mut wire = Vec::new();
    let framing =
        write_request_head(&mut wire, head, RequestWriteOptions::default(), info.body == BodyLength::None);
    let lenient = RequestOptions { max_headers: 1000, max_head_bytes: 1 << 20, ..options.clone() };
    let mut again = HeaderMap::new();
    let parsed = ended(parse_request(&wire, &mut HeadProgress::default(), &lenient, &mut again));
    let Some(Ok((consumed, second))) = parsed else {
        panic!("what was written is not read: {parsed:?} {}", wire.escape_ascii());
    };
    assert_eq!(consumed, wire.len(), "{}", wire.escape_ascii());
    for name in [KnownHeader::Method, KnownHeader::Path, KnownHeader::Authority] {
        assert_eq!(head.get_known(name), again.get_known(name), "{}", wire.escape_ascii());
    }
    assert_eq!((info.connect, info.head), (second.connect, second.head));
    assert_eq!(carries(framing, info.body), second.body, "{}", wire.escape_ascii());
}

/// How a body framed like `framing` reads on the other side.
fn carries(framing: BodyFraming, body: BodyLength) -> BodyLength {
    match framing {
        BodyFraming::None => BodyLength::None,
        BodyFraming::Chunked => BodyLength::Chunked,
        BodyFraming::Identity => body,
    }
}

fn response(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (seed, choice) = (input.byte(), input.byte());
    let options = ResponseOptions {
        max_headers: if choice & 8 != 0 { 4 } else { 100 },
        max_head_bytes: if choice & 16 != 0 { 120 } else { 60 * 1024 },
        allow_chunked_length: choice & 32 != 0,
        ..ResponseOptions::default()
    };
    let answering = [Answering::Ordinary, Answering::Head, Answering::Connect, Answering::Upgrade];
    let answering = answering[usize::from(choice % 4)];
    let bytes = input.rest();
    let (mut whole, mut cut) = (HeaderMap::new(), HeaderMap::new());
    let parse = |bytes: &[u8], progress: &mut HeadProgress, head: &mut HeaderMap| {
        parse_response(bytes, progress, answering, &options, head)
    };
    let at_once = ended(parse(bytes, &mut HeadProgress::default(), &mut whole));
    let mut progress = HeadProgress::default();
    let by_pieces = grown(bytes, seed, |bytes| parse(bytes, &mut progress, &mut cut));
    let agreed = agree(&at_once, &by_pieces, &ResponseError::HeadersTooLarge);
    assert!(agreed, "{at_once:?} at once, {by_pieces:?} in pieces");
    let Some(Ok((consumed, info))) = at_once else { return };
    assert!(consumed <= bytes.len());
    assert_eq!(lines(&whole), lines(&cut));
    assert!((100..1000).contains(&info.status));
    if answering == Answering::Ordinary && info.status >= 200 {
        response_again(&whole, info);
    }
}

fn response_again(head: &HeaderMap, info: ResponseInfo) {
    let mut wire = Vec::new();
    let end = info.body == BodyLength::None;
    let framing = write_response_head(&mut wire, head, ResponseWriteOptions::default(), end);
    let options =
        ResponseOptions { max_headers: 1000, max_head_bytes: 1 << 20, ..ResponseOptions::default() };
    let mut again = HeaderMap::new();
    let parsed =
        ended(parse_response(&wire, &mut HeadProgress::default(), Answering::Ordinary, &options, &mut again));
    let Some(Ok((consumed, second))) = parsed else {
        panic!("what was written is not read: {parsed:?} {}", wire.escape_ascii());
    };
    assert_eq!((consumed, second.status), (wire.len(), info.status), "{}", wire.escape_ascii());
    if framing == BodyFraming::Chunked {
        assert_eq!(second.body, BodyLength::Chunked, "{}", wire.escape_ascii());
    }
}

fn body(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (seed, choice) = (input.byte(), input.byte());
    let length = match choice % 4 {
        0 => BodyLength::Length(u64::from(choice / 4)),
        1 => BodyLength::UntilClose,
        _ => BodyLength::Chunked,
    };
    let bytes = input.rest();
    let whole = read(bytes, length, &mut || usize::MAX / 2);
    let cut = read(bytes, length, &mut pieces(seed));
    assert_eq!(whole, cut);
    assert!(whole.data.len() <= whole.consumed && whole.consumed <= bytes.len());
}

#[derive(Debug, PartialEq)]
struct Body {
    data: Vec<u8>,
    consumed: usize,
    end: Result<bool, String>,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

fn read(bytes: &[u8], length: BodyLength, size: &mut dyn FnMut() -> usize) -> Body {
    let mut reader = BodyReader::new(length);
    let mut trailers = HeaderMap::new();
    let mut body = Body { data: Vec::new(), consumed: 0, end: Ok(false), trailers: Vec::new() };
    'pieces: while body.consumed < bytes.len() && !reader.is_end() {
        let end = body.consumed.saturating_add(size()).min(bytes.len());
        while body.consumed < end && !reader.is_end() {
            match reader.read(&bytes[body.consumed..end], &mut trailers) {
                Ok(step) => {
                    assert!(step.consumed > 0, "a step that takes nothing");
                    body.data.extend_from_slice(&bytes[body.consumed..end][step.data]);
                    body.consumed += step.consumed;
                }
                Err(error) => {
                    body.end = Err(error.to_string());
                    // Where an error is noticed depends on the pieces; that it is, does not.
                    body.consumed = bytes.len();
                    break 'pieces;
                }
            }
        }
    }
    if body.end.is_ok() {
        body.end = Ok(reader.finish().is_ok());
    }
    body.trailers = lines(&trailers);
    body
}
