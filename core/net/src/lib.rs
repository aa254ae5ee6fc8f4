//! Sockets: the bytes of a connection whatever carries them, their options, and inspection of the first bytes. It must not
//! know clusters, listeners or HTTP semantics, nor any configuration message but that of a socket option. One module
//! contains `unsafe` (`socket_option`, a call of `setsockopt`).

mod address;
pub mod inspect;
pub mod proxy_protocol;
pub mod socket_option;
mod transfer;
mod transport;

pub use address::{StreamAddress, kernel_path, numeric_address};
pub use transport::{SecureStream, Transport};
