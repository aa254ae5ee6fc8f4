//! HTTP messages and their codecs: the header map, body frames, the sans-IO HTTP/1 codec and HTTP/2.
//! It must not know routes, clusters, filters or configuration messages.

mod control_prefix;
pub mod grpc;
pub mod h1;
pub mod h2;
mod head_pool;
mod header_map;
mod known;
mod meter;
mod spelling;

pub use control_prefix::set_control_prefix;
pub use header_map::{HeaderMap, Iter, format_decimal};
pub use known::{HeaderName, KnownHeader, KnownSet};
pub use meter::{ByteDirection, ByteKind, ByteMeter};
pub use spelling::{Spelling, SpellingRules};
