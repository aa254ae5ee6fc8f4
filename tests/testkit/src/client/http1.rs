//! An HTTP/1 client of bytes: it sends what it is given and reports what came back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::{ChunkedBody, find_head_end, parse_lines};
use super::{TlsOptions, connect, over};
use crate::stream::{ByteStream, End, Read, TlsFacts, end_of, read_some};

/// One response as it was on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Response {
    /// `HTTP/1.1` or what else the status line said.
    pub version: String,
    /// The status code; 0 when the status line has none.
    pub status: u16,
    /// The reason phrase.
    pub reason: String,
    /// Headers in wire order with the case they had.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The size of each chunk, when the body was chunked.
    pub chunks: Option<Vec<usize>>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// The status codes of the interim (1xx) responses before it.
    pub interim: Vec<u16>,
    /// How the body ended.
    pub body_end: BodyEnd,
}

impl Http1Response {
    /// The first value of a header, found without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// How a response body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// As its framing announced.
    Complete,
    /// With the connection, which is how it was framed.
    WithConnection,
    /// Too early: the connection closed inside it.
    CutShort,
    /// Too early: the connection was reset inside it.
    Reset,
}

/// No response could be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The connection ended before a complete head; the bytes that did come are here.
    #[error("the connection ended ({0:?}) after {1:?}")]
    Ended(End, String),
    /// Nothing more came in time; the bytes that did come are here.
    #[error("no complete response in time, only {0:?}")]
    TimedOut(String),
}

/// A connection that speaks HTTP/1, or anything else, byte by byte.
pub struct Http1Client {
    stream: Box<dyn ByteStream>,
    buffer: Vec<u8>,
    tls: Option<TlsFacts>,
    /// A reset that a write ran into: the kernel reports it once, so the next read would see an orderly end.
    reset: bool,
}

impl Http1Client {
    /// Connects; over TLS where options are given.
    pub async fn connect(address: SocketAddr, tls: Option<&TlsOptions>) -> io::Result<Self> {
        let (stream, tls) = connect(address, tls).await?;
        Ok(Self { stream, buffer: Vec::new(), tls, reset: false })
    }

    /// Speaks over a connection that the caller opened; over TLS where options are given.
    pub async fn over(stream: TcpStream, tls: Option<&TlsOptions>) -> io::Result<Self> {
        let (stream, tls) = over(stream, tls).await?;
        Ok(Self { stream, buffer: Vec::new(), tls, reset: false })
    }

    /// What TLS negotiated.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// Sends bytes. Once the other side has gone this fails; what it said before can still be read.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sent = match self.stream.write_all(bytes.as_ref()).await {
            Ok(()) => self.stream.flush().await,
            failed => failed,
        };
        self.reset |= sent.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
        sent
    }

    async fn more(&mut self) -> Read {
        match read_some(&mut self.stream, &mut self.buffer).await {
            Read::End(End::Closed) if self.reset => Read::End(End::Reset),
            read => read,
        }
    }

    /// Finishes sending (FIN) and keeps receiving.
    pub async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Sends a `GET` for `target` and reads the response, within `limit`.
    pub async fn get(
        &mut self,
        host: &str,
        target: &str,
        limit: Duration,
    ) -> Result<Http1Response, ReadError> {
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        if let Err(error) = self.send(request).await {
            return Err(ReadError::Ended(end_of(&error), String::new()));
        }
        self.response("GET", limit).await
    }

    /// Reads the next response to a request with `method`, within `limit`.
    pub async fn response(&mut self, method: &str, limit: Duration) -> Result<Http1Response, ReadError> {
        match timeout(limit, self.read_response(method)).await {
            Ok(result) => result.map_err(|end| ReadError::Ended(end, self.left_over())),
            Err(_) => Err(ReadError::TimedOut(self.left_over())),
        }
    }

    /// Reads everything until the other side ends, or `limit` passes (then the end is `None`).
    pub async fn read_to_end(&mut self, limit: Duration) -> (Vec<u8>, Option<End>) {
        let read = async {
            loop {
                if let Read::End(end) = self.more().await {
                    return end;
                }
            }
        };
        let end = timeout(limit, read).await.ok();
        (std::mem::take(&mut self.buffer), end)
    }

    /// Reads until `count` bytes are there, or the other side ends, or `limit` passes; returns what there is.
    pub async fn read_bytes(&mut self, count: usize, limit: Duration) -> (Vec<u8>, Option<End>) {
        let read = async {
            while self.buffer.len() < count {
                if let Read::End(end) = self.more().await {
                    return Some(end);
                }
            }
            None
        };
        let end = timeout(limit, read).await.ok().flatten();
        let count = count.min(self.buffer.len());
        (self.buffer.drain(..count).collect(), end)
    }

    fn left_over(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }

    async fn read_response(&mut self, method: &str) -> Result<Http1Response, End> {
        let mut interim = Vec::new();
        loop {
            let mut response = self.read_head().await?;
            if (100..200).contains(&response.status) && response.status != 101 {
                interim.push(response.status);
                continue;
            }
            response.interim = interim;
            self.read_body(method, &mut response).await;
            return Ok(response);
        }
    }

    async fn read_head(&mut self) -> Result<Http1Response, End> {
        let end = loop {
            if let Some(end) = find_head_end(&self.buffer) {
                break end;
            }
            if let Read::End(end) = self.more().await {
                return Err(end);
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let (line, headers) = parse_lines(&head);
        let mut words = line.splitn(3, ' ');
        Ok(Http1Response {
            version: words.next().unwrap_or_default().to_owned(),
            status: words.next().and_then(|s| s.parse().ok()).unwrap_or(0),
            reason: words.next().unwrap_or_default().to_owned(),
            headers,
            body: Vec::new(),
            chunks: None,
            trailers: Vec::new(),
            interim: Vec::new(),
            body_end: BodyEnd::Complete,
        })
    }

    async fn read_body(&mut self, method: &str, response: &mut Http1Response) {
        let tunnel = method == "CONNECT" && (200..300).contains(&response.status);
        if method == "HEAD" || tunnel || matches!(response.status, 101 | 204 | 304) {
            return;
        }
        if response.header("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
            return self.read_chunked(response).await;
        }
        let length = response.header("content-length").and_then(|v| v.parse::<usize>().ok());
        let wanted = length.unwrap_or(usize::MAX);
        while self.buffer.len() < wanted {
            if let Read::End(end) = self.more().await {
                response.body_end = match (end, length) {
                    (End::Closed, None) => BodyEnd::WithConnection,
                    (End::Closed, Some(_)) => BodyEnd::CutShort,
                    (End::Reset, _) => BodyEnd::Reset,
                };
                break;
            }
        }
        let there = wanted.min(self.buffer.len());
        response.body = self.buffer.drain(..there).collect();
    }

    async fn read_chunked(&mut self, response: &mut Http1Response) {
        let mut decoder = ChunkedBody::default();
        while !decoder.feed(&mut self.buffer) {
            if let Read::End(end) = self.more().await {
                response.body_end = if end == End::Reset { BodyEnd::Reset } else { BodyEnd::CutShort };
                break;
            }
        }
        if decoder.malformed {
            response.body_end = BodyEnd::CutShort;
        }
        response.body = decoder.body;
        response.chunks = Some(decoder.chunks);
        response.trailers = decoder.trailers;
    }
}
