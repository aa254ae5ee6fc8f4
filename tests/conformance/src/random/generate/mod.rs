//! Makes cases of dice: configurations and requests that are valid often enough to get somewhere, and odd often enough to matter.

mod admin;
mod bootstrap;
mod connection_manager;
mod filters;
mod header_rules;
mod http;
mod http2;
mod log;
mod matchers;
mod mutation;
mod replies;
mod requests;
mod resilience;
mod route_actions;
mod routes;
mod tcp;
mod tls;

pub use admin::admin;
pub use bootstrap::bootstrap;
pub use http::http;
pub use http2::http2;
pub use log::log;
pub use mutation::{Mutant, mutant};
pub use resilience::resilience;
pub use tcp::tcp;
pub use tls::tls;
