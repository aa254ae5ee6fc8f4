//! Makes cases of dice: configurations and requests that are valid often enough to get somewhere, and odd often enough to matter.

mod connection_manager;
mod filters;
mod header_rules;
mod http;
mod matchers;
mod replies;
mod requests;
mod route_actions;
mod routes;

pub use http::http;
