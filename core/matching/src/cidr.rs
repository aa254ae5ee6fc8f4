//! Address ranges.

use std::net::IpAddr;

use dhow_base::{ConfigError, FieldPath};

use crate::pb::core::CidrRange;
use crate::pb::matcher::AddressMatcher as MatcherMessage;
use crate::pb::xds::core::v3 as xds;

/// A compiled `envoy.config.core.v3.CidrRange`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The range's bits, those after the prefix cleared; IPv4 in the upper 32 bits.
    bits: u128,
    length: u8,
    v6: bool,
}

fn bits_of(ip: IpAddr) -> (u128, bool) {
    match ip {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, false),
        IpAddr::V6(v6) => (u128::from(v6), true),
    }
}

/// The address of an IPv6 address with a scope (`fe80::1%eth0`), which a range has not; anything else as it is.
fn without_scope(text: &str) -> &str {
    match text.split_once('%') {
        Some((address, scope)) if address.contains(':') && !scope.is_empty() => address,
        _ => text,
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl Cidr {
    /// A range of the addresses that share the first `length` bits; a length beyond the address's is cut to it.
    pub fn new(ip: IpAddr, length: u8) -> Self {
        let (bits, v6) = bits_of(ip);
        let length = length.min(if v6 { 128 } else { 32 });
        Self { bits: bits & mask(length), length, v6 }
    }

    /// Compiles the message. A prefix that is longer than the address is cut to it, as in Envoy: `10.0.0.1/128` is one address.
    ///
    /// # Errors
    /// When the address is not one.
    pub fn compile(message: &CidrRange, path: &FieldPath) -> Result<Self, ConfigError> {
        let CidrRange { address_prefix, prefix_len } = message;
        let ip = without_scope(address_prefix)
            .parse()
            .map_err(|_| ConfigError::new(path.clone(), format!("malformed IP address: {address_prefix}")))?;
        let length = prefix_len.as_ref().map_or(0, |wrapped| wrapped.value);
        Ok(Self::new(ip, u8::try_from(length).unwrap_or(u8::MAX)))
    }

    /// Compiles a message of a list, where Envoy has other words for what is wrong.
    fn compile_listed(message: &CidrRange, path: &FieldPath) -> Result<Self, ConfigError> {
        Self::compile(message, path).map_err(|error| {
            let CidrRange { address_prefix, prefix_len } = message;
            let length = prefix_len.as_ref().map_or(0, |wrapped| wrapped.value);
            let reason = format!("invalid ip/mask combo '{address_prefix}/{length}'");
            ConfigError { reason: format!("{reason} (format is <ip>/<# mask bits>)"), ..error }
        })
    }

    /// Compiles `xds.core.v3.CidrRange`, which has the same fields.
    ///
    /// # Errors
    /// As [`Cidr::compile`].
    pub fn compile_xds(message: &xds::CidrRange, path: &FieldPath) -> Result<Self, ConfigError> {
        Self::compile(&of_core(message), path)
    }

    /// Whether the address lies in the range; an IPv4 address written as IPv6 is not an IPv4 address here, as in Envoy.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let (bits, v6) = bits_of(ip);
        v6 == self.v6 && bits & mask(self.length) == self.bits
    }

    /// Length of the prefix in bits.
    pub fn prefix_length(&self) -> u8 {
        self.length
    }
}

/// The message of Envoy's own package with the same fields.
fn of_core(message: &xds::CidrRange) -> CidrRange {
    let xds::CidrRange { address_prefix, prefix_len } = message;
    CidrRange { address_prefix: address_prefix.clone(), prefix_len: *prefix_len }
}

/// A list of ranges.
#[derive(Clone, Debug, Default)]
pub struct CidrSet {
    ranges: Box<[Cidr]>,
}

impl CidrSet {
    /// Compiles the messages.
    ///
    /// # Errors
    /// When one is malformed.
    pub fn compile(messages: &[CidrRange], path: &FieldPath) -> Result<Self, ConfigError> {
        let ranges = messages.iter().enumerate();
        let ranges = ranges.map(|(at, message)| Cidr::compile_listed(message, &path.index(at)));
        Ok(Self { ranges: ranges.collect::<Result<_, _>>()? })
    }

    /// Compiles messages of `xds.core.v3`.
    ///
    /// # Errors
    /// When one is malformed.
    pub fn compile_xds(messages: &[xds::CidrRange], path: &FieldPath) -> Result<Self, ConfigError> {
        let ranges = messages.iter().enumerate();
        let ranges = ranges.map(|(at, message)| Cidr::compile_listed(&of_core(message), &path.index(at)));
        Ok(Self { ranges: ranges.collect::<Result<_, _>>()? })
    }

    /// Whether the address lies in one of the ranges.
    pub fn contains(&self, ip: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(ip))
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// Chooses addresses by ranges (`AddressMatcher`).
#[derive(Clone, Debug)]
pub struct AddressMatcher {
    ranges: CidrSet,
    invert: bool,
}

impl AddressMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When a range is malformed.
    pub fn compile(message: &MatcherMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        let MatcherMessage { ranges, invert_match } = message;
        let ranges = CidrSet::compile_xds(ranges, &path.field("ranges"))?;
        Ok(Self { ranges, invert: *invert_match })
    }

    /// Whether the address is one of those that are chosen.
    pub fn matches(&self, ip: IpAddr) -> bool {
        self.ranges.contains(ip) != self.invert
    }
}

impl FromIterator<Cidr> for CidrSet {
    fn from_iter<I: IntoIterator<Item = Cidr>>(ranges: I) -> Self {
        Self { ranges: ranges.into_iter().collect() }
    }
}
