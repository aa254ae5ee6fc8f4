//! An HTTP/2 connection to a host, shared by many streams.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use dhow_http::HeaderMap;
use dhow_http::h2::{self, PendingResponse, SendBody, Sender, Settings};
use dhow_net::Transport;
use dhow_proxy_upstream::{ClosedBy, ConnectionGuard, Http2Options};

use crate::reset::{Reset, ResetKind};

/// A connection that streams can be opened on.
pub(crate) struct H2Connection {
    sender: RefCell<Sender>,
    guard: ConnectionGuard,
    active: Cell<usize>,
    closed: Cell<bool>,
    max_requests: Option<u64>,
    /// Sweep of the pool at which the last stream ended.
    pub(crate) idle_since: Cell<u32>,
}

impl H2Connection {
    /// Exchanges prefaces and starts the task that moves frames; `on_end` runs when the connection is over.
    pub(crate) async fn start(
        transport: Transport,
        guard: ConnectionGuard,
        options: &Http2Options,
        max_requests: Option<u32>,
        on_end: impl FnOnce() + 'static,
    ) -> Result<Rc<Self>, Reset> {
        let settings = settings(options);
        let (sender, connection) = h2::connect(transport, &settings)
            .await
            .map_err(|error| Reset::with_transport(ResetKind::RemoteConnectionFailure, error.to_string()))?;
        let this = Rc::new(Self {
            sender: RefCell::new(sender),
            guard,
            active: Cell::new(0),
            closed: Cell::new(false),
            max_requests: max_requests.map(u64::from),
            idle_since: Cell::new(0),
        });
        let driven = Rc::downgrade(&this);
        tokio::task::spawn_local(async move {
            let result = connection.await;
            if let Some(this) = driven.upgrade() {
                this.closed.set(true);
                this.guard.set_closed_by(ClosedBy::Remote);
                this.guard.set_requests_active(result.is_err() && this.active.get() > 0);
            }
            on_end();
        });
        Ok(this)
    }

    /// Whether a stream can be opened now without waiting.
    pub(crate) fn has_room(&self) -> bool {
        let mut sender = self.sender.borrow_mut();
        !self.is_over(&mut sender) && self.active.get() < sender.max_concurrent_streams()
    }

    /// Whether the connection takes no more streams: it ended, drains or has had its number of requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_over(&mut self.sender.borrow_mut())
    }

    fn is_over(&self, sender: &mut Sender) -> bool {
        self.closed.get() || sender.is_draining()
    }

    /// Streams under way.
    pub(crate) fn active(&self) -> usize {
        self.active.get()
    }

    /// Whether `max_requests_per_connection` is reached.
    pub(crate) fn is_worn_out(&self, requests: u64) -> bool {
        self.max_requests.is_some_and(|max| requests >= max)
    }

    /// Takes a place for a stream. Tells also how many streams the connection has had with this one.
    pub(crate) fn take_slot(self: &Rc<Self>, on_release: Rc<dyn Fn()>) -> (Rc<StreamSlot>, u64) {
        self.active.set(self.active.get() + 1);
        let requests = self.guard.count_request();
        (Rc::new(StreamSlot { connection: self.clone(), on_release }), requests)
    }
}

impl fmt::Debug for H2Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Connection").field("active", &self.active.get()).finish_non_exhaustive()
    }
}

/// A place for one stream on a connection.
pub(crate) struct StreamSlot {
    connection: Rc<H2Connection>,
    on_release: Rc<dyn Fn()>,
}

impl StreamSlot {
    /// Opens the stream.
    pub(crate) fn open(&self, head: &HeaderMap, end: bool) -> Result<(PendingResponse, SendBody), Reset> {
        // The sender of the connection may be waiting for a stream to be opened on the wire; a handle of our own is not.
        let mut sender = self.connection.sender.borrow().clone();
        Ok(sender.send_request(head, end)?)
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        (self.on_release)();
    }
}

impl fmt::Debug for StreamSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StreamSlot").field(&self.connection).finish()
    }
}

fn settings(options: &Http2Options) -> Settings {
    let defaults = Settings::default();
    Settings {
        header_table_size: options.hpack_table_size.unwrap_or(defaults.header_table_size),
        max_concurrent_streams: options.max_concurrent_streams.unwrap_or(defaults.max_concurrent_streams),
        stream_window: options.initial_stream_window_size.unwrap_or(defaults.stream_window),
        connection_window: options.initial_connection_window_size.unwrap_or(defaults.connection_window),
        ..defaults
    }
}
