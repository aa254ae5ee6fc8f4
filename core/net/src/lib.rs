//! Sockets: the bytes of a connection whatever carries them, listening sockets and their options, and inspection of the
//! first bytes. It must not know configuration messages, clusters or HTTP semantics.

mod transport;

pub use transport::{SecureStream, Transport};
