//! The hosts of a dynamic forward proxy: names that requests asked for, what they resolved to, and who waits for an answer.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dhow_base::{ConfigError, FieldPath};
use dhow_matching::AddressMatcher;
use dhow_net::StreamAddress;
use dhow_proto::envoy::r#type::matcher::v3::AddressMatcher as MatcherMessage;
use dhow_stats::{Scope, Store, stat_group};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::cluster_info::ClusterInfo;
use crate::dns::{LookupFamily, ResolverOptions};
use crate::host::{Host, HostSpec};

/// `DnsCacheConfig`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DnsCacheSettings {
    pub(crate) name: String,
    pub(crate) family: LookupFamily,
    /// How often a name is resolved again when the answer does not say how long it holds.
    pub(crate) refresh_rate: Duration,
    /// The least time that an answer holds.
    pub(crate) min_refresh_rate: Duration,
    /// Base and maximum of the back-off after a failure.
    pub(crate) failure_refresh: Option<(Duration, Duration)>,
    /// Whether names that did not resolve are tried again.
    pub(crate) refreshes_failures: bool,
    /// Names that nobody asked for in this time go at their next refresh.
    pub(crate) host_ttl: Duration,
    pub(crate) max_hosts: usize,
    /// Requests that may wait for an answer at the same time.
    pub(crate) max_pending: u64,
    pub(crate) query_timeout: Duration,
    pub(crate) resolver: ResolverOptions,
    /// `resolved_address_filter`: addresses that are left out.
    pub(crate) denied: Option<DeniedAddresses>,
    /// Names with their ports, resolved from the start.
    pub(crate) preresolve: Vec<String>,
}

/// Addresses that names may not lead to.
#[derive(Clone, Debug)]
pub(crate) struct DeniedAddresses {
    message: MatcherMessage,
    matcher: AddressMatcher,
}

impl DeniedAddresses {
    /// Compiles the message.
    ///
    /// # Errors
    /// As for any matcher of addresses.
    pub(crate) fn compile(message: MatcherMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        Ok(Self { matcher: AddressMatcher::compile(&message, path)?, message })
    }

    /// Leaves out what is denied; gives how many that were.
    pub(crate) fn leave_out(&self, addresses: &mut Vec<IpAddr>) -> u64 {
        let before = addresses.len();
        addresses.retain(|ip| !self.matcher.matches(*ip));
        (before - addresses.len()) as u64
    }
}

impl PartialEq for DeniedAddresses {
    fn eq(&self, other: &Self) -> bool {
        self.message == other.message
    }
}

stat_group! {
    /// `dns_cache.<name>.*`.
    pub(crate) struct DnsCacheStats {
        counters {
            cache_load,
            dns_address_filter_out,
            dns_query_attempt,
            dns_query_failure,
            dns_query_success,
            dns_query_timeout,
            dns_rq_pending_overflow,
            host_added,
            host_address_changed,
            host_overflow,
            host_removed,
        }
        gauges { num_hosts }
    }
}

stat_group! {
    /// `dns_cache.<name>.circuit_breakers.*`.
    struct BreakerStats {
        gauges { rq_pending_open, rq_pending_remaining }
    }
}

/// What is known of the name that a request is for.
pub enum Resolution {
    /// The cluster has a host for it.
    Ready(Arc<Host>),
    /// It did not resolve; why, in the form of response code details.
    Failed(Arc<str>),
    /// It is being resolved. The future ends with an error as in [`Resolution::Failed`].
    Wait(Pin<Box<dyn Future<Output = Result<(), Arc<str>>>>>),
    /// The request names none.
    Unnamed,
    /// It has a cluster of its own.
    HasCluster,
    /// A cluster of its own is being made. The future ends when it is there.
    ClusterWarms(Pin<Box<dyn Future<Output = ()>>>),
    /// There are as many clusters as there may be, and none is for this host.
    TooManyClusters,
    /// `max_hosts` names are known already, and this is not one of them.
    CacheFull,
    /// As many requests wait as `max_pending_requests` allows.
    TooManyPending,
}

/// The names of one cluster, shared by all workers.
#[derive(Debug)]
pub(crate) struct DnsCache {
    pub(crate) settings: DnsCacheSettings,
    pub(crate) stats: DnsCacheStats,
    breakers: BreakerStats,
    pending: AtomicU64,
    entries: Mutex<HashMap<String, Entry>>,
    /// Names to be resolved, to the main thread.
    wanted: mpsc::UnboundedSender<String>,
    requests: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
}

#[derive(Debug)]
struct Entry {
    /// The host, or why there is none; nothing while the first answer is awaited.
    outcome: Option<Result<Arc<Host>, Arc<str>>>,
    answered: watch::Sender<bool>,
    last_used: Instant,
}

/// One that waits; dropping it ends the wait.
struct Pending(Arc<DnsCache>);

impl Pending {
    fn count(cache: &Arc<DnsCache>) -> Self {
        cache.note_pending(cache.pending.fetch_add(1, Ordering::Relaxed) + 1);
        Self(cache.clone())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.note_pending(self.0.pending.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

impl DnsCache {
    pub(crate) fn new(settings: DnsCacheSettings, store: &Store) -> Arc<Self> {
        let scope: Scope = match &*settings.name {
            "" => store.scope("dns_cache"),
            name => store.scope(&format!("dns_cache.{name}")),
        };
        let (wanted, requests) = mpsc::unbounded_channel();
        let cache = Self {
            stats: scope.group(),
            breakers: scope.scope("circuit_breakers").group(),
            pending: AtomicU64::new(0),
            entries: Mutex::default(),
            wanted,
            requests: Mutex::new(Some(requests)),
            settings,
        };
        cache.breakers.rq_pending_remaining().set(cache.settings.max_pending);
        for name in &cache.settings.preresolve {
            cache.add(&mut cache.entries.lock(), name);
        }
        Arc::new(cache)
    }

    /// Where requested names arrive; can be taken once.
    pub(crate) fn take_requests(&self) -> Option<mpsc::UnboundedReceiver<String>> {
        self.requests.lock().take()
    }

    fn note_pending(&self, pending: u64) {
        let remaining = self.settings.max_pending.saturating_sub(pending);
        self.breakers.rq_pending_remaining().set(remaining);
        self.breakers.rq_pending_open().set(u64::from(remaining == 0));
    }

    /// What is known of `name` (with its port); asks for it when that is nothing.
    pub(crate) fn resolve(self: &Arc<Self>, name: &str) -> Resolution {
        if self.pending.load(Ordering::Relaxed) >= self.settings.max_pending {
            self.stats.dns_rq_pending_overflow().inc();
            return Resolution::TooManyPending;
        }
        let mut entries = self.entries.lock();
        let is_full = entries.len() >= self.settings.max_hosts;
        let mut answer = match entries.get_mut(name) {
            Some(entry) => {
                entry.last_used = Instant::now();
                match &entry.outcome {
                    Some(Ok(host)) => return Resolution::Ready(host.clone()),
                    Some(Err(why)) => return Resolution::Failed(why.clone()),
                    None => entry.answered.subscribe(),
                }
            }
            None if is_full => {
                self.stats.host_overflow().inc();
                return Resolution::CacheFull;
            }
            None => self.add(&mut entries, name),
        };
        drop(entries);
        let (pending, name) = (Pending::count(self), name.to_owned());
        Resolution::Wait(Box::pin(async move {
            // A name that goes while it is waited for counts as one that did not resolve.
            let _ = answer.wait_for(|answered| *answered).await;
            match pending.0.entries.lock().get(&name).and_then(|entry| entry.outcome.clone()) {
                Some(Ok(_)) => Ok(()),
                Some(Err(why)) => Err(why),
                None => Err(Arc::from("removed")),
            }
        }))
    }

    fn add(&self, entries: &mut HashMap<String, Entry>, name: &str) -> watch::Receiver<bool> {
        let (answered, answer) = watch::channel(false);
        entries.insert(name.to_owned(), Entry { outcome: None, answered, last_used: Instant::now() });
        self.stats.host_added().inc();
        self.stats.num_hosts().set(entries.len() as u64);
        // The receiver is gone when the cluster is; nobody waits for its names then.
        let _ = self.wanted.send(name.to_owned());
        answer
    }

    /// The host of a name that is resolved.
    pub(crate) fn host(&self, name: &str) -> Option<Arc<Host>> {
        match self.entries.lock().get(name)?.outcome.as_ref()? {
            Ok(host) => Some(host.clone()),
            Err(_) => None,
        }
    }

    /// Takes an answer for a name. True when the hosts changed. A failure does not take the place of an address.
    pub(crate) fn take_answer(
        &self,
        name: &str,
        answer: Result<Vec<SocketAddr>, String>,
        info: &ClusterInfo,
    ) -> bool {
        let mut entries = self.entries.lock();
        let Some(entry) = entries.get_mut(name) else {
            return false;
        };
        let (changed, outcome) = match (answer, entry.outcome.take()) {
            (Ok(addresses), Some(Ok(host))) if is_at(&host, &addresses) => (false, Ok(host)),
            (Ok(addresses), before) => {
                self.stats.host_address_changed().inc();
                let spec = spec(name, &addresses, info);
                let host = match before {
                    Some(Ok(host)) => host.succeeded_by(spec),
                    _ => Host::new(spec),
                };
                (true, Ok(Arc::new(host)))
            }
            (Err(_), Some(Ok(host))) => (false, Ok(host)),
            (Err(why), _) => (false, Err(Arc::from(why))),
        };
        entry.outcome = Some(outcome);
        entry.answered.send_replace(true);
        changed
    }

    /// Drops a name that nobody asked for in time; true when it is gone.
    pub(crate) fn drop_unused(&self, name: &str) -> bool {
        let mut entries = self.entries.lock();
        let unused = entries.get_mut(name).is_none_or(|entry| {
            if let Some(Ok(host)) = &entry.outcome
                && host.take_touched()
            {
                entry.last_used = Instant::now();
            }
            entry.last_used.elapsed() > self.settings.host_ttl
        });
        // Names that are resolved from the start are known for good.
        if !unused || self.settings.preresolve.iter().any(|kept| kept == name) {
            return false;
        }
        if entries.remove(name).is_some() {
            self.stats.host_removed().inc();
            self.stats.num_hosts().set(entries.len() as u64);
        }
        true
    }

    /// The hosts of all names that are resolved, ordered by name.
    pub(crate) fn hosts(&self) -> Vec<Arc<Host>> {
        let entries = self.entries.lock();
        let resolved = entries.iter().filter_map(|(name, entry)| Some((name, entry.outcome.as_ref()?)));
        let mut hosts: Vec<_> =
            resolved.filter_map(|(name, outcome)| Some((name, outcome.as_ref().ok()?.clone()))).collect();
        hosts.sort_by_key(|(name, _)| *name);
        hosts.into_iter().map(|(_, host)| host).collect()
    }
}

fn is_at(host: &Host, addresses: &[SocketAddr]) -> bool {
    host.address().as_ip().as_ref() == addresses.first() && host.additional_addresses() == &addresses[1..]
}

fn spec(name: &str, addresses: &[SocketAddr], info: &ClusterInfo) -> HostSpec {
    HostSpec {
        hostname: name.into(),
        transport_socket: info.transport_socket().clone(),
        additional: addresses[1..].into(),
        ..HostSpec::at(StreamAddress::Ip(addresses[0]))
    }
}

/// A name with a port: its own, or else `port`.
pub(crate) fn default_port_appended(name: &str, port: u16) -> String {
    match split_port(name) {
        (_, Some(_)) => name.to_owned(),
        (host, None) => format!("{host}:{port}"),
    }
}

/// Host and port of an authority; IPv6 addresses are in brackets.
pub(crate) fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (authority, None),
        },
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{default_port_appended, split_port};

    #[test]
    fn a_port_is_added_where_there_is_none() {
        assert_eq!(default_port_appended("a.test", 80), "a.test:80");
        assert_eq!(default_port_appended("a.test:81", 80), "a.test:81");
        assert_eq!(default_port_appended("[::1]", 443), "[::1]:443");
        assert_eq!(split_port("[::1]:5"), ("[::1]", Some(5)));
        assert_eq!(split_port("::1"), ("::1", None));
    }
}
