//! Accepting connections: listeners, their sockets on every worker, inspection of first bytes, choice of the filter chain
//! and the TLS handshake. It must not know what the chosen network filter does with a connection.

mod accepting;
mod active;
mod address;
mod config;
mod filter_chain;
mod filter_disabled;
mod handshaking;
mod inspect;
mod listener_filters;
mod manager;
mod observed;
mod proxy_extensions;
mod proxy_protocol;
mod sockets;
mod stats;

pub use address::{ListenAddress, socket_address};
pub use config::{FilterContext, ListenerConfig, NetworkFilters, lower};
pub use filter_chain::{ConnectionFacts, FilterChain, FilterChainMatch, FilterChains, SourceType};
pub use manager::{Change, ListenerManager, ListenerView, Origin, Provenance};
pub use stats::ListenerStats;
