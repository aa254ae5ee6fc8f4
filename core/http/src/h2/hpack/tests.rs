use super::huffman;
use super::{Decoder, Encoder, HpackError};
use crate::KnownHeader;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn read(decoder: &mut Decoder, block: &[u8]) -> Result<String, HpackError> {
    let mut text = Vec::new();
    decoder.decode(block, |known, name, value| {
        assert_eq!(known, KnownHeader::from_lower(name));
        text.push(format!("{}={}", name.escape_ascii(), value.escape_ascii()));
    })?;
    Ok(text.join("|"))
}

fn write(encoder: &mut Encoder, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder.begin(&mut out);
    for (name, value) in fields {
        encoder.field(KnownHeader::from_lower(name.as_bytes()), name.as_bytes(), value.as_bytes(), &mut out);
    }
    out
}

/// The blocks of RFC 7541, appendix C.4: three requests on one connection.
#[test]
fn the_examples_of_the_standard_are_read() {
    let mut decoder = Decoder::new();
    let blocks = [
        (
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            ":method=GET|:scheme=http|:path=/|:authority=www.example.com",
        ),
        (
            "8286 84be 5886 a8eb 1064 9cbf",
            ":method=GET|:scheme=http|:path=/|:authority=www.example.com|cache-control=no-cache",
        ),
        (
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
            ":method=GET|:scheme=https|:path=/index.html|:authority=www.example.com|custom-key=custom-value",
        ),
    ];
    for (block, expected) in blocks {
        assert_eq!(read(&mut decoder, &bytes(block)).unwrap(), expected);
    }
    let mut encoder = Encoder::new();
    let first = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
    assert_eq!(write(&mut encoder, &first), bytes(blocks[0].0));
    let second = [&first[..], &[("cache-control", "no-cache")]].concat();
    assert_eq!(write(&mut encoder, &second), bytes(blocks[1].0));
}

#[test]
fn what_is_written_is_read_again_through_evictions() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new());
    for round in 0..3000 {
        if round % 700 == 350 {
            encoder.set_max(if round % 1400 == 350 { 100 } else { 4096 });
        }
        let id = format!("{:x}-{round}", round * 7919);
        let long = "v".repeat(round % 300);
        let fields = [
            (":method", if round % 3 == 0 { "PUT" } else { "GET" }),
            (":path", id.as_str()),
            (":authority", "host.test"),
            ("x-request-id", id.as_str()),
            ("x-other", "the same"),
            ("x-long", long.as_str()),
            ("accept-language", "\u{e4}\u{1f}"),
        ];
        let expected: Vec<_> =
            fields.iter().map(|(n, v)| format!("{n}={}", v.as_bytes().escape_ascii())).collect();
        let block = write(&mut encoder, &fields);
        assert_eq!(read(&mut decoder, &block).unwrap(), expected.join("|"), "round {round}");
    }
}

#[test]
fn a_repeated_field_takes_one_byte() {
    let mut encoder = Encoder::new();
    let fields = [("x-one", "1"), ("x-two", "2"), ("server", "envoy")];
    write(&mut encoder, &fields);
    assert_eq!(write(&mut encoder, &fields), [0xc0, 0xbf, 0xbe]);
    // The name alone is known.
    assert_eq!(write(&mut encoder, &[("x-one", "3")]), [0x40 | 63, 1, 1, b'3']);
}

#[test]
fn every_byte_survives_its_code() {
    let all: Vec<u8> = (0..=255).collect();
    for from in 0..8 {
        let mut code = Vec::new();
        huffman::encode(&all[from..], &mut code);
        assert_eq!(code.len(), huffman::encoded_len(&all[from..]));
        let mut back = Vec::new();
        huffman::decode(&code, &mut back).unwrap();
        assert_eq!(back, all[from..]);
    }
}

#[test]
fn codes_that_do_not_end_well_are_refused() {
    let decode = |code: &[u8]| huffman::decode(code, &mut Vec::new());
    assert_eq!(decode(b""), Ok(()));
    // "0" is five zeros; then three ones, or a zero among them.
    assert_eq!(decode(&[0b0000_0111]), Ok(()));
    assert_eq!(decode(&[0b0000_0110]), Err(HpackError::Huffman));
    assert_eq!(decode(&[0b0000_0111, 0xff]), Err(HpackError::Huffman));
    assert_eq!(decode(&[0xff; 4]), Err(HpackError::Huffman));
}

#[test]
fn broken_blocks_are_told_apart() {
    let refused = |block: &str| read(&mut Decoder::new(), &bytes(block)).unwrap_err();
    assert_eq!(refused("80"), HpackError::Index);
    assert_eq!(refused("be"), HpackError::Index);
    assert_eq!(refused("7f00 0161"), HpackError::Index);
    assert_eq!(refused("ff"), HpackError::Truncated);
    assert_eq!(refused("ffff ffff ffff 7f"), HpackError::Number);
    assert_eq!(refused("4003 6162"), HpackError::Truncated);
    assert_eq!(refused("3fe2 1f"), HpackError::TableSize);
    assert_eq!(refused("8220"), HpackError::TableSize);
    assert_eq!(read(&mut Decoder::new(), &bytes("3fe1 1f82")).unwrap(), ":method=GET");
}

#[test]
fn a_table_of_size_zero_keeps_nothing() {
    let mut encoder = Encoder::new();
    encoder.set_max(0);
    assert_eq!(write(&mut encoder, &[("x-one", "1")])[0], 0x20);
    let block = write(&mut encoder, &[("x-one", "1")]);
    assert_eq!(block[0], 0x40);
    let mut decoder = Decoder::new();
    decoder.set_allowed(0);
    assert_eq!(read(&mut decoder, &block).unwrap(), "x-one=1");
    assert_eq!(read(&mut decoder, &block).unwrap(), "x-one=1");
    encoder.set_max(50);
    encoder.set_max(4096);
    assert_eq!(write(&mut encoder, &[])[..2], [0x3f, 50 - 31]);
}
