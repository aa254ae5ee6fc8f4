//! A few random configurations and requests, the same ones every time, against this build and, where it can be had, the real Envoy.
//! `conformance random` runs as many as one likes.

use std::path::PathBuf;

use dhow_conformance::random::{Area, Options, run};

/// Seeds of an area on which both sides agree, and how many requests of each.
const SEEDS: &[(Area, &[u64], usize)] = &[
    (Area::Http, &[2, 5, 12, 23], 30),
    (Area::Http2, &[2, 3, 6], 30),
    (Area::Log, &[2, 4], 30),
    (Area::Tls, &[1, 13, 20], 30),
    (Area::Admin, &[2, 3, 7], 40),
    (Area::Invalid, &[2, 12], 30),
];

#[test]
fn random_cases_that_are_known_to_agree_still_do() {
    for (area, seeds, requests) in SEEDS {
        for seed in *seeds {
            let options = Options {
                area: *area,
                seed: *seed,
                count: 1,
                requests: *requests,
                only: None,
                jobs: 1,
                write: None,
                show: false,
                ours: PathBuf::from(env!("CARGO_BIN_EXE_dhow-proxy")),
                envoy: None,
            };
            let differing = run(&options).expect("the case runs on both sides");
            assert_eq!(differing, 0, "seed {seed} of {area:?} differs, see above");
        }
    }
}
