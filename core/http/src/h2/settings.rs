//! What a connection announces and allows.

use super::FrameLimits;
use super::frame::{MAX_PAYLOAD, MAX_WINDOW, setting};
use super::shared::Side;

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
    /// `custom_settings_parameters`: announced in front of the others, each once.
    pub custom: Vec<(u16, u32)>,
    /// `allow_connect`: take CONNECT with `:protocol` (WebSocket over HTTP/2).
    pub allow_extended_connect: bool,
    /// `allow_metadata`: METADATA frames are read and can be sent.
    pub allow_metadata: bool,
    /// `max_metadata_size`: bytes of METADATA payload that may come on a stream.
    pub max_metadata: usize,
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
            custom: Vec::new(),
            allow_extended_connect: false,
            allow_metadata: false,
            max_metadata: 1024 * 1024,
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

    /// What is announced, in order. `None` when a value of one's own is one that a setting cannot have: nothing is announced
    /// then, as by Envoy, and what HTTP/2 begins with stays in force.
    pub(super) fn announced(&self, side: Side) -> Option<Vec<(u16, u32)>> {
        let mut all = Vec::with_capacity(5 + self.custom.len());
        if side == Side::Client {
            all.push((setting::ENABLE_PUSH, 0));
        }
        for entry in &self.custom {
            // A client says in any case that nothing is to be pushed.
            if !all.contains(entry) {
                all.push(*entry);
            }
        }
        all.extend([
            (setting::HEADER_TABLE_SIZE, self.header_table_size),
            (setting::ENABLE_CONNECT_PROTOCOL, self.allow_extended_connect.into()),
            (setting::MAX_CONCURRENT_STREAMS, self.max_concurrent_streams),
            (setting::INITIAL_WINDOW_SIZE, self.stream_window),
        ]);
        all.iter().all(|(id, value)| is_possible(*id, *value)).then_some(all)
    }

    /// Most bytes of a frame's payload that the peer may send once it knows the settings.
    pub(super) fn max_payload(&self) -> usize {
        let own = self.custom.iter().rfind(|(id, _)| *id == setting::MAX_FRAME_SIZE);
        own.map_or(MAX_PAYLOAD, |(_, bytes)| *bytes as usize)
    }

    /// Bytes up to which a server's heads are read, each field counted with its overhead.
    pub(super) fn max_decoded_head(&self) -> usize {
        self.max_header_bytes.saturating_mul(2).saturating_add(FIELD_OVERHEAD) as usize
    }
}

/// Whether a setting can have this value.
pub(super) fn is_possible(id: u16, value: u32) -> bool {
    match id {
        setting::ENABLE_PUSH | setting::ENABLE_CONNECT_PROTOCOL | setting::NO_PRIORITIES => value <= 1,
        setting::INITIAL_WINDOW_SIZE => i64::from(value) <= MAX_WINDOW,
        setting::MAX_FRAME_SIZE => (MAX_PAYLOAD as u32..1 << 24).contains(&value),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_ones_own_stand_in_front_of_the_others_and_once() {
        let settings = Settings { custom: vec![(99, 5), (2, 0), (99, 5), (3, 7)], ..Settings::default() };
        let named = [(1, 4096), (8, 0), (3, 1024), (4, 16 << 20)];
        let server = [&[(99, 5), (2, 0), (3, 7)][..], &named].concat();
        let client = [&[(2, 0), (99, 5), (3, 7)][..], &named].concat();
        assert_eq!(settings.announced(Side::Server), Some(server));
        assert_eq!(settings.announced(Side::Client), Some(client));
    }

    #[test]
    fn one_impossible_value_keeps_all_from_being_announced() {
        for (id, value) in [(4, 1 << 31), (5, 16_383), (5, 1 << 24), (2, 2), (9, 2)] {
            let settings = Settings { custom: vec![(id, value)], ..Settings::default() };
            assert_eq!(settings.announced(Side::Server), None, "{id}: {value}");
        }
    }

    #[test]
    fn larger_frames_are_taken_where_they_were_announced() {
        assert_eq!(Settings::default().max_payload(), 16_384);
        let settings = Settings { custom: vec![(5, 20_000), (5, 30_000)], ..Settings::default() };
        assert_eq!(settings.max_payload(), 30_000);
    }
}
