//! Fuzz targets for everything that reads what others wrote, each with properties beside "no panic"; it must not know sockets,
//! processes or any crate above `core`.
//!
//! A target is a function of bytes that panics when a property does not hold. [`drive`] feeds it from a seed with generated and
//! mutated inputs, in the ordinary tests for a moment; the binary `libfuzzer` feeds it by coverage.

mod drive;
mod input;
mod targets;

pub use drive::{Limit, Outcome, drive, generate};
pub use input::Input;
pub use targets::{TARGETS, Target, find};
