//! Log-linear histogram bins as in circllhist: ninety per decade, so that two digits of every number are kept.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PER_DECADE: usize = 90;
/// Decades that a 64-bit number can fall into.
const DECADES: usize = 20;

/// The quantiles that Envoy prints, with their labels.
pub const QUANTILES: [(f64, &str); 10] = [
    (0.0, "P0"),
    (0.25, "P25"),
    (0.5, "P50"),
    (0.75, "P75"),
    (0.9, "P90"),
    (0.95, "P95"),
    (0.99, "P99"),
    (0.995, "P99.5"),
    (0.999, "P99.9"),
    (1.0, "P100"),
];

/// Bin of a number: 0 for zero, else one plus decade and the two leading digits.
#[inline]
fn bin_of(value: u64) -> u16 {
    const DECADE: u64 = PER_DECADE as u64;
    match value {
        0 => 0,
        // The times of usual requests are found without divisions by variable numbers.
        1..10 => (1 + value * 10 - 10) as u16,
        10..100 => (1 + DECADE + value - 10) as u16,
        100..1000 => (1 + 2 * DECADE + value / 10 - 10) as u16,
        _ => large_bin_of(value),
    }
}

fn large_bin_of(value: u64) -> u16 {
    let decade = value.ilog10();
    let digits = value / 10u64.pow(decade - 1);
    1 + (decade as u16) * PER_DECADE as u16 + (digits as u16 - 10)
}

/// Lower bound and width of a bin.
fn bounds(bin: u16) -> (f64, f64) {
    if bin == 0 {
        return (0.0, 0.0);
    }
    let (decade, digits) = ((bin - 1) as usize / PER_DECADE, (bin - 1) as usize % PER_DECADE + 10);
    let scale = 10f64.powi(decade as i32 - 1);
    if decade == 0 { (digits as f64 / 10.0, 0.1) } else { (digits as f64 * scale, scale) }
}

/// One thread's part of a histogram; a decade is allocated when a number first falls into it.
pub(crate) struct LocalBins {
    zero: AtomicU64,
    decades: [OnceLock<Box<[AtomicU64; PER_DECADE]>>; DECADES],
}

impl LocalBins {
    pub(crate) fn new() -> Self {
        Self { zero: AtomicU64::new(0), decades: [const { OnceLock::new() }; DECADES] }
    }

    #[inline]
    fn cell(&self, bin: u16) -> &AtomicU64 {
        if bin == 0 {
            return &self.zero;
        }
        let at = (bin - 1) as usize;
        let decade = &self.decades[at / PER_DECADE];
        &decade.get_or_init(|| Box::new([const { AtomicU64::new(0) }; PER_DECADE]))[at % PER_DECADE]
    }

    #[inline]
    pub(crate) fn add_unshared(&self, value: u64) {
        let cell = self.cell(bin_of(value));
        cell.store(cell.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(crate) fn add_shared(&self, value: u64) {
        self.cell(bin_of(value)).fetch_add(1, Relaxed);
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        let decades = self.decades.iter().filter_map(OnceLock::get).flat_map(|cells| cells.iter());
        decades.chain([&self.zero]).for_each(|cell| cell.store(0, Relaxed));
    }

    fn each(&self, mut visit: impl FnMut(u16, u64)) {
        let mut counted = |bin: u16, cell: &AtomicU64| {
            let count = cell.load(Relaxed);
            if count != 0 {
                visit(bin, count);
            }
        };
        counted(0, &self.zero);
        for (decade, cells) in self.decades.iter().enumerate() {
            for (at, cell) in cells.get().into_iter().flat_map(|c| c.iter().enumerate()) {
                counted((1 + decade * PER_DECADE + at) as u16, cell);
            }
        }
    }

    /// Adds what an ended thread recorded.
    pub(crate) fn fold(&self, other: &Self) {
        other.each(|bin, count| {
            self.cell(bin).fetch_add(count, Relaxed);
        });
    }

    pub(crate) fn add_to(&self, sum: &mut Bins) {
        self.each(|bin, count| sum.add_bin(bin, count));
    }
}

/// A merged histogram: the bins that are not empty, in ascending order, with their counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bins(Vec<(u16, u64)>);

impl Bins {
    fn add_bin(&mut self, bin: u16, count: u64) {
        match self.0.binary_search_by_key(&bin, |&(b, _)| b) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (bin, count)),
        }
    }

    /// Counts one number.
    pub fn record(&mut self, value: u64) {
        self.add_bin(bin_of(value), 1);
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        for &(bin, count) in &other.0 {
            self.add_bin(bin, count);
        }
    }

    /// What was recorded after `earlier`, an earlier state of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |bin| earlier.0.binary_search_by_key(&bin, |&(b, _)| b).map_or(0, |at| earlier.0[at].1);
        let later = self.0.iter().map(|&(bin, count)| (bin, count.saturating_sub(before(bin))));
        Self(later.filter(|&(_, count)| count != 0).collect())
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers were recorded.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(_, count)| count).sum()
    }

    /// The sum of the recorded numbers, as near as the bins tell it: each number counts as its bin's harmonic middle, as in circllhist.
    pub fn sum(&self) -> f64 {
        self.0
            .iter()
            .map(|&(bin, count)| {
                let (low, width) = bounds(bin);
                let middle = if low == 0.0 { 0.0 } else { low + width * (low / (low + low + width)) };
                middle * count as f64
            })
            .sum()
    }

    /// The smallest recorded number that at least the fraction `q` (0 to 1) of the numbers does not exceed; the numbers of
    /// a bin are taken to be spread evenly over it. NaN when empty.
    pub fn quantile(&self, q: f64) -> f64 {
        let rank = ((q * self.count() as f64).ceil() as u64).max(1);
        let mut before = 0;
        for &(bin, count) in &self.0 {
            if rank <= before + count {
                let (low, width) = bounds(bin);
                return low + width * ((rank - before) as f64 / (count + 1) as f64);
            }
            before += count;
        }
        f64::NAN
    }

    /// How many of the numbers lie in bins that begin at or below `limit`.
    pub fn count_below(&self, limit: f64) -> u64 {
        self.0.iter().take_while(|&&(bin, _)| bounds(bin).0 <= limit).map(|&(_, count)| count).sum()
    }

    /// The bins that hold something: lower bound, width, count.
    pub fn iter(&self) -> impl Iterator<Item = (f64, f64, u64)> + '_ {
        self.0.iter().map(|&(bin, count)| {
            let (low, width) = bounds(bin);
            (low, width, count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_fall_where_the_rule_for_all_numbers_puts_them() {
        for value in 10..5000 {
            assert_eq!(bin_of(value), large_bin_of(value), "{value}");
        }
        for value in 1..10 {
            assert_eq!(bin_of(value), bin_of(value * 10) - PER_DECADE as u16, "{value}");
        }
    }

    #[test]
    fn a_bin_keeps_two_digits() {
        for value in [1u64, 9, 10, 11, 99, 100, 109, 110, 999, 123_456, 10_000_000, u64::MAX] {
            let (low, width) = bounds(bin_of(value));
            let value = value as f64;
            assert!(low <= value && value < low + width, "{value} is outside [{low}, {low}+{width})");
            assert!(width <= low / 10.0 * 1.000_001, "{value}: bin is too wide");
        }
        assert_eq!(bounds(bin_of(0)), (0.0, 0.0));
    }

    #[test]
    fn bins_do_not_overlap_and_leave_no_gap() {
        for bin in 1..(PER_DECADE * DECADES) as u16 {
            let (low, width) = bounds(bin);
            let next = bounds(bin + 1).0;
            assert!(((low + width) / next - 1.0).abs() < 1e-12, "bin {bin}: {low} {width} {next}");
        }
    }

    fn recorded(values: impl IntoIterator<Item = u64>) -> Bins {
        let mut bins = Bins::default();
        values.into_iter().for_each(|value| bins.record(value));
        bins
    }

    /// The figures are those that Envoy 1.40 printed for these numbers.
    #[test]
    fn quantiles_are_envoys() {
        assert!(Bins::default().quantile(0.5).is_nan());
        let printed = |bins: &Bins| QUANTILES.map(|(q, _)| (bins.quantile(q) * 1000.0).round() / 1000.0);
        assert_eq!(printed(&recorded([5])), [5.05; 10]);
        assert_eq!(
            printed(&recorded([0, 124, 124, 124, 124])),
            [0.0, 122.0, 124.0, 126.0, 128.0, 128.0, 128.0, 128.0, 128.0, 128.0]
        );
        assert_eq!(printed(&recorded([180, 181, 182, 183, 255]))[..5], [182.0, 184.0, 186.0, 188.0, 255.0]);
    }

    #[test]
    fn sums_and_buckets_are_envoys() {
        let bins = recorded([0, 124, 124, 124, 124]);
        assert!((bins.sum() - 499.2).abs() < 1e-9);
        assert_eq!([0.5, 100.0, 250.0].map(|limit| bins.count_below(limit)), [1, 1, 5]);
        assert_eq!([0.5, 1.0].map(|limit| recorded([0, 1]).count_below(limit)), [1, 2]);
    }

    #[test]
    fn an_interval_is_the_difference_of_two_states() {
        let mut bins = Bins::default();
        bins.record(5);
        let earlier = bins.clone();
        assert!(bins.since(&earlier).is_empty());
        bins.record(5);
        bins.record(70);
        let interval = bins.since(&earlier);
        assert_eq!(interval.count(), 2);
        let mut again = earlier.clone();
        again.merge(&interval);
        assert_eq!(again, bins);
    }

    #[test]
    fn local_bins_fold_without_loss() {
        let (one, two) = (LocalBins::new(), LocalBins::new());
        one.add_unshared(0);
        one.add_unshared(42);
        two.add_shared(42);
        one.fold(&two);
        let mut sum = Bins::default();
        one.add_to(&mut sum);
        assert_eq!(sum.iter().map(|(low, _, n)| (low, n)).collect::<Vec<_>>(), [(0.0, 1), (42.0, 2)]);
    }
}
