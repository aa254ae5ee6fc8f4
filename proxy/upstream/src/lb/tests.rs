use std::collections::HashMap;
use std::sync::Arc;

use dhow_base::Rng;
use dhow_net::StreamAddress;

use super::{
    Cursors, HashFunction, HostSetOptions, LbConfig, LbPolicy, LocalityGroup, LocalityMode, Pick,
    PrioritySet, TableConfig, ZoneAware,
};
use crate::host::{HealthFlag, Host, HostSpec, Locality};

fn round_robin() -> LbConfig {
    LbConfig::of(LbPolicy::RoundRobin)
}

fn locality(zone: &str) -> Arc<Locality> {
    Arc::new(Locality { zone: zone.to_owned(), ..Locality::default() })
}

fn host(port: u16, weight: u32) -> Arc<Host> {
    let address = StreamAddress::Ip(([127, 0, 0, 1], port).into());
    Arc::new(Host::new(HostSpec { weight, ..HostSpec::at(address) }))
}

fn group(priority: u32, weight: u32, hosts: &[Arc<Host>]) -> LocalityGroup {
    // Groups of different weights are different localities.
    LocalityGroup { priority, locality: locality(&weight.to_string()), weight, hosts: hosts.to_vec() }
}

fn set(groups: &[LocalityGroup]) -> PrioritySet {
    PrioritySet::new(groups, &HostSetOptions::default())
}

fn ports(config: &LbConfig, hosts: &PrioritySet, seed: u64, count: usize) -> Vec<u16> {
    let mut cursors = Cursors::new(config, hosts, seed, 0);
    let mut rng = Rng::seeded(7);
    (0..count)
        .map(|_| {
            cursors
                .choose(config, hosts, &mut rng, Pick::default())
                .0
                .unwrap()
                .address()
                .as_ip()
                .unwrap()
                .port()
        })
        .collect()
}

fn counts(ports: &[u16]) -> HashMap<u16, usize> {
    ports.iter().fold(HashMap::new(), |mut counts, port| {
        *counts.entry(*port).or_default() += 1;
        counts
    })
}

#[test]
fn round_robin_starts_at_the_seed_and_goes_round() {
    let hosts = set(&[group(0, 0, &[host(1, 1), host(2, 1), host(3, 1)])]);
    assert_eq!(ports(&round_robin(), &hosts, 4, 7), [2, 3, 1, 2, 3, 1, 2]);
}

#[test]
fn a_round_goes_on_after_an_update() {
    let (a, b, c) = (host(1, 1), host(2, 1), host(3, 1));
    let before = set(&[group(0, 0, &[a.clone(), b.clone()])]);
    let mut cursors = Cursors::new(&round_robin(), &before, 0, 0);
    let mut rng = Rng::seeded(7);
    let first = cursors.choose(&round_robin(), &before, &mut rng, Pick::default()).0.unwrap();
    assert!(Arc::ptr_eq(&first, &a));
    let after = set(&[group(0, 0, &[a, b.clone(), c])]);
    let next = cursors
        .renewed(&round_robin(), &after, 0)
        .choose(&round_robin(), &after, &mut rng, Pick::default())
        .0
        .unwrap();
    assert!(Arc::ptr_eq(&next, &b));
}

#[test]
fn different_weights_are_scheduled_exactly() {
    let hosts = set(&[group(0, 0, &[host(1, 1), host(2, 3)])]);
    assert_eq!(ports(&round_robin(), &hosts, 0, 4), [2, 2, 1, 2]);
    for seed in [0, 1, 2, 77, 4095, 123_456_789] {
        let counts = counts(&ports(&round_robin(), &hosts, seed, 400));
        assert!(counts[&2].abs_diff(300) <= 1, "seed {seed}: {counts:?}");
    }
}

#[test]
fn least_request_prefers_the_idle_host() {
    let (busy, idle) = (host(1, 1), host(2, 1));
    let _requests: Vec<_> = (0..5).map(|_| busy.begin_request()).collect();
    let hosts = set(&[group(0, 0, &[busy, idle])]);
    let config = LbConfig { policy: LbPolicy::LeastRequest { choices: 2, bias: 1.0 }, ..round_robin() };
    let counts = counts(&ports(&config, &hosts, 0, 10_000));
    // Both draws hit the busy host in a quarter of the cases.
    assert!((2_300..2_700).contains(&counts[&1]), "{counts:?}");
    let scan = LbConfig { policy: LbPolicy::LeastRequest { choices: u32::MAX, bias: 1.0 }, ..round_robin() };
    assert!(ports(&scan, &hosts, 0, 100).iter().all(|&port| port == 2));
}

#[test]
fn weighted_least_request_divides_the_weight_by_the_load() {
    let (heavy, light) = (host(1, 3), host(2, 1));
    let _requests: Vec<_> = (0..5).map(|_| heavy.begin_request()).collect();
    let hosts = set(&[group(0, 0, &[heavy, light])]);
    let config = LbConfig { policy: LbPolicy::LeastRequest { choices: 2, bias: 1.0 }, ..round_robin() };
    // 3/6 against 1/1.
    let weighed = counts(&ports(&config, &hosts, 0, 300));
    assert!(weighed[&2].abs_diff(200) <= 1, "{weighed:?}");
    let unbiased = LbConfig { policy: LbPolicy::LeastRequest { choices: 2, bias: 0.0 }, ..round_robin() };
    let weighed = counts(&ports(&unbiased, &hosts, 0, 400));
    assert!(weighed[&1].abs_diff(300) <= 1, "{weighed:?}");
}

#[test]
fn random_is_uniform() {
    let hosts = set(&[group(0, 0, &[host(1, 1), host(2, 9), host(3, 1)])]);
    let config = LbConfig { policy: LbPolicy::Random, ..round_robin() };
    let counts = counts(&ports(&config, &hosts, 0, 9_000));
    assert!(counts.values().all(|&count| (2_800..3_200).contains(&count)), "{counts:?}");
}

#[test]
fn unhealthy_hosts_are_skipped_until_panic() {
    let all: Vec<_> = (1..=4).map(|port| host(port, 1)).collect();
    all[0].set_health_flag(HealthFlag::FailedOutlierCheck, true);
    let hosts = set(&[group(0, 0, &all)]);
    assert_eq!(counts(&ports(&round_robin(), &hosts, 0, 30)).len(), 3);

    // One of four is healthy: 25 % is under the threshold, so all are used again.
    all[1].set_health_flag(HealthFlag::FailedEdsHealth, true);
    all[2].set_health_flag(HealthFlag::FailedActiveHc, true);
    let hosts = set(&[group(0, 0, &all)]);
    assert_eq!(counts(&ports(&round_robin(), &hosts, 0, 40)).len(), 4);
    let config = LbConfig {
        locality: LocalityMode::ZoneAware(ZoneAware { fail_on_panic: true, ..ZoneAware::default() }),
        ..round_robin()
    };
    let (none, outcome) =
        Cursors::new(&config, &hosts, 0, 0).choose(&config, &hosts, &mut Rng::seeded(1), Pick::default());
    assert!(none.is_none() && outcome.panicked);

    // Without a threshold the healthy one gets everything.
    let options = HostSetOptions { panic_threshold: 0, ..HostSetOptions::default() };
    let hosts = PrioritySet::new(&[group(0, 0, &all)], &options);
    assert_eq!(counts(&ports(&round_robin(), &hosts, 0, 10)).into_keys().collect::<Vec<_>>(), [4]);
}

#[test]
fn draining_hosts_do_not_count_towards_panic() {
    let all: Vec<_> = (1..=4).map(|port| host(port, 1)).collect();
    all[..3].iter().for_each(|host| host.set_health_flag(HealthFlag::EdsStatusDraining, true));
    let hosts = set(&[group(0, 0, &all)]);
    assert!(ports(&round_robin(), &hosts, 0, 10).iter().all(|&port| port == 4));
}

#[test]
fn the_next_priority_takes_over_and_degraded_hosts_come_last() {
    let first: Vec<_> = (1..=2).map(|port| host(port, 1)).collect();
    first.iter().for_each(|host| host.set_health_flag(HealthFlag::FailedActiveHc, true));
    let second: Vec<_> = (3..=4).map(|port| host(port, 1)).collect();
    let hosts = set(&[group(0, 0, &first), group(1, 0, &second)]);
    assert!(ports(&round_robin(), &hosts, 0, 20).iter().all(|&port| port >= 3));

    second[0].set_health_flag(HealthFlag::DegradedEdsHealth, true);
    let hosts = set(&[group(0, 0, &first), group(1, 0, &second)]);
    let counts = counts(&ports(&round_robin(), &hosts, 0, 10_000));
    // 70 % healthy availability on level 1; the remaining 30 % go to its degraded host.
    assert!((2_800..3_200).contains(&counts[&3]), "{counts:?}");
}

#[test]
fn locality_weights_share_the_traffic_and_follow_health() {
    let here: Vec<_> = (1..=2).map(|port| host(port, 1)).collect();
    let there: Vec<_> = (3..=3).map(|port| host(port, 1)).collect();
    let config = LbConfig { locality: LocalityMode::Weighted, ..round_robin() };
    let options = HostSetOptions { locality_weighted: true, ..HostSetOptions::default() };
    let build = || PrioritySet::new(&[group(0, 1, &here), group(0, 3, &there)], &options);
    let even = counts(&ports(&config, &build(), 0, 400));
    assert_eq!((even[&1], even[&2], even[&3]), (50, 50, 300));
    // Half of the first locality is down: 0.5 * 1.4 = 0.7 of its weight is left.
    here[0].set_health_flag(HealthFlag::FailedActiveHc, true);
    let counts = counts(&ports(&config, &build(), 0, 3_700));
    assert!(counts[&2].abs_diff(700) <= 1, "{counts:?}");
}

#[test]
fn a_hash_sticks_to_its_host() {
    let table = TableConfig::Ring {
        minimum: 1024,
        maximum: 8 << 20,
        function: HashFunction::XxHash,
        by_hostname: false,
    };
    let config = LbConfig { policy: LbPolicy::Consistent(table), ..round_robin() };
    let all: Vec<_> = (1..=5).map(|port| host(port, 1)).collect();
    let hosts = PrioritySet::new(
        &[group(0, 0, &all)],
        &HostSetOptions { table: Some(table), ..HostSetOptions::default() },
    );
    let mut cursors = Cursors::new(&config, &hosts, 0, 0);
    let mut rng = Rng::seeded(3);
    let mut seen = HashMap::new();
    for round in 0..3 {
        for hash in 0..200u64 {
            let hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let host = cursors
                .choose(&config, &hosts, &mut rng, Pick { hash: Some(hash), ..Pick::default() })
                .0
                .unwrap();
            let port = host.address().as_ip().unwrap().port();
            assert_eq!(*seen.entry(hash).or_insert(port), port, "round {round}");
        }
    }
    assert_eq!(counts(&seen.into_values().collect::<Vec<_>>()).len(), 5);
}

#[test]
fn an_empty_cluster_has_no_host() {
    let hosts = set(&[]);
    let (none, _) = Cursors::new(&round_robin(), &hosts, 0, 0).choose(
        &round_robin(),
        &hosts,
        &mut Rng::seeded(1),
        Pick::default(),
    );
    assert!(none.is_none() && hosts.is_empty());
}

#[test]
fn hosts_that_were_peeked_at_are_chosen_next() {
    let hosts = set(&[group(0, 1, &[host(1, 1), host(2, 2), host(3, 1)])]);
    for policy in [LbPolicy::RoundRobin, LbPolicy::Random] {
        let config = LbConfig::of(policy);
        let (mut cursors, mut rng) = (Cursors::new(&config, &hosts, 5, 0), Rng::seeded(11));
        let port = |host: Option<Arc<Host>>| Some(host?.address().as_ip()?.port());
        let peeked: Vec<_> =
            (0..4).map(|_| port(cursors.peek(&config, &hosts, &mut rng, Pick::default()).0)).collect();
        assert!(peeked[..3].iter().all(Option::is_some), "one for each healthy host");
        assert!(peeked[3].is_none(), "and no more");
        let mut choose = || port(cursors.choose(&config, &hosts, &mut rng, Pick::default()).0);
        let chosen: Vec<_> = (0..3).map(|_| choose()).collect();
        assert_eq!(chosen, peeked[..3]);
        assert!(choose().is_some());
    }
}

#[test]
fn nobody_can_tell_who_will_be_the_least_busy() {
    let hosts = set(&[group(0, 1, &[host(1, 1), host(2, 1)])]);
    let config = LbConfig::of(LbPolicy::LeastRequest { choices: 2, bias: 1.0 });
    let (mut cursors, mut rng) = (Cursors::new(&config, &hosts, 5, 0), Rng::seeded(11));
    assert!(cursors.peek(&config, &hosts, &mut rng, Pick::default()).0.is_none());
}
