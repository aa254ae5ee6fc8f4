//! HTTP/2 frame by frame: what a library would refuse to send can be sent, and everything that comes back is written down.

mod client;
mod encode;
mod observe;
mod script;

pub use client::FrameClient;
pub use observe::{Observed, ObservedStream};
pub use script::FrameScript;

pub(crate) use encode::encode;

/// The first bytes that a client sends.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Names of error codes, by their number.
const CODES: &[&str] = &[
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// The name of an error code.
fn code_name(code: u32) -> String {
    CODES.get(code as usize).map_or_else(|| format!("code {code}"), |name| (*name).to_owned())
}

/// Names of settings, by their number.
const SETTINGS: &[(&str, u16)] = &[
    ("header_table_size", 1),
    ("enable_push", 2),
    ("max_concurrent_streams", 3),
    ("initial_window_size", 4),
    ("max_frame_size", 5),
    ("max_header_list_size", 6),
    ("enable_connect_protocol", 8),
    ("unknown", 0x99),
];

/// Types of frames.
mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
    /// Envoy's own.
    pub const METADATA: u8 = 0x4d;
}

/// Flags of frames.
mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const END_METADATA: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
}
