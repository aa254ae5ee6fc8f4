//! An HTTP/2 connection to a host, shared by many streams.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dhow_http::h2::{
    self, ClientConnection, ConnectionError, FrameCounts, PendingResponse, SendBody, Sender, Settings,
    Violation,
};
use dhow_http::{ByteMeter, HeaderMap};
use dhow_net::Transport;
use dhow_proxy_runtime::{DeadlineTimer, Worker, clock};
use dhow_proxy_upstream::{ClosedBy, ClusterInfo, ConnectionGuard, Http2Options};

use crate::keepalive::Keepalive;
use crate::reset::{Reset, ResetKind};
use crate::traffic::{CountedTransport, Traffic};

/// A connection that streams can be opened on.
pub(crate) struct H2Connection {
    sender: Sender,
    guard: ConnectionGuard,
    active: Cell<usize>,
    closed: Cell<bool>,
    /// Streams that the connection had.
    requests: Cell<u64>,
    /// Most streams at a time by the cluster's configuration; the host may allow fewer.
    max_streams: usize,
    /// Bytes that may wait on a stream for the host's window.
    stream_buffer: u32,
    limits: H2Limits,
    cluster: Arc<ClusterInfo>,
    /// The host is to be asked whether it is there, before it is trusted with the stream that is being opened.
    ping_wanted: Cell<bool>,
    /// `connection_idle_interval`.
    ping_after: Option<Duration>,
    /// When the last stream ended.
    pub(crate) idle_since: Cell<Instant>,
}

/// What a connection is good for.
#[derive(Clone, Debug)]
pub(crate) struct H2Limits {
    /// `max_requests_per_connection`.
    pub(crate) max_requests: Option<u32>,
    /// Whether `max_connection_duration` is over, where there is one.
    pub(crate) expired: Option<Rc<Cell<bool>>>,
}

impl H2Connection {
    /// Exchanges prefaces and starts the task that moves frames; `on_end` runs when the connection is over.
    pub(crate) async fn start(
        transport: Transport,
        guard: ConnectionGuard,
        cluster: &Arc<ClusterInfo>,
        options: &Http2Options,
        limits: H2Limits,
        worker: &Rc<Worker>,
        on_end: impl FnOnce() + 'static,
    ) -> Result<Rc<Self>, Reset> {
        let settings = settings(options).with_buffer_limit(cluster.per_connection_buffer_limit);
        let transport = CountedTransport::new(transport, Traffic::of_hosts(&cluster.stats));
        let (sender, mut connection) = h2::connect(transport, &settings)
            .await
            .map_err(|error| Reset::with_transport(ResetKind::RemoteConnectionFailure, error.to_string()))?;
        let this = Rc::new(Self {
            sender,
            guard,
            active: Cell::new(0),
            closed: Cell::new(false),
            requests: Cell::new(0),
            max_streams: options.max_concurrent_streams.map_or(usize::MAX, |max| max as usize),
            stream_buffer: cluster.per_connection_buffer_limit.min(settings.stream_window),
            limits,
            idle_since: Cell::new(clock::now()),
            cluster: cluster.clone(),
            ping_wanted: Cell::new(false),
            ping_after: options.keepalive.and_then(|rules| rules.idle_interval),
        });
        let now = clock::now();
        let keepalive = options.keepalive.and_then(|rules| {
            let pinger = connection.take_pinger()?;
            Some(Keepalive::new(rules, pinger, now, worker.random()))
        });
        cluster.stats.http2().nghttp2_upstream_connections().inc();
        let driver = Driver {
            connection,
            keepalive,
            timer: DeadlineTimer::new(),
            cluster: cluster.clone(),
            shared: Rc::downgrade(&this),
            worker: worker.clone(),
        };
        let driven = Rc::downgrade(&this);
        tokio::task::spawn_local(async move {
            let end = driver.drive().await;
            if let Some(this) = driven.upgrade() {
                this.closed.set(true);
                let is_ours = matches!(end, End::Ours | End::Fault);
                this.guard.set_closed_by(if is_ours { ClosedBy::Local } else { ClosedBy::Remote });
                let cuts_off = matches!(end, End::Ours | End::Broken);
                this.guard.set_requests_active(cuts_off && this.active.get() > 0);
            }
            on_end();
        });
        Ok(this)
    }

    /// Streams that can be opened now without waiting.
    pub(crate) fn room(&self) -> usize {
        if self.is_draining() || self.is_worn_out() {
            return 0;
        }
        self.sender.max_concurrent_streams().min(self.max_streams).saturating_sub(self.active.get())
    }

    /// Whether the connection takes no more streams: it ended, drains or has had its number of requests.
    pub(crate) fn is_draining(&self) -> bool {
        self.closed.get() || self.has_expired() || self.sender.is_draining()
    }

    /// Whether the connection is to carry no further streams because of its age.
    pub(crate) fn has_expired(&self) -> bool {
        self.limits.expired.as_ref().is_some_and(|expired| expired.get())
    }

    /// Streams under way.
    pub(crate) fn active(&self) -> usize {
        self.active.get()
    }

    /// Whether `max_requests_per_connection` is reached.
    pub(crate) fn is_worn_out(&self) -> bool {
        self.limits.max_requests.is_some_and(|max| self.requests.get() >= max.into())
    }

    /// Takes a place for a stream.
    pub(crate) fn take_slot(self: &Rc<Self>, on_release: Rc<dyn Fn()>) -> Rc<StreamSlot> {
        if let Some(after) = self.ping_after
            && self.active.get() == 0
            && clock::now() >= self.idle_since.get() + after
        {
            self.ping_wanted.set(true);
        }
        self.active.set(self.active.get() + 1);
        self.cluster.stats.http2().streams_active().inc();
        self.requests.set(self.guard.count_request());
        Rc::new(StreamSlot { connection: self.clone(), on_release })
    }
}

impl fmt::Debug for H2Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Connection").field("active", &self.active.get()).finish_non_exhaustive()
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Nobody needs it any more, or the host said that it ends.
    Peaceful,
    /// The transport or the host broke it.
    Broken,
    /// The host did nothing at all, or did not read.
    Ours,
    /// The host sent what it may not. Its streams end before the connection, which then cuts nothing off.
    Fault,
}

/// Moves the frames of a connection, and asks now and then whether the host is still there.
struct Driver {
    connection: ClientConnection<CountedTransport>,
    keepalive: Option<Keepalive>,
    timer: DeadlineTimer,
    cluster: Arc<ClusterInfo>,
    shared: Weak<H2Connection>,
    worker: Rc<Worker>,
}

impl Driver {
    async fn drive(mut self) -> End {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            let polled = Pin::new(&mut self.connection).poll(cx);
            self.count();
            if let Poll::Ready(result) = polled {
                return Poll::Ready(result.map_or_else(|error| self.on_error(&error), |()| End::Peaceful));
            }
            let Some(keepalive) = &mut self.keepalive else { return Poll::Pending };
            let now = clock::now();
            let wanted = self.shared.upgrade().is_some_and(|shared| shared.ping_wanted.take());
            let asked = if wanted { keepalive.ping(now) } else { Ok(()) };
            if asked.and_then(|()| keepalive.poll(cx, now, || self.worker.random())).is_err() {
                self.cluster.stats.http2().keepalive_timeout().inc();
                return Poll::Ready(End::Ours);
            }
            if self.timer.poll(cx, keepalive.deadline()).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn count(&mut self) {
        let counts = self.connection.take_counts();
        if counts == FrameCounts::default() {
            return;
        }
        let FrameCounts {
            resets_received,
            resets_sent,
            malformed,
            empty_metadata,
            goaways_sent: _, // Envoy says no farewell to hosts
            refused: _,      // hosts open no streams
            trailers: _,     // counted as they are read
        } = counts;
        let stats = self.cluster.stats.http2();
        stats.rx_reset().add(resets_received.into());
        stats.tx_reset().add(resets_sent.into());
        stats.rx_messaging_error().add(malformed.into());
        stats.metadata_empty_frames().add(empty_metadata.into());
    }

    fn on_error(&self, error: &ConnectionError) -> End {
        if error.is_by_peer() {
            return End::Broken;
        }
        let stats = self.cluster.stats.http2();
        if let ConnectionError::Violation(violation) = error {
            match violation {
                Violation::EmptyFrames => stats.inbound_empty_frames_flood().inc(),
                Violation::Priorities => stats.inbound_priority_frames_flood().inc(),
                Violation::WindowUpdates => stats.inbound_window_update_frames_flood().inc(),
                Violation::ControlFrames => stats.outbound_control_flood().inc(),
                Violation::OutboundFrames => {
                    // Found when something was sent, not by what came.
                    stats.outbound_flood().inc();
                    return End::Ours;
                }
                Violation::FirstFrame | Violation::Metadata => {}
            }
        }
        self.cluster.stats.upstream_cx_protocol_error().inc();
        End::Fault
    }
}

/// A place for one stream on a connection.
pub(crate) struct StreamSlot {
    connection: Rc<H2Connection>,
    on_release: Rc<dyn Fn()>,
}

impl StreamSlot {
    /// What counts the connection.
    pub(crate) fn guard(&self) -> &ConnectionGuard {
        &self.connection.guard
    }

    /// Bytes of a request that may wait for the host's window.
    pub(crate) fn stream_buffer(&self) -> u32 {
        self.connection.stream_buffer
    }

    /// Opens the stream.
    pub(crate) fn open(
        &self,
        head: &HeaderMap,
        end: bool,
        meter: Option<&Arc<ByteMeter>>,
    ) -> Result<(PendingResponse, SendBody), Reset> {
        Ok(self.connection.sender.open(head, end, meter.cloned())?)
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.connection.active.set(self.connection.active.get() - 1);
        self.connection.cluster.stats.http2().streams_active().dec();
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
        custom: options.custom_settings.clone(),
        allow_extended_connect: options.allow_connect,
        allow_metadata: options.allow_metadata,
        max_metadata: options.max_metadata_size.unwrap_or(defaults.max_metadata),
        limits: options.limits,
        stream_errors: options.stream_error_on_invalid_message,
        ..defaults
    }
}
