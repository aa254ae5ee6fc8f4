//! How busy the machine's processors are, smoothed over time.

/// How much a new value counts beside those before, as in Envoy.
const WEIGHT: f64 = 0.05;

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Processors {
    last: Option<Times>,
    utilization: f64,
}

/// Times since the machine started, in ticks.
#[derive(Clone, Copy, Debug)]
struct Times {
    busy: u64,
    total: u64,
}

impl Processors {
    /// Takes in `/proc/stat`, and gives the share of time that processors worked. None when there are no times in it.
    pub(super) fn update(&mut self, stat: &str) -> Option<f64> {
        let now = read(stat)?;
        let Some(last) = self.last.replace(now) else { return Some(self.utilization) };
        let total = now.total.checked_sub(last.total).filter(|total| *total > 0);
        let Some(total) = total else { return Some(self.utilization) };
        let busy = now.busy.saturating_sub(last.busy) as f64 / total as f64;
        self.utilization = WEIGHT * busy + (1.0 - WEIGHT) * self.utilization;
        Some(self.utilization)
    }
}

/// The first line: user, nice, system and idle time, and what else there is.
fn read(stat: &str) -> Option<Times> {
    let times = stat.lines().next()?.strip_prefix("cpu ")?;
    let times: Vec<u64> = times.split_whitespace().map_while(|time| time.parse().ok()).collect();
    let [user, nice, system, idle, ..] = times[..] else { return None };
    let busy = user + nice + system;
    Some(Times { busy, total: busy + idle })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_counts_a_little() {
        let mut processors = Processors::default();
        assert_eq!(processors.update("cpu  100 0 100 800 5 5\ncpu0 1 1 1 1"), Some(0.0));
        let once = processors.update("cpu  200 50 150 1000").unwrap();
        assert!((once - WEIGHT * 0.5).abs() < 1e-9, "{once}");
        let again = processors.update("cpu  200 50 150 1000").unwrap();
        assert!((again - once).abs() < 1e-9, "nothing passed: {again}");
        assert_eq!(processors.update("intr 5"), None);
        assert_eq!(processors.update("cpu 1 2"), None);
    }
}
