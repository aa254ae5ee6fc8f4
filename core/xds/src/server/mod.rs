//! The server's side of one stream.

mod push;
mod requests;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use twox_hash::XxHash64;

pub use self::push::Push;
use self::watch::Watch;
use crate::messages::Node;
use crate::{Resource, Variant, type_url};

/// How a server session behaves.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Which protocol the stream speaks.
    pub variant: Variant,
    /// `control_plane.identifier` of every response, if any.
    pub control_plane: Option<Arc<str>>,
    /// The type of a single-type service, where requests may leave their type out. `None` for the aggregated service.
    pub only_type: Option<Arc<str>>,
    /// For how long listeners and routes wait for the clusters and endpoints of the same snapshot to be acknowledged,
    /// and removals of clusters for the routes. Zero sends everything at once, in order, as istiod does.
    pub hold_limit: Duration,
}

impl ServerConfig {
    /// An aggregated stream that holds pushes back for at most half a second.
    pub fn new(variant: Variant) -> Self {
        Self { variant, control_plane: None, only_type: None, hold_limit: Duration::from_millis(500) }
    }
}

/// Why a stream has to end with `InvalidArgument`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The first request of a stream carries no node, or one without an id.
    #[error("the first request of a stream must carry a node with an id")]
    NoNode,
    /// A request on an aggregated stream names no type.
    #[error("type URL is required for ADS")]
    NoType,
    /// A request on a single-type stream is about another type.
    #[error("type URL {0} does not belong to this service")]
    WrongType(String),
    /// A message of the other protocol.
    #[error("a request of the other protocol variant")]
    WrongVariant,
}

/// Something the session's owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    /// The client applied a response.
    Acked {
        /// Its type.
        type_url: Arc<str>,
        /// Its nonce.
        nonce: String,
    },
    /// The client refused a response.
    Nacked {
        /// Its type.
        type_url: Arc<str>,
        /// Its nonce.
        nonce: String,
        /// `error_detail.message`.
        message: String,
    },
    /// An answer to a response that is not the outstanding one was ignored.
    StaleNonce {
        /// The type of the request.
        type_url: Arc<str>,
    },
    /// Something was ignored that an operator should read in the log.
    Warning(String),
}

/// Resources that the session needs to know in order to push: to be answered by [`ServerSession::supply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The type.
    pub type_url: Arc<str>,
    /// Everything that the client should have.
    pub wildcard: bool,
    /// These names, beside the wildcard or without it. Those that do not exist are to be left out.
    pub names: Arc<BTreeSet<String>>,
}

/// How far a client is with a type; the words of `istioctl proxy-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Nothing was sent.
    NotSent,
    /// The response sent last was acknowledged.
    Synced,
    /// The response sent last was not acknowledged: it is under way, or was refused.
    Stale,
}

/// The state of one type on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeStatus {
    /// The type.
    pub type_url: Arc<str>,
    /// How far the client is.
    pub state: SyncState,
    /// The nonce sent last; empty before the first response.
    pub nonce_sent: String,
    /// The nonce acknowledged last; empty before.
    pub nonce_acked: String,
    /// The version sent last.
    pub version_sent: String,
    /// The text of the last refusal, until a later response is acknowledged.
    pub refusal: Option<String>,
}

/// The server's side of one stream.
///
/// The owner hands in requests and says when a newer snapshot was published; while [`poll_want`](Self::poll_want) asks
/// for resources, it hands them to [`supply`](Self::supply) and sends the push that may come of it.
///
/// Rules followed, beside those of the requests (see `requests.rs`): pushes leave in the order CDS, EDS, LDS, RDS, SDS,
/// rest; at most one response per type is unanswered, changes meanwhile are sent as one; the first request of a type is
/// always answered, if need be with nothing; a delta response holds what differs from what the client holds, and the
/// names that went away or were asked for and do not exist; a state-of-the-world response of CDS, LDS and SRDS holds
/// everything, of other types what changed; its version is a digest of everything the client should hold; a refused
/// response is not repeated until one of its resources changed. A client that is about to replace a cluster needs its
/// endpoints anew: a push of changed clusters repeats the endpoints of the same names.
///
/// Make before break, which istiod does not do: listeners and routes wait until clusters and endpoints of the same
/// snapshot are acknowledged, and removals of clusters wait for listeners and routes (in the state of the world by
/// repeating the old clusters beside the new), both no longer than `hold_limit`.
#[derive(Debug)]
pub struct ServerSession {
    config: ServerConfig,
    node: Option<Node>,
    last_nonce: u64,
    /// In push order.
    watches: Vec<Watch>,
    events: VecDeque<ServerEvent>,
}

impl ServerSession {
    /// The session of a stream that was just opened.
    pub fn new(config: ServerConfig) -> Self {
        Self { config, node: None, last_nonce: 0, watches: Vec::new(), events: VecDeque::new() }
    }

    /// Who the client is, once it sent its first request.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// A newer snapshot is there.
    pub fn snapshot_published(&mut self) {
        for watch in &mut self.watches {
            watch.due = true;
        }
    }

    /// The next type that may need a push.
    pub fn poll_want(&mut self, now: Instant) -> Option<Want> {
        self.release_removals(now);
        let (mut clusters_busy, mut found) = (false, None);
        for (index, watch) in self.watches.iter_mut().enumerate() {
            let may_send = watch.due && watch.outstanding.is_none();
            if may_send && watch.points_at_clusters() && clusters_busy {
                let since = *watch.held_back_since.get_or_insert(now);
                if now < since + self.config.hold_limit {
                    continue;
                }
            }
            if may_send {
                found = Some(index);
                break;
            }
            clusters_busy |=
                matches!(&*watch.type_url, type_url::CLUSTER | type_url::ENDPOINT) && watch.is_busy();
        }
        let watch = &self.watches[found?];
        Some(Want {
            type_url: Arc::clone(&watch.type_url),
            wildcard: watch.wildcard,
            names: Arc::clone(&watch.names),
        })
    }

    /// Takes the resources that were asked for, from one snapshot, and returns what is to be sent, if anything.
    /// `snapshot` is a name for the snapshot, for operators (`system_version_info`).
    pub fn supply(
        &mut self,
        type_url: &str,
        resources: &[Resource],
        snapshot: &str,
        now: Instant,
    ) -> Option<Push> {
        let index = self.position(type_url).ok()?;
        let removals_may_wait = type_url == type_url::CLUSTER
            && self.watches.iter().any(|watch| watch.points_at_clusters() && watch.is_busy());
        let watch = &mut self.watches[index];
        if watch.outstanding.is_some() {
            return None;
        }
        let mut difference = watch.difference(resources);
        watch.settle();
        let withheld = watch.withhold_removals(&mut difference.removed, removals_may_wait, now);
        let is_whole = self.config.variant == Variant::StateOfTheWorld && type_url::is_full_set(type_url);
        let tells_removals = is_whole || self.config.variant == Variant::Delta;
        if self.config.variant == Variant::StateOfTheWorld {
            watch.gone(&difference.removed);
        }
        let nothing = difference.changed.is_empty() && (difference.removed.is_empty() || !tells_removals);
        if nothing && !watch.unanswered {
            return None;
        }
        let body: Vec<Resource> = if is_whole {
            watch.full_set(resources, &withheld)
        } else {
            difference.changed.iter().map(|resource| (*resource).clone()).collect()
        };
        let (removed, version) = match self.config.variant {
            Variant::Delta => (difference.removed, snapshot.to_owned()),
            Variant::StateOfTheWorld => (Vec::new(), digest(if is_whole { &body } else { resources })),
        };
        let changed: Vec<Arc<str>> =
            difference.changed.iter().map(|resource| Arc::clone(&resource.name)).collect();
        self.last_nonce += 1;
        let nonce = self.last_nonce.to_string();
        watch.sent(&nonce, &version, body.iter(), &removed);
        let push = Push {
            variant: self.config.variant,
            type_url: Arc::clone(&watch.type_url),
            nonce,
            version,
            resources: body,
            removed,
            control_plane: self.config.control_plane.clone(),
        };
        if type_url == type_url::CLUSTER {
            self.repeat_endpoints(&changed);
        }
        Some(push)
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// When [`poll_want`](Self::poll_want) is to be called again although nothing was received or published.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waits = self.watches.iter().flat_map(|watch| {
            let held_back = watch.held_back_since.filter(|_| watch.due && watch.outstanding.is_none());
            let removals = watch.removals_wait_since.filter(|_| !watch.due && watch.outstanding.is_none());
            [held_back, removals]
        });
        waits.flatten().min().map(|since| since + self.config.hold_limit)
    }

    /// Whether nothing is under way and nothing is due: the client has all of the newest snapshot that it accepts.
    pub fn is_idle(&self) -> bool {
        self.watches.iter().all(|watch| !watch.is_busy() && watch.removals_wait_since.is_none())
    }

    /// The types that the client asked for, in push order.
    pub fn status(&self) -> impl Iterator<Item = TypeStatus> {
        self.watches.iter().map(|watch| TypeStatus {
            type_url: Arc::clone(&watch.type_url),
            state: if watch.nonce_sent.is_empty() {
                SyncState::NotSent
            } else if watch.nonce_sent == watch.nonce_acked {
                SyncState::Synced
            } else {
                SyncState::Stale
            },
            nonce_sent: watch.nonce_sent.clone(),
            nonce_acked: watch.nonce_acked.clone(),
            version_sent: watch.version_sent.clone(),
            refusal: watch.refusal.clone(),
        })
    }

    fn position(&self, type_url: &str) -> Result<usize, usize> {
        let key = (type_url::rank(type_url), type_url);
        self.watches.binary_search_by(|watch| (type_url::rank(&watch.type_url), &*watch.type_url).cmp(&key))
    }

    /// Lets removals of clusters go once no listener or route push is ahead of them, or they waited long enough.
    fn release_removals(&mut self, now: Instant) {
        let ahead = self.watches.iter().any(|watch| watch.points_at_clusters() && watch.is_busy());
        let limit = self.config.hold_limit;
        for watch in &mut self.watches {
            if watch.removals_wait_since.is_some_and(|since| !ahead || now >= since + limit) {
                watch.removals_wait_since = None;
                watch.removals_released = true;
                watch.due = true;
            }
        }
    }

    /// A changed cluster is built anew by the client and waits for its endpoints, which Envoy does not ask for again on
    /// a delta stream as their name did not change. Endpoints are matched by the cluster's name, which is Istio's way.
    fn repeat_endpoints(&mut self, clusters: &[Arc<str>]) {
        let Ok(index) = self.position(type_url::ENDPOINT) else { return };
        let watch = &mut self.watches[index];
        for name in clusters {
            if watch.has_version_of(name) {
                watch.force(name);
            }
        }
    }
}

/// A version for a set of resources that depends on its content alone, so that every replica gives the same.
fn digest(resources: &[Resource]) -> String {
    let mut entries: Vec<(&str, &str)> = resources.iter().map(|r| (&*r.name, &*r.version)).collect();
    entries.sort_unstable();
    let mut hasher = XxHash64::with_seed(0);
    for (name, version) in entries {
        for part in [name, version] {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part.as_bytes());
        }
    }
    format!("{:016x}", hasher.finish())
}
