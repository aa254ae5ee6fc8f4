//! The outcome of a call: `grpc-status` and `grpc-message`.

use std::fmt;

use crate::h2::StreamError;
use crate::{HeaderMap, KnownHeader};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// A gRPC status code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the names are those of the gRPC specification")]
        pub enum GrpcCode { $($(#[$doc])* $name = $value,)* }

        impl GrpcCode {
            /// The code with this number; numbers that are none are `Unknown`, as every gRPC library takes them.
            pub fn from_number(number: u32) -> Self {
                match number { $($value => Self::$name,)* _ => Self::Unknown }
            }
        }
    };
}

codes! {
    Ok = 0,
    Canceled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// The code.
    pub code: GrpcCode,
    /// The message, percent-decoded; bytes that are not UTF-8 are replaced.
    pub message: String,
}

impl GrpcStatus {
    /// A status with a message.
    pub fn new(code: GrpcCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Reads `grpc-status` and `grpc-message` from trailers, or from a head without body; `None` without a status.
    pub fn from_trailers(trailers: &HeaderMap) -> Option<Self> {
        let number = trailers.get_known(KnownHeader::GrpcStatus)?;
        let code = std::str::from_utf8(number)
            .ok()
            .and_then(|number| number.parse().ok())
            .map_or(GrpcCode::Unknown, GrpcCode::from_number);
        let message = trailers.get_known(KnownHeader::GrpcMessage).map(percent_decode).unwrap_or_default();
        Some(Self { code, message })
    }

    /// The status that stands for a response without one, by its HTTP status.
    pub fn from_http(status: u16) -> Self {
        let code = match status {
            400 => GrpcCode::Internal,
            401 => GrpcCode::Unauthenticated,
            403 => GrpcCode::PermissionDenied,
            404 => GrpcCode::Unimplemented,
            429 | 502 | 503 | 504 => GrpcCode::Unavailable,
            _ => GrpcCode::Unknown,
        };
        Self::new(code, format!("HTTP status {status}"))
    }
}

impl From<StreamError> for GrpcStatus {
    fn from(error: StreamError) -> Self {
        let code = match &error {
            StreamError::RemoteReset(8) => GrpcCode::Canceled,
            StreamError::Head(_) | StreamError::Protocol | StreamError::Offence(_) => GrpcCode::Internal,
            _ => GrpcCode::Unavailable,
        };
        let message = match &error {
            StreamError::ConnectionTermination(cause) => cause.clone(),
            other => other.to_string(),
        };
        Self { code, message }
    }
}

impl fmt::Display for GrpcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({}): {}", self.code, self.code as u32, self.message)
    }
}

impl std::error::Error for GrpcStatus {}

fn percent_decode(value: &[u8]) -> String {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let escaped = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}
