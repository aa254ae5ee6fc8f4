//! Expressions, addresses and ranges.

use std::net::IpAddr;

use super::Checker;
use crate::istio::{Percent, StringMatch};

pub(super) fn string_match(checker: &mut Checker, name: &str, value: &StringMatch) {
    if let StringMatch::Regex(pattern) = value {
        checker.field(name, |checker| regex(checker, "regex", pattern));
    }
}

pub(super) fn regex(checker: &mut Checker, name: &str, pattern: &str) {
    if pattern.is_empty() {
        checker.refuse_at(name, "must not be empty");
    } else if let Err(error) = regex::Regex::new(pattern) {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim().to_owned();
        checker.refuse_at(name, format!("{pattern:?} is not a regular expression: {last}"));
    }
}

pub(super) fn percentage(checker: &mut Checker, name: &str, percent: &Percent) {
    if !(0.0..=100.0).contains(&percent.value) {
        checker.refuse_at(name, format!("{} must be between 0 and 100", percent.value));
    }
}

/// An address or a range in CIDR notation.
pub(super) fn is_subnet(text: &str) -> bool {
    match text.split_once('/') {
        None => text.parse::<IpAddr>().is_ok(),
        Some((address, bits)) => match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
            (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
            _ => false,
        },
    }
}

pub(super) fn subnets(checker: &mut Checker, name: &str, list: &[String]) {
    checker.each(name, list, |checker, subnet| {
        if !is_subnet(subnet) {
            checker.refuse(format!("{subnet:?} is neither an address nor a range"));
        }
    });
}
