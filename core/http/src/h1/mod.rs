//! The HTTP/1 codec, without I/O: heads are parsed straight into a [`HeaderMap`](crate::HeaderMap), bodies are ranges
//! of the caller's buffer, and what it writes is bytes appended to the caller's buffer.
//!
//! What is accepted, what is refused and with which status, body and details follows Envoy 1.40 with its default
//! (Balsa) parser, down to the order in which faults are found; `tests.rs` lists the cases.

mod body;
pub(crate) mod chars;
mod connection;
mod head;
mod reason;
mod recognise;
mod repeated;
mod request;
mod response;
mod target;
mod write;

#[cfg(test)]
mod tests;

pub use body::{BodyError, BodyReader, BodyStep, TrailerLimits};
pub use connection::{Version, has_token, is_keep_alive, is_upgrade};
pub use head::{HeadProgress, Parsed, Underscores, count_underscored_names};
pub use reason::reason_phrase;
pub use recognise::{Beginning, recognise};
pub use request::{BodyLength, RequestError, RequestInfo, RequestOptions, UpgradeFilter, parse_request};
pub use response::{Answering, ResponseError, ResponseInfo, ResponseOptions, parse_response};
pub use write::{
    BodyFraming, CHUNK_END, CONTINUE, CONTINUE_OLD, ChunkStart, HeaderKeyFormat, LAST_CHUNK,
    RequestWriteOptions, ResponseWriteOptions, write_chunk, write_request_head, write_response_head,
    write_trailers,
};
