//! Sockets: the bytes of a connection whatever carries them, and inspection of the first bytes. It must not know
//! configuration messages, clusters or HTTP semantics.

pub mod inspect;
pub mod proxy_protocol;
mod transport;

pub use transport::{SecureStream, Transport};
