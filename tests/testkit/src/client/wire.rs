//! HTTP/1 bytes, read as a tolerant bystander: what is on the wire is reported, not judged.

/// The end of the first message head in `bytes` (past its empty line), if it is all there.
pub fn find_head_end(bytes: &[u8]) -> Option<usize> {
    let crlf = bytes.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
    let lf = bytes.windows(2).position(|w| w == b"\n\n").map(|at| at + 2);
    match (crlf, lf) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Splits a head into its first line and its header lines; names and values keep their case, values are trimmed.
pub fn parse_lines(head: &[u8]) -> (String, Vec<(String, String)>) {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    let first = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once(':') {
            Some((name, value)) => (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()),
            None => (line.to_owned(), String::new()),
        })
        .collect();
    (first, headers)
}

/// Takes a chunked body apart as its bytes arrive.
#[derive(Debug, Default)]
pub struct ChunkedBody {
    /// The content so far.
    pub body: Vec<u8>,
    /// The sizes of the chunks so far, without the last one of size 0.
    pub chunks: Vec<usize>,
    /// Trailers, once the end was read.
    pub trailers: Vec<(String, String)>,
    /// The bytes do not look like chunks.
    pub malformed: bool,
}

impl ChunkedBody {
    /// Consumes what `buffer` holds of the body; true once the body is complete (or malformed).
    pub fn feed(&mut self, buffer: &mut Vec<u8>) -> bool {
        loop {
            let Some(line_end) = buffer.windows(2).position(|w| w == b"\r\n") else { return false };
            let line = String::from_utf8_lossy(&buffer[..line_end]).into_owned();
            let digits = line.split(';').next().unwrap_or_default().trim();
            let Ok(size) = usize::from_str_radix(digits, 16) else {
                self.malformed = true;
                return true;
            };
            if size == 0 {
                return self.take_trailers(buffer, line_end + 2);
            }
            let end = line_end + 2 + size;
            if buffer.len() < end + 2 {
                return false;
            }
            self.body.extend_from_slice(&buffer[line_end + 2..end]);
            self.chunks.push(size);
            buffer.drain(..end + 2);
        }
    }

    fn take_trailers(&mut self, buffer: &mut Vec<u8>, start: usize) -> bool {
        if buffer[start..].starts_with(b"\r\n") {
            buffer.drain(..start + 2);
            return true;
        }
        let Some(end) = find_head_end(&buffer[start..]) else { return false };
        let mut block = b"\r\n".to_vec();
        block.extend_from_slice(&buffer[start..start + end]);
        self.trailers = parse_lines(&block).1;
        buffer.drain(..start + end);
        true
    }
}

/// The usual reason phrase of a status.
pub fn reason_phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_body_is_read_across_any_split() {
        let wire = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nA: b\r\n\r\nrest";
        for split in 0..wire.len() {
            let mut decoder = ChunkedBody::default();
            let mut buffer = wire[..split].to_vec();
            let done = decoder.feed(&mut buffer);
            buffer.extend_from_slice(&wire[split..]);
            assert!(done || decoder.feed(&mut buffer));
            assert_eq!(decoder.body, b"hello world");
            assert_eq!(decoder.chunks, [5, 6]);
            assert_eq!(decoder.trailers, [("A".to_owned(), "b".to_owned())]);
            assert_eq!(buffer, b"rest");
        }
    }

    #[test]
    fn a_head_is_split_into_lines_with_their_case() {
        let (first, headers) = parse_lines(b"HTTP/1.1 200 OK\r\nX-A:  b \r\nno colon\r\n\r\n");
        assert_eq!(first, "HTTP/1.1 200 OK");
        assert_eq!(headers, [("X-A".into(), "b".into()), ("no colon".into(), String::new())]);
    }
}
