//! The HTTP connection manager and the router: requests of a downstream connection, from their head to the end of their
//! response. It must not know how connections are accepted or how hosts are discovered.

mod body;
mod body_copy;
mod client_certificate;
mod config;
mod downstream;
mod filter;
mod h2_body;
mod h2_send;
mod keepalive;
mod local_reply;
mod manager;
mod original_ip;
mod path;
mod proxy_status;
mod request_headers;
mod reset;
mod response_headers;
mod route_slot;
mod router;
mod scoped_routes;
mod serve;
mod stats;
mod stream;
mod traffic;
mod tunnels;
mod upgrade;
mod upstream;
mod watermarks;
mod wire;

pub use client_certificate::{CertificateChoice, ClientCertificateConfig, ForwardMode};
pub use config::{
    ConnectionManagerConfig, FilterRegistry, LowerContext, RouteFile, RouteSource, compile_routes, lower,
    lower_cluster_options,
};
pub use dhow_routing::RouteTable;
pub use filter::HttpConnectionManager;
pub use route_slot::RouteSlot;
pub use scoped_routes::ScopedRoutes;
pub use stream::{Responder, Response};
pub use tunnels::http_tunnels;
