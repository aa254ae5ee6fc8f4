//! Frames as bytes.

use super::script::{AnyFrame, DataFrame, FrameScript, HeadersFrame};
use super::{PREFACE, SETTINGS, flag, kind};

/// The fields of a HEADERS frame of a client that names none.
const GET: &[&str] = &[":method: GET", ":scheme: http", ":authority: example.test", ":path: /"];

/// Appends what `script` sends. Stream numbers grow by `shift`; waiting sends nothing.
///
/// # Errors
/// Text that is not what its field demands, such as digits that are not hexadecimal.
pub fn encode(script: &FrameScript, shift: u32, out: &mut Vec<u8>) -> Result<(), String> {
    match script {
        FrameScript::Preface => out.extend_from_slice(PREFACE),
        FrameScript::Bytes(text) => out.extend_from_slice(text.as_bytes()),
        FrameScript::Settings(values) => {
            let mut payload = Vec::new();
            for (name, value) in values {
                let known = SETTINGS.iter().find(|(known, _)| known == name);
                let number = known.ok_or_else(|| format!("no setting `{name}`"))?.1;
                payload.extend_from_slice(&number.to_be_bytes());
                payload.extend_from_slice(&value.to_be_bytes());
            }
            frame(kind::SETTINGS, 0, 0, &payload, out);
        }
        FrameScript::SettingsAck => frame(kind::SETTINGS, flag::ACK, 0, &[], out),
        FrameScript::Headers(headers) => head(kind::HEADERS, headers, shift, out)?,
        FrameScript::Continuation(headers) => head(kind::CONTINUATION, headers, shift, out)?,
        FrameScript::Data(data) => body(data, shift, out),
        FrameScript::RstStream { stream, code } => {
            frame(kind::RST_STREAM, 0, stream + shift, &code.to_be_bytes(), out);
        }
        FrameScript::WindowUpdate { stream, increment } => {
            let stream = if *stream == 0 { 0 } else { stream + shift };
            frame(kind::WINDOW_UPDATE, 0, stream, &increment.to_be_bytes(), out);
        }
        FrameScript::Ping => frame(kind::PING, 0, 0, b"question", out),
        FrameScript::Priority { stream, on } => {
            let mut payload = on.to_be_bytes().to_vec();
            payload.push(16);
            frame(kind::PRIORITY, 0, stream + shift, &payload, out);
        }
        FrameScript::Goaway { code, last } => {
            let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
            frame(kind::GOAWAY, 0, 0, &payload, out);
        }
        FrameScript::Frame(any) => by_hand(any, out)?,
        FrameScript::Times { count, stream_step, frames } => {
            for turn in 0..*count {
                for script in frames {
                    encode(script, shift + turn * stream_step, out)?;
                }
            }
        }
        FrameScript::Answered(_) | FrameScript::Ponged => {}
    }
    Ok(())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    header(payload.len() as u32, kind, flags, stream, out);
    out.extend_from_slice(payload);
}

fn header(length: u32, kind: u8, flags: u8, stream: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

fn head(what: u8, headers: &HeadersFrame, shift: u32, out: &mut Vec<u8>) -> Result<(), String> {
    let mut payload = Vec::new();
    let mut flags = 0;
    if let Some(on) = headers.depends_on {
        payload.extend_from_slice(&on.to_be_bytes());
        payload.push(16);
        flags |= 0x20;
    }
    match (&headers.block, &headers.fields) {
        (Some(digits), _) => payload.extend(hexadecimal(digits)?),
        (None, Some(fields)) => fields.iter().try_for_each(|line| field(line, &mut payload))?,
        (None, None) if what == kind::HEADERS => {
            GET.iter().try_for_each(|line| field(line, &mut payload))?;
        }
        (None, None) => {}
    }
    headers.more.iter().try_for_each(|line| field(line, &mut payload))?;
    if headers.filler > 0 {
        literal("x-filler", &"f".repeat(headers.filler), &mut payload);
    }
    if what == kind::HEADERS && !headers.open {
        flags |= flag::END_STREAM;
    }
    if !headers.continued {
        flags |= flag::END_HEADERS;
    }
    frame(what, flags, headers.stream + shift, &payload, out);
    Ok(())
}

/// A field without indexing and without Huffman coding, so that what is sent is what is written.
fn field(line: &str, out: &mut Vec<u8>) -> Result<(), String> {
    // The colon of a pseudo-header belongs to its name.
    let skip = usize::from(line.starts_with(':'));
    let colon = line[skip..].find(": ").ok_or_else(|| format!("`{line}` is not `name: value`"))? + skip;
    literal(&line[..colon], &line[colon + 2..], out);
    Ok(())
}

fn literal(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        integer(text.len(), out);
        out.extend_from_slice(text.as_bytes());
    }
}

/// An integer with a prefix of seven bits.
fn integer(mut value: usize, out: &mut Vec<u8>) {
    if value < 127 {
        return out.push(value as u8);
    }
    out.push(127);
    value -= 127;
    while value >= 128 {
        out.push((value % 128) as u8 | 128);
        value /= 128;
    }
    out.push(value as u8);
}

fn body(data: &DataFrame, shift: u32, out: &mut Vec<u8>) {
    let content = if data.length > 0 { vec![b'x'; data.length] } else { data.text.clone().into_bytes() };
    let mut flags = if data.open { 0 } else { flag::END_STREAM };
    let mut payload = Vec::new();
    if let Some(length) = data.padding {
        flags |= flag::PADDED;
        payload.push(length);
    }
    payload.extend_from_slice(&content);
    frame(kind::DATA, flags, data.stream + shift, &payload, out);
}

fn by_hand(any: &AnyFrame, out: &mut Vec<u8>) -> Result<(), String> {
    let mut payload = hexadecimal(&any.payload)?;
    payload.resize(payload.len() + any.zeros, 0);
    header(any.length.unwrap_or(payload.len() as u32), any.kind, any.flags, any.stream, out);
    out.extend_from_slice(&payload);
    Ok(())
}

fn hexadecimal(digits: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().filter(|p| p.len() == 2))
        .map(|pair| {
            pair.and_then(|p| u8::from_str_radix(p, 16).ok()).ok_or_else(|| "not hexadecimal".to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(script: FrameScript) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&script, 0, &mut out).unwrap();
        out
    }

    #[test]
    fn frames_have_the_layout_of_the_protocol() {
        assert_eq!(bytes(FrameScript::SettingsAck), [0, 0, 0, 4, 1, 0, 0, 0, 0]);
        let settings = FrameScript::Settings([("initial_window_size".to_owned(), 5)].into());
        assert_eq!(bytes(settings), [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 5]);
        let data = DataFrame { stream: 3, text: "ab".into(), ..DataFrame::default() };
        assert_eq!(bytes(FrameScript::Data(data)), [0, 0, 2, 0, 1, 0, 0, 0, 3, b'a', b'b']);
        let headers =
            HeadersFrame { stream: 1, fields: Some(vec![":path: /a: b".into()]), ..HeadersFrame::default() };
        assert_eq!(bytes(FrameScript::Headers(headers))[9..], *b"\x00\x05:path\x05/a: b");
    }

    #[test]
    fn repeated_frames_take_new_streams() {
        let times = FrameScript::Times {
            count: 2,
            stream_step: 2,
            frames: vec![FrameScript::RstStream { stream: 1, code: 8 }],
        };
        let out = bytes(times);
        assert_eq!((out.len(), out[8], out[13 + 8]), (26, 1, 3));
    }

    #[test]
    fn long_fields_have_long_lengths() {
        let mut out = Vec::new();
        integer(126, &mut out);
        integer(127, &mut out);
        integer(1337, &mut out);
        assert_eq!(out, [126, 127, 0, 127, 0b1011_1010, 9]);
    }
}
