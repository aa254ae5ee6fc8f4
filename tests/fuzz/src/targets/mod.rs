//! The targets.

mod formats;
mod headers;
mod http1;
mod http2;
mod inspectors;
mod loader;
mod matchers;
mod tables;

use dhow_base::Rng;

/// Something that reads bytes, and what holds of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on command lines.
    pub name: &'static str,
    /// What is shown.
    pub about: &'static str,
    /// Panics when a property does not hold.
    pub run: fn(&[u8]),
    /// Makes an input that means something.
    pub generate: fn(&mut Rng) -> Vec<u8>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    http1::REQUEST,
    http1::RESPONSE,
    http1::BODY,
    http2::SERVER,
    http2::CLIENT,
    loader::LOADER,
    tables::DOMAINS,
    tables::ROUTES,
    tables::ADDRESSES,
    matchers::MATCHERS,
    formats::FORMATS,
    headers::MAP,
    headers::EDITS,
    inspectors::INSPECTORS,
    inspectors::PROXY_PROTOCOL,
];

/// The target called `name`.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::{Limit, drive};

    /// Inputs for each target: a second or two in an unoptimised build.
    const INPUTS: u64 = 3000;

    fn holds(target: &Target, inputs: u64) {
        for seed in [1, 2] {
            let outcome = drive(target, seed, Limit::Inputs(inputs));
            let failing = outcome.failing.map(|input| input.escape_ascii().to_string());
            assert_eq!(failing, None, "{} with seed {seed}, input {}", target.name, outcome.inputs);
        }
    }

    #[test]
    fn messages_hold() {
        let first_bytes = [inspectors::INSPECTORS, inspectors::PROXY_PROTOCOL];
        for target in [http1::REQUEST, http1::RESPONSE, http1::BODY].iter().chain(&first_bytes) {
            holds(target, INPUTS);
        }
    }

    #[test]
    fn frames_hold() {
        holds(&http2::SERVER, INPUTS / 4);
        holds(&http2::CLIENT, INPUTS / 4);
    }

    #[test]
    fn configurations_hold() {
        holds(&loader::LOADER, INPUTS / 10);
        holds(&tables::ROUTES, INPUTS / 10);
        holds(&matchers::MATCHERS, INPUTS / 4);
    }

    #[test]
    fn tables_and_edits_hold() {
        for target in [tables::DOMAINS, tables::ADDRESSES, formats::FORMATS, headers::MAP, headers::EDITS] {
            holds(&target, INPUTS);
        }
    }

    #[test]
    fn names_are_unique() {
        for (at, target) in TARGETS.iter().enumerate() {
            assert!(TARGETS[at + 1..].iter().all(|other| other.name != target.name), "{}", target.name);
            assert_eq!(find(target.name).unwrap().about, target.about);
        }
    }
}
