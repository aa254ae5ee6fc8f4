//! However the input is cut into pieces, the result is the same.

use super::*;

/// A small generator (xorshift); the seed is printed by the assertions.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

const FRAGMENTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\r\n",
    "GET http://h/p HTTP/1.1\n",
    "FOO",
    " ",
    "\t",
    "Host: a\r\n",
    "x: y\r\n",
    " folded\r\n",
    "content-length: 3\r\n",
    "transfer-encoding: chunked\r\n",
    "connection: close\r\n",
    "\r\n",
    "\n",
    "\r",
    "\0",
    "a_b: c\r\n",
    ":",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 204\r\n",
    "location: /\r\n",
    "0\r\n",
    "3\r\nabc\r\n",
    "5;x\r\nhello\r\n",
    "\u{e9}",
    "z",
    "connection: x\r\n",
];

fn random_input(random: &mut Random) -> Vec<u8> {
    let mut input = Vec::new();
    if random.below(4) > 0 {
        input.extend_from_slice(FRAGMENTS[random.below(3)].as_bytes());
    }
    for _ in 0..random.below(12) {
        input.extend_from_slice(FRAGMENTS[random.below(FRAGMENTS.len())].as_bytes());
    }
    input.extend_from_slice(b"\r\n\r\n");
    input
}

/// Feeds growing prefixes, as a connection does, until there is an answer.
fn grow<T, E>(
    input: &[u8],
    random: &mut Random,
    mut parse: impl FnMut(&[u8]) -> Result<Parsed<T>, E>,
) -> Option<Result<(usize, T), E>> {
    let mut length = 0;
    while length < input.len() {
        length = (length + 1 + random.below(7)).min(input.len());
        match parse(&input[..length]) {
            Ok(Parsed::Partial) => {}
            Ok(Parsed::Complete { consumed, info }) => return Some(Ok((consumed, info))),
            Err(error) => return Some(Err(error)),
        }
    }
    None
}

#[test]
fn requests_do_not_depend_on_how_they_arrive() {
    for seed in 1..=4000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let input = random_input(&mut random);
        let options = RequestOptions { max_head_bytes: 120, max_headers: 4, ..Default::default() };
        let (mut whole, mut piecewise) = (HeaderMap::new(), HeaderMap::new());
        let at_once = match parse_request(&input, &mut HeadProgress::default(), &options, &mut whole) {
            Ok(Parsed::Partial) => None,
            Ok(Parsed::Complete { consumed, info }) => Some(Ok((consumed, info))),
            Err(error) => Some(Err(error)),
        };
        let mut progress = HeadProgress::default();
        let grown =
            grow(&input, &mut random, |bytes| parse_request(bytes, &mut progress, &options, &mut piecewise));
        assert_eq!(at_once, grown, "seed {seed}: {}", input.escape_ascii());
        if matches!(at_once, Some(Ok(_))) {
            assert_eq!(text(&whole), text(&piecewise), "seed {seed}");
        }
    }
}

#[test]
fn responses_do_not_depend_on_how_they_arrive() {
    for seed in 1..=4000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut input = random_input(&mut random);
        if random.below(4) > 0 {
            input.splice(0..0, *b"HTTP/1.1 200 OK\r\n");
        }
        let options = ResponseOptions { max_head_bytes: 120, max_headers: 4, ..Default::default() };
        let (mut whole, mut piecewise) = (HeaderMap::new(), HeaderMap::new());
        let parse = |bytes: &[u8], progress: &mut HeadProgress, head: &mut HeaderMap| {
            parse_response(bytes, progress, Answering::Ordinary, &options, head)
        };
        let at_once = match parse(&input, &mut HeadProgress::default(), &mut whole) {
            Ok(Parsed::Partial) => None,
            Ok(Parsed::Complete { consumed, info }) => Some(Ok((consumed, info))),
            Err(error) => Some(Err(error)),
        };
        let mut progress = HeadProgress::default();
        let grown = grow(&input, &mut random, |bytes| parse(bytes, &mut progress, &mut piecewise));
        assert_eq!(at_once, grown, "seed {seed}: {}", input.escape_ascii());
    }
}

#[test]
fn bodies_do_not_depend_on_how_they_arrive() {
    let read = |input: &[u8], cut: &mut dyn FnMut() -> usize| {
        let mut reader = BodyReader::new(BodyLength::Chunked);
        let mut trailers = HeaderMap::new();
        let (mut at, mut data) = (0, Vec::new());
        while at < input.len() && !reader.is_end() {
            let piece = &input[at..(at + cut()).min(input.len())];
            let mut from = 0;
            while from < piece.len() {
                let step = match reader.read(&piece[from..], &mut trailers) {
                    Ok(step) => step,
                    Err(error) => return (data, Err(error), text(&trailers)),
                };
                data.extend_from_slice(&piece[from..][step.data]);
                from += step.consumed;
                if step.end {
                    break;
                }
            }
            at += from;
        }
        (data, reader.finish().map(|()| at), text(&trailers))
    };
    for seed in 1..=4000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut input = Vec::new();
        for _ in 0..random.below(6) {
            let part = ["3\r\nabc\r\n", "5;x\r\nhello\r\n", "1 \r\nz\r\n", "2\r\nokxx\r\n", "q", "\r\n"];
            input.extend_from_slice(
                part[if random.below(8) == 0 { 4 + random.below(2) } else { random.below(4) }].as_bytes(),
            );
        }
        input.extend_from_slice(b"0\r\n");
        for _ in 0..random.below(3) {
            input.extend_from_slice(["x: y\r\n", "a: b\r\n c\r\n", "bad\r\n"][random.below(3)].as_bytes());
        }
        input.extend_from_slice(b"\r\nGET");
        let whole = read(&input, &mut || usize::MAX / 2);
        let pieces = read(&input, &mut || 1 + random.below(4));
        assert_eq!(whole, pieces, "seed {seed}: {}", input.escape_ascii());
    }
}

#[test]
fn any_bytes_are_answered_without_panic() {
    for seed in 1..=20_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut input = random_input(&mut random);
        for _ in 0..random.below(4) {
            let at = random.below(input.len());
            input[at] = random.below(256) as u8;
        }
        let mut head = HeaderMap::new();
        let _ = parse_request(&input, &mut HeadProgress::default(), &RequestOptions::default(), &mut head);
        let options = ResponseOptions::default();
        let _ =
            parse_response(&input, &mut HeadProgress::default(), Answering::Ordinary, &options, &mut head);
        let mut reader = BodyReader::new(BodyLength::Chunked);
        let mut at = 0;
        while at < input.len() {
            match reader.read(&input[at..], &mut head) {
                Ok(step) if !step.end => at += step.consumed,
                _ => break,
            }
        }
    }
}
