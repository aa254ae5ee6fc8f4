//! Counters, gauges, histograms and text readouts under Envoy's names, from the worker's slot to the printed page.
//! It must not know what is counted: listeners, clusters, filters and configuration messages are names to it.
//!
//! A [`Store`] hands out [`Scope`]s (a name prefix); a scope hands out handles of a few bytes, once, when configuration is
//! built. An increment writes the calling thread's own shard without a read-modify-write instruction; whoever reads a value sums the
//! shards. When the last clone of a scope is dropped, its stats disappear, as Envoy's do with a removed cluster.

mod bins;
mod buckets;
mod ecmascript;
mod group;
mod handle;
mod json;
mod number;
mod page;
mod prometheus;
mod response_codes;
mod scope;
mod shard;
mod store;
mod tags;
#[cfg(test)]
mod tests;
mod text;

pub use bins::{Bins, QUANTILES};
pub use buckets::{DEFAULT_BUCKETS, HistogramBuckets};
pub use group::{GroupShape, StatGroup};
pub use handle::{Counter, Gauge, Histogram, TextReadout};
pub use json::render_json;
pub use page::{Query, StatType};
pub use prometheus::render_prometheus;
pub use response_codes::{ResponseCodeStats, ResponseCodeTable};
pub use scope::{Scope, StatName};
pub use store::{HistogramValue, Snapshot, SnapshotValue, Store, UnstoredStat};
pub use tags::{CustomTag, TagRules, Tagged};
pub use text::render_text;

/// What a histogram's numbers mean; decides the unit of its buckets and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A plain number.
    Unspecified,
    /// Bytes.
    Bytes,
    /// Microseconds.
    Microseconds,
    /// Milliseconds.
    Milliseconds,
    /// A fraction, recorded in millionths and printed as a fraction, as in Envoy.
    Percent,
}

impl Unit {
    /// What a recorded number is divided by when it is printed.
    pub fn scale(self) -> f64 {
        match self {
            Self::Percent => 1_000_000.0,
            _ => 1.0,
        }
    }
}
