//! What a connection and the handles of its streams share: the streams, both sides' windows, and the frames that wait.
//!
//! Handles change streams and queue frames here; the connection's task reads frames into it and writes what waits. All of them
//! are on one thread.

mod announced;
mod ending;
mod receiving;
mod sending;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::frame::{DEFAULT_WINDOW, MAX_PAYLOAD, PREFACE, code, flag, kind};
use super::hpack::Encoder;
use super::limits::{FrameCounts, Watch};
use super::outbox::Outbox;
use super::state::{StreamState, keep_waker};
use super::{Settings, StreamError, metadata};
use crate::HeaderMap;

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// The connection as its handles hold it.
pub(super) type SharedCore = Rc<RefCell<Core>>;

/// Place of a stream in the table.
pub(super) type Key = u32;

/// Places for streams that an idle connection keeps.
const KEPT_PLACES: usize = 16;
/// Streams that were reset by this side and may still get frames that were under way.
const REMEMBERED_RESETS: usize = 256;

/// How the connection's end goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    None,
    /// The peer was told that the end comes, and asked to answer.
    Announced,
    /// The last stream was named.
    Said,
    /// Everything is over once what waits has left.
    Abrupt,
}

/// A ping of the owner's.
#[derive(Debug, Default)]
pub(super) struct UserPing {
    pub(super) waiting: bool,
    pub(super) answered: bool,
    task: Option<Waker>,
}

/// What a GOAWAY of the peer said.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerFarewell {
    pub(super) last: u32,
    pub(super) code: u32,
}

const OWNERS_PING: [u8; 8] = *b"dhow-own";
const FAREWELL_PING: [u8; 8] = *b"dhow-bye";

#[derive(Debug)]
pub(super) struct Core {
    pub(super) side: Side,
    pub(super) settings: Settings,
    pub(super) out: Outbox,
    pub(super) watch: Watch,
    pub(super) counts: FrameCounts,
    encoder: Encoder,
    streams: Vec<StreamState>,
    free: Vec<Key>,
    ids: HashMap<u32, Key, foldhash::fast::FixedState>,
    serial: u32,
    /// Streams that are open and count against the limit of the side that takes them.
    open: usize,
    /// Handles that open streams.
    pub(super) senders: usize,
    next_id: u32,
    /// The last stream that the peer opened.
    pub(super) last_peer: u32,
    /// Streams that wait for the peer to take more.
    unopened: VecDeque<(Key, u32)>,
    open_tasks: Vec<Waker>,
    peer_max_streams: usize,
    peer_window: i64,
    peer_max_payload: usize,
    /// Most bytes of a frame's payload that the peer may send.
    pub(super) max_payload: usize,
    send_window: i64,
    pub(super) recv_window: i64,
    released: u32,
    window_announced: bool,
    waiting: VecDeque<(Key, u32)>,
    accepted: VecDeque<Key>,
    resets: VecDeque<u32>,
    pub(super) farewell: Farewell,
    pub(super) peer_farewell: Option<PeerFarewell>,
    /// Why no stream can do anything any more.
    ended: Option<StreamError>,
    pub(super) ping: UserPing,
    driver: Option<Waker>,
    /// The connection's task was woken since it last looked.
    driver_woken: bool,
}

impl Core {
    /// A connection that begins: its preface waits to be sent.
    pub(super) fn new(side: Side, settings: &Settings) -> SharedCore {
        let mut core = Self {
            side,
            out: Outbox::default(),
            watch: Watch::new(settings.limits),
            counts: FrameCounts::default(),
            encoder: Encoder::new(),
            streams: Vec::new(),
            free: Vec::new(),
            ids: HashMap::default(),
            serial: 0,
            open: 0,
            senders: 0,
            next_id: 1,
            last_peer: 0,
            unopened: VecDeque::new(),
            open_tasks: Vec::new(),
            // Before it says how many it takes, as many as we would take.
            peer_max_streams: settings.max_concurrent_streams as usize,
            peer_window: DEFAULT_WINDOW.into(),
            peer_max_payload: MAX_PAYLOAD,
            max_payload: MAX_PAYLOAD,
            send_window: DEFAULT_WINDOW.into(),
            recv_window: settings.connection_window.max(DEFAULT_WINDOW).into(),
            released: 0,
            window_announced: false,
            waiting: VecDeque::new(),
            accepted: VecDeque::new(),
            resets: VecDeque::new(),
            farewell: Farewell::None,
            peer_farewell: None,
            ended: None,
            ping: UserPing::default(),
            driver: None,
            driver_woken: false,
            settings: settings.clone(),
        };
        core.send_preface();
        Rc::new(RefCell::new(core))
    }

    fn send_preface(&mut self) {
        if self.side == Side::Client {
            self.out.preface(PREFACE);
        }
        match self.settings.announced(self.side) {
            Some(announced) => {
                let mut payload = Vec::with_capacity(announced.len() * 6);
                for (id, value) in announced {
                    payload.extend_from_slice(&id.to_be_bytes());
                    payload.extend_from_slice(&value.to_be_bytes());
                }
                self.out.frame(kind::SETTINGS, 0, 0, &payload);
            }
            None => self.settings.stream_window = DEFAULT_WINDOW,
        }
        if self.side == Side::Client {
            self.announce_window();
        }
    }

    /// Tells the peer of the connection's window, once: a client with its settings, a server behind its answer to the client's.
    fn announce_window(&mut self) {
        if std::mem::replace(&mut self.window_announced, true) {
            return;
        }
        let window = self.settings.connection_window;
        if let Some(more) = window.checked_sub(DEFAULT_WINDOW).filter(|more| *more > 0) {
            self.out.frame(kind::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    /// Answers the peer's settings.
    pub(super) fn acknowledge_settings(&mut self) {
        self.out.answer(kind::SETTINGS, flag::ACK, 0, &[]);
        self.announce_window();
    }

    /// Remembers the connection's task.
    pub(super) fn set_driver(&mut self, cx: &Context<'_>) {
        keep_waker(&mut self.driver, cx);
        self.driver_woken = false;
    }

    /// Wakes the connection's task because there is something to write or to notice.
    pub(super) fn wake_driver(&mut self) {
        if !std::mem::replace(&mut self.driver_woken, true)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    pub(super) fn stream(&self, key: Key) -> &StreamState {
        &self.streams[key as usize]
    }

    pub(super) fn stream_mut(&mut self, key: Key) -> &mut StreamState {
        &mut self.streams[key as usize]
    }

    pub(super) fn find(&self, id: u32) -> Option<Key> {
        self.ids.get(&id).copied()
    }

    /// The number of the next stream that this side opens.
    pub(super) fn next_stream(&self) -> u32 {
        self.next_id
    }

    /// Streams that are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether there is any stream that somebody has to do with.
    pub(super) fn has_streams(&self) -> bool {
        self.free.len() < self.streams.len()
    }

    /// Most bytes of a frame's payload that the peer takes.
    pub(super) fn peer_max_payload(&self) -> usize {
        self.peer_max_payload
    }

    /// Streams that the peer takes at a time.
    pub(super) fn peer_max_streams(&self) -> usize {
        self.peer_max_streams
    }

    /// Gives memory back that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        self.out.shrink();
        if self.streams.len() > KEPT_PLACES {
            self.streams = Vec::new();
            self.free = Vec::new();
        }
    }

    /// Makes a place for a stream.
    pub(super) fn insert(&mut self, id: u32) -> Key {
        self.serial = self.serial.wrapping_add(1).max(1);
        let mut state = StreamState::new(id, self.serial, self.settings.stream_window, self.peer_window);
        let key = match self.free.pop() {
            Some(key) => {
                let old = &mut self.streams[key as usize];
                std::mem::swap(&mut state.data, &mut old.data);
                std::mem::swap(&mut state.queue, &mut old.queue);
                *old = state;
                key
            }
            None => {
                self.streams.push(state);
                (self.streams.len() - 1) as Key
            }
        };
        if id != 0 {
            self.ids.insert(id, key);
        }
        key
    }

    /// Counts a stream that the peer opened, or that is opened for the peer.
    pub(super) fn count_open(&mut self, key: Key) {
        self.open += 1;
        self.stream_mut(key).counted = true;
    }

    /// Looks after a stream that may be over: it makes room for another, and goes once nobody has to do with it.
    pub(super) fn settle(&mut self, key: Key) {
        let stream = self.stream_mut(key);
        if !stream.is_closed() {
            return;
        }
        let was_counted = std::mem::take(&mut stream.counted);
        if stream.handles == 0 {
            self.remove(key);
        }
        if was_counted {
            self.open -= 1;
            if self.side == Side::Client {
                self.open_waiting();
            }
            if self.open == 0 {
                // The end of the connection, or its idle time, may wait for this.
                self.wake_driver();
            }
        }
    }

    fn remove(&mut self, key: Key) {
        let stream = self.stream_mut(key);
        let (id, held) = (std::mem::take(&mut stream.id), std::mem::take(&mut stream.held));
        stream.data.clear();
        stream.queue.clear();
        stream.serial = 0;
        let heads = [stream.head.take(), stream.trailers.take()];
        (stream.recv_task, stream.send_task, stream.reset_task, stream.meter) = (None, None, None, None);
        stream.metadata = None;
        heads.into_iter().flatten().for_each(HeaderMap::recycle);
        if id != 0 {
            self.ids.remove(&id);
        }
        self.free.push(key);
        self.release_connection(held);
        if self.senders == 0 && !self.has_streams() {
            self.wake_driver();
        }
    }

    pub(super) fn add_handle(&mut self, key: Key) {
        self.stream_mut(key).handles += 1;
    }

    /// One less who has to do with a stream. One that nobody has to do with any more and that is not over is reset.
    pub(super) fn drop_handle(&mut self, key: Key) {
        let stream = self.stream_mut(key);
        stream.handles -= 1;
        if stream.handles > 0 {
            return;
        }
        if !stream.is_closed() {
            let is_answered = !stream.send_open && stream.unopened.is_none();
            let code = if is_answered && self.side == Side::Server { code::NO_ERROR } else { code::CANCEL };
            let stream = self.stream_mut(key);
            if is_answered && !stream.is_sent() {
                // What waits leaves first.
                stream.reset_behind = stream.recv_open.then_some(code);
                return;
            }
            self.reset(key, code, StreamError::LocalReset);
            return;
        }
        self.settle(key);
    }

    /// Nobody reads what comes on a stream.
    pub(super) fn drop_reader(&mut self, key: Key) {
        let stream = self.stream_mut(key);
        stream.is_read = false;
        stream.data.clear();
        let held = std::mem::take(&mut stream.held);
        self.release_connection(held);
    }
}

/// A share in a stream. The last one that goes resets a stream that is not over.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) core: SharedCore,
    pub(super) key: Key,
}

impl Handle {
    pub(super) fn new(core: &SharedCore, key: Key) -> Self {
        core.borrow_mut().add_handle(key);
        Self { core: core.clone(), key }
    }
}

impl Handle {
    /// Passes on the metadata that is next ([`metadata::pass_on`]).
    pub(super) fn pass_metadata(&self, behind_head: bool) {
        let has_any = self.core.borrow().stream(self.key).metadata.is_some();
        if has_any {
            metadata::pass_on(&self.core, self.key, behind_head);
        }
    }

    /// The head of the request, once.
    pub(super) fn take_head(&self) -> Option<HeaderMap> {
        self.core.borrow_mut().stream_mut(self.key).head.take()
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(&self.core, self.key)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.borrow_mut().drop_handle(self.key);
    }
}
