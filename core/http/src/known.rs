//! Header names that the proxy itself reads or writes, resolved to a small id once at parse time, so that a lookup on
//! the request path compares one byte instead of a string.

use std::fmt;

macro_rules! known_headers {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A header name known to the proxy. Pseudo headers are names like any other, as in Envoy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "each variant is the camel-case form of the name that it stands for")]
        pub enum KnownHeader { $($(#[$doc])* $variant,)* }

        /// All known names in the order of their ids.
        const NAMES: &[&str] = &[$($name,)*];
        /// The names as lines of HTTP/1 begin with them.
        const LINE_STARTS: &[&str] = &[$(concat!($name, ": "),)*];
        const IDS: &[KnownHeader] = &[$(KnownHeader::$variant,)*];
    };
}

known_headers! {
    Method = ":method",
    Path = ":path",
    Authority = ":authority",
    Scheme = ":scheme",
    Status = ":status",
    Protocol = ":protocol",
    Accept = "accept",
    AcceptEncoding = "accept-encoding",
    AccessControlAllowCredentials = "access-control-allow-credentials",
    AccessControlAllowHeaders = "access-control-allow-headers",
    AccessControlAllowMethods = "access-control-allow-methods",
    AccessControlAllowOrigin = "access-control-allow-origin",
    AccessControlAllowPrivateNetwork = "access-control-allow-private-network",
    AccessControlExposeHeaders = "access-control-expose-headers",
    AccessControlMaxAge = "access-control-max-age",
    AccessControlRequestHeaders = "access-control-request-headers",
    AccessControlRequestMethod = "access-control-request-method",
    Age = "age",
    Authorization = "authorization",
    CacheControl = "cache-control",
    Connection = "connection",
    ContentEncoding = "content-encoding",
    ContentLength = "content-length",
    ContentType = "content-type",
    Cookie = "cookie",
    Date = "date",
    Etag = "etag",
    Expect = "expect",
    Expires = "expires",
    Forwarded = "forwarded",
    GrpcAcceptEncoding = "grpc-accept-encoding",
    GrpcMessage = "grpc-message",
    GrpcStatus = "grpc-status",
    GrpcTimeout = "grpc-timeout",
    Host = "host",
    IfMatch = "if-match",
    IfModifiedSince = "if-modified-since",
    IfNoneMatch = "if-none-match",
    IfRange = "if-range",
    IfUnmodifiedSince = "if-unmodified-since",
    KeepAlive = "keep-alive",
    LastModified = "last-modified",
    Location = "location",
    Origin = "origin",
    Pragma = "pragma",
    ProxyConnection = "proxy-connection",
    ProxyStatus = "proxy-status",
    Referer = "referer",
    Server = "server",
    SetCookie = "set-cookie",
    Te = "te",
    Trailer = "trailer",
    TransferEncoding = "transfer-encoding",
    Upgrade = "upgrade",
    UserAgent = "user-agent",
    Vary = "vary",
    Via = "via",
    XClientTraceId = "x-client-trace-id",
    XEnvoyAttemptCount = "x-envoy-attempt-count",
    XEnvoyDecoratorOperation = "x-envoy-decorator-operation",
    XEnvoyDegraded = "x-envoy-degraded",
    XEnvoyDownstreamServiceCluster = "x-envoy-downstream-service-cluster",
    XEnvoyDownstreamServiceNode = "x-envoy-downstream-service-node",
    XEnvoyExpectedRqTimeoutMs = "x-envoy-expected-rq-timeout-ms",
    XEnvoyExternalAddress = "x-envoy-external-address",
    XEnvoyForceTrace = "x-envoy-force-trace",
    XEnvoyHedgeOnPerTryTimeout = "x-envoy-hedge-on-per-try-timeout",
    XEnvoyImmediateHealthCheckFail = "x-envoy-immediate-health-check-fail",
    XEnvoyInternal = "x-envoy-internal",
    XEnvoyIpTags = "x-envoy-ip-tags",
    XEnvoyIsTimeoutRetry = "x-envoy-is-timeout-retry",
    XEnvoyMaxRetries = "x-envoy-max-retries",
    XEnvoyOriginalHost = "x-envoy-original-host",
    XEnvoyOriginalPath = "x-envoy-original-path",
    XEnvoyOriginalUrl = "x-envoy-original-url",
    XEnvoyOverloaded = "x-envoy-overloaded",
    XEnvoyRateLimited = "x-envoy-ratelimited",
    XEnvoyRetriableHeaderNames = "x-envoy-retriable-header-names",
    XEnvoyRetriableStatusCodes = "x-envoy-retriable-status-codes",
    XEnvoyRetryGrpcOn = "x-envoy-retry-grpc-on",
    XEnvoyRetryOn = "x-envoy-retry-on",
    XEnvoyUpstreamAltStatName = "x-envoy-upstream-alt-stat-name",
    XEnvoyUpstreamCanary = "x-envoy-upstream-canary",
    XEnvoyUpstreamHealthcheckedCluster = "x-envoy-upstream-healthchecked-cluster",
    XEnvoyUpstreamRqPerTryTimeoutMs = "x-envoy-upstream-rq-per-try-timeout-ms",
    XEnvoyUpstreamRqTimeoutAltResponse = "x-envoy-upstream-rq-timeout-alt-response",
    XEnvoyUpstreamRqTimeoutMs = "x-envoy-upstream-rq-timeout-ms",
    XEnvoyUpstreamServiceTime = "x-envoy-upstream-service-time",
    XEnvoyUpstreamStreamDurationMs = "x-envoy-upstream-stream-duration-ms",
    XForwardedClientCert = "x-forwarded-client-cert",
    XForwardedFor = "x-forwarded-for",
    XForwardedHost = "x-forwarded-host",
    XForwardedPort = "x-forwarded-port",
    XForwardedProto = "x-forwarded-proto",
    XRequestId = "x-request-id",
}

const TABLE_SIZE: usize = 512;
const EMPTY: u8 = u8::MAX;

/// A cheap hash over the length and three bytes; collisions are resolved by linear probing when the table is built.
const fn slot(name: &[u8]) -> usize {
    let n = name.len();
    let first = name[0] as usize;
    let last = name[n - 1] as usize;
    let middle = name[n / 2] as usize;
    (n.wrapping_mul(37) ^ first.wrapping_mul(5) ^ last.wrapping_mul(131) ^ middle.wrapping_mul(17))
        % TABLE_SIZE
}

/// Whether two names are the same. Nearly all names have at most 16 bytes, which are compared without a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    fn words<const N: usize>(name: &[u8]) -> Option<([u8; N], [u8; N])> {
        Some((*name.first_chunk()?, *name.last_chunk()?))
    }
    match a.len() {
        8..=16 => words::<8>(a) == words::<8>(b),
        4..8 => words::<4>(a) == words::<4>(b),
        _ => a == b,
    }
}

/// The bit that stands for a name in a set of names.
#[inline]
pub(crate) const fn bit(id: u8) -> u128 {
    let within = 1u64 << (id % 64);
    if id < 64 { within as u128 } else { (within as u128) << 64 }
}

const _: () = assert!(NAMES.len() <= 128, "one bit of a u128 for each name");

const TABLE: [u8; TABLE_SIZE] = {
    let mut table = [EMPTY; TABLE_SIZE];
    let mut id = 0;
    while id < NAMES.len() {
        let mut at = slot(NAMES[id].as_bytes());
        while table[at] != EMPTY {
            at = (at + 1) % TABLE_SIZE;
        }
        table[at] = id as u8;
        id += 1;
    }
    table
};

const fn set(names: &[KnownHeader]) -> u128 {
    KnownSet::of(names).0
}

/// Some of the known headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u128);

impl KnownSet {
    /// The set of these names.
    pub const fn of(names: &[KnownHeader]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < names.len() {
            bits |= bit(names[i] as u8);
            i += 1;
        }
        Self(bits)
    }

    /// The bit of each name is one shifted by the name's id.
    pub(crate) const fn bits(self) -> u128 {
        self.0
    }
}

const JOINED_IN_BOTH: u128 = set(&[
    KnownHeader::CacheControl,
    KnownHeader::Connection,
    KnownHeader::ContentEncoding,
    KnownHeader::ContentLength,
    KnownHeader::ContentType,
    KnownHeader::KeepAlive,
    KnownHeader::ProxyConnection,
    KnownHeader::ProxyStatus,
    KnownHeader::TransferEncoding,
    KnownHeader::Upgrade,
    KnownHeader::Via,
    KnownHeader::XEnvoyAttemptCount,
    KnownHeader::XEnvoyDecoratorOperation,
    KnownHeader::XRequestId,
]);

const JOINED_IN_REQUEST: u128 = JOINED_IN_BOTH
    | set(&[
        KnownHeader::Accept,
        KnownHeader::AcceptEncoding,
        KnownHeader::AccessControlRequestHeaders,
        KnownHeader::AccessControlRequestMethod,
        KnownHeader::Authority,
        KnownHeader::Authorization,
        KnownHeader::Expect,
        KnownHeader::GrpcAcceptEncoding,
        KnownHeader::GrpcTimeout,
        KnownHeader::IfMatch,
        KnownHeader::IfModifiedSince,
        KnownHeader::IfNoneMatch,
        KnownHeader::IfRange,
        KnownHeader::IfUnmodifiedSince,
        KnownHeader::Origin,
        KnownHeader::Pragma,
        KnownHeader::Referer,
        KnownHeader::Te,
        KnownHeader::UserAgent,
        KnownHeader::XClientTraceId,
        KnownHeader::XEnvoyDownstreamServiceCluster,
        KnownHeader::XEnvoyDownstreamServiceNode,
        KnownHeader::XEnvoyExpectedRqTimeoutMs,
        KnownHeader::XEnvoyExternalAddress,
        KnownHeader::XEnvoyForceTrace,
        KnownHeader::XEnvoyHedgeOnPerTryTimeout,
        KnownHeader::XEnvoyInternal,
        KnownHeader::XEnvoyIpTags,
        KnownHeader::XEnvoyMaxRetries,
        KnownHeader::XEnvoyOriginalHost,
        KnownHeader::XEnvoyOriginalPath,
        KnownHeader::XEnvoyRetriableHeaderNames,
        KnownHeader::XEnvoyRetriableStatusCodes,
        KnownHeader::XEnvoyRetryGrpcOn,
        KnownHeader::XEnvoyRetryOn,
        KnownHeader::XEnvoyUpstreamAltStatName,
        KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs,
        KnownHeader::XEnvoyUpstreamRqTimeoutAltResponse,
        KnownHeader::XEnvoyUpstreamRqTimeoutMs,
        KnownHeader::XEnvoyUpstreamStreamDurationMs,
        KnownHeader::XForwardedClientCert,
        KnownHeader::XForwardedFor,
        KnownHeader::XForwardedHost,
        KnownHeader::XForwardedPort,
        KnownHeader::XForwardedProto,
    ]);

const JOINED_IN_RESPONSE: u128 = JOINED_IN_BOTH
    | set(&[
        KnownHeader::AccessControlAllowCredentials,
        KnownHeader::AccessControlAllowHeaders,
        KnownHeader::AccessControlAllowMethods,
        KnownHeader::AccessControlAllowOrigin,
        KnownHeader::AccessControlAllowPrivateNetwork,
        KnownHeader::AccessControlExposeHeaders,
        KnownHeader::AccessControlMaxAge,
        KnownHeader::Age,
        KnownHeader::Date,
        KnownHeader::Etag,
        KnownHeader::Expires,
        KnownHeader::GrpcMessage,
        KnownHeader::GrpcStatus,
        KnownHeader::LastModified,
        KnownHeader::Location,
        KnownHeader::Server,
        KnownHeader::Vary,
        KnownHeader::XEnvoyDegraded,
        KnownHeader::XEnvoyImmediateHealthCheckFail,
        KnownHeader::XEnvoyRateLimited,
        KnownHeader::XEnvoyUpstreamCanary,
        KnownHeader::XEnvoyUpstreamHealthcheckedCluster,
        KnownHeader::XEnvoyUpstreamServiceTime,
    ]);

impl KnownHeader {
    /// The lower-case name.
    pub const fn as_str(self) -> &'static str {
        NAMES[self as usize]
    }

    /// The name with what stands between it and a value on a line of HTTP/1.
    pub(crate) const fn line_start(self) -> &'static str {
        LINE_STARTS[self as usize]
    }

    /// Finds the id of a lower-case name.
    pub fn from_lower(name: &[u8]) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        let mut at = slot(name);
        loop {
            let id = TABLE[at];
            if id == EMPTY {
                return None;
            }
            if is_same(NAMES[id as usize].as_bytes(), name) {
                return Some(IDS[id as usize]);
            }
            at = (at + 1) % TABLE_SIZE;
        }
    }

    /// All known names in the order of their ids.
    pub const fn all() -> &'static [Self] {
        IDS
    }

    /// The header with this id, if the id is one (`header as u8` gives it back).
    pub(crate) fn from_id(id: u8) -> Option<Self> {
        IDS.get(id as usize).copied()
    }

    /// Whether repeats of this request header are joined into one entry by commas, as Envoy does for the headers that
    /// it keeps in fixed slots.
    pub const fn joins_in_request(self) -> bool {
        JOINED_IN_REQUEST & bit(self as u8) != 0
    }

    /// Whether repeats of this response header are joined into one entry by commas.
    pub const fn joins_in_response(self) -> bool {
        JOINED_IN_RESPONSE & bit(self as u8) != 0
    }

    /// Whether this is a pseudo header (its name starts with a colon), which HTTP/1 does not write as a header line.
    pub const fn is_pseudo(self) -> bool {
        (self as u8) <= (Self::Protocol as u8)
    }
}

/// A lower-case header name, resolved once (when configuration is built) to a known id where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderName {
    /// One of the names that the proxy knows.
    Known(KnownHeader),
    /// Any other name, lower-case.
    Other(Box<str>),
}

impl HeaderName {
    /// Resolves a name of any case. Validity of the characters is not checked here; configuration validation does.
    pub fn new(name: &str) -> Self {
        let lower = name.to_ascii_lowercase();
        match KnownHeader::from_lower(lower.as_bytes()) {
            Some(known) => Self::Known(known),
            None => Self::Other(lower.into_boxed_str()),
        }
    }

    /// The lower-case name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(known) => known.as_str(),
            Self::Other(name) => name,
        }
    }
}

impl From<KnownHeader> for HeaderName {
    fn from(known: KnownHeader) -> Self {
        Self::Known(known)
    }
}

impl fmt::Display for HeaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_and_others_are_not() {
        for (id, name) in NAMES.iter().enumerate() {
            let found = KnownHeader::from_lower(name.as_bytes()).unwrap();
            assert_eq!(found as usize, id);
            assert_eq!(found.as_str(), *name);
        }
        assert_eq!(KnownHeader::from_lower(b"x-other"), None);
        assert_eq!(KnownHeader::from_lower(b""), None);
        assert_eq!(HeaderName::new("Content-Type"), HeaderName::Known(KnownHeader::ContentType));
        assert_eq!(HeaderName::new("X-Other").as_str(), "x-other");
    }
}
