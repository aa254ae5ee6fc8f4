//! The first bytes of connections.

use std::net::{IpAddr, SocketAddr};

use dhow_base::Rng;
use dhow_http::h1::{Beginning, recognise};
use dhow_net::inspect::{Hello, inspect_hello};
use dhow_net::proxy_protocol::{
    Decoded, ProxyVersion, Tlv, Wanted, append_v1, append_v2, append_v2_local, decode,
};

use super::Target;
use crate::input::{Input, assemble};

/// TLS hellos and HTTP.
pub const INSPECTORS: Target = Target {
    name: "inspectors",
    about: "a verdict about the first bytes of a connection stays the same when more bytes come",
    run,
    generate,
};

/// PROXY protocol headers.
pub const PROXY_PROTOCOL: Target = Target {
    name: "proxy-protocol",
    about: "a verdict stays the same when more bytes come, and a header that is written is read again",
    run: proxy_protocol,
    generate: proxy_headers,
};

const PARTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.0\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"FOO ",
    b"HTTP/",
    b"\r\n",
    b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03",
    b"\x16\x03\x03\x00\x05",
    b"\x15\x03\x03\x00\x02",
    &[0; 32],
    b"\x00",
    b"\x00\x02\x13\x01\x01\x00",
    b"\x00\x12",
    b"\x00\x00\x00\x0e\x00\x0c\x00\x00\x09LocalHost",
    b"\x00\x10\x00\x05\x00\x03\x02h2",
];

fn generate(rng: &mut Rng) -> Vec<u8> {
    match rng.chance(1, 2) {
        true => hello(rng),
        false => assemble(rng, PARTS, 5),
    }
}

/// A hello whose lengths are right, in one record or two.
fn hello(rng: &mut Rng) -> Vec<u8> {
    let extensions: Vec<u8> =
        (0..rng.below(4)).flat_map(|_| PARTS[13 + rng.index(2)].iter().copied()).collect();
    let mut body = b"\x03\x03".to_vec();
    body.extend([7; 32]);
    body.extend(b"\x00\x00\x02\x13\x01\x01\x00");
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let mut message = vec![1, 0];
    message.extend((body.len() as u16).to_be_bytes());
    message.extend(body);
    let cut = if rng.chance(1, 2) { message.len() } else { 1 + rng.index(message.len() - 1) };
    let mut bytes = Vec::new();
    for part in [&message[..cut], &message[cut..]] {
        if !part.is_empty() {
            bytes.extend([22, 3, 1]);
            bytes.extend((part.len() as u16).to_be_bytes());
            bytes.extend(part);
        }
    }
    if rng.chance(1, 4) {
        crate::input::mutate(rng, &mut bytes, PARTS);
    }
    bytes
}

fn run(bytes: &[u8]) {
    let mut hello: Option<Hello> = None;
    let mut http: Option<Beginning> = None;
    for length in 0..=bytes.len() {
        let now = inspect_hello(&bytes[..length]);
        match &hello {
            Some(before) => assert_eq!(*before, now, "after {length} bytes"),
            None if now != Hello::Incomplete => hello = Some(now),
            None => {}
        }
        let now = recognise(&bytes[..length]);
        match &http {
            Some(before) => assert_eq!(*before, now, "after {length} bytes"),
            None if now != Beginning::Incomplete => http = Some(now),
            None => {}
        }
    }
    if let Some(Hello::Found { server_name: Some(name), .. }) = hello {
        assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
    }
}

const PROXY_PARTS: &[&[u8]] = &[
    b"PROXY TCP4 127.0.0.1 10.0.0.1 1234 80\r\n",
    b"PROXY TCP6 ::1 ::2 1 65535\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY ",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x0a\0\0\x01\x04\xd2\0\x50",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x12",
    b"\xe0\0\x03abc",
    b"65536 ",
    b"\r\n",
    b" ",
];

fn proxy_headers(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![rng.next_u32() as u8];
    bytes.extend(assemble(rng, PROXY_PARTS, 4));
    bytes
}

const EVERY: Wanted = Wanted { v1: true, v2: true, without: false };

fn proxy_protocol(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let wanted = Wanted { v1: choice & 1 == 0, v2: choice & 2 == 0, without: choice & 4 == 0 };
    let bytes = input.rest();
    let mut verdict: Option<Decoded> = None;
    for length in 0..=bytes.len() {
        let now = decode(&bytes[..length], wanted);
        match &verdict {
            // A line that is no header is one no longer once there might have been a header of version 2 instead.
            Some(Decoded::Malformed(ProxyVersion::V1) | Decoded::Disallowed(ProxyVersion::V1))
                if now == Decoded::NotFound =>
            {
                assert!(length >= 16 && !bytes.starts_with(b"PROXY "), "after {length} bytes");
            }
            Some(Decoded::Endless) => assert!(now != Decoded::Incomplete, "after {length} bytes"),
            Some(before) => assert_eq!(*before, now, "after {length} bytes"),
            None if now != Decoded::Incomplete => verdict = Some(now),
            None => {}
        }
    }
    if let Some(Decoded::Found(header)) = verdict {
        assert!(header.length <= bytes.len());
        if let Some((source, destination)) = header.ends {
            written_again(source, destination, bytes);
        }
    }
    let mut local = Vec::new();
    append_v2_local(&mut local);
    assert!(matches!(decode(&local, EVERY), Decoded::Found(header) if header.ends.is_none()));
}

/// Both versions of a header bring the same ends back.
fn written_again(source: SocketAddr, destination: SocketAddr, value: &[u8]) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    append_v1(&mut first, source, destination);
    let tlvs = [Tlv { kind: 0xe0, value: value.to_vec() }];
    let fits = append_v2(&mut second, source, destination, &tlvs);
    for (wire, wanted) in [(first, true), (second, fits)] {
        if !wanted {
            continue;
        }
        let Decoded::Found(header) = decode(&wire, EVERY) else {
            panic!("what was written is not read: {}", wire.escape_ascii());
        };
        assert_eq!(header.length, wire.len(), "{}", wire.escape_ascii());
        assert_eq!(header.ends.map(plain), Some(plain((source, destination))), "{}", wire.escape_ascii());
    }
}

/// Addresses without the flow and scope of a socket, which no header carries.
fn plain((source, destination): (SocketAddr, SocketAddr)) -> [(IpAddr, u16); 2] {
    [(source.ip(), source.port()), (destination.ip(), destination.port())]
}
