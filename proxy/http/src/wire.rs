//! One HTTP/1 connection as bytes: reading into a borrowed buffer, body framing in both directions, and writing so that
//! a head and a small body leave in one system call.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use dhow_http::h1::{
    BodyFraming, BodyLength, BodyReader, CHUNK_END, ChunkStart, LAST_CHUNK, TrailerLimits, write_trailers,
};
use dhow_http::{ByteDirection, ByteKind, ByteMeter, HeaderMap};
use dhow_net::Transport;
use dhow_proxy_runtime::{BufferPool, ReadBuffer, clock, turn};

use crate::body::{BodySource, BodyState};
use crate::reset::{Reset, ResetKind};
use crate::traffic::Traffic;
use crate::watermarks::{Pressure, Watermarks};

/// Body bytes up to this size are copied behind the head instead of being written from where they lie: the copy is
/// cheaper than a second slice, and what follows (the end of a chunk) joins the same write.
const COPY_LIMIT: usize = 4 * 1024;

/// Whether a message that is complete lets others of the worker's turn leave with it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Join {
    /// Nothing is complete.
    No,
    /// The caller was told to come again, and has not yet.
    Waits,
    /// It has, or there was nothing to join: what is left waits for the peer.
    Done,
}

/// A connection between two messages or within one.
#[derive(Debug)]
pub(crate) struct Wire {
    transport: Transport,
    pool: Rc<BufferPool>,
    pub(crate) read: ReadBuffer,
    out: Vec<u8>,
    written: usize,
    framing: BodyFraming,
    chunk_left: usize,
    marks: Watermarks,
    body: BodyReader,
    /// Bytes of body at the front of `read`.
    data: usize,
    /// Boxed, as few messages have some.
    trailers: Option<Box<HeaderMap>>,
    ended: bool,
    /// Nothing is expected to be there: whoever reads next asks the event loop first, which costs less than a buffer.
    quiet: bool,
    join: Join,
    traffic: Traffic,
    pub(crate) bytes_written: u64,
    /// Counts the bytes of the message under way, where a format asks for them.
    pub(crate) meter: Option<Arc<ByteMeter>>,
}

impl Wire {
    /// A connection on which up to `limit` bytes wait for a peer that is slow to read, and whose bytes are counted.
    pub(crate) fn new(transport: Transport, pool: Rc<BufferPool>, limit: u32, traffic: Traffic) -> Self {
        Self {
            transport,
            read: ReadBuffer::new(pool.clone()),
            pool,
            out: Vec::new(),
            written: 0,
            framing: BodyFraming::None,
            chunk_left: 0,
            marks: Watermarks::new(limit),
            body: BodyReader::new(BodyLength::None),
            data: 0,
            trailers: None,
            ended: false,
            quiet: false,
            join: Join::No,
            traffic,
            bytes_written: 0,
            meter: None,
        }
    }

    /// Gives up the connection to another codec: the transport and what was read from it.
    pub(crate) fn into_parts(self) -> (Transport, Vec<u8>) {
        let read = self.read.filled().to_vec();
        (self.transport, read)
    }

    /// Waits, without a buffer, until the peer sent something or closed.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.transport.poll_read_ready(cx)
    }

    /// Reads more behind what is buffered; 0 is the end of the stream.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Where something is likely to be there, a buffer that is given back at once costs less than asking a plain socket twice.
        if std::mem::take(&mut self.quiet) || !self.transport.is_plain() {
            ready!(self.transport.poll_read_ready(cx))?;
        }
        let result = self.transport.poll_read(cx, self.read.room());
        match result {
            Poll::Ready(Ok(count)) => {
                clock::forget();
                self.read.advance(count);
                self.traffic.received.add(count as u64);
                if let Some(meter) = &self.meter {
                    meter.add(ByteKind::Wire, ByteDirection::Received, count);
                }
                self.ended |= count == 0;
                if count == 0 {
                    self.read.release_if_empty();
                }
                Poll::Ready(Ok(count))
            }
            other => {
                self.read.release_if_empty();
                other
            }
        }
    }

    /// What comes next from the peer will take a while.
    pub(crate) fn expect_quiet(&mut self) {
        self.quiet = true;
    }

    /// Whether the peer ended its direction.
    pub(crate) fn peer_ended(&self) -> bool {
        self.ended
    }

    /// Starts reading a body framed like this.
    pub(crate) fn begin_body(&mut self, length: BodyLength, limits: TrailerLimits) {
        self.body = BodyReader::with_limits(length, limits);
        self.quiet = true;
        self.data = 0;
        self.trailers = None;
    }

    /// Takes the end of the connection for that of the body, where nothing else marks it; tells whether it is.
    pub(crate) fn end_with_connection(&mut self) -> bool {
        self.body.finish().is_ok()
    }

    /// Whether the whole body was read and consumed.
    pub(crate) fn body_is_consumed(&self) -> bool {
        self.body.is_end() && self.data == 0
    }

    /// Buffer for a head that is about to be written; what is appended leaves with the next flush.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        if self.out.capacity() == 0 {
            self.out = self.pool.take_write();
        }
        &mut self.out
    }

    /// Says how body bytes behind the head in [`out`](Self::out) are framed.
    pub(crate) fn begin_write(&mut self, framing: BodyFraming) {
        self.framing = framing;
        self.chunk_left = 0;
    }

    /// Pushes buffered bytes to the socket; the buffer goes back to the worker.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            let count =
                ready!(self.transport.poll_write_vectored(cx, &[IoSlice::new(&self.out[self.written..])]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.count_written(count);
        }
        if self.out.capacity() > 0 {
            self.pool.give_write(std::mem::take(&mut self.out));
            self.written = 0;
            self.marks.update(0);
        }
        self.transport.poll_flush(cx)
    }

    /// Takes body bytes: copies small ones behind what is buffered, writes large ones together with it, and keeps what a slow
    /// peer does not take up to the limit.
    pub(crate) fn poll_write_body(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self.framing {
            BodyFraming::None => return Poll::Ready(Ok(data.len())),
            BodyFraming::Identity => {}
            BodyFraming::Chunked if self.chunk_left == 0 => {
                self.chunk_left = data.len();
                self.out().extend_from_slice(ChunkStart::new(data.len()).as_bytes());
            }
            BodyFraming::Chunked => {}
        }
        let offered = if self.framing == BodyFraming::Chunked {
            &data[..data.len().min(self.chunk_left)]
        } else {
            data
        };
        let count = if self.unwritten() + offered.len() <= COPY_LIMIT {
            self.out().extend_from_slice(offered);
            offered.len()
        } else {
            match self.poll_write_with_buffered(cx, offered) {
                Poll::Ready(count) => count?,
                Poll::Pending if self.marks.has_room(self.unwritten()) => {
                    self.keep(offered);
                    offered.len()
                }
                Poll::Pending => return Poll::Pending,
            }
        };
        if self.framing == BodyFraming::Chunked {
            self.chunk_left -= count;
            if self.chunk_left == 0 {
                self.out().extend_from_slice(CHUNK_END);
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Bytes that the peer did not take yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }

    /// Whether the end of the message has been asked for and waits for others of the worker's turn, not for the peer.
    pub(crate) fn waits_for_others(&self) -> bool {
        self.join == Join::Waits
    }

    /// Whether so many bytes wait for the peer that no more are taken.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.marks.is_above()
    }

    /// What happened since the last time to the bytes that the peer did not take yet.
    pub(crate) fn take_pressure(&mut self) -> Pressure {
        self.marks.take_pressure()
    }

    /// Appends bytes to those that the peer did not take yet. What it took goes when it is the larger part, so that the buffer
    /// does not grow with all that passes.
    fn keep(&mut self, bytes: &[u8]) {
        if self.written > self.out.len() / 2 {
            self.out.drain(..self.written);
            self.written = 0;
        }
        self.out().extend_from_slice(bytes);
    }

    fn poll_write_with_buffered(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let buffered = self.unwritten();
            let slices = [IoSlice::new(&self.out[self.written..]), IoSlice::new(data)];
            let slices = if buffered == 0 { &slices[1..] } else { &slices[..] };
            let count = ready!(self.transport.poll_write_vectored(cx, slices))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.count_written(count);
            if count > buffered {
                self.out.clear();
                self.written = 0;
                return Poll::Ready(Ok(count - buffered));
            }
            self.written += count;
        }
    }

    fn count_written(&mut self, count: usize) {
        self.bytes_written += count as u64;
        self.traffic.sent.add(count as u64);
        if let Some(meter) = &self.meter {
            meter.add(ByteKind::Wire, ByteDirection::Sent, count);
        }
    }

    /// Begins to count the bytes of a request, where a format asks for them. Its head is the first `head` buffered bytes, or
    /// could not be made out if 0; as in Envoy, what was read behind it counts too.
    pub(crate) fn meter_request(&mut self, head: usize) {
        self.meter = ByteMeter::is_wanted().then(Arc::default);
        if let Some(meter) = &self.meter {
            meter.add(ByteKind::Wire, ByteDirection::Received, self.read.len());
            if head > 0 {
                meter.on_http1_head_received(&self.read.filled()[..head]);
            }
        }
    }

    /// Counts the head that was appended to [`out`](Self::out) behind its first `before` bytes.
    pub(crate) fn meter_head(&self, before: usize) {
        if let Some(meter) = &self.meter {
            meter.on_http1_head_sent(&self.out[before..]);
        }
    }

    /// Ends the body and pushes everything to the socket.
    pub(crate) fn poll_finish(
        &mut self,
        cx: &mut Context<'_>,
        trailers: Option<&HeaderMap>,
    ) -> Poll<io::Result<()>> {
        if self.framing == BodyFraming::Chunked {
            match trailers {
                Some(trailers) if !trailers.is_empty() => {
                    write_trailers(self.out(), trailers);
                    if let Some(meter) = &self.meter {
                        meter.on_http1_trailers_sent(trailers);
                    }
                }
                _ => self.out().extend_from_slice(LAST_CHUNK),
            }
        }
        self.framing = BodyFraming::None;
        self.join = match self.join {
            Join::No if self.unwritten() > 0 && turn::poll_join(cx).is_pending() => {
                self.join = Join::Waits;
                return Poll::Pending;
            }
            _ => Join::Done,
        };
        ready!(self.poll_flush(cx))?;
        self.join = Join::No;
        Poll::Ready(Ok(()))
    }

    /// Ends our direction of the connection.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.transport.poll_shutdown(cx)
    }

    /// Drops framing that was read over in front of the body and finds the next body bytes in the buffer.
    fn step(&mut self) -> Result<Option<BodyState>, Reset> {
        while !self.read.is_empty() && !self.body.is_end() {
            let mut found = HeaderMap::new();
            let trailers = self.trailers.as_deref_mut().unwrap_or(&mut found);
            let step = self
                .body
                .read(self.read.filled(), trailers)
                .map_err(|error| Reset::with_transport(ResetKind::ProtocolError, error.to_string()))?;
            if !found.is_empty() {
                self.trailers = Some(Box::new(found));
            }
            // Framing in front of the data goes at once; the reader takes no framing behind it in the same step.
            debug_assert!(step.data.is_empty() || step.data.end == step.consumed, "data ends a step");
            self.read.consume(step.consumed - step.data.len());
            self.data = step.data.len();
            if self.data > 0 {
                return Ok(Some(BodyState::Data));
            }
        }
        if self.body.is_end() {
            return Ok(Some(BodyState::End));
        }
        Ok(None)
    }
}

impl BodySource for Wire {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        if self.data > 0 {
            return Poll::Ready(Ok(BodyState::Data));
        }
        loop {
            if let Some(state) = self.step()? {
                if state == BodyState::End {
                    self.read.release_if_empty();
                }
                return Poll::Ready(Ok(state));
            }
            match ready!(self.poll_fill(cx)) {
                Ok(0) => {
                    return Poll::Ready(match self.body.finish() {
                        Ok(()) => Ok(BodyState::End),
                        Err(_) => Err(Reset::new(ResetKind::ConnectionTermination)),
                    });
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Reset::of_io(&error))),
            }
        }
    }

    fn chunk(&self) -> &[u8] {
        &self.read.filled()[..self.data]
    }

    fn consume(&mut self, count: usize) {
        self.read.consume(count);
        self.data -= count;
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }
}
