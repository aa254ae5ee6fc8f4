//! HTTP/2 behind our own stream interface: heads are [`HeaderMap`](crate::HeaderMap)s, data is [`bytes::Bytes`], flow control is
//! released by whoever consumes the data, and resets are told in Envoy's terms.
//!
//! One task moves the frames of a connection (`driver.rs`): it reads them into what the connection and the handles of its streams
//! share (`shared.rs`), and writes those that wait (`outbox.rs`) once in a turn of the event loop. Heads go between blocks
//! (`hpack/`) and header maps without a form in between (`head.rs`).

mod body;
mod client;
mod driver;
mod frame;
mod head;
mod hpack;
mod limits;
mod metadata;
mod outbox;
mod ping;
mod pool;
mod reset;
mod server;
mod settings;
mod shared;
mod state;

#[cfg(test)]
mod tests;

pub use body::{RecvBody, SendBody};
pub use client::{ClientConnection, PendingResponse, Sender, connect};
pub use head::HeadError;
pub use limits::{FrameCounts, FrameLimits, Violation};
pub use metadata::{Metadata, MetadataPort, MetadataSink};
pub use ping::Pinger;
pub use reset::{ConnectionError, Offence, ResetCode, StreamError};
pub use server::{Responder, ServerConnection, ServerStream};
pub use settings::Settings;
