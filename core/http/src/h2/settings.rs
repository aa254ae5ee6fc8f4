//! What a connection announces and allows.

use super::FrameLimits;

/// Settings of one side of a connection, after `envoy.config.core.v3.Http2ProtocolOptions`. The defaults are Envoy's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `hpack_table_size`, in bytes.
    pub header_table_size: u32,
    /// `max_concurrent_streams`: streams that the peer may have open; on a client, the most that it opens itself before
    /// the server said how many it takes.
    pub max_concurrent_streams: u32,
    /// `initial_stream_window_size`, in bytes, up to 2^31 - 1.
    pub stream_window: u32,
    /// `initial_connection_window_size`, in bytes, up to 2^31 - 1.
    pub connection_window: u32,
    /// `max_request_headers_kb` and its response counterpart: most bytes of a decoded head. Heads up to twice as long are
    /// handed out, so that the caller can refuse them in its own way; the codec answers 431 to those beyond.
    pub max_header_bytes: u32,
    /// `allow_connect`: take CONNECT with `:protocol` (WebSocket over HTTP/2).
    pub allow_extended_connect: bool,
    /// Bytes per stream that may wait for the connection to send them before the stream is told to stop.
    pub send_buffer: usize,
    /// `override_stream_error_on_invalid_http_message`: a malformed message ends its stream instead of the connection.
    pub stream_errors: bool,
    /// What a peer may send that has no effect.
    pub limits: FrameLimits,
}

/// Bytes by which HTTP/2 (RFC 9113, 6.5.2) counts a few hundred fields longer than their names and values are.
const FIELD_OVERHEAD: u32 = 16 * 1024;

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_table_size: 4096,
            max_concurrent_streams: 1024,
            stream_window: 16 * 1024 * 1024,
            connection_window: 24 * 1024 * 1024,
            max_header_bytes: 60 * 1024,
            allow_extended_connect: false,
            send_buffer: 1024 * 1024,
            stream_errors: false,
            limits: FrameLimits::default(),
        }
    }
}

/// Most bytes of a stream that wait in the codec itself.
const MAX_SEND_BUFFER: u32 = 256 * 1024;

impl Settings {
    /// For a connection of which only so many bytes may wait for the peer (`per_connection_buffer_limit_bytes`).
    pub fn with_buffer_limit(self, bytes: u32) -> Self {
        Self { send_buffer: bytes.clamp(1, MAX_SEND_BUFFER) as usize, ..self }
    }

    /// Bytes up to which a server's heads are read, each field counted with its overhead.
    pub(super) fn max_decoded_head(&self) -> usize {
        self.max_header_bytes.saturating_mul(2).saturating_add(FIELD_OVERHEAD) as usize
    }
}
