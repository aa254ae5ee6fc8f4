//! Names to addresses: the only place that knows the resolver library.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dhow_stats::{Gauge, Store, stat_group};
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::{MAX_TTL, TokioResolver};
use parking_lot::Mutex;

/// `dns_lookup_family`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LookupFamily {
    /// `AUTO`: IPv6 addresses, or else IPv4 ones.
    #[default]
    Auto,
    /// `V4_ONLY`.
    V4Only,
    /// `V6_ONLY`.
    V6Only,
    /// `V4_PREFERRED`: IPv4 addresses, or else IPv6 ones.
    V4Preferred,
    /// `ALL`: both.
    All,
}

/// `dns_resolution_config` and its like; the defaults are the system's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResolverOptions {
    /// Name servers instead of those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// `use_tcp_for_dns_lookups`.
    pub use_tcp: bool,
    /// `no_default_search_domain`.
    pub no_search_domain: bool,
    /// Time for one try; 5 s by default.
    pub timeout: Option<Duration>,
    /// Tries per query; 2 by default.
    pub attempts: Option<u32>,
}

/// The addresses behind a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// In the order of the answer; never empty.
    pub(crate) addresses: Vec<IpAddr>,
    /// How long the answer holds; zero when it does not say.
    pub(crate) ttl: Duration,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LookupError {
    pub(crate) kind: LookupFailure,
    /// The reason in words.
    pub(crate) text: String,
}

/// What kind of failure keeps a name from being resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LookupFailure {
    /// The name is unknown, or has no addresses of the family: an answer, in a way.
    NoRecords,
    /// Nobody answered in time.
    Timeout,
    /// The server could not be reached, or refused to say.
    Other,
}

impl LookupError {
    /// A failure other than the server's word.
    pub(crate) fn other(text: String) -> Self {
        Self { kind: LookupFailure::Other, text }
    }

    fn no_records(why: &str) -> Self {
        Self { kind: LookupFailure::NoRecords, text: format!("cares_norecords:{why}") }
    }

    /// Whether the server said that there is nothing.
    pub(crate) fn is_no_records(&self) -> bool {
        self.kind == LookupFailure::NoRecords
    }
}

/// In the words of the library that Envoy resolves with, which response code details and logs repeat.
impl From<NetError> for LookupError {
    fn from(error: NetError) -> Self {
        let code = match &error {
            NetError::Dns(DnsError::NoRecordsFound(nothing)) => {
                return Self::no_records(match nothing.response_code {
                    ResponseCode::NXDomain => UNKNOWN_NAME,
                    _ => NO_DATA,
                });
            }
            NetError::Timeout => {
                let text = "cares_failure:Timeout while contacting DNS servers".to_owned();
                return Self { kind: LookupFailure::Timeout, text };
            }
            NetError::Dns(DnsError::ResponseCode(code)) => Some(*code),
            _ => None,
        };
        let text = match code {
            Some(ResponseCode::Refused) => "DNS server refused query",
            Some(ResponseCode::ServFail) => "DNS server returned general failure",
            Some(ResponseCode::FormErr) => "DNS server claims query was misformatted",
            Some(ResponseCode::NotImp) => "DNS server does not implement requested operation",
            _ => "Could not contact DNS servers",
        };
        tracing::debug!("DNS resolution failed: {error}");
        Self::other(format!("cares_failure:{text}"))
    }
}

/// There is no such name.
const UNKNOWN_NAME: &str = "Domain name not found";
/// There is such a name, without addresses of the kind.
const NO_DATA: &str = "DNS server returned answer with no data";

stat_group! {
    /// `dns.cares.*`: what resolving names comes to, for all clusters together.
    pub(crate) struct ResolverStats {
        counters { get_addr_failure, not_found, reinits, resolve_total, timeouts }
        gauges { pending_resolutions }
    }
}

impl ResolverStats {
    fn count(&self, outcome: &Result<Answer, LookupError>) {
        match outcome.as_ref().map_err(|error| error.kind) {
            Ok(_) => {}
            Err(LookupFailure::NoRecords) => self.not_found().inc(),
            Err(LookupFailure::Timeout) => self.timeouts().inc(),
            Err(LookupFailure::Other) => {
                self.get_addr_failure().inc();
                // Envoy starts its library anew after these; ours asks on a new socket every time.
                self.reinits().inc();
            }
        }
    }
}

/// Resolvers by their options, so that clusters share them.
#[derive(Debug)]
pub(crate) struct Resolvers {
    store: Store,
    stats: OnceLock<Arc<ResolverStats>>,
    known: Mutex<HashMap<(ResolverOptions, Family), Arc<TokioResolver>>>,
}

/// The record types that are asked for at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Family {
    V4,
    V6,
    Both,
}

impl LookupFamily {
    /// What to ask for, and what to ask for when that does not exist.
    fn lookups(self) -> (Family, Option<Family>) {
        match self {
            Self::Auto => (Family::V6, Some(Family::V4)),
            Self::V4Preferred => (Family::V4, Some(Family::V6)),
            Self::V4Only => (Family::V4, None),
            Self::V6Only => (Family::V6, None),
            Self::All => (Family::Both, None),
        }
    }
}

/// One way of resolving names.
#[derive(Clone)]
pub(crate) struct Resolver {
    first: Arc<TokioResolver>,
    fallback: Option<Arc<TokioResolver>>,
    stats: Arc<ResolverStats>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolvers {
    /// None yet; they count in `store` from the first one on.
    pub(crate) fn new(store: Store) -> Self {
        Self { store, stats: OnceLock::new(), known: Mutex::default() }
    }

    /// The resolver for these options; the text of an error says why there is none.
    pub(crate) fn get(&self, options: &ResolverOptions, family: LookupFamily) -> Result<Resolver, String> {
        let stats = self.stats.get_or_init(|| Arc::new(self.store.scope("dns.cares").group())).clone();
        let (first, fallback) = family.lookups();
        let fallback = fallback.map(|family| self.shared(options, family)).transpose()?;
        Ok(Resolver { first: self.shared(options, first)?, fallback, stats })
    }

    fn shared(&self, options: &ResolverOptions, family: Family) -> Result<Arc<TokioResolver>, String> {
        let mut known = self.known.lock();
        if let Some(resolver) = known.get(&(options.clone(), family)) {
            return Ok(resolver.clone());
        }
        let resolver = Arc::new(build(options, family)?);
        known.insert((options.clone(), family), resolver.clone());
        Ok(resolver)
    }
}

impl Resolver {
    /// Asks for the addresses of `name`. `/etc/hosts` and the name `localhost` are answered without a query.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Answer, LookupError> {
        let outcome = self.ask(&self.first, name).await;
        match &self.fallback {
            // Silence and refusals are no reason to believe that the other family fares better.
            Some(fallback) if outcome.as_ref().is_err_and(LookupError::is_no_records) => {
                self.ask(fallback, name).await
            }
            _ => outcome,
        }
    }

    async fn ask(&self, resolver: &TokioResolver, name: &str) -> Result<Answer, LookupError> {
        self.stats.resolve_total().inc();
        let pending = self.stats.pending_resolutions();
        pending.inc();
        // Whoever asks may give up and drop this.
        let _counted = Counted(pending);
        let outcome = resolver.lookup_ip(name).await.map_err(LookupError::from).and_then(answer_of);
        self.stats.count(&outcome);
        outcome
    }
}

/// One lookup under way.
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn answer_of(found: LookupIp) -> Result<Answer, LookupError> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.iter() {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(LookupError::no_records(NO_DATA));
    }
    // What the library has from a file has the longest time to live there is, counted from when it read the file: how long
    // such an answer holds is not known.
    let records = found.as_lookup().answers();
    let is_known = records.iter().any(|record| record.ttl < MAX_TTL);
    let ttl = found.valid_until().saturating_duration_since(Instant::now());
    Ok(Answer { addresses, ttl: if is_known { ttl } else { Duration::ZERO } })
}

fn build(options: &ResolverOptions, family: Family) -> Result<TokioResolver, String> {
    let (mut config, mut settings) = match TokioResolver::builder_tokio() {
        // The builder has read the system's files; its parts are needed to change them.
        Ok(_) => hickory_resolver::system_conf::read_system_conf().map_err(|error| error.to_string())?,
        Err(_) => (ResolverConfig::default(), ResolverOpts::default()),
    };
    if !options.servers.is_empty() || options.use_tcp || options.no_search_domain {
        let (domain, search, servers) = config.into_parts();
        let servers = if options.servers.is_empty() {
            servers.into_iter().map(|server| named(server, options.use_tcp)).collect()
        } else {
            options.servers.iter().map(|address| server(*address, options.use_tcp)).collect()
        };
        config = if options.no_search_domain {
            ResolverConfig::from_parts(None, Vec::new(), servers)
        } else {
            ResolverConfig::from_parts(domain, search, servers)
        };
    }
    // Each refresh must see what the server says now.
    settings.cache_size = 0;
    settings.use_hosts_file = ResolveHosts::Always;
    settings.ip_strategy = match family {
        Family::V4 => LookupIpStrategy::Ipv4Only,
        Family::V6 => LookupIpStrategy::Ipv6Only,
        Family::Both => LookupIpStrategy::Ipv4AndIpv6,
    };
    if let Some(timeout) = options.timeout {
        settings.timeout = timeout;
    }
    if let Some(attempts) = options.attempts {
        settings.attempts = attempts as usize;
    }
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(settings)
        .build()
        .map_err(|error| error.to_string())
}

fn server(address: SocketAddr, use_tcp: bool) -> NameServerConfig {
    let mut config = named(NameServerConfig::udp_and_tcp(address.ip()), use_tcp);
    config.connections.iter_mut().for_each(|connection| connection.port = address.port());
    config
}

fn named(mut config: NameServerConfig, use_tcp: bool) -> NameServerConfig {
    if use_tcp {
        let port = config.connections.first().map_or(53, |connection| connection.port);
        let mut tcp = ConnectionConfig::tcp();
        tcp.port = port;
        config.connections = vec![tcp];
    }
    config
}
