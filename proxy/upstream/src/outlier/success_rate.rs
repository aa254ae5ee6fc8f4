//! Comparing the success rates of hosts.

/// Mean of the rates and the rate below which a host is an outlier, in percent; -1 while there are none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateSummary {
    /// The mean.
    pub average: f64,
    /// Rates below it are outliers.
    pub threshold: f64,
}

impl RateSummary {
    /// No comparison was possible.
    pub const UNKNOWN: Self = Self { average: -1.0, threshold: -1.0 };

    /// Of at least one rate: `mean - stdev * factor / 1000`, with the deviation of the whole population.
    pub(super) fn of(rates: &[f64], stdev_factor: u32) -> Self {
        let count = rates.len() as f64;
        let average = rates.iter().sum::<f64>() / count;
        let variance = rates.iter().map(|rate| (rate - average).powi(2)).sum::<f64>() / count;
        let threshold = average - variance.sqrt() * (f64::from(stdev_factor) / 1000.0);
        Self { average, threshold }
    }
}

#[cfg(test)]
mod tests {
    use super::RateSummary;

    #[test]
    fn the_threshold_is_so_many_deviations_below_the_mean() {
        let summary = RateSummary::of(&[0.0, 100.0, 100.0], 100);
        assert_eq!((summary.average * 1e4).round() / 1e4, 66.6667);
        assert_eq!((summary.threshold * 1e4).round() / 1e4, 61.9526);
    }

    #[test]
    fn equal_rates_have_no_outlier() {
        let summary = RateSummary::of(&[100.0, 100.0], 1900);
        assert_eq!(summary, RateSummary { average: 100.0, threshold: 100.0 });
    }
}
