//! Frames to send, as plain data.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One thing to send, or to wait for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FrameScript {
    /// The first bytes of a client's connection.
    Preface,
    /// These bytes, as text.
    Bytes(String),
    /// SETTINGS with these values by name.
    Settings(BTreeMap<String, u32>),
    /// The acknowledgement of the other side's SETTINGS.
    SettingsAck,
    /// HEADERS.
    Headers(HeadersFrame),
    /// CONTINUATION.
    Continuation(HeadersFrame),
    /// DATA.
    Data(DataFrame),
    /// RST_STREAM.
    RstStream {
        /// The stream.
        stream: u32,
        /// The error code by number; CANCEL unless given.
        #[serde(default = "cancel")]
        code: u32,
    },
    /// WINDOW_UPDATE.
    WindowUpdate {
        /// The stream; 0 for the connection.
        #[serde(default)]
        stream: u32,
        /// By how much.
        increment: u32,
    },
    /// PING that asks for an answer.
    Ping,
    /// PRIORITY.
    Priority {
        /// The stream.
        stream: u32,
        /// What it depends on.
        on: u32,
    },
    /// GOAWAY.
    Goaway {
        /// The error code by number.
        #[serde(default)]
        code: u32,
        /// The last stream that counts.
        #[serde(default)]
        last: u32,
    },
    /// A frame by hand.
    Frame(AnyFrame),
    /// All of these, so many times; stream numbers grow by `stream_step` each time.
    Times {
        /// How often.
        count: u32,
        /// By how much stream numbers grow.
        #[serde(default)]
        stream_step: u32,
        /// What.
        frames: Vec<FrameScript>,
    },
    /// Wait until these streams are complete, or the connection ends.
    Answered(Vec<u32>),
    /// Wait until every PING so far is answered, or the connection ends.
    Ponged,
}

fn cancel() -> u32 {
    8
}

/// A HEADERS or CONTINUATION frame.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeadersFrame {
    /// The stream. For an upstream 0 is the stream of the request that is answered.
    pub stream: u32,
    /// Fields as `name: value`, in order and as they are. Without any, a HEADERS frame of a client is a GET of `/`.
    pub fields: Option<Vec<String>>,
    /// More fields after those.
    pub more: Vec<String>,
    /// The coded block itself, in hexadecimal digits, instead of fields.
    pub block: Option<String>,
    /// A field `x-filler` of so many bytes after the others.
    pub filler: usize,
    /// Leave END_STREAM out.
    pub open: bool,
    /// Leave END_HEADERS out.
    pub continued: bool,
    /// Depend on this stream.
    pub depends_on: Option<u32>,
}

/// A DATA frame.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataFrame {
    /// The stream. For an upstream 0 is the stream of the request that is answered, as it may not be 0 otherwise.
    pub stream: u32,
    /// The content.
    pub text: String,
    /// So many bytes instead.
    pub length: usize,
    /// The length of padding, which need not fit.
    pub padding: Option<u8>,
    /// Leave END_STREAM out.
    pub open: bool,
}

/// A frame by hand.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnyFrame {
    /// The type.
    pub kind: u8,
    /// The flags.
    pub flags: u8,
    /// The stream.
    pub stream: u32,
    /// The payload in hexadecimal digits.
    pub payload: String,
    /// So many zero bytes after the payload.
    pub zeros: usize,
    /// The length that the frame claims, where it is not that of the payload.
    pub length: Option<u32>,
}
