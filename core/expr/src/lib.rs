//! Envoy's substitution format strings (`%COMMAND(args):LEN%`), compiled once and evaluated without allocation.
//! It must not know where the values come from: streams, connections and configuration sources are behind [`FormatContext`].
//!
//! [`CelExpression`] is the other language in which configurations ask for those values.
//!
//! One engine formats access logs, header additions, local replies, redirects and tags, as in Envoy.

mod address;
mod cel;
mod choices;
mod coalesce;
mod command;
mod context;
mod duration;
mod format;
mod grpc_status;
mod json;
mod log_format;
mod metadata;
mod overlay;
mod parse;
mod pb;
mod table;
#[cfg(test)]
mod tests;
mod time;

pub use address::{Address, PrefixLength};
pub use cel::{CelExpression, CelOptions};
pub use context::{
    AddressFact, EmptyContext, FilterStateObject, FormatContext, MetadataSource, NumberFact, StreamSide,
    TextFact, TimePoint, TlsFact,
};
pub use format::{DEFAULT_ACCESS_LOG_FORMAT, Format};
pub use grpc_status::{grpc_status, grpc_status_name, grpc_to_http_status, http_to_grpc_status};
pub use json::{JsonFormat, append_json_string, append_value};
pub use log_format::{FormatExtensions, LogFormat, check_formatters};
pub use overlay::{WithRequestHeaders, WithResponseHeaders};
pub use time::TimeFormat;
