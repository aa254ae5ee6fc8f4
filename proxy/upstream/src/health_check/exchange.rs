//! One HTTP exchange on a connection of a health check's own.

use std::io;

use bytes::Bytes;
use dhow_http::HeaderMap;
use dhow_http::KnownHeader;
use dhow_http::h1::{
    Answering, BodyFraming, BodyLength, BodyReader, HeadProgress, Parsed, RequestWriteOptions, ResponseInfo,
    ResponseOptions, has_token, parse_response, write_request_head,
};
use dhow_http::h2::{self, Sender, Settings, StreamError};
use dhow_net::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::AbortHandle;

/// Bytes that are read at a time.
const READ_SIZE: usize = 4096;

/// The answer to a check.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) head: HeaderMap,
    /// The beginning of the body, up to what was asked for.
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

/// A connection that checks are made on.
pub(super) enum HttpConnection {
    H1(H1Connection),
    H2(H2Connection),
}

impl HttpConnection {
    /// Takes a fresh connection into use.
    pub(super) async fn start(transport: Transport, http2: bool) -> io::Result<Self> {
        if !http2 {
            return Ok(Self::H1(H1Connection { transport, buffer: Vec::new(), usable: true }));
        }
        let (sender, connection) =
            h2::connect(transport, &Settings::default()).await.map_err(io::Error::other)?;
        // The task ends with the connection; how it ended shows on the streams.
        let driver = tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        Ok(Self::H2(H2Connection { sender, driver: driver.abort_handle() }))
    }

    /// Whether another exchange can be tried.
    pub(super) async fn is_usable(&mut self) -> bool {
        match self {
            Self::H1(connection) => connection.usable && !connection.has_ended().await,
            Self::H2(connection) => !connection.sender.is_draining(),
        }
    }

    /// Sends a request and waits for the whole answer, of whose body at most `wanted` bytes are kept.
    pub(super) async fn exchange(
        &mut self,
        head: &HeaderMap,
        body: &[u8],
        wanted: usize,
    ) -> io::Result<Answer> {
        match self {
            Self::H1(connection) => connection.exchange(head, body, wanted).await,
            Self::H2(connection) => connection.exchange(head, body, wanted).await.map_err(io::Error::other),
        }
    }
}

pub(super) struct H1Connection {
    transport: Transport,
    buffer: Vec<u8>,
    usable: bool,
}

impl H1Connection {
    /// Whether the host closed the connection, or sent something unasked for, since the last answer.
    async fn has_ended(&mut self) -> bool {
        let mut byte = [0; 1];
        let read = self.transport.read(&mut byte);
        // A read that is not ready at once says that all is quiet.
        tokio::time::timeout(std::time::Duration::ZERO, read).await.is_ok()
    }

    async fn exchange(&mut self, head: &HeaderMap, body: &[u8], wanted: usize) -> io::Result<Answer> {
        self.usable = false;
        let mut out = Vec::with_capacity(256);
        let framing = write_request_head(&mut out, head, RequestWriteOptions::default(), body.is_empty());
        debug_assert!(body.is_empty() || framing == BodyFraming::Identity, "the caller sets a length");
        out.extend_from_slice(body);
        self.transport.write_all(&out).await?;
        self.transport.flush().await?;
        let mut answer = Answer::default();
        let answering = if head.method() == b"HEAD" { Answering::Head } else { Answering::Ordinary };
        let info = self.read_head(answering, &mut answer.head).await?;
        self.read_body(info.body, &mut answer, wanted).await?;
        let closes = has_token(&answer.head, KnownHeader::Connection, b"close");
        self.usable = info.keep_alive && !closes && self.buffer.is_empty();
        Ok(answer)
    }

    async fn read_head(&mut self, answering: Answering, head: &mut HeaderMap) -> io::Result<ResponseInfo> {
        let mut progress = HeadProgress::default();
        let options = ResponseOptions::default();
        loop {
            match parse_response(&self.buffer, &mut progress, answering, &options, head) {
                Ok(Parsed::Complete { consumed, info }) => {
                    self.buffer.drain(..consumed);
                    if !info.informational {
                        return Ok(info);
                    }
                    progress = HeadProgress::default();
                }
                Ok(Parsed::Partial) => {
                    if self.fill().await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    async fn read_body(&mut self, length: BodyLength, answer: &mut Answer, wanted: usize) -> io::Result<()> {
        let mut reader = BodyReader::new(length);
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        while !reader.is_end() {
            if self.buffer.is_empty() && self.fill().await? == 0 {
                return reader.finish().map_err(invalid);
            }
            let step = reader.read(&self.buffer, &mut answer.trailers).map_err(invalid)?;
            let room = wanted.saturating_sub(answer.body.len());
            let data = &self.buffer[step.data];
            answer.body.extend_from_slice(&data[..data.len().min(room)]);
            self.buffer.drain(..step.consumed);
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_SIZE);
        self.transport.read_buf(&mut self.buffer).await
    }
}

pub(super) struct H2Connection {
    sender: Sender,
    driver: AbortHandle,
}

impl H2Connection {
    async fn exchange(
        &mut self,
        head: &HeaderMap,
        body: &[u8],
        wanted: usize,
    ) -> Result<Answer, StreamError> {
        self.sender.ready().await?;
        let (mut response, mut sending) = self.sender.send_request(head, body.is_empty())?;
        if !body.is_empty() {
            sending.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let mut answer = Answer::default();
        let mut received = response.response(&mut answer.head).await?;
        while let Some(data) = received.data().await {
            let data = data?;
            received.release(data.len());
            let room = wanted.saturating_sub(answer.body.len());
            answer.body.extend_from_slice(&data[..data.len().min(room)]);
        }
        received.trailers(&mut answer.trailers).await?;
        Ok(answer)
    }
}

impl Drop for H2Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
