//! The small vocabulary shared by every other crate; it must not know any protocol, any message type or the operating system.

mod backoff;
pub mod base64;
mod calendar;
mod clock;
mod config_error;
mod field_path;
mod loopback;
mod number;
mod response_flags;
mod rng;
mod unsupported;
mod uuid;

pub use backoff::Backoff;
pub use calendar::civil_date;
pub use clock::{Clock, ManualClock, SystemClock};
pub use config_error::{ConfigError, ConfigWarning, WarningTopic};
pub use field_path::{FieldPath, PathMark};
pub use loopback::is_loopback;
pub use number::parse_double;
pub use response_flags::{ResponseFlag, ResponseFlags};
pub use rng::Rng;
pub use unsupported::UNSUPPORTED;
pub use uuid::{Uuid, UuidParseError};
