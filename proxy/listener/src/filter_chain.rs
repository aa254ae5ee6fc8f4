//! Filter chains and the choice among them.

mod empty;
mod lower;
mod overlap;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dhow_base::is_loopback;
use dhow_expr::FilterStateObject;
use dhow_matching::Cidr;
use dhow_matching::generic::{MatchData, MatchTree, Verdict};
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::google::protobuf::Struct;
use dhow_proxy_api::{ConnectionRecord, NetworkFilter, ReadFilterFactory};
use dhow_tls::DownstreamTls;

pub(crate) use lower::ChainBuilder;

/// What a connection offers for matching.
#[derive(Clone, Debug)]
pub struct ConnectionFacts<'a> {
    /// Address that the peer connected to.
    pub destination: &'a StreamAddress,
    /// Address of the peer.
    pub source: &'a StreamAddress,
    /// Address of the peer of the socket itself.
    pub direct_source: &'a StreamAddress,
    /// Server name from the TLS hello, lower-case.
    pub server_name: Option<&'a str>,
    /// `raw_buffer` or `tls`.
    pub transport_protocol: &'a str,
    /// Application protocols: offered in the TLS hello, or sniffed.
    pub application_protocols: &'a [String],
    /// What listener filters noted.
    pub record: Option<&'a ConnectionRecord>,
}

impl MatchData for ConnectionFacts<'_> {
    fn destination(&self) -> Option<SocketAddr> {
        self.destination.as_ip()
    }

    fn source(&self) -> Option<SocketAddr> {
        self.source.as_ip()
    }

    fn direct_source(&self) -> Option<SocketAddr> {
        self.direct_source.as_ip()
    }

    fn server_name(&self) -> Option<&str> {
        self.server_name
    }

    fn transport_protocol(&self) -> Option<&str> {
        Some(self.transport_protocol)
    }

    fn application_protocols(&self, each: &mut dyn FnMut(&[u8])) {
        self.application_protocols.iter().for_each(|protocol| each(protocol.as_bytes()));
    }

    fn dynamic_metadata(&self, namespace: &str) -> Option<&Struct> {
        self.record?.dynamic_metadata.get(namespace)
    }

    fn filter_state(&self, key: &str, field: &str, out: &mut Vec<u8>) -> bool {
        let object = self.record.and_then(|record| record.filter_state.get(key));
        object.is_some_and(|object| match field {
            "" => object.append_text(out),
            field => object.append_field(field, out),
        })
    }
}

/// `filter_chain_match.source_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceType {
    /// Any source.
    #[default]
    Any,
    /// The peer has the same address, or one of the loopback.
    SameIpOrLoopback,
    /// Neither.
    External,
}

/// `envoy.config.listener.v3.FilterChainMatch`; empty lists match everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FilterChainMatch {
    /// `destination_port`.
    pub destination_port: Option<u16>,
    /// `prefix_ranges`.
    pub destination: Vec<Cidr>,
    /// `server_names`, lower-case, possibly `*.` suffixes.
    pub server_names: Vec<String>,
    /// `transport_protocol`.
    pub transport_protocol: String,
    /// `application_protocols`.
    pub application_protocols: Vec<String>,
    /// `direct_source_prefix_ranges`.
    pub direct_source: Vec<Cidr>,
    /// `source_type`.
    pub source_type: SourceType,
    /// `source_prefix_ranges`.
    pub source: Vec<Cidr>,
    /// `source_ports`.
    pub source_ports: Vec<u16>,
}

/// A filter chain, ready to serve.
#[derive(Debug)]
pub struct FilterChain {
    /// Name, possibly empty.
    pub name: Arc<str>,
    /// `metadata`.
    pub metadata: Option<Arc<Metadata>>,
    /// Encoded message that it was made of: an update keeps the chain when this did not change.
    pub encoded: Bytes,
    /// When to use it; none for the default chain.
    pub matches: FilterChainMatch,
    /// TLS termination; none is clear text.
    pub tls: Option<Arc<DownstreamTls>>,
    /// `transport_socket_connect_timeout`.
    pub handshake_timeout: Option<Duration>,
    /// The network filters in front of the one that serves connections.
    pub in_front: Box<[Arc<dyn ReadFilterFactory>]>,
    /// The network filter that serves connections.
    pub filter: Arc<dyn NetworkFilter>,
}

/// The filter chains of a listener.
#[derive(Debug)]
pub struct FilterChains {
    chains: Vec<Arc<FilterChain>>,
    default: Option<Arc<FilterChain>>,
    /// `filter_chain_matcher`: the name of the chain to use.
    matcher: Option<MatchTree<Arc<str>>>,
}

impl FilterChains {
    /// Chains in configuration order, and the default chain.
    pub fn new(chains: Vec<Arc<FilterChain>>, default: Option<Arc<FilterChain>>) -> Self {
        Self { chains, default, matcher: None }
    }

    /// The same chains, chosen by a matcher instead of what they match.
    pub fn with_matcher(self, matcher: Option<MatchTree<Arc<str>>>) -> Self {
        Self { matcher, ..self }
    }

    /// All chains, the default one last.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<FilterChain>> {
        self.chains.iter().chain(self.default.as_ref())
    }

    /// Number of chains, the default one included.
    pub fn len(&self) -> usize {
        self.chains.len() + usize::from(self.default.is_some())
    }

    /// Whether there is no chain at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Chooses the chain for a connection.
    ///
    /// Stage by stage (destination port, destination address, server name, transport protocol, application protocols,
    /// direct source, source type, source address, source port) only the chains with the most specific match stay;
    /// there is no way back when a later stage leaves none, as in Envoy.
    ///
    /// With a matcher it alone decides, by name; the default chain is for what it says nothing about.
    pub fn choose(&self, facts: &ConnectionFacts<'_>) -> Option<&Arc<FilterChain>> {
        if let Some(matcher) = &self.matcher {
            return match matcher.evaluate(facts) {
                Verdict::Matched(name) => self.chains.iter().find(|chain| chain.name == *name),
                Verdict::NoMatch | Verdict::Insufficient => self.default.as_ref(),
            };
        }
        if let ([chain], None) = (&self.chains[..], &self.default)
            && chain.matches == FilterChainMatch::default()
        {
            return Some(chain);
        }
        let mut left: Vec<&Arc<FilterChain>> = self.chains.iter().collect();
        for stage in STAGES {
            let best = left.iter().filter_map(|chain| stage(&chain.matches, facts)).max();
            left.retain(|chain| best.is_some() && stage(&chain.matches, facts) == best);
        }
        left.first().copied().or(self.default.as_ref())
    }
}

/// How specifically a stage of a chain matches: `None` not at all, 0 by not asking, more for a closer match.
type Stage = fn(&FilterChainMatch, &ConnectionFacts<'_>) -> Option<u32>;

const STAGES: [Stage; 9] = [
    |m, c| one_of(m.destination_port.as_slice(), c.destination.port()),
    |m, c| longest_prefix(&m.destination, matched_ip(c.destination)),
    |m, c| server_name(&m.server_names, c.server_name),
    |m, c| match m.transport_protocol.as_str() {
        "" => Some(0),
        wanted => (wanted == c.transport_protocol).then_some(1),
    },
    |m, c| {
        if m.application_protocols.is_empty() {
            return Some(0);
        }
        // The client's first protocol that the chain has; an earlier one is a closer match.
        let at = c.application_protocols.iter().position(|p| m.application_protocols.contains(p))?;
        Some(u32::MAX - at as u32)
    },
    |m, c| longest_prefix(&m.direct_source, matched_ip(c.direct_source)),
    |m, c| {
        let local = match c.source.ip() {
            Some(source) => Some(source) == c.destination.ip() || is_loopback(source),
            None => true,
        };
        match m.source_type {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => local.then_some(1),
            SourceType::External => (!local).then_some(1),
        }
    },
    |m, c| longest_prefix(&m.source, matched_ip(c.source)),
    |m, c| one_of(&m.source_ports, c.source.port()),
];

fn one_of(wanted: &[u16], port: Option<u16>) -> Option<u32> {
    if wanted.is_empty() { Some(0) } else { port.is_some_and(|port| wanted.contains(&port)).then_some(1) }
}

/// The IP address as which prefixes see an address: Envoy takes Unix sockets for the last one there is.
fn matched_ip(address: &StreamAddress) -> IpAddr {
    address.ip().unwrap_or(IpAddr::V4(Ipv4Addr::BROADCAST))
}

fn longest_prefix(ranges: &[Cidr], address: IpAddr) -> Option<u32> {
    if ranges.is_empty() {
        return Some(0);
    }
    ranges
        .iter()
        .filter(|range| range.contains(address))
        .map(|range| 1 + u32::from(range.prefix_length()))
        .max()
}

fn server_name(wanted: &[String], name: Option<&str>) -> Option<u32> {
    if wanted.is_empty() {
        return Some(0);
    }
    let name = name?;
    wanted
        .iter()
        .filter_map(|pattern| match pattern.strip_prefix('*') {
            Some("") => Some(1),
            Some(suffix) if name.len() > suffix.len() && name.ends_with(suffix) => {
                Some(1 + suffix.len() as u32)
            }
            Some(_) => None,
            None => (pattern == name).then_some(u32::MAX),
        })
        .max()
}
