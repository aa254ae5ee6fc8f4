//! The ADS server: gRPC streams of proxies fed from generated resources; it must not know Istio's objects or what a resource means.

mod generation;

pub use dhow_xds::Resource;
pub use generation::Generation;
