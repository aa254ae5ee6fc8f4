//! Whether a connection begins with HTTP in clear text.

/// What the first bytes tell about HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// They may become HTTP; more bytes are needed.
    Incomplete,
    /// They are not HTTP.
    NotHttp,
    /// A request line of HTTP/1; the text is that of ALPN: `http/1.0` or `http/1.1`.
    Http1(&'static str),
    /// The preface of HTTP/2.
    Http2,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method that is taken for one.
const MAX_METHOD: usize = 32;

/// Looks for HTTP at the start of a connection.
pub fn inspect_http(bytes: &[u8]) -> Protocol {
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] == PREFACE[..compared] {
        return if compared == PREFACE.len() { Protocol::Http2 } else { Protocol::Incomplete };
    }
    // Empty lines before a request are skipped, as the codec does.
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    let end = bytes.iter().position(|b| *b == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    let method = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    let is_method = line[..method].iter().all(|b| b.is_ascii_uppercase() || *b == b'-');
    if !is_method || method > MAX_METHOD || (method == 0 && (end.is_some() || !line.is_empty())) {
        return Protocol::NotHttp;
    }
    if end.is_none() {
        return Protocol::Incomplete;
    }
    let line = line.trim_ascii_end();
    if line.ends_with(b" HTTP/1.1") {
        Protocol::Http1("http/1.1")
    } else if line.ends_with(b" HTTP/1.0") {
        Protocol::Http1("http/1.0")
    } else {
        Protocol::NotHttp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_and_prefaces_are_recognised() {
        assert_eq!(inspect_http(b"GET /a HTTP/1.1\r\nhost: b\r\n"), Protocol::Http1("http/1.1"));
        assert_eq!(inspect_http(b"\r\nM-SEARCH * HTTP/1.0\n"), Protocol::Http1("http/1.0"));
        assert_eq!(inspect_http(PREFACE), Protocol::Http2);
        assert_eq!(inspect_http(b"PRI * HTTP/1.1\r\n"), Protocol::Http1("http/1.1"));
    }

    #[test]
    fn a_beginning_needs_more() {
        for bytes in [&b""[..], b"G", b"GET", b"GET /a HTTP/1", b"PRI * HT", &PREFACE[..20], b"\r\n"] {
            assert_eq!(inspect_http(bytes), Protocol::Incomplete, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn other_protocols_are_told_at_once() {
        for bytes in
            [&b"\x16\x03\x01"[..], b"get / HTTP/1.1\r\n", b"SSH-2.0-x\r\n", b" GET", b"GET /\r\n", b"*1\r\n"]
        {
            assert_eq!(inspect_http(bytes), Protocol::NotHttp, "{}", bytes.escape_ascii());
        }
        assert_eq!(inspect_http(&[b'A'; 40]), Protocol::NotHttp);
    }
}
