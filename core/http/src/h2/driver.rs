//! Moves the frames of a connection: reads and judges those that come, and writes what waits.

mod control;
mod data;
mod heads;

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::frame::{FrameHead, HEAD_LENGTH, code, kind};
use super::hpack::Decoder;
use super::limits::Violation;
use super::metadata::on_metadata;
use super::pool;
use super::shared::{Core, Farewell, Key, PeerFarewell, SharedCore, Side};
use super::{ConnectionError, Offence, StreamError};
use control::{on_goaway, on_ping, on_priority, on_reset, on_settings, on_window_update};
use heads::Block;

/// Room for what is read at once.
const READ_ROOM: usize = 32 * 1024;
/// A read with less room than this is not worth its call.
const LEAST_ROOM: usize = 4 * 1024;
/// Streams that are handed out before those who serve them have their turn.
const BURST: usize = 32;

/// A frame that breaks the protocol.
#[derive(Debug)]
enum Fault {
    /// Its stream is over.
    Stream(u32, u32),
    /// The connection is over, which the peer is told with a code.
    Connection(u32, &'static str),
    /// The connection is over without a word, as Envoy ends it.
    Silent(&'static str),
    /// The connection is over because of a message, unless the settings say that only its stream is.
    Malformed(u32, Offence),
    Violation(Violation),
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

const fn broken(what: &'static str) -> Fault {
    Fault::Connection(code::PROTOCOL_ERROR, what)
}

const fn silent(what: &'static str) -> Fault {
    Fault::Silent(what)
}

const fn bad_size(what: &'static str) -> Fault {
    Fault::Connection(code::FRAME_SIZE_ERROR, what)
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The peer ended it, or there is nothing left to do.
    Peaceful,
    Failed(ConnectionError),
}

/// The side of a connection that has the transport.
#[derive(Debug)]
pub(super) struct Driver<T> {
    io: T,
    pub(super) core: SharedCore,
    read: BytesMut,
    decoder: Decoder,
    block: Option<Block>,
    /// How it ends, once what waits was written and the transport shut down.
    ending: Option<Ending>,
    /// Streams that were handed out in this turn.
    burst: usize,
    /// What was wrong with the heads of streams that were not opened for it, since the last time that somebody asked.
    pub(super) refused: Vec<Offence>,
}

impl<T> Drop for Driver<T> {
    fn drop(&mut self) {
        self.core
            .borrow_mut()
            .end(StreamError::ConnectionTermination("the connection was closed".to_owned()));
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    pub(super) fn new(io: T, core: SharedCore) -> Self {
        Self {
            io,
            core,
            read: BytesMut::new(),
            decoder: Decoder::new(),
            block: None,
            ending: None,
            burst: 0,
            refused: Vec::new(),
        }
    }

    /// Writes what waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut core = self.core.borrow_mut();
        let polled = core.out.poll_write(cx, &mut self.io);
        core.resume_waiting();
        // What was let go on has its turn before the next write.
        polled
    }

    /// Waits for bytes that a client sends first; `false` when it sends others.
    pub(super) fn poll_expect(&mut self, cx: &mut Context<'_>, expected: &[u8]) -> Poll<io::Result<bool>> {
        loop {
            let have = self.read.len().min(expected.len());
            if self.read[..have] != expected[..have] {
                return Poll::Ready(Ok(false));
            }
            if have == expected.len() {
                self.read.advance(have);
                return Poll::Ready(Ok(true));
            }
            match self.poll_read(cx)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            self.read = pool::take_read();
        }
        if self.read.capacity() - self.read.len() < LEAST_ROOM {
            self.read.reserve(READ_ROOM);
        }
        pin!(self.io.read_buf(&mut self.read)).poll(cx)
    }

    /// Moves frames until a stream is to be accepted (`Pending` of the connection otherwise) or the connection is over. What waits is
    /// written when nothing more is to be read.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Key, Ending>> {
        self.core.borrow_mut().set_driver(cx);
        loop {
            if self.burst == BURST {
                self.burst = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // Also those that came right before what ends the connection: they were requests, and are counted and logged.
            if let Some(key) = self.core.borrow_mut().pop_accepted() {
                self.burst += 1;
                return Poll::Ready(Ok(key));
            }
            if self.ending.is_some() {
                return self.poll_end(cx).map(Err);
            }
            match self.take_frames() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(fault) => {
                    self.on_fault(fault);
                    continue;
                }
            }
            if self.is_finished() {
                self.ending = Some(self.peaceful_ending());
                continue;
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => {
                    self.fail(StreamError::ConnectionTermination("connection closed by the peer".to_owned()));
                    self.ending = Some(Ending::Peaceful);
                    continue;
                }
                Poll::Ready(Ok(_)) => continue,
                Poll::Ready(Err(error)) => {
                    self.fail(StreamError::ConnectionTermination(error.to_string()));
                    return Poll::Ready(Err(Ending::Failed(ConnectionError::Io(error))));
                }
                Poll::Pending => {}
            }
            let judged = self.core.borrow().judge_waiting();
            if let Some(violation) = judged {
                self.on_fault(violation.into());
                continue;
            }
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                self.fail(StreamError::ConnectionTermination(error.to_string()));
                return Poll::Ready(Err(Ending::Failed(ConnectionError::Io(error))));
            }
            if self.is_finished() {
                continue;
            }
            self.rest();
            self.burst = 0;
            return Poll::Pending;
        }
    }

    /// Gives memory back when nothing is under way.
    fn rest(&mut self) {
        let mut core = self.core.borrow_mut();
        if self.read.is_empty() && !core.has_streams() {
            pool::give_read(std::mem::take(&mut self.read));
            core.shrink();
        }
    }

    /// Whether nothing more is to happen on the connection.
    fn is_finished(&self) -> bool {
        let core = self.core.borrow();
        let has_no_use = core.side == Side::Client && core.senders == 0 && !core.has_streams();
        let said_farewell = core.farewell == Farewell::Said && core.open() == 0;
        let heard_farewell = core.side == Side::Client && core.peer_farewell.is_some() && core.open() == 0;
        has_no_use || said_farewell || heard_farewell || core.farewell == Farewell::Abrupt
    }

    fn peaceful_ending(&self) -> Ending {
        match self.core.borrow().peer_farewell {
            Some(PeerFarewell { code, .. }) if code != code::NO_ERROR => {
                Ending::Failed(ConnectionError::RemoteGoAway(code))
            }
            _ => Ending::Peaceful,
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Ending> {
        // The farewell is worth a try; the connection is over whatever comes of it. A server leaves it to its owner when to end
        // its direction, as a client is to have time to read.
        let is_client = self.core.borrow().side == Side::Client;
        let written = match self.poll_flush(cx) {
            Poll::Ready(Ok(())) if is_client => Pin::new(&mut self.io).poll_shutdown(cx),
            other => other,
        };
        // Only who was served to the end is waited for.
        let is_served = matches!(self.ending, Some(Ending::Peaceful));
        if written.is_pending() && is_served && self.core.borrow().farewell != Farewell::None {
            return Poll::Pending;
        }
        self.fail(StreamError::ConnectionTermination("the connection was closed".to_owned()));
        Poll::Ready(self.ending.take().unwrap_or(Ending::Peaceful))
    }

    fn abrupt_farewell(&mut self, code: u32) {
        let mut core = self.core.borrow_mut();
        let last = core.last_peer;
        core.abrupt_farewell(last, code);
    }

    fn fail(&mut self, error: StreamError) {
        self.core.borrow_mut().end(error);
    }

    /// Ends what a fault ends: a stream, or everything.
    fn on_fault(&mut self, fault: Fault) {
        let error = match fault {
            Fault::Stream(id, code) => return self.reset(id, code),
            Fault::Malformed(id, offence) => {
                self.core.borrow_mut().counts.malformed += 1;
                if !self.offend(id, offence) {
                    self.refused.push(offence);
                }
                if self.core.borrow().settings.stream_errors {
                    return self.core.borrow_mut().send_reset(id, code::PROTOCOL_ERROR);
                }
                ConnectionError::Malformed
            }
            Fault::Silent(text) => ConnectionError::Protocol(text.to_owned()),
            Fault::Connection(code, text) => {
                self.abrupt_farewell(code);
                ConnectionError::Protocol(text.to_owned())
            }
            Fault::Violation(violation) => {
                if violation == Violation::FirstFrame {
                    self.abrupt_farewell(code::PROTOCOL_ERROR);
                }
                if violation == Violation::OutboundFrames && self.core.borrow().side == Side::Client {
                    // Found when something was sent, not by what came.
                    self.fail(StreamError::ConnectionTermination(violation.to_string()));
                }
                ConnectionError::Violation(violation)
            }
        };
        self.fail(StreamError::Protocol);
        self.ending = Some(Ending::Failed(error));
    }

    /// Ends a stream because of what came on it, if it is there.
    fn offend(&mut self, id: u32, offence: Offence) -> bool {
        let mut core = self.core.borrow_mut();
        let Some(key) = core.find(id) else { return false };
        let error = match core.side {
            Side::Server => StreamError::Offence(offence),
            Side::Client => StreamError::Protocol,
        };
        core.stream_mut(key).fail(error);
        core.settle(key);
        true
    }

    fn reset(&mut self, id: u32, code: u32) {
        let mut core = self.core.borrow_mut();
        match core.find(id) {
            Some(key) => core.reset(key, code, StreamError::Protocol),
            None => core.send_reset(id, code),
        }
    }

    /// Takes the frames that have come whole, up to one that opens a stream; tells whether there was any.
    fn take_frames(&mut self) -> Result<bool, Fault> {
        let mut any = false;
        while self.core.borrow().accepted() < BURST
            && let Some(bytes) = self.read.first_chunk::<HEAD_LENGTH>()
        {
            let head = FrameHead::parse(bytes);
            let core = self.core.clone();
            let mut core = core.borrow_mut();
            if head.length > core.max_payload {
                let is_first = !core.watch.has_begun();
                return Err(if is_first {
                    Violation::FirstFrame.into()
                } else {
                    bad_size("the frame is too large")
                });
            }
            if self.read.len() < head.total() {
                if self.read.capacity() < head.total() {
                    self.read.reserve(head.total() + READ_ROOM);
                }
                break;
            }
            any = true;
            let outcome = self.take_frame(&head, &mut core);
            core.judge_waiting().map_or(Ok(()), |violation| Err(Fault::Violation(violation)))?;
            drop(core);
            if let Err(Fault::Silent(_)) = outcome {
                self.offend(head.stream, Offence::Frame);
            }
            outcome?;
        }
        Ok(any)
    }

    fn take_frame(&mut self, head: &FrameHead, core: &mut Core) -> Result<(), Fault> {
        let opens = head.kind == kind::HEADERS && core.side == Side::Server && head.stream > core.last_peer;
        let payload = &self.read[HEAD_LENGTH..head.total()];
        if let Some(violation) = core.watch.received(head, payload, opens) {
            self.read.advance(head.total());
            return Err(violation.into());
        }
        let of_block = head.kind == kind::CONTINUATION;
        if self.block.as_ref().is_some_and(|block| !of_block || block.stream != head.stream) {
            return Err(broken("a head is interrupted by another frame"));
        }
        match head.kind {
            kind::DATA => return self.on_data(head, core),
            kind::HEADERS | kind::CONTINUATION => return self.on_block(head, core),
            _ => {}
        }
        let outcome = match head.kind {
            kind::PRIORITY => on_priority(payload),
            kind::RST_STREAM => on_reset(head, payload, core),
            kind::SETTINGS => on_settings(head, payload, core, &mut self.decoder),
            kind::PUSH_PROMISE => Err(silent("streams are not to be pushed")),
            kind::PING => on_ping(head, payload, core),
            kind::GOAWAY => on_goaway(head, payload, core),
            kind::WINDOW_UPDATE => on_window_update(head, payload, core),
            kind::METADATA if core.settings.allow_metadata => {
                on_metadata(head, payload, core).map_err(Fault::from)
            }
            _ => Ok(()),
        };
        self.read.advance(head.total());
        outcome
    }

    /// Ends this direction.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    /// Writes what still waits; ready when the peer ended its direction. What it sends before is dropped.
    pub(super) fn poll_peer_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
            return Poll::Ready(());
        }
        loop {
            let mut room = [const { std::mem::MaybeUninit::uninit() }; 1024];
            let mut buffer = ReadBuf::uninit(&mut room);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Whether a stream was never opened.
fn is_idle(id: u32, core: &Core) -> bool {
    match (core.side, id % 2) {
        (Side::Server, 1) => id > core.last_peer,
        (Side::Client, 1) => id >= core.next_stream(),
        _ => true,
    }
}
