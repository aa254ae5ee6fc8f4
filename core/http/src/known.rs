//! Header names that the proxy itself reads or writes, resolved to a small id once at parse time, so that a lookup on
//! the request path compares one byte instead of a string.

use std::fmt;

use crate::control_prefix;

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
        const LINE_STARTS: &[LineStart] = &[$(LineStart::new(concat!($name, ": ")),)*];
        const IDS: &[KnownHeader] = &[$(KnownHeader::$variant,)*];
    };
}

/// What a line of HTTP/1 begins with: a name and what separates it from the value.
pub(crate) struct LineStart {
    room: [u8; Self::ROOM],
    len: u8,
}

impl LineStart {
    /// The longest one, in steps that copy well.
    const ROOM: usize = 48;

    const fn new(text: &str) -> Self {
        let text = text.as_bytes();
        let mut room = [0; Self::ROOM];
        let mut at = 0;
        while at < text.len() {
            room[at] = text[at];
            at += 1;
        }
        Self { room, len: at as u8 }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    /// The same with whatever stands behind it, always as many bytes.
    #[inline]
    pub(crate) fn room(&self) -> &[u8; Self::ROOM] {
        &self.room
    }
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
    slot_of(n, name[0] as usize, name[n - 1] as usize, name[n / 2] as usize)
}

/// [`slot`] of a name by its length and its first, last and middle byte.
const fn slot_of(len: usize, first: usize, last: usize, middle: usize) -> usize {
    (len.wrapping_mul(37) ^ first.wrapping_mul(5) ^ last.wrapping_mul(131) ^ middle.wrapping_mul(17))
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

const _: () = assert!(NAMES.len() <= 128, "one bit of a set for each name");

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

/// Words of eight bytes that hold any known name.
const NAME_WORDS: usize = 5;

/// A known name as words of eight bytes, to be compared with a name of any case.
struct Spelled {
    len: usize,
    words: [u64; NAME_WORDS],
    /// The bits that tell upper from lower case: one for each letter.
    case: [u64; NAME_WORDS],
    /// The bits that a name of any case has in common with this one: all of its bytes but those above.
    fixed: [u64; NAME_WORDS],
}

const SPELLED: [Spelled; NAMES.len()] = {
    let mut all =
        [const { Spelled { len: 0, words: [0; NAME_WORDS], case: [0; NAME_WORDS], fixed: [0; NAME_WORDS] } };
            NAMES.len()];
    let mut id = 0;
    while id < NAMES.len() {
        let name = NAMES[id].as_bytes();
        assert!(name.len() <= 8 * NAME_WORDS, "a word more is needed for the longest name");
        all[id].len = name.len();
        let mut at = 0;
        while at < name.len() {
            let (word, shift) = (at / 8, 8 * (at % 8));
            let case = if name[at].is_ascii_alphabetic() { CASE_BIT } else { 0 };
            all[id].words[word] |= (name[at] as u64) << shift;
            all[id].case[word] |= (case as u64) << shift;
            all[id].fixed[word] |= (!case as u64) << shift;
            at += 1;
        }
        id += 1;
    }
    all
};

/// What a letter in lower case has and the same in upper case has not.
const CASE_BIT: u8 = 0x20;

/// Some of the known headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet([u64; 2]);

impl KnownSet {
    /// The set of these names.
    pub const fn of(names: &[KnownHeader]) -> Self {
        let mut set = Self([0; 2]);
        let mut i = 0;
        while i < names.len() {
            set.insert(names[i] as u8);
            i += 1;
        }
        set
    }

    /// The word that has the bit of an id, and the bit.
    #[inline]
    const fn place(id: u8) -> (usize, u64) {
        ((id / 64) as usize % 2, 1 << (id % 64))
    }

    #[inline]
    pub(crate) const fn contains(self, id: u8) -> bool {
        let (word, bit) = Self::place(id);
        self.0[word] & bit != 0
    }

    #[inline]
    pub(crate) const fn insert(&mut self, id: u8) {
        let (word, bit) = Self::place(id);
        self.0[word] |= bit;
    }

    #[inline]
    pub(crate) const fn remove(&mut self, id: u8) {
        let (word, bit) = Self::place(id);
        self.0[word] &= !bit;
    }

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0[0] | self.0[1] == 0
    }

    /// What both have.
    #[inline]
    pub(crate) const fn and(self, other: Self) -> Self {
        Self([self.0[0] & other.0[0], self.0[1] & other.0[1]])
    }

    /// What this one has and the other has not.
    #[inline]
    pub(crate) const fn without(self, other: Self) -> Self {
        Self([self.0[0] & !other.0[0], self.0[1] & !other.0[1]])
    }

    const fn or(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }
}

const JOINED_IN_BOTH: KnownSet = KnownSet::of(&[
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

const JOINED_IN_REQUEST: KnownSet = JOINED_IN_BOTH.or(KnownSet::of(&[
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
]));

const JOINED_IN_RESPONSE: KnownSet = JOINED_IN_BOTH.or(KnownSet::of(&[
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
]));

impl KnownHeader {
    /// The lower-case name.
    #[inline]
    pub fn as_str(self) -> &'static str {
        match self.renamed() {
            Some(name) => name,
            None => self.plain_name(),
        }
    }

    /// The name where control headers begin with `x-envoy`.
    pub(crate) const fn plain_name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// Its name if control headers begin otherwise and it is one.
    #[inline]
    fn renamed(self) -> Option<&'static str> {
        let at = self.control_index()?;
        control_prefix::names().map(|names| names[at])
    }

    /// Its place among the control headers, if it is one.
    #[inline]
    const fn control_index(self) -> Option<usize> {
        let at = (self as usize).wrapping_sub(Self::XEnvoyAttemptCount as usize);
        if at < Self::CONTROL_HEADERS.len() { Some(at) } else { None }
    }

    /// The headers whose names begin with `x-envoy`, or with what `Bootstrap.header_prefix` says instead.
    pub(crate) const CONTROL_HEADERS: &[Self] = {
        let (_, behind) = IDS.split_at(Self::XEnvoyAttemptCount as usize);
        behind
            .split_at(1 + Self::XEnvoyUpstreamStreamDurationMs as usize - Self::XEnvoyAttemptCount as usize)
            .0
    };

    /// The name with what stands between it and a value on a line of HTTP/1. None of a name that is not known before the
    /// configuration is read.
    #[inline]
    pub(crate) fn line_start(self) -> Option<&'static LineStart> {
        match self.renamed() {
            Some(_) => None,
            None => Some(&LINE_STARTS[self as usize]),
        }
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
                return control_prefix::find(name);
            }
            if is_same(NAMES[id as usize].as_bytes(), name) {
                let known = IDS[id as usize];
                return known.renamed().is_none().then_some(known);
            }
            at = (at + 1) % TABLE_SIZE;
        }
    }

    /// Finds the name of any case that is the first `len` bytes, and puts it into lower case. `None`, and nothing changed, for
    /// other names, and for one so close to the end of the bytes that it cannot be looked at in words.
    pub(crate) fn take_name(bytes: &mut [u8], len: usize) -> Option<Self> {
        let words = len.div_ceil(8);
        let room = bytes.get_mut(..8 * words)?;
        let lower = |at: usize| usize::from(room[at] | CASE_BIT);
        let mut at = slot_of(len, lower(0), lower(len - 1), lower(len / 2));
        let (room, _) = room.as_chunks_mut::<8>();
        loop {
            let id = TABLE[at];
            if id == EMPTY {
                return control_prefix::take(&mut bytes[..len]);
            }
            let spelled = &SPELLED[id as usize];
            let same = |(at, chunk): (usize, &[u8; 8])| {
                (u64::from_le_bytes(*chunk) ^ spelled.words[at]) & spelled.fixed[at] == 0
            };
            if spelled.len == len && room.iter().take(NAME_WORDS).enumerate().all(same) {
                let known = IDS[id as usize];
                if known.renamed().is_some() {
                    return None;
                }
                for (chunk, case) in room.iter_mut().zip(&spelled.case) {
                    *chunk = (u64::from_le_bytes(*chunk) | case).to_le_bytes();
                }
                return Some(known);
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
        JOINED_IN_REQUEST.contains(self as u8)
    }

    /// Whether repeats of this response header are joined into one entry by commas.
    pub const fn joins_in_response(self) -> bool {
        JOINED_IN_RESPONSE.contains(self as u8)
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

    /// The control header of this name, written behind the prefix of all of them: `drop-overload` for `x-envoy-drop-overload`.
    pub fn control(name: &str) -> Self {
        Self::new(&format!("{}-{name}", control_prefix::get()))
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

    #[test]
    fn known_names_of_any_case_are_taken_and_what_stands_behind_stays() {
        for name in NAMES {
            for spelling in [name.to_string(), name.to_ascii_uppercase()] {
                let mut line = format!("{spelling}: Value Of Some Length\r\n\r\n").into_bytes();
                assert_eq!(
                    KnownHeader::take_name(&mut line, name.len()),
                    KnownHeader::from_lower(name.as_bytes())
                );
                assert_eq!(line, format!("{name}: Value Of Some Length\r\n\r\n").into_bytes());
            }
            // One bit that differs is another name, and stays as it is.
            for at in 0..name.len() {
                for bit in (0..8).filter(|bit| *bit != 5 || !name.as_bytes()[at].is_ascii_alphabetic()) {
                    let mut line = format!("{name}: value of some length\r\n\r\n").into_bytes();
                    line[at] ^= 1 << bit;
                    let before = line.clone();
                    let found = KnownHeader::take_name(&mut line, name.len());
                    assert_eq!((found, line), (None, before), "{name}, bit {bit} of byte {at}");
                }
            }
        }
        assert_eq!(KnownHeader::take_name(&mut b"te: x".to_vec(), 2), None);
    }
}
