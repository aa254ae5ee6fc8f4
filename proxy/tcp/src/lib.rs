//! The TCP proxy: bytes between a downstream connection and a connection to a host of a cluster. It must not know how
//! connections are accepted or how hosts are chosen.

mod config;
mod copy;
mod filter;
mod stats;

pub use config::lower;
pub use filter::TcpProxy;
