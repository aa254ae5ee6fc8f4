//! Envoy's response flags.

use std::fmt;

macro_rules! flags {
    ($($(#[$doc:meta])* $long:ident = $short:literal,)*) => {
        /// Why a response was not simply what the upstream sent: the tokens of `%RESPONSE_FLAGS%` (short) and
        /// `%RESPONSE_FLAGS_LONG%`, in Envoy's order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ResponseFlag {
            $($(#[$doc])* $long,)*
        }

        impl ResponseFlag {
            /// Every flag, in Envoy's order.
            pub const ALL: &'static [Self] = &[$(Self::$long,)*];

            /// The token in access logs, such as `UH`.
            pub const fn short_name(self) -> &'static str {
                match self { $(Self::$long => $short,)* }
            }

            /// The token of `%RESPONSE_FLAGS_LONG%`, such as `NoHealthyUpstream`.
            pub const fn long_name(self) -> &'static str {
                match self { $(Self::$long => stringify!($long),)* }
            }
        }
    };
}

flags! {
    /// The local service failed its health check and so answered for itself.
    FailedLocalHealthCheck = "LH",
    /// No healthy host in the upstream cluster.
    NoHealthyUpstream = "UH",
    /// The request took longer than its time-out.
    UpstreamRequestTimeout = "UT",
    /// The stream was reset on this side.
    LocalReset = "LR",
    /// The upstream reset the stream.
    UpstreamRemoteReset = "UR",
    /// No connection to the upstream could be made.
    UpstreamConnectionFailure = "UF",
    /// The upstream closed its connection.
    UpstreamConnectionTermination = "UC",
    /// A circuit breaker refused the request.
    UpstreamOverflow = "UO",
    /// No route, or no filter chain, for the request.
    NoRouteFound = "NR",
    /// The fault filter delayed the request.
    DelayInjected = "DI",
    /// The fault filter answered with an error.
    FaultInjected = "FI",
    /// The request was over a rate limit.
    RateLimited = "RL",
    /// The external authorisation service denied the request.
    UnauthorizedExternalService = "UAEX",
    /// The rate limit service failed, and failing was configured to deny.
    RateLimitServiceError = "RLSE",
    /// The client closed its connection.
    DownstreamConnectionTermination = "DC",
    /// Retries, or connection attempts, are used up.
    UpstreamRetryLimitExceeded = "URX",
    /// The stream was idle for too long.
    StreamIdleTimeout = "SI",
    /// An `x-envoy-` header had an invalid value and strict checking is on.
    InvalidEnvoyRequestHeaders = "IH",
    /// The client broke the protocol.
    DownstreamProtocolError = "DPE",
    /// The upstream stream lasted longer than allowed.
    UpstreamMaxStreamDurationReached = "UMSDR",
    /// The response came from the cache filter.
    ResponseFromCacheFilter = "RFCF",
    /// The configuration of a filter did not arrive in time.
    NoFilterConfigFound = "NFCF",
    /// The connection or the stream lasted longer than allowed.
    DurationTimeout = "DT",
    /// The upstream broke the protocol.
    UpstreamProtocolError = "UPE",
    /// The route's cluster does not exist.
    NoClusterFound = "NC",
    /// The overload manager ended the request.
    OverloadManagerTerminated = "OM",
    /// The upstream's name could not be resolved.
    DnsResolutionFailed = "DF",
    /// Dropped by the cluster's drop policy.
    DropOverload = "DO",
    /// The client reset the stream.
    DownstreamRemoteReset = "DR",
    /// Dropped because the cluster's drop policy drops everything.
    UnconditionalDropOverload = "UDO",
}

/// A set of [`ResponseFlag`]s in one word.
///
/// Its text is what `%RESPONSE_FLAGS%` prints: short names joined by commas in the order in which they were set, `-` for
/// none. Sets with the same flags are equal, in whatever order they were set.
#[derive(Clone, Copy, Default)]
pub struct ResponseFlags {
    members: u32,
    /// Five bits for each of the first [`ORDERED`] flags, the earliest in the lowest bits.
    order: u64,
}

/// Flags whose order is remembered; no stream comes near it, and more would follow in declaration order.
const ORDERED: u32 = 12;
const ORDER_BITS: u32 = 5;

impl ResponseFlags {
    /// No flag.
    pub const NONE: Self = Self { members: 0, order: 0 };

    /// Adds a flag.
    pub const fn insert(&mut self, flag: ResponseFlag) {
        if self.contains(flag) {
            return;
        }
        let at = self.members.count_ones();
        if at < ORDERED {
            self.order |= (flag as u64) << (at * ORDER_BITS);
        }
        self.members |= 1 << flag as u8;
    }

    /// The set with one more flag.
    #[must_use]
    pub const fn with(mut self, flag: ResponseFlag) -> Self {
        self.insert(flag);
        self
    }

    /// True when `flag` is in the set.
    pub const fn contains(self, flag: ResponseFlag) -> bool {
        self.members & (1 << flag as u8) != 0
    }

    /// True when the set holds at least one flag of `other`.
    pub const fn intersects(self, other: Self) -> bool {
        self.members & other.members != 0
    }

    /// The flags of both sets, those of `self` first.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        other.iter().fold(self, Self::with)
    }

    /// True when no flag is set.
    pub const fn is_empty(self) -> bool {
        self.members == 0
    }

    /// The flags in the order in which they were set.
    pub fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        let ordered = self.members.count_ones().min(ORDERED);
        let index = move |at: u32| (self.order >> (at * ORDER_BITS)) as usize & ((1 << ORDER_BITS) - 1);
        let rest = (0..ordered).fold(self.members, |rest, at| rest & !(1 << index(at)));
        let rest = ResponseFlag::ALL.iter().filter(move |&&flag| rest & (1 << flag as u8) != 0);
        (0..ordered).map(move |at| ResponseFlag::ALL[index(at)]).chain(rest.copied())
    }

    /// The text of `%RESPONSE_FLAGS_LONG%`: long names joined by commas, `-` for none.
    pub fn long_names(self) -> impl fmt::Display {
        struct Long(ResponseFlags);
        impl fmt::Display for Long {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_joined(f, self.0, ResponseFlag::long_name)
            }
        }
        Long(self)
    }
}

impl PartialEq for ResponseFlags {
    fn eq(&self, other: &Self) -> bool {
        self.members == other.members
    }
}

impl Eq for ResponseFlags {}

impl From<ResponseFlag> for ResponseFlags {
    fn from(flag: ResponseFlag) -> Self {
        Self::NONE.with(flag)
    }
}

impl FromIterator<ResponseFlag> for ResponseFlags {
    fn from_iter<I: IntoIterator<Item = ResponseFlag>>(flags: I) -> Self {
        flags.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_joined(f, *self, ResponseFlag::short_name)
    }
}

impl fmt::Debug for ResponseFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResponseFlags({self})")
    }
}

fn write_joined(
    f: &mut fmt::Formatter<'_>,
    flags: ResponseFlags,
    name: fn(ResponseFlag) -> &'static str,
) -> fmt::Result {
    if flags.is_empty() {
        return f.write_str("-");
    }
    for (position, flag) in flags.iter().enumerate() {
        if position > 0 {
            f.write_str(",")?;
        }
        f.write_str(name(flag))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ResponseFlag, ResponseFlags};

    #[test]
    fn an_empty_set_prints_a_dash() {
        assert_eq!(ResponseFlags::NONE.to_string(), "-");
        assert_eq!(ResponseFlags::NONE.long_names().to_string(), "-");
    }

    #[test]
    fn names_are_joined_by_commas() {
        let (limit, failure) =
            (ResponseFlag::UpstreamRetryLimitExceeded, ResponseFlag::UpstreamConnectionFailure);
        let flags: ResponseFlags = [limit, failure, limit].into_iter().collect();
        assert_eq!(flags.to_string(), "URX,UF");
        assert_eq!(flags.long_names().to_string(), "UpstreamRetryLimitExceeded,UpstreamConnectionFailure");
        assert_eq!(ResponseFlags::from(failure).union(flags).to_string(), "UF,URX");
        assert_eq!(ResponseFlags::from(failure).union(flags), flags);
    }

    #[test]
    fn every_flag_can_be_set_at_once() {
        let all: ResponseFlags = ResponseFlag::ALL.iter().rev().copied().collect();
        let listed: Vec<_> = all.iter().collect();
        assert_eq!(listed.len(), ResponseFlag::ALL.len());
        assert_eq!(listed[0], ResponseFlag::UnconditionalDropOverload);
        assert!(ResponseFlag::ALL.iter().all(|flag| listed.contains(flag)));
    }

    #[test]
    fn there_are_thirty_flags_with_distinct_names() {
        let mut names: Vec<_> = ResponseFlag::ALL.iter().map(|flag| flag.short_name()).collect();
        assert_eq!(names.len(), 30);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 30);
    }

    #[test]
    fn membership_follows_insertion() {
        let mut flags = ResponseFlags::NONE;
        flags.insert(ResponseFlag::UnconditionalDropOverload);
        assert!(flags.contains(ResponseFlag::UnconditionalDropOverload));
        assert!(!flags.contains(ResponseFlag::NoHealthyUpstream));
        assert!(flags.intersects(flags.with(ResponseFlag::DropOverload)));
        assert!(!flags.intersects(ResponseFlag::DropOverload.into()));
    }
}
