//! The HTTP/1 side of a scripted upstream: byte-exact on purpose, so that it can also be wrong on purpose.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::Reset;
use super::record::{Record, SeenRequest};
use super::script::{Fault, Framing, Reply};
use crate::client::wire::{ChunkedBody, find_head_end, parse_lines, reason_phrase};
use crate::stream::{ByteStream, Read, TlsFacts, read_some};

pub(super) struct Connection<'a, S> {
    pub(super) stream: S,
    pub(super) buffer: Vec<u8>,
    pub(super) number: usize,
    pub(super) tls: Option<TlsFacts>,
    pub(super) record: &'a Record,
    pub(super) reset: &'a Reset,
}

/// Whether the connection goes on after a reply.
#[derive(PartialEq)]
enum Next {
    Request,
    Close,
    Reset,
}

impl<S: ByteStream> Connection<'_, S> {
    pub(super) async fn serve(mut self) {
        self.record.wire_received(self.number, &self.buffer);
        let next = loop {
            let Some(request) = self.read_head().await else { break Next::Close };
            let closes = request.headers.iter().any(|(n, v)| {
                n.eq_ignore_ascii_case("connection") && v.to_ascii_lowercase().contains("close")
            });
            let framing = BodyFraming::of(&request);
            let head_only = request.method == "HEAD";
            let (index, reply) = self.record.arrived(request);
            if framing != BodyFraming::None && self.expects_continue(index) {
                // The client shows on its next read if it has gone.
                let _ = self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            if !reply.early && !self.read_body(index, framing).await {
                break Next::Close;
            }
            let next = self.reply(&reply, head_only).await;
            if next != Next::Request || closes || reply.close {
                break if next == Next::Reset { Next::Reset } else { Next::Close };
            }
            if reply.early && !self.read_body(index, framing).await {
                break Next::Close;
            }
        };
        if next == Next::Reset {
            self.reset.arm();
        } else {
            let _ = self.stream.shutdown().await;
        }
    }

    fn expects_continue(&self, index: usize) -> bool {
        let mut expects = false;
        self.record.update(index, |request| {
            expects = request
                .headers
                .iter()
                .any(|(n, v)| n.eq_ignore_ascii_case("expect") && v.eq_ignore_ascii_case("100-continue"));
        });
        expects
    }

    async fn read_head(&mut self) -> Option<SeenRequest> {
        let end = loop {
            if let Some(end) = find_head_end(&self.buffer) {
                break end;
            }
            self.more().await?;
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let (first, headers) = parse_lines(&head);
        let mut words = first.splitn(3, ' ').map(str::to_owned);
        Some(SeenRequest {
            connection: self.number,
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            protocol: words.next().unwrap_or_default(),
            authority: None,
            scheme: None,
            headers,
            body: Vec::new(),
            chunked: false,
            trailers: Vec::new(),
            complete: false,
            tls: self.tls.clone(),
        })
    }

    async fn more(&mut self) -> Option<()> {
        let known = self.buffer.len();
        match read_some(&mut self.stream, &mut self.buffer).await {
            Read::Data(_) => {
                self.record.wire_received(self.number, &self.buffer[known..]);
                Some(())
            }
            Read::End(_) => None,
        }
    }

    /// Reads the body into the record; false when the connection ended first.
    async fn read_body(&mut self, index: usize, framing: BodyFraming) -> bool {
        match framing {
            BodyFraming::None => {}
            BodyFraming::Length(length) => {
                while self.buffer.len() < length {
                    if self.more().await.is_none() {
                        let partial = std::mem::take(&mut self.buffer);
                        self.record.update(index, |r| r.body = partial);
                        return false;
                    }
                }
                let body: Vec<u8> = self.buffer.drain(..length).collect();
                self.record.update(index, |r| r.body = body);
            }
            BodyFraming::Chunked => {
                let mut decoder = ChunkedBody::default();
                loop {
                    let done = decoder.feed(&mut self.buffer);
                    self.record.update(index, |r| {
                        r.chunked = true;
                        r.body.clone_from(&decoder.body);
                        r.trailers.clone_from(&decoder.trailers);
                    });
                    if done {
                        break;
                    }
                    if self.more().await.is_none() {
                        return false;
                    }
                }
            }
        }
        self.record.update(index, |r| r.complete = true);
        true
    }

    async fn reply(&mut self, reply: &Reply, head_only: bool) -> Next {
        tokio::time::sleep(reply.delay()).await;
        match &reply.fault {
            Some(Fault::CloseBeforeHead) => return Next::Close,
            Some(Fault::ResetBeforeHead | Fault::RefuseStream) => return Next::Reset,
            Some(Fault::Bytes(bytes)) => {
                let _ = self.stream.write_all(bytes.as_bytes()).await;
                return Next::Close;
            }
            Some(Fault::Hang) => {
                while self.more().await.is_some() {}
                return Next::Close;
            }
            Some(Fault::CloseMidBody | Fault::ResetMidBody) | None => {}
        }
        for status in &reply.interim {
            let line = format!("HTTP/1.1 {status} {}\r\n\r\n", reason_phrase(*status));
            let _ = self.stream.write_all(line.as_bytes()).await;
        }
        let pieces = reply.body.pieces();
        let mut out = head_bytes(reply, pieces.iter().map(Vec::len).sum());
        if head_only || matches!(reply.status, 204 | 304) {
            return self.finish(&out).await;
        }
        if reply.body_delay_ms > 0 || reply.chunk_delay_ms > 0 {
            let _ = self.stream.write_all(&out).await;
            out.clear();
            tokio::time::sleep(Duration::from_millis(reply.body_delay_ms)).await;
        }
        for (number, piece) in pieces.iter().enumerate() {
            if number > 0 && reply.chunk_delay_ms > 0 {
                tokio::time::sleep(Duration::from_millis(reply.chunk_delay_ms)).await;
            }
            append_piece(&mut out, piece, reply.framing);
            let cut_short = matches!(reply.fault, Some(Fault::CloseMidBody | Fault::ResetMidBody));
            if reply.chunk_delay_ms > 0 || cut_short {
                let _ = self.stream.write_all(&out).await;
                let _ = self.stream.flush().await;
                out.clear();
            }
            if cut_short {
                return if reply.fault == Some(Fault::ResetMidBody) { Next::Reset } else { Next::Close };
            }
        }
        if reply.framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n");
            for (name, value) in &reply.trailers {
                out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        match self.finish(&out).await {
            Next::Request if reply.framing == Framing::UntilClose => Next::Close,
            next => next,
        }
    }

    async fn finish(&mut self, out: &[u8]) -> Next {
        if self.stream.write_all(out).await.is_err() || self.stream.flush().await.is_err() {
            return Next::Close;
        }
        Next::Request
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum BodyFraming {
    None,
    Length(usize),
    Chunked,
}

impl BodyFraming {
    fn of(request: &SeenRequest) -> Self {
        let value = |wanted: &str| {
            request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(wanted)).map(|(_, v)| v.as_str())
        };
        if value("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
            return Self::Chunked;
        }
        match value("content-length").and_then(|v| v.parse().ok()) {
            Some(0) | None => Self::None,
            Some(length) => Self::Length(length),
        }
    }
}

fn append_piece(out: &mut Vec<u8>, piece: &[u8], framing: Framing) {
    if framing == Framing::Chunked {
        out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        out.extend_from_slice(piece);
        out.extend_from_slice(b"\r\n");
    } else {
        out.extend_from_slice(piece);
    }
}

fn head_bytes(reply: &Reply, length: usize) -> Vec<u8> {
    let reason = reply.reason.as_deref().unwrap_or_else(|| reason_phrase(reply.status));
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", reply.status);
    let given = |name: &str| reply.headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name));
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let bodiless = matches!(reply.status, 100..=199 | 204 | 304);
    match reply.framing {
        Framing::Length if !bodiless && !given("content-length") && !given("transfer-encoding") => {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        Framing::Chunked if !given("transfer-encoding") => head.push_str("transfer-encoding: chunked\r\n"),
        _ => {}
    }
    if (reply.close || reply.framing == Framing::UntilClose) && !given("connection") {
        head.push_str("connection: close\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}
