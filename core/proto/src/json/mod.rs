//! Protobuf's JSON mapping over the tables, in both directions.

mod from_wire;
mod read;
mod scalar;
mod time;
mod well_known;

#[cfg(test)]
mod tests;

pub use from_wire::{FieldNames, PrintOptions};
pub(crate) use from_wire::{Printer, unpack};
pub(crate) use read::JsonReader;
pub(crate) use scalar::{ScalarError, put_scalar};
pub(crate) use time::{duration_parts, format_duration};
