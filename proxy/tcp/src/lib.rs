//! The terminal network filters that know no protocol: the TCP proxy between a downstream connection and a host of a
//! cluster, and those that answer by themselves. It must not know how connections are accepted or how hosts are chosen.

mod answering;
mod carried;
mod config;
mod connecting;
mod copy;
mod filter;
mod session;
mod stats;
mod tunneling;

pub use answering::{DirectResponse, Echo};
pub use config::lower;
pub use filter::{TcpProxy, TunnelsOfWorker};
