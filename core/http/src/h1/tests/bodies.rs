use super::*;

/// Reads a whole body in one buffer: data, trailers, bytes left behind it.
fn chunked(raw: &str) -> Result<(String, String, usize), BodyError> {
    let mut reader = BodyReader::new(BodyLength::Chunked);
    let mut trailers = HeaderMap::new();
    let (mut at, mut data) = (0, Vec::new());
    while at < raw.len() {
        let input = &raw.as_bytes()[at..];
        let step = reader.read(input, &mut trailers)?;
        data.extend_from_slice(&input[step.data]);
        at += step.consumed;
        if step.end {
            break;
        }
    }
    reader.finish()?;
    Ok((String::from_utf8(data).unwrap(), text(&trailers), raw.len() - at))
}

#[test]
fn chunks_that_envoy_takes() {
    for raw in [
        "3\r\nabc\r\n0\r\n\r\n",
        "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
        "3;a=b\r\nabc\r\n0;x\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "003\r\nabc\r\n000\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
    ] {
        assert_eq!(chunked(raw), Ok(("abc".into(), String::new(), 0)), "{raw:?}");
    }
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "a".repeat(20_000));
    assert_eq!(chunked(&long).unwrap().0, "abc");
    assert_eq!(chunked("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n").unwrap().0.len(), 20);
}

#[test]
fn chunks_that_envoy_refuses() {
    for raw in [
        "3\nabc\n0\n\n",
        " 3\r\nabc\r\n",
        "x\r\nabc\r\n",
        "\r\nabc\r\n",
        "fffffffffffffffff\r\nabc\r\n",
        "3;a\rb\r\nabc\r\n",
        "3;a\nabc\r\n",
        "0x3\r\nabc\r\n",
        ";a\r\n\r\n",
        "3\r\r\nabc\r\n",
        "-1\r\n",
    ] {
        assert_eq!(chunked(raw), Err(BodyError::Chunk), "{raw:?}");
    }
}

#[test]
fn trailers_are_read_and_limited() {
    let (data, trailers, left) = chunked("3\r\nabc\r\n0\r\nX-A: y\r\nb: \t z\r\n\r\nNEXT").unwrap();
    assert_eq!((data.as_str(), trailers.as_str(), left), ("abc", "x-a: y|b: z", 4));
    assert_eq!(chunked("0\r\nx y\r\n\r\n"), Err(BodyError::Trailer));
    assert_eq!(chunked("0\r\nx\u{1}: y\r\n\r\n"), Err(BodyError::InvalidCharacters));
    let big = format!("0\r\nx: {}\r\n\r\n", "a".repeat(62_000));
    assert_eq!(chunked(&big).unwrap_err().status(), 431);
    assert_eq!(chunked(&format!("0\r\n{}\r\n", "x: 1\r\n".repeat(101))), Err(BodyError::TooManyTrailers));
}

#[test]
fn a_cut_body_is_noticed() {
    for raw in ["3\r\nab", "3\r\nabc\r\n", "3\r\nabc\r\n0\r\n", "3\r\nabc\r\n0\r\nx: y\r\n", "3"] {
        assert_eq!(chunked(raw), Err(BodyError::Truncated), "{raw:?}");
    }
    let mut reader = BodyReader::new(BodyLength::Length(3));
    reader.read(b"ab", &mut HeaderMap::new()).unwrap();
    assert_eq!(reader.remaining(), Some(1));
    assert_eq!(reader.finish(), Err(BodyError::Truncated));
}

#[test]
fn a_length_leaves_what_follows() {
    let mut reader = BodyReader::new(BodyLength::Length(3));
    let step = reader.read(b"abcGET", &mut HeaderMap::new()).unwrap();
    assert_eq!(step, BodyStep { consumed: 3, data: 0..3, end: true });
    assert!(BodyReader::new(BodyLength::None).is_end());
    let step = BodyReader::new(BodyLength::None).read(b"GET", &mut HeaderMap::new()).unwrap();
    assert_eq!(step, BodyStep { consumed: 0, data: 0..0, end: true });
}

#[test]
fn a_body_until_close_ends_with_the_stream() {
    let mut reader = BodyReader::new(BodyLength::UntilClose);
    let step = reader.read(b"abc", &mut HeaderMap::new()).unwrap();
    assert_eq!(step, BodyStep { consumed: 3, data: 0..3, end: false });
    assert_eq!(reader.finish(), Ok(()));
    assert!(reader.is_end());
}
