//! The parts that tests share: ports, processes, scripted upstreams, byte-exact clients, certificates and the real Envoy;
//! it must not know any product crate. Two modules contain `unsafe`: `process` (a signal-safe call between fork and exec) and
//! `allocations` (an allocator that counts).
//!
//! Everything here cleans up when dropped: child processes die with their whole group, servers stop listening, folders are
//! removed. Nothing sleeps to wait for a state; use [`poll::poll_until`] or a deadline.

pub mod allocations;
pub mod certs;
pub mod client;
pub mod dns;
pub mod envoy;
mod h2_frames;
pub mod poll;
pub mod ports;
pub mod process;
pub mod raw_http2;
pub mod stream;
pub mod tempdir;
pub mod upstream;

pub use poll::{poll_until, poll_until_async};
pub use ports::HeldPort;
pub use process::{ChildGuard, ChildSpec};
pub use tempdir::TempDir;
