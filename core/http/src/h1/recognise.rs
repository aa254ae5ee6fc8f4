//! Whether a connection begins with HTTP in clear text.

use super::chars::is_token;
use super::connection::Version;
use super::head::next_line;
use super::request::{RequestLine, RequestOptions, is_blank};

/// What the first bytes of a connection tell about HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// They may become HTTP; more bytes are needed.
    Incomplete,
    /// They are not HTTP.
    NotHttp,
    /// A request line. One without a version, or with another than 1.1, is of 1.0.
    Http1(Version),
    /// The preface of HTTP/2.
    Http2,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks for HTTP at the start of a connection, as the codec takes it whatever the method, except that nothing may stand in front of
/// the request line.
pub fn recognise(bytes: &[u8]) -> Beginning {
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] == PREFACE[..compared] {
        return if compared == PREFACE.len() { Beginning::Http2 } else { Beginning::Incomplete };
    }
    if let Some((line, _)) = next_line(bytes, 0) {
        let options = RequestOptions { allow_custom_methods: true, ..RequestOptions::default() };
        return RequestLine::parse_well_formed(line, &options)
            .map_or(Beginning::NotHttp, |line| Beginning::Http1(line.version));
    }
    let method = bytes.iter().position(|byte| is_blank(*byte)).unwrap_or(bytes.len());
    match method > 0 && bytes[..method].iter().all(|byte| is_token(*byte)) {
        true => Beginning::Incomplete,
        false => Beginning::NotHttp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_lines_and_prefaces_are_recognised() {
        for (bytes, version) in [
            (&b"GET /a HTTP/1.1\r\nhost: b\r\n"[..], Version::Http11),
            (b"PRI * HTTP/1.1\r\n", Version::Http11),
            (b"get http://a HTTP/1.1\n", Version::Http11),
            (b"CONNECT a:1 HTTP/1.1\n", Version::Http11),
            (b"M_S\t/ HTTP/1.1 \n", Version::Http11),
            (b"M-SEARCH * HTTP/1.0\n", Version::Http10),
            (b"GET / HTTP/2.0\r\n", Version::Http10),
            (b"PRI * HTTP/2.0\r\n\r\nXX", Version::Http10),
            (b"GET /\r\n", Version::Http10),
        ] {
            assert_eq!(recognise(bytes), Beginning::Http1(version), "{}", bytes.escape_ascii());
        }
        assert_eq!(recognise(PREFACE), Beginning::Http2);
    }

    #[test]
    fn a_beginning_needs_more() {
        let long = [b'A'; 40];
        for bytes in [
            &b""[..],
            b"G",
            b"GET",
            b"GET /a x",
            b"PRI * HT",
            &PREFACE[..20],
            b"SSH-2.0-x",
            b"any text",
            &long,
        ] {
            assert_eq!(recognise(bytes), Beginning::Incomplete, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn other_protocols_are_told_at_once() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"G\x01",
            b" GET",
            b"\r\nGET / HTTP/1.1\r\n",
            b"SSH-2.0-x\r\n",
            b"any text\r\n",
            b"GET / FTP/1.1\r\n",
            b"GET / http/1.1\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"*1\r\n",
            b"{}\r\n",
        ] {
            assert_eq!(recognise(bytes), Beginning::NotHttp, "{}", bytes.escape_ascii());
        }
    }
}
