//! The client's side of a stream and of the streams that follow it.

mod delta;
mod sotw;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use dhow_base::{Backoff, Rng};

use self::subscription::Subscription;
use crate::messages::{Node, ResourceError, Status, WireResource};
use crate::resource::Update;
use crate::{Interest, Request, Response, Variant, type_url};

/// How a client session behaves; fields of `ApiConfigSource` and of the bootstrap.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// `api_type`: `GRPC` or `DELTA_GRPC`.
    pub variant: Variant,
    /// Who is asking.
    pub node: Node,
    /// `set_node_on_first_message_only`: otherwise each request carries the node.
    pub set_node_on_first_message_only: bool,
    /// `retry_policy.retry_back_off.base_interval` of the gRPC service; Envoy's default is 500 ms.
    pub backoff_base: Duration,
    /// `retry_policy.retry_back_off.max_interval`; Envoy's default is 30 s.
    pub backoff_max: Duration,
}

impl ClientConfig {
    /// Envoy's defaults.
    pub fn new(variant: Variant, node: Node) -> Self {
        Self {
            variant,
            node,
            set_node_on_first_message_only: false,
            backoff_base: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
        }
    }
}

/// Something the session's owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// `initial_fetch_timeout` passed without an answer: for `name`, or for the type as a whole.
    FetchTimeout {
        /// The type.
        type_url: String,
        /// The name, for types fetched by name.
        name: Option<String>,
    },
    /// A response was malformed and is being refused without having been handed out.
    Malformed {
        /// The type.
        type_url: String,
        /// The text sent to the server.
        message: String,
    },
    /// The server named itself, for the first time or anew.
    ControlPlane(String),
    /// Something was ignored that an operator should read in the log.
    Warning(String),
}

/// An update to apply, and the receipt to return when that is done.
#[derive(Debug)]
#[must_use = "the server waits until the receipt is accepted or refused"]
pub struct Delivery {
    /// What to apply.
    pub update: Update,
    /// To be given to [`ClientSession::accept`] or [`ClientSession::refuse`].
    pub receipt: Receipt,
}

/// Stands for one response until it was applied or refused. While it is out, no request of its type is sent, nor of the
/// types whose interest depends on it ([`type_url::paused_by`]).
#[derive(Debug)]
#[must_use = "the server waits until the receipt is accepted or refused"]
pub struct Receipt {
    type_url: String,
    epoch: u64,
    nonce: String,
    version: String,
    added: Vec<(String, String)>,
    removed: Vec<String>,
}

impl Receipt {
    fn new(type_url: &str, nonce: String, update: &Update) -> Self {
        Self {
            type_url: type_url.to_owned(),
            epoch: 0,
            nonce,
            version: update.system_version.clone(),
            added: update
                .added
                .iter()
                .map(|resource| (resource.name.clone(), resource.version.clone()))
                .collect(),
            removed: update.removed.clone(),
        }
    }

    /// The type of the update.
    pub fn type_url(&self) -> &str {
        &self.type_url
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connection {
    /// No stream; the next attempt may start at the time given, at once when there is none.
    Closed(Option<Instant>),
    Connecting,
    Open,
}

/// A client's xDS conversation with a management server, across reconnections.
///
/// The owner connects when [`wants_connection`](Self::wants_connection) says so, sends what
/// [`poll_request`](Self::poll_request) returns, hands in responses, and calls [`handle_deadline`](Self::handle_deadline)
/// when [`next_deadline`](Self::next_deadline) has come.
///
/// Requests leave in the order CDS, EDS, LDS, RDS, SDS, rest; those about changed interest before bare acknowledgements,
/// so that (as with Envoy) the request for the endpoints of a new cluster is ahead of the acknowledgement of the cluster
/// and a server that waits for that acknowledgement knows what is still missing.
#[derive(Debug)]
pub struct ClientSession {
    config: ClientConfig,
    rng: Rng,
    backoff: Backoff,
    connection: Connection,
    /// Counts streams, so that the receipt of an older one is not answered on a newer.
    epoch: u64,
    node_sent: bool,
    control_plane: String,
    /// In sending order.
    subscriptions: Vec<Subscription>,
    events: VecDeque<ClientEvent>,
}

impl ClientSession {
    /// A session without subscriptions. `rng` jitters the reconnections.
    pub fn new(config: ClientConfig, rng: Rng) -> Self {
        let backoff = Backoff::new(config.backoff_base, config.backoff_max);
        Self {
            config,
            rng,
            backoff,
            connection: Connection::Closed(None),
            epoch: 0,
            node_sent: false,
            control_plane: String::new(),
            subscriptions: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Which protocol it speaks.
    pub fn variant(&self) -> Variant {
        self.config.variant
    }

    /// Replaces what is wanted of a type. What is new has `initial_fetch_timeout` to be answered (for ever if `None`)
    /// before a [`ClientEvent::FetchTimeout`].
    pub fn set_interest(
        &mut self,
        type_url: &str,
        interest: Interest,
        initial_fetch_timeout: Option<Duration>,
        now: Instant,
    ) {
        let index = match self.position(type_url) {
            Ok(index) => index,
            Err(_) if interest == Interest::None => return,
            Err(index) => {
                self.subscriptions.insert(index, Subscription::new(self.config.variant, type_url));
                index
            }
        };
        self.subscriptions[index].set_interest(interest, initial_fetch_timeout, now);
    }

    /// What is wanted of a type.
    pub fn interest(&self, type_url: &str) -> Interest {
        self.position(type_url).map_or(Interest::None, |index| self.subscriptions[index].interest())
    }

    /// Asks for a name again that is already subscribed to; the wait for its answer starts anew. Nothing happens when
    /// it is not subscribed to.
    pub fn refresh(
        &mut self,
        type_url: &str,
        name: &str,
        initial_fetch_timeout: Option<Duration>,
        now: Instant,
    ) {
        if let Ok(index) = self.position(type_url) {
            self.subscriptions[index].refresh(name, initial_fetch_timeout, now);
        }
    }

    /// Holds back the requests of a type, acknowledgements included, until [`resume`](Self::resume) was called as often.
    pub fn pause(&mut self, type_url: &str) {
        let index = self.position(type_url).unwrap_or_else(|index| {
            self.subscriptions.insert(index, Subscription::new(self.config.variant, type_url));
            index
        });
        self.subscriptions[index].pauses += 1;
    }

    /// Ends one [`pause`](Self::pause).
    pub fn resume(&mut self, type_url: &str) {
        if let Ok(index) = self.position(type_url) {
            let pauses = &mut self.subscriptions[index].pauses;
            *pauses = pauses.saturating_sub(1);
        }
    }

    /// Whether a connection attempt should start now. It goes on saying so until [`connecting`](Self::connecting).
    pub fn wants_connection(&self, now: Instant) -> bool {
        matches!(self.connection, Connection::Closed(retry_at) if retry_at.is_none_or(|at| at <= now))
    }

    /// An attempt to open a stream started.
    pub fn connecting(&mut self) {
        self.connection = Connection::Connecting;
    }

    /// A stream is open: requests for everything wanted are due.
    pub fn stream_opened(&mut self) {
        self.connection = Connection::Open;
        self.epoch += 1;
        self.node_sent = false;
        for subscription in &mut self.subscriptions {
            subscription.stream_opened();
        }
    }

    /// The stream, or the attempt to open one, ended. Returns when the next attempt may start: after a fully jittered,
    /// exponentially growing delay, which starts over once a response arrived.
    pub fn stream_closed(&mut self, now: Instant) -> Instant {
        let retry_at = now + self.backoff.next(&mut self.rng);
        self.connection = Connection::Closed(Some(retry_at));
        self.epoch += 1;
        for subscription in &mut self.subscriptions {
            subscription.stream_closed();
        }
        retry_at
    }

    /// Whether a stream is open.
    pub fn is_open(&self) -> bool {
        self.connection == Connection::Open
    }

    /// The next request to send, if one is due and its type is not paused.
    pub fn poll_request(&mut self) -> Option<Request> {
        if self.connection != Connection::Open {
            return None;
        }
        let ready = |subscription: &Subscription, session: &Self| !session.is_paused(subscription);
        let mut candidates = self.subscriptions.iter();
        let index = candidates
            .position(|s| s.has_interest_to_send() && ready(s, self))
            .or_else(|| self.subscriptions.iter().position(|s| s.has_answer_to_send() && ready(s, self)))?;
        let mut request = self.subscriptions[index].request();
        if !(self.node_sent && self.config.set_node_on_first_message_only) {
            let node = Some(self.config.node.clone());
            match &mut request {
                Request::StateOfTheWorld(request) => request.node = node,
                Request::Delta(request) => request.node = node,
            }
            self.node_sent = true;
        }
        Some(request)
    }

    /// Takes a response in. `None` when there is nothing to apply: it was malformed (and is refused), about a type that
    /// nobody asked for (ignored without an answer), or holds only names that nobody asked for (acknowledged).
    pub fn handle_response(&mut self, response: Response) -> Option<Delivery> {
        // A server that answers is alive: Envoy too starts the back-off over with each message.
        self.backoff.reset();
        let (type_url, control_plane) = match &response {
            Response::StateOfTheWorld(response) => (response.type_url.clone(), &response.control_plane),
            Response::Delta(response) => (response.type_url.clone(), &response.control_plane),
        };
        if let Some(control_plane) = control_plane
            && control_plane.identifier != self.control_plane
        {
            self.control_plane.clone_from(&control_plane.identifier);
            self.events.push_back(ClientEvent::ControlPlane(self.control_plane.clone()));
        }
        let Ok(index) = self.position(&type_url) else {
            let text = format!("ignoring a response for type URL {type_url}, which has no subscribers");
            self.events.push_back(ClientEvent::Warning(text));
            return None;
        };
        let mut warnings = Vec::new();
        let subscription = &mut self.subscriptions[index];
        let outcome = match response {
            Response::StateOfTheWorld(response) => subscription.read_sotw(response, &mut warnings),
            Response::Delta(response) => subscription.read_delta(response, &mut warnings),
        };
        self.events.extend(warnings.into_iter().map(ClientEvent::Warning));
        match outcome {
            Ok((update, mut receipt)) => {
                receipt.epoch = self.epoch;
                if update.added.is_empty() && update.removed.is_empty() && !subscription.wanted.wildcard {
                    subscription.accepted(receipt, true);
                    return None;
                }
                subscription.being_applied += 1;
                Some(Delivery { update, receipt })
            }
            Err(message) => {
                self.events.push_back(ClientEvent::Malformed { type_url, message });
                None
            }
        }
    }

    /// The update is in force: acknowledges it, if its stream is still the current one.
    pub fn accept(&mut self, receipt: Receipt) {
        let on_current_stream = receipt.epoch == self.epoch;
        if let Ok(index) = self.position(&receipt.type_url) {
            let subscription = &mut self.subscriptions[index];
            subscription.being_applied = subscription.being_applied.saturating_sub(1);
            subscription.accepted(receipt, on_current_stream);
        }
    }

    /// The update is refused for the reason given, which the server is told.
    pub fn refuse(&mut self, receipt: Receipt, message: impl Into<String>) {
        let on_current_stream = receipt.epoch == self.epoch;
        if let Ok(index) = self.position(&receipt.type_url) {
            let subscription = &mut self.subscriptions[index];
            subscription.being_applied = subscription.being_applied.saturating_sub(1);
            subscription.refused(receipt, message.into(), on_current_stream);
        }
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// When [`handle_deadline`](Self::handle_deadline) or [`wants_connection`](Self::wants_connection) is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let retry = match self.connection {
            Connection::Closed(retry_at) => retry_at,
            Connection::Connecting | Connection::Open => None,
        };
        self.subscriptions.iter().filter_map(Subscription::next_deadline).chain(retry).min()
    }

    /// Turns waits that are over into events.
    pub fn handle_deadline(&mut self, now: Instant) {
        for subscription in &mut self.subscriptions {
            for name in subscription.take_expired(now) {
                self.events
                    .push_back(ClientEvent::FetchTimeout { type_url: subscription.type_url.clone(), name });
            }
        }
    }

    fn is_paused(&self, subscription: &Subscription) -> bool {
        subscription.pauses > 0
            || subscription.being_applied > 0
            || self.subscriptions.iter().any(|other| {
                other.being_applied > 0
                    && type_url::paused_by(&other.type_url).contains(&subscription.type_url.as_str())
            })
    }

    fn position(&self, type_url: &str) -> Result<usize, usize> {
        let key = (type_url::rank(type_url), type_url);
        self.subscriptions.binary_search_by(|s| (type_url::rank(&s.type_url), s.type_url.as_str()).cmp(&key))
    }
}

/// `google.rpc.Code.INTERNAL`, which Envoy gives every refusal.
const INTERNAL: i32 = 13;

/// Where Envoy cuts the text of a refusal, in bytes.
const MAX_REFUSAL: usize = 4096;

fn status(mut message: String) -> Status {
    if message.len() > MAX_REFUSAL {
        message.truncate(message.floor_char_boundary(MAX_REFUSAL));
        message.push_str("...(truncated)");
    }
    Status { code: INTERNAL, message, details: Vec::new() }
}

fn warn_of_resource_errors(type_url: &str, errors: &[ResourceError], warnings: &mut Vec<String>) {
    for ResourceError { resource_name, error_detail } in errors {
        let name = resource_name.as_ref().map_or("", |name| name.name.as_str());
        let text = error_detail.as_ref().map_or("", |detail| detail.message.as_str());
        warnings.push(format!("{type_url} {name}: the server reports: {text}"));
    }
}

fn warn_of_unsupported_fields(type_url: &str, resource: &WireResource, warnings: &mut Vec<String>) {
    let WireResource {
        name,
        resource_name,
        aliases,
        version: _,
        resource: _,
        ttl,
        cache_control: _, // addressed to xDS proxies
        metadata: _,      // for whoever looks at the stream
    } = resource;
    if resource_name.is_some() {
        warnings.push(format!(
            "{type_url} {name}: resource_name with dynamic parameters is not supported and ignored"
        ));
    }
    if !aliases.is_empty() {
        warnings.push(format!("{type_url} {name}: aliases are not supported and ignored"));
    }
    if ttl.is_some() {
        warnings.push(format!(
            "{type_url} {name}: ttl is not supported and ignored, the resource stays until removed"
        ));
    }
}
