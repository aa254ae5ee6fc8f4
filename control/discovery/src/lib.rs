//! The ADS server: gRPC streams of proxies fed from generated resources; it must not know Istio's objects or what a resource means.

mod codec;
mod debounce;
mod generation;
mod metrics;
mod proxies;
mod server;
mod settings;
mod stream;

pub use dhow_xds::{Resource, SyncState, TypeStatus};
pub use generation::Generation;
pub use metrics::Metrics;
pub use proxies::{ProxyStatus, SyncStatus, TypeSync};
pub use server::{Discovery, DiscoveryService};
pub use settings::Settings;
