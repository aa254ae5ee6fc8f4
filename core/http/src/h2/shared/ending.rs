//! How streams and the connection end, and pings.

use std::task::{Context, Poll, Waker};

use super::{Core, FAREWELL_PING, Farewell, Key, OWNERS_PING, PeerFarewell, REMEMBERED_RESETS, Side};
use crate::h2::frame::{LAST_OF_ALL, code, kind};
use crate::h2::limits::Violation;
use crate::h2::state::{StreamState, keep_waker};
use crate::h2::{ResetCode, StreamError};

impl Core {
    /// Resets a stream, and tells its handles why.
    pub(in crate::h2) fn reset(&mut self, key: Key, code: u32, error: StreamError) {
        let stream = self.stream_mut(key);
        if stream.is_closed() {
            return;
        }
        let id = stream.id;
        stream.fail(error);
        if id != 0 {
            self.send_reset(id, code);
        }
        self.settle(key);
    }

    /// Queues RST_STREAM.
    pub(in crate::h2) fn send_reset(&mut self, id: u32, code: u32) {
        if self.ended.is_some() || self.farewell == Farewell::Abrupt {
            return;
        }
        self.out.answer(kind::RST_STREAM, 0, id, &code.to_be_bytes());
        self.counts.resets_sent += 1;
        self.counts.refused += u32::from(self.side == Side::Server && code == code::REFUSED_STREAM);
        if self.resets.len() == REMEMBERED_RESETS {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
        self.wake_driver();
    }

    /// Whether this side reset a stream of late, so that the peer may not know yet.
    pub(in crate::h2) fn was_reset(&self, id: u32) -> bool {
        self.resets.contains(&id)
    }

    /// The owner resets a stream.
    pub(in crate::h2) fn reset_by_owner(&mut self, key: Key, code: ResetCode) {
        self.reset(key, code.value(), StreamError::LocalReset);
    }

    pub(in crate::h2) fn poll_reset(&mut self, key: Key, cx: &Context<'_>) -> Poll<StreamError> {
        let stream = self.stream_mut(key);
        if let Some(error) = &stream.error {
            return Poll::Ready(error.clone());
        }
        if !stream.is_closed() {
            keep_waker(&mut stream.reset_task, cx);
        }
        Poll::Pending
    }

    /// The connection is over: so are all streams.
    pub(in crate::h2) fn end(&mut self, error: StreamError) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(error.clone());
        for key in 0..self.streams.len() as Key {
            let stream = self.stream_mut(key);
            if stream.serial != 0 && !stream.is_closed() {
                stream.fail(error.clone());
                self.settle(key);
            }
        }
        self.unopened.clear();
        self.open_tasks.drain(..).for_each(Waker::wake);
        if let Some(task) = self.ping.task.take() {
            task.wake();
        }
    }

    pub(in crate::h2) fn ended(&self) -> Option<&StreamError> {
        self.ended.as_ref()
    }

    /// The peer takes no streams beyond the last that it names.
    pub(in crate::h2) fn on_peer_farewell(&mut self, farewell: PeerFarewell) {
        self.peer_farewell = Some(farewell);
        for key in 0..self.streams.len() as Key {
            if self.side == Side::Client && is_beyond(self.stream(key), farewell.last) {
                self.stream_mut(key).fail(StreamError::RemoteRefused);
                self.settle(key);
            }
        }
        self.unopened.clear();
        self.open_tasks.drain(..).for_each(Waker::wake);
        self.wake_driver();
    }

    /// Tells the peer to open no more streams, and asks it to answer so that those under way are known.
    pub(in crate::h2) fn announce_farewell(&mut self) {
        if self.farewell == Farewell::None {
            self.farewell = Farewell::Announced;
            self.send_goaway(LAST_OF_ALL, code::NO_ERROR);
            self.out.frame(kind::PING, 0, 0, &FAREWELL_PING);
        }
    }

    /// Ends the connection with what waits; `last` is the last stream that anything was done for.
    pub(in crate::h2) fn abrupt_farewell(&mut self, last: u32, code: u32) {
        if self.farewell != Farewell::Abrupt {
            self.farewell = Farewell::Abrupt;
            self.send_goaway(last, code);
        }
    }

    pub(in crate::h2) fn send_goaway(&mut self, last: u32, code: u32) {
        let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
        self.out.frame(kind::GOAWAY, 0, 0, &payload);
        self.counts.goaways_sent += u32::from(last != LAST_OF_ALL && code == code::NO_ERROR);
        self.wake_driver();
    }

    pub(in crate::h2) fn send_ping(&mut self) {
        self.ping.waiting = true;
        self.ping.answered = false;
        self.out.frame(kind::PING, 0, 0, &OWNERS_PING);
        self.wake_driver();
    }

    /// An answer to a ping.
    pub(in crate::h2) fn on_pong(&mut self, payload: &[u8]) {
        if payload == OWNERS_PING && std::mem::take(&mut self.ping.waiting) {
            self.ping.answered = true;
            if let Some(task) = self.ping.task.take() {
                task.wake();
            }
        }
        if payload == FAREWELL_PING && self.farewell == Farewell::Announced {
            self.farewell = Farewell::Said;
            self.send_goaway(self.last_peer, code::NO_ERROR);
        }
    }

    pub(in crate::h2) fn poll_pong(&mut self, cx: &Context<'_>) -> Poll<Result<(), StreamError>> {
        if std::mem::take(&mut self.ping.answered) {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        keep_waker(&mut self.ping.task, cx);
        Poll::Pending
    }

    /// Judges what waits for the peer to read it.
    pub(in crate::h2) fn judge_waiting(&self) -> Option<Violation> {
        self.watch.waiting(self.out.frames(), self.out.control_frames())
    }
}

fn is_beyond(stream: &StreamState, last: u32) -> bool {
    stream.serial != 0 && !stream.is_closed() && (stream.id == 0 || stream.id > last)
}
