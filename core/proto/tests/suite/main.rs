//! The public surface of the crate, in one binary because each one links every message type.

mod bootstrap;
mod cost;
mod envoy_corpus;
mod json_round_trip;
