//! Buckets of histograms, and how the pages show them.

use crate::bins::Bins;
use crate::store::{HistogramValue, Store};

/// Bounds that apply when the configuration gives none for a histogram; milliseconds or whatever its unit is, as in Envoy.
pub const DEFAULT_BUCKETS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// How histograms are shown (`histogram_buckets` of `/stats`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HistogramBuckets {
    /// Quantiles.
    #[default]
    Summary,
    /// Counts at or below each bound.
    Cumulative,
    /// Counts between bounds.
    Disjoint,
    /// Bins and quantiles.
    Detailed,
}

impl HistogramBuckets {
    /// The mode of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "" | "summary" => Some(Self::Summary),
            "cumulative" => Some(Self::Cumulative),
            "disjoint" => Some(Self::Disjoint),
            "detailed" => Some(Self::Detailed),
            _ => None,
        }
    }
}

/// One bucket: its upper bound, and the counts of the interval and of all time.
pub(crate) struct Bucket {
    pub(crate) bound: f64,
    pub(crate) interval: u64,
    pub(crate) cumulative: u64,
}

/// The bounds of a histogram.
pub(crate) fn bounds_of(store: &Store, name: &str) -> Vec<f64> {
    store.histogram_buckets(name).unwrap_or_else(|| DEFAULT_BUCKETS.to_vec())
}

/// The buckets of a histogram; between bounds when `disjoint`.
pub(crate) fn buckets(value: &HistogramValue, bounds: &[f64], disjoint: bool) -> Vec<Bucket> {
    let scale = value.unit.map_or(1.0, |unit| unit.scale());
    let counts = |bins: &Bins| -> Vec<u64> {
        let below: Vec<u64> = bounds.iter().map(|bound| bins.count_below(bound * scale)).collect();
        if !disjoint {
            return below;
        }
        (0..below.len()).map(|at| if at == 0 { below[0] } else { below[at] - below[at - 1] }).collect()
    };
    let counted = counts(&value.interval).into_iter().zip(counts(&value.cumulative));
    bounds
        .iter()
        .zip(counted)
        .map(|(&bound, (interval, cumulative))| Bucket { bound, interval, cumulative })
        .collect()
}

/// A quantile in the unit that is printed.
pub(crate) fn quantile(value: &HistogramValue, bins: &Bins, q: f64) -> f64 {
    bins.quantile(q) / value.unit.map_or(1.0, |unit| unit.scale())
}
