//! Who is ejected, and who comes back.

use dhow_stats::Store;

use super::*;
use crate::host::HostSpec;
use crate::outlier::{FailurePercentageConfig, HostResult, SuccessRateConfig};

struct Bench {
    _store: Store,
    ejections: Ejections,
    hosts: Vec<Arc<Host>>,
    rng: Rng,
    now: Instant,
}

impl Bench {
    fn new(config: OutlierConfig, hosts: u8) -> Self {
        let store = Store::new();
        let host = |last| {
            let address = StreamAddress::Ip(([127, 0, 0, last], 80).into());
            Arc::new(Host::new(HostSpec::at(address)))
        };
        let ejections = Ejections::new(config, &store.scope("cluster.a"), "a".into(), None);
        let hosts = (1..=hosts).map(host).collect();
        Self { _store: store, ejections, hosts, rng: Rng::seeded(5), now: Instant::now() }
    }

    fn eject(&mut self, at: usize) -> bool {
        let mut moment = Moment { now: self.now, rng: &mut self.rng };
        let host = self.hosts[at].clone();
        let reason = EjectionReason::Consecutive5xx;
        self.ejections.eject_for_streak(&host, reason, self.hosts.len(), &mut moment)
    }

    fn sweep_after(&mut self, pause: Duration) -> bool {
        self.now += pause;
        let mut moment = Moment { now: self.now, rng: &mut self.rng };
        self.ejections.sweep(&self.hosts, &mut moment)
    }

    fn answers(&self, at: usize, statuses: &[(u16, usize)]) {
        for (status, times) in statuses {
            for _ in 0..*times {
                self.hosts[at].monitor().note(&OutlierConfig::default(), HostResult::HttpStatus(*status));
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn short() -> OutlierConfig {
    OutlierConfig {
        base_ejection_time: SECOND,
        max_ejection_time: 3 * SECOND,
        max_ejection_percent: 50,
        ..OutlierConfig::default()
    }
}

#[test]
fn no_more_hosts_are_ejected_than_the_percentage_allows() {
    let mut bench = Bench::new(short(), 3);
    assert!(bench.eject(0));
    assert!(!bench.eject(1), "two of three are more than half");
    assert_eq!(bench.ejections.stats.ejections_overflow().value(), 1);
    assert!(!bench.eject(0), "it is ejected already");
    assert_eq!(bench.ejections.stats.ejections_detected_consecutive_5xx().value(), 2);

    let mut one = Bench::new(OutlierConfig { always_eject_one_host: true, ..OutlierConfig::default() }, 2);
    assert!(one.eject(0) && !one.eject(1));
}

#[test]
fn ejections_grow_up_to_the_longest_and_are_forgiven() {
    let mut bench = Bench::new(short(), 2);
    for (length, ejection) in [1, 2, 3, 3, 3].into_iter().enumerate().map(|(at, length)| (length, at)) {
        assert!(bench.eject(0));
        if length > 1 {
            assert!(!bench.sweep_after((length - 1) * SECOND), "ejection {ejection}");
        }
        assert!(bench.sweep_after(SECOND), "ejection {ejection} is {length} s long");
    }
    // The multiplier was 4 (one more than the longest needs); each quiet interval takes one off.
    for _ in 0..4 {
        bench.sweep_after(SECOND);
    }
    assert!(bench.eject(0));
    assert!(bench.sweep_after(SECOND), "as long as the first");
}

#[test]
fn ejections_that_are_not_enforced_are_counted_only() {
    let mut bench = Bench::new(OutlierConfig { enforcing_consecutive_5xx: 0, ..short() }, 2);
    assert!(!bench.eject(0));
    assert_eq!(
        (
            bench.ejections.stats.ejections_total().value(),
            bench.ejections.stats.ejections_enforced_total().value()
        ),
        (1, 0)
    );
    assert!(!bench.hosts[0].has_health_flag(HealthFlag::FailedOutlierCheck));
}

#[test]
fn the_slowest_of_many_is_ejected_by_its_success_rate() {
    let success_rate = SuccessRateConfig {
        minimum_hosts: 3,
        request_volume: 10,
        stdev_factor: 1000,
        ..SuccessRateConfig::default()
    };
    let mut bench = Bench::new(OutlierConfig { success_rate, ..short() }, 3);
    bench.answers(0, &[(200, 4), (500, 6)]);
    bench.answers(1, &[(200, 10)]);
    bench.answers(2, &[(200, 9)]);
    assert!(!bench.sweep_after(SECOND), "the third has too few requests");
    assert_eq!(bench.ejections.summaries()[0], RateSummary::UNKNOWN);

    bench.answers(0, &[(200, 4), (500, 6)]);
    bench.answers(1, &[(200, 10)]);
    bench.answers(2, &[(200, 10)]);
    assert!(bench.sweep_after(SECOND));
    assert!(bench.hosts[0].has_health_flag(HealthFlag::FailedOutlierCheck));
    assert_eq!(bench.hosts[0].monitor().rate(Rate::External), 40.0);
    assert_eq!(bench.ejections.summaries()[0].average, 80.0);
    assert_eq!(bench.ejections.stats.ejections_enforced_success_rate().value(), 1);
}

#[test]
fn a_share_of_failures_ejects_from_its_threshold_on() {
    let failure_percentage = FailurePercentageConfig {
        threshold: 50,
        minimum_hosts: 1,
        request_volume: 10,
        enforcing: 100,
        ..FailurePercentageConfig::default()
    };
    let mut bench = Bench::new(OutlierConfig { failure_percentage, ..short() }, 2);
    bench.answers(0, &[(200, 5), (500, 5)]);
    bench.answers(1, &[(200, 6), (500, 4)]);
    assert!(bench.sweep_after(SECOND));
    assert!(bench.hosts[0].has_health_flag(HealthFlag::FailedOutlierCheck));
    assert!(!bench.hosts[1].has_health_flag(HealthFlag::FailedOutlierCheck));
}

#[test]
fn a_good_health_check_brings_a_host_back() {
    let mut bench = Bench::new(short(), 2);
    bench.eject(0);
    let (host, now) = (bench.hosts[0].clone(), bench.now);
    host.set_health_flag(HealthFlag::FailedActiveHc, true);
    assert!(!bench.ejections.uneject_healthy(&host, now));
    host.set_health_flag(HealthFlag::FailedActiveHc, false);
    assert!(bench.ejections.uneject_healthy(&host, now));
    assert_eq!(host.health_flags().to_string(), "healthy");
}

#[test]
fn a_degraded_host_is_restored_after_a_time_that_grows() {
    let mut bench = Bench::new(short(), 2);
    let host = bench.hosts[0].clone();
    let degraded = |host: &Host| host.has_health_flag(HealthFlag::DegradedOutlierDetection);
    assert!(bench.ejections.degrade(&host, bench.now));
    assert!(!bench.ejections.degrade(&host, bench.now), "it is known");
    assert_eq!(bench.ejections.stats.ejections_detected_degradation().value(), 1);
    assert!(!bench.sweep_after(SECOND / 2));
    assert!(bench.sweep_after(SECOND / 2) && !degraded(&host));
    assert!(bench.ejections.degrade(&host, bench.now));
    assert!(!bench.sweep_after(SECOND) && degraded(&host), "the second time is twice as long");
    assert!(bench.sweep_after(SECOND) && !degraded(&host));
    assert_eq!(bench.ejections.stats.ejections_active().value(), 0);
}
