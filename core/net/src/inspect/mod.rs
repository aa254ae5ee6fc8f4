//! What the first bytes of a connection are, told without taking them: a TLS hello, HTTP/1 or HTTP/2.

mod hello;
mod http;

pub use hello::{Hello, inspect_hello};
pub use http::{Protocol, inspect_http};
