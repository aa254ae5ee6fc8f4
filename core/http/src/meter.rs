//! Bytes of one stream as they are on the wire, for the operators of access logs that tell them (`%DOWNSTREAM_WIRE_BYTES_SENT%` and
//! its like). Streams have a meter only once a format asks for one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::HeaderMap;

/// Whether a format of this process asks for bytes on the wire. Never unset: formats come with every update, and a meter that
/// nobody reads costs little.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Bytes by which Envoy counts a received header line longer than its name and value: a colon and the end of the line.
const RECEIVED_LINE: usize = 3;
/// The same of a line that is sent, with its space.
const SENT_LINE: usize = 4;

/// What one side of a stream received and sent, in bytes, as Envoy's `BytesMeter` counts it.
#[derive(Debug, Default)]
pub struct ByteMeter {
    wire_received: AtomicU64,
    wire_sent: AtomicU64,
    header_received: AtomicU64,
    header_sent: AtomicU64,
    decompressed_received: AtomicU64,
    decompressed_sent: AtomicU64,
}

/// Which bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ByteKind {
    /// All of them.
    Wire,
    /// Those of heads and trailers: over HTTP/2 compressed, over HTTP/1 the header lines.
    Header,
    /// Those of heads and trailers before compression.
    DecompressedHeader,
}

/// Which way bytes went, seen from this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ByteDirection {
    Received,
    Sent,
}

impl ByteMeter {
    /// From now on streams have meters.
    pub fn want() {
        WANTED.store(true, Ordering::Relaxed);
    }

    /// Whether streams are to have meters.
    pub fn is_wanted() -> bool {
        WANTED.load(Ordering::Relaxed)
    }

    /// The number of bytes so far.
    pub fn get(&self, kind: ByteKind, direction: ByteDirection) -> u64 {
        self.counter(kind, direction).load(Ordering::Relaxed)
    }

    /// Counts bytes.
    pub fn add(&self, kind: ByteKind, direction: ByteDirection, bytes: usize) {
        self.counter(kind, direction).fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn counter(&self, kind: ByteKind, direction: ByteDirection) -> &AtomicU64 {
        match (kind, direction) {
            (ByteKind::Wire, ByteDirection::Received) => &self.wire_received,
            (ByteKind::Wire, ByteDirection::Sent) => &self.wire_sent,
            (ByteKind::Header, ByteDirection::Received) => &self.header_received,
            (ByteKind::Header, ByteDirection::Sent) => &self.header_sent,
            (ByteKind::DecompressedHeader, ByteDirection::Received) => &self.decompressed_received,
            (ByteKind::DecompressedHeader, ByteDirection::Sent) => &self.decompressed_sent,
        }
    }

    /// Counts the header lines of an HTTP/1 head that was received, given from its start line to its empty line.
    pub fn on_http1_head_received(&self, head: &[u8]) {
        self.add(ByteKind::Header, ByteDirection::Received, received_lines(head));
        // Each head adds those before it again (interim responses, further attempts), as in Envoy.
        let so_far = self.get(ByteKind::Header, ByteDirection::Received);
        self.add(ByteKind::DecompressedHeader, ByteDirection::Received, so_far as usize);
    }

    /// Counts the header lines of an HTTP/1 head that is sent, given from its start line to its empty line.
    pub fn on_http1_head_sent(&self, head: &[u8]) {
        let start_line = head.iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines = head.len().saturating_sub(start_line + 2);
        self.add(ByteKind::Header, ByteDirection::Sent, lines);
        self.add(ByteKind::DecompressedHeader, ByteDirection::Sent, lines);
    }

    /// Counts HTTP/1 trailers that were received.
    pub fn on_http1_trailers_received(&self, trailers: &HeaderMap) {
        let bytes = trailers.byte_size() + trailers.len() * RECEIVED_LINE;
        self.add(ByteKind::Header, ByteDirection::Received, bytes);
    }

    /// Counts HTTP/1 trailers that are sent.
    pub fn on_http1_trailers_sent(&self, trailers: &HeaderMap) {
        let bytes = trailers.byte_size() + trailers.len() * SENT_LINE;
        self.add(ByteKind::Header, ByteDirection::Sent, bytes);
        self.add(ByteKind::DecompressedHeader, ByteDirection::Sent, bytes);
    }

    /// Counts names and values of an HTTP/2 head or of trailers.
    pub fn on_decompressed(&self, direction: ByteDirection, headers: &HeaderMap) {
        self.add(ByteKind::DecompressedHeader, direction, headers.byte_size());
    }
}

/// Names and values of the header lines of a head, each counted three bytes longer; a head without header lines counts as one
/// empty line.
fn received_lines(head: &[u8]) -> usize {
    let lines = head.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let fields = lines.skip_while(|line| line.is_empty()).skip(1).take_while(|line| !line.is_empty());
    let field = |line: &[u8]| {
        let colon = line.iter().position(|&byte| byte == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        line[..colon].trim_ascii_end().len() + value.len() + RECEIVED_LINE
    };
    fields.map(field).sum::<usize>().max(RECEIVED_LINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_are_counted_without_space_around_values() {
        assert_eq!(received_lines(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"), 8);
        assert_eq!(received_lines(b"\r\nGET / HTTP/1.1\r\nHost:   a  \r\nx:\r\n\r\nbody: 1\r\n"), 12);
        assert_eq!(received_lines(b"HTTP/1.1 204 No Content\r\n\r\n"), 3);
    }

    #[test]
    fn what_is_sent_counts_without_start_line_and_end() {
        let meter = ByteMeter::default();
        meter.on_http1_head_sent(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\n");
        assert_eq!(meter.get(ByteKind::Header, ByteDirection::Sent), 6);
        assert_eq!(meter.get(ByteKind::DecompressedHeader, ByteDirection::Sent), 6);
        let mut trailers = HeaderMap::new();
        trailers.append(b"foo", b"bar");
        meter.on_http1_trailers_sent(&trailers);
        assert_eq!(meter.get(ByteKind::Header, ByteDirection::Sent), 16);
    }

    #[test]
    fn each_head_adds_those_before_it_again() {
        let meter = ByteMeter::default();
        meter.on_http1_head_received(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n");
        meter.on_http1_head_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(meter.get(ByteKind::Header, ByteDirection::Received), 26);
        assert_eq!(meter.get(ByteKind::DecompressedHeader, ByteDirection::Received), 34);
    }
}
