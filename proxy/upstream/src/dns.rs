//! Names to addresses: the only place that knows the resolver library.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
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
    /// The name has no addresses: an answer, in a way.
    pub(crate) no_records: bool,
    /// The reason in words.
    pub(crate) text: String,
}

impl LookupError {
    fn no_records() -> Self {
        Self { no_records: true, text: "cares_norecords:Domain name not found".to_owned() }
    }
}

/// Resolvers by their options, so that clusters share them.
#[derive(Debug, Default)]
pub(crate) struct Resolvers {
    known: Mutex<HashMap<(ResolverOptions, LookupFamily), Resolver>>,
}

/// One way of resolving names.
#[derive(Clone)]
pub(crate) struct Resolver {
    inner: Arc<TokioResolver>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolvers {
    /// The resolver for these options; the text of an error says why there is none.
    pub(crate) fn get(&self, options: &ResolverOptions, family: LookupFamily) -> Result<Resolver, String> {
        let mut known = self.known.lock();
        if let Some(resolver) = known.get(&(options.clone(), family)) {
            return Ok(resolver.clone());
        }
        let resolver = Resolver { inner: Arc::new(build(options, family)?) };
        known.insert((options.clone(), family), resolver.clone());
        Ok(resolver)
    }
}

impl Resolver {
    /// Asks for the addresses of `name`. `/etc/hosts` and the name `localhost` are answered without a query.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Answer, LookupError> {
        let answer = self.inner.lookup_ip(name).await.map_err(|error| match error.is_no_records_found() {
            true => LookupError::no_records(),
            false => LookupError { no_records: false, text: error.to_string() },
        })?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in answer.iter() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(LookupError::no_records());
        }
        // What the library has from a file has the longest time to live there is, counted from when it read the file: how long
        // such an answer holds is not known.
        let records = answer.as_lookup().answers();
        let is_known = records.iter().any(|record| record.ttl < MAX_TTL);
        let ttl = answer.valid_until().saturating_duration_since(Instant::now());
        Ok(Answer { addresses, ttl: if is_known { ttl } else { Duration::ZERO } })
    }
}

fn build(options: &ResolverOptions, family: LookupFamily) -> Result<TokioResolver, String> {
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
        LookupFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
        LookupFamily::V4Only => LookupIpStrategy::Ipv4Only,
        LookupFamily::V6Only => LookupIpStrategy::Ipv6Only,
        LookupFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        LookupFamily::All => LookupIpStrategy::Ipv4AndIpv6,
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
