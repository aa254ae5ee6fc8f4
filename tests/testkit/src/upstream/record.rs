//! What an upstream saw, in order of arrival.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::script::{Reply, Rule, Script};
use crate::raw_http2::Observed;
use crate::stream::{End, TlsFacts};

/// One request as it reached the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    /// Which connection it came on, counted from 0 in order of acceptance.
    pub connection: usize,
    /// `HTTP/1.1`, `HTTP/1.0` or `HTTP/2`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// The request target as sent; `:path` on HTTP/2.
    pub target: String,
    /// `:authority` of HTTP/2; HTTP/1 has it as the `host` header.
    pub authority: Option<String>,
    /// `:scheme` of HTTP/2.
    pub scheme: Option<String>,
    /// Headers in wire order with the case they had on the wire.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Whether HTTP/1 framed the body with chunks.
    pub chunked: bool,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// Whether the request arrived to its end.
    pub complete: bool,
    /// What TLS negotiated, on a TLS connection.
    pub tls: Option<TlsFacts>,
}

/// One connection to a raw TCP upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeenBytes {
    /// What arrived.
    pub received: Vec<u8>,
    /// How the sender ended, once it did.
    pub end: Option<End>,
}

#[derive(Debug, Default)]
struct State {
    script: Script,
    used: Vec<usize>,
    connections: usize,
    arrivals: u64,
    requests: Vec<SeenRequest>,
    drained: usize,
    tcp: Vec<SeenBytes>,
    keeps_wire: bool,
    frames: Vec<(usize, Observed)>,
}

/// The shared notebook of an upstream; clones refer to the same one.
#[derive(Debug, Clone, Default)]
pub struct Record {
    state: Arc<Mutex<State>>,
}

impl Record {
    pub(super) fn new(script: Script) -> Self {
        let record = Self::default();
        record.set_script(script);
        record
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not hide what was recorded.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the script from the next request on.
    pub fn set_script(&self, script: Script) {
        let mut state = self.lock();
        state.used = vec![0; script.rules.len()];
        state.script = script;
    }

    /// Puts `rule` in the place of the one for the same path and method, or before all others.
    pub fn set_rule(&self, rule: Rule) {
        let mut script = self.lock().script.clone();
        match script.rules.iter_mut().find(|old| old.path == rule.path && old.method == rule.method) {
            Some(old) => *old = rule,
            None => script.rules.insert(0, rule),
        }
        self.set_script(script);
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.lock().requests.clone()
    }

    /// The requests that arrived since the last call of this function.
    pub fn drain(&self) -> Vec<SeenRequest> {
        let mut state = self.lock();
        let from = state.drained;
        state.drained = state.requests.len();
        state.requests[from..].to_vec()
    }

    /// How many requests arrived since the last [`Record::drain`], and whether each of them is complete.
    pub fn pending(&self) -> (usize, bool) {
        let state = self.lock();
        let new = &state.requests[state.drained..];
        (new.len(), new.iter().all(|r| r.complete))
    }

    /// How many requests arrived, also those that the script leaves unrecorded.
    pub fn arrivals(&self) -> u64 {
        self.lock().arrivals
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.lock().connections
    }

    /// Keeps what HTTP/1 connections bring as bytes too, from now on, for [`Record::tcp`].
    pub fn keep_wire(&self) {
        self.lock().keeps_wire = true;
    }

    /// What each connection to a frame upstream has seen, in order of their first frames.
    pub fn frames(&self) -> Vec<Observed> {
        self.lock().frames.iter().map(|(_, observed)| observed.clone()).collect()
    }

    /// What each raw TCP connection brought, in order of acceptance.
    pub fn tcp(&self) -> Vec<SeenBytes> {
        self.lock().tcp.clone()
    }

    pub(super) fn accepted(&self) -> usize {
        let mut state = self.lock();
        state.connections += 1;
        state.tcp.push(SeenBytes::default());
        state.connections - 1
    }

    /// Notes a request's head and picks its reply. The number is for [`Record::update`], which knows no request by it when
    /// the rule records none.
    pub(super) fn arrived(&self, request: SeenRequest) -> (usize, Reply) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.arrivals += 1;
        let mut unrecorded = false;
        let reply = match state.script.find(&request.method, &request.target) {
            Some((index, rule)) => {
                let turn = state.used[index];
                state.used[index] += 1;
                unrecorded = rule.unrecorded;
                rule.replies.get(turn).or(rule.replies.last()).cloned().unwrap_or_default()
            }
            None => Reply { status: 404, ..Reply::ok("no rule") },
        };
        if unrecorded {
            return (usize::MAX, reply);
        }
        state.requests.push(request);
        (state.requests.len() - 1, reply)
    }

    pub(super) fn update(&self, index: usize, change: impl FnOnce(&mut SeenRequest)) {
        if let Some(request) = self.lock().requests.get_mut(index) {
            change(request);
        }
    }

    pub(super) fn wire_received(&self, connection: usize, bytes: &[u8]) {
        if self.lock().keeps_wire {
            self.tcp_received(connection, bytes);
        }
    }

    pub(super) fn frames_seen(&self, connection: usize, observed: &Observed) {
        let mut state = self.lock();
        match state.frames.iter_mut().find(|(number, _)| *number == connection) {
            Some((_, known)) => known.clone_from(observed),
            None => state.frames.push((connection, observed.clone())),
        }
    }

    pub(super) fn tcp_received(&self, connection: usize, bytes: &[u8]) {
        self.lock().tcp[connection].received.extend_from_slice(bytes);
    }

    pub(super) fn tcp_ended(&self, connection: usize, end: End) {
        self.lock().tcp[connection].end = Some(end);
    }
}
