//! One stream of a connection, as both of its sides see it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;

use super::StreamError;
use super::metadata::StreamMetadata;
use crate::{ByteMeter, HeaderMap};

/// What is to come behind the data that waits.
#[derive(Debug)]
pub(super) enum QueuedEnd {
    Data,
    Trailers(Box<HeaderMap>),
}

/// A stream.
#[derive(Debug)]
pub(super) struct StreamState {
    /// Its number; 0 before it is opened.
    pub(super) id: u32,
    /// Tells streams apart that have the same place one after the other.
    pub(super) serial: u32,
    /// Who still has to do with it.
    pub(super) handles: u32,
    /// Somebody reads what comes.
    pub(super) is_read: bool,
    /// It counts among the streams that may be open at a time.
    pub(super) counted: bool,
    /// Why it ended early.
    pub(super) error: Option<StreamError>,
    /// Counts its bytes, where a format asks for them.
    pub(super) meter: Option<Arc<ByteMeter>>,

    /// The peer may send more.
    pub(super) recv_open: bool,
    /// It had sent everything when the stream failed.
    pub(super) was_whole: bool,
    /// The head came: that of the request, or the final one of the response.
    pub(super) head_seen: bool,
    pub(super) head: Option<HeaderMap>,
    /// Fields that the request's cookies came in.
    pub(super) crumbs: usize,
    pub(super) interim: VecDeque<HeaderMap>,
    pub(super) data: VecDeque<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    /// Metadata, where there is any.
    pub(super) metadata: Option<Box<StreamMetadata>>,
    /// Bytes that the length announced and that have not come.
    pub(super) remaining: Option<u64>,
    /// Bytes that the peer may send.
    pub(super) recv_window: i64,
    /// Bytes that came and are held here.
    pub(super) held: usize,
    /// Bytes that are no longer held, of which the peer was not told.
    pub(super) released: u32,

    /// This side may send more.
    pub(super) send_open: bool,
    pub(super) send_window: i64,
    /// The head of a request that waits for the peer to take more streams, and whether it ends the stream.
    pub(super) unopened: Option<(Box<HeaderMap>, bool)>,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued_end: Option<QueuedEnd>,
    /// The code to reset the stream with, once what waits has left.
    pub(super) reset_behind: Option<u32>,
    /// It is among those that wait for the connection's window or room.
    pub(super) waiting: bool,
    /// The response has no body whatever it announces.
    pub(super) to_head: bool,

    pub(super) recv_task: Option<Waker>,
    pub(super) send_task: Option<Waker>,
    pub(super) reset_task: Option<Waker>,
}

impl StreamState {
    pub(super) fn new(id: u32, serial: u32, recv_window: u32, send_window: i64) -> Self {
        Self {
            id,
            serial,
            handles: 0,
            is_read: true,
            counted: false,
            error: None,
            meter: None,
            recv_open: true,
            was_whole: false,
            head_seen: false,
            head: None,
            crumbs: 0,
            interim: VecDeque::new(),
            data: VecDeque::new(),
            trailers: None,
            metadata: None,
            remaining: None,
            recv_window: recv_window.into(),
            held: 0,
            released: 0,
            send_open: true,
            send_window,
            unopened: None,
            queue: VecDeque::new(),
            queued_end: None,
            reset_behind: None,
            waiting: false,
            to_head: false,
            recv_task: None,
            send_task: None,
            reset_task: None,
        }
    }

    /// Everything that is to be sent was sent.
    pub(super) fn is_sent(&self) -> bool {
        !self.send_open && self.queue.is_empty() && self.queued_end.is_none() && self.unopened.is_none()
    }

    /// Nothing more happens on it.
    pub(super) fn is_closed(&self) -> bool {
        self.error.is_some() || !self.recv_open && self.is_sent() && self.reset_behind.is_none()
    }

    pub(super) fn wake_receiver(&mut self) {
        if let Some(task) = self.recv_task.take() {
            task.wake();
        }
    }

    pub(super) fn wake_sender(&mut self) {
        if let Some(task) = self.send_task.take() {
            task.wake();
        }
    }

    /// Ends it early. What has come can still be read.
    pub(super) fn fail(&mut self, error: StreamError) {
        if self.error.is_some() {
            return;
        }
        self.error = Some(error);
        self.send_open = false;
        self.was_whole = !self.recv_open;
        self.recv_open = false;
        self.queue.clear();
        (self.queued_end, self.unopened, self.reset_behind) = (None, None, None);
        self.wake_receiver();
        self.wake_sender();
        if let Some(task) = self.reset_task.take() {
            task.wake();
        }
    }
}

/// Keeps the waker of a task, without a copy where it is kept already.
pub(super) fn keep_waker(kept: &mut Option<Waker>, cx: &Context<'_>) {
    match kept {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        kept => *kept = Some(cx.waker().clone()),
    }
}
