//! How hard pressed the process is: the main thread finds it out, every worker acts on it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What workers do about overload (`envoy.overload_actions.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadAction {
    /// Requests are answered with 503.
    StopAcceptingRequests,
    /// Connections of clients end with their next response.
    DisableHttpKeepalive,
    /// Connections stay in the kernel's queue.
    StopAcceptingConnections,
    /// Connections are closed at once.
    RejectIncomingConnections,
}

/// Where workers shed load (`envoy.load_shed_points.*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadShedPoint {
    /// Connections are closed as they are accepted.
    TcpListenerAccept,
    /// Requests are answered with 503 once their head is there.
    DecodeHeaders,
    /// Connections are closed when their first bytes come.
    CreatingCodec,
    /// HTTP/1 requests are answered with 500 before they are read.
    Http1Dispatch,
    /// Connections are drained when a request comes (GOAWAY, `connection: close`).
    Http2GoAway,
    /// Connections are closed when something comes on them, those of HTTP/2 behind a GOAWAY.
    Http2GoAwayAndClose,
    /// Requests are answered with 503 by the router.
    DownstreamFilter,
    /// Requests that need a new connection to a host find none.
    NewUpstreamConnection,
    /// The TCP proxy closes connections instead of connecting for them.
    TcpProxyConnect,
    /// The TCP proxy closes connections when their client sends something.
    TcpProxyData,
}

/// How many points there are.
const POINTS: usize = LoadShedPoint::TcpProxyData as usize + 1;

/// The value of an action that always applies.
const ALWAYS: u32 = 1 << 16;

/// The state of the process. There is one: what it is short of, all its threads are short of.
#[derive(Debug)]
pub struct OverloadState {
    /// By action, how often it applies.
    values: [AtomicU32; 4],
    /// By point, how often load is shed there, and how often it was.
    points: [AtomicU32; POINTS],
    shed: [AtomicU64; POINTS],
    /// Most connections of clients at a time; 0: they are not counted.
    max_connections: AtomicU64,
    connections: AtomicU64,
    refused: AtomicU64,
}

static STATE: OverloadState = OverloadState::new();

/// The state of this process.
pub fn overload() -> &'static OverloadState {
    &STATE
}

impl OverloadState {
    const fn new() -> Self {
        Self {
            values: [const { AtomicU32::new(0) }; 4],
            points: [const { AtomicU32::new(0) }; POINTS],
            shed: [const { AtomicU64::new(0) }; POINTS],
            max_connections: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Sets how often an action applies: from 0 for never to 1 for always.
    pub fn set(&self, action: OverloadAction, share: f64) {
        self.values[action as usize].store(value_of(share), Ordering::Relaxed);
    }

    /// Sets how often load is shed at a point: from 0 for never to 1 for always.
    pub fn set_point(&self, point: LoadShedPoint, share: f64) {
        self.points[point as usize].store(value_of(share), Ordering::Relaxed);
    }

    /// Whether load is shed at a point this time, by a random number if it is not clear. It is counted.
    pub fn sheds(&self, point: LoadShedPoint, random: impl FnOnce() -> u64) -> bool {
        let sheds = by_chance(self.points[point as usize].load(Ordering::Relaxed), random);
        if sheds {
            self.shed[point as usize].fetch_add(1, Ordering::Relaxed);
        }
        sheds
    }

    /// The same for a connection, which may have been exempted.
    pub fn sheds_of(&self, point: LoadShedPoint, exempt: bool, random: impl FnOnce() -> u64) -> bool {
        self.points[point as usize].load(Ordering::Relaxed) != 0 && !exempt && self.sheds(point, random)
    }

    /// How often load was shed at a point since the last time.
    pub fn take_shed(&self, point: LoadShedPoint) -> u64 {
        self.shed[point as usize].swap(0, Ordering::Relaxed)
    }

    /// Whether an action applies this time, by a random number if it is not clear.
    pub fn applies(&self, action: OverloadAction, random: impl FnOnce() -> u64) -> bool {
        by_chance(self.values[action as usize].load(Ordering::Relaxed), random)
    }

    /// Sets the most connections of clients at a time. To be called before the first of them.
    pub fn set_max_connections(&self, max: u64) {
        self.max_connections.store(max, Ordering::Relaxed);
    }

    /// Takes a place for a connection of a client; none when all are taken.
    pub fn take_place(&'static self) -> Option<ConnectionPlace> {
        let max = self.max_connections.load(Ordering::Relaxed);
        if max == 0 {
            return Some(ConnectionPlace::default());
        }
        if self.connections.fetch_add(1, Ordering::Relaxed) >= max {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(ConnectionPlace(Some(self)))
    }

    /// Places that are taken.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// How many connections found no place since the last time.
    pub fn take_refused(&self) -> u64 {
        self.refused.swap(0, Ordering::Relaxed)
    }
}

fn value_of(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * f64::from(ALWAYS)) as u32
}

fn by_chance(value: u32, random: impl FnOnce() -> u64) -> bool {
    match value {
        0 => false,
        ALWAYS => true,
        value => random() % u64::from(ALWAYS) < u64::from(value),
    }
}

/// The place of a connection, which is free again when this is dropped. The default is that of a connection that is not
/// counted.
#[derive(Debug, Default)]
pub struct ConnectionPlace(Option<&'static OverloadState>);

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            state.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_apply_never_always_or_by_chance() {
        let state = OverloadState::new();
        let action = OverloadAction::DisableHttpKeepalive;
        let at = |random: u64| state.applies(action, || random);
        assert!(!at(0));
        state.set(action, 0.25);
        assert!(at(0) && at((1 << 14) - 1) && !at(1 << 14) && !at((1 << 16) - 1));
        state.set(action, 1.0);
        assert!(at(u64::MAX));
        assert!(!state.applies(OverloadAction::StopAcceptingRequests, || 0));
    }

    #[test]
    fn load_is_shed_by_point_and_counted() {
        let state = OverloadState::new();
        let point = LoadShedPoint::DecodeHeaders;
        assert!(!state.sheds(point, || 0));
        state.set_point(point, 0.5);
        assert!(state.sheds(point, || 0) && !state.sheds(point, || u64::from(ALWAYS) - 1));
        assert!(!state.sheds(LoadShedPoint::TcpListenerAccept, || 0));
        assert_eq!((state.take_shed(point), state.take_shed(point)), (1, 0));
        state.set_point(point, 1.0);
        assert!(state.sheds_of(point, false, || 0) && !state.sheds_of(point, true, || 0));
        assert_eq!(state.take_shed(point), 1);
    }

    #[test]
    fn places_are_counted_where_there_is_a_limit() {
        static STATE: OverloadState = OverloadState::new();
        let free = STATE.take_place();
        assert!(free.is_some() && STATE.connections() == 0);
        STATE.set_max_connections(2);
        let (first, second) = (STATE.take_place(), STATE.take_place());
        assert!(first.is_some() && second.is_some());
        assert!(STATE.take_place().is_none());
        assert_eq!((STATE.connections(), STATE.take_refused(), STATE.take_refused()), (2, 1, 0));
        drop((free, first));
        assert_eq!(STATE.connections(), 1);
        assert!(STATE.take_place().is_some());
    }
}
