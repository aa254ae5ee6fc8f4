//! Makes cases of dice: configurations and requests that are valid often enough to get somewhere, and odd often enough to matter.

mod connection_manager;
mod filters;
mod header_rules;
mod http;
mod http2;
mod matchers;
mod replies;
mod requests;
mod resilience;
mod route_actions;
mod routes;

pub use http::http;
pub use http2::http2;
pub use resilience::resilience;
