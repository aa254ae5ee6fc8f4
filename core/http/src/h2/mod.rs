//! HTTP/2 behind our own stream interface: heads are [`HeaderMap`](crate::HeaderMap)s, data is [`bytes::Bytes`], flow control is
//! released by whoever consumes the data, and resets are told in Envoy's terms.
//!
//! Frames, streams and flow control are those of the `h2` crate; no other crate of the workspace names it.

mod batch;
mod client;
mod convert;
mod meters;
mod reset;
mod server;
mod settings;
mod stream;
mod watch;

#[cfg(test)]
mod tests;

pub use client::{ClientConnection, PendingResponse, Sender, connect};
pub use convert::HeadError;
pub use reset::{ConnectionError, ResetCode, StreamError};
pub use server::{Pinger, Responder, ServerConnection, ServerStream};
pub use settings::Settings;
pub use stream::{RecvBody, SendBody};
pub use watch::{FrameCounts, FrameLimits, Violation};
