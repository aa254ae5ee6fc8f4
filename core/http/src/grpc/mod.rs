//! gRPC for our own calls: message framing, the status in the trailers, and a bidirectional stream over an HTTP/2
//! connection.

mod framing;
mod status;
mod stream;

#[cfg(test)]
mod tests;

pub use framing::{FrameDecoder, FrameError, encode_frame};
pub use status::{GrpcCode, GrpcStatus};
pub use stream::{GrpcStream, call_head};
