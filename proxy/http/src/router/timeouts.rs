//! How long a request may take: route, `grpc-timeout` and `x-envoy-*` headers.

use std::time::Duration;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_routing::ForwardAction;

use super::hedge;
use crate::config::RouterConfig;

/// The time limits of one request; `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestTimeouts {
    /// From the end of the request to the end of the response, retries included.
    pub(super) global: Option<Duration>,
    /// For each attempt; not used when it is not shorter than the global one.
    pub(super) per_try: Option<Duration>,
    /// Time in which nothing moves in one attempt, until its response is there.
    pub(super) per_try_idle: Option<Duration>,
    /// How long the stream of an attempt may last, where the request says so; zero is for ever.
    pub(super) stream: Option<Duration>,
    /// Whether an attempt that runs out of its time goes on beside the next one: its time is no limit to upstream then.
    pub(super) hedging: bool,
}

impl RequestTimeouts {
    /// Reads the limits; headers that set them are consumed.
    pub(super) fn of(
        action: &ForwardAction,
        router: &RouterConfig,
        request: &mut HeaderMap,
        grpc: bool,
    ) -> Self {
        // A stream whose duration is limited has no other limit of the route.
        let mut global = action.timeout.filter(|_| !action.has_stream_duration);
        if let Some(max) = action.max_grpc_timeout.filter(|_| grpc && !action.has_stream_duration) {
            let asked = request.get_known(KnownHeader::GrpcTimeout).and_then(parse_grpc_timeout);
            let asked = asked.unwrap_or_default();
            let offset = action.grpc_timeout_offset.filter(|offset| *offset < asked).unwrap_or_default();
            let asked = asked - offset;
            let capped = !max.is_zero() && (asked.is_zero() || asked > max);
            global = Some(if capped { max } else { asked });
        }
        let expected = request.get_known(KnownHeader::XEnvoyExpectedRqTimeoutMs).and_then(parse_millis);
        match expected.filter(|_| router.respect_expected_rq_timeout) {
            Some(expected) => global = Some(expected),
            None => {
                if let Some(asked) = take_millis(request, KnownHeader::XEnvoyUpstreamRqTimeoutMs) {
                    global = Some(asked);
                }
            }
        }
        let mut per_try = action.retry_policy.as_ref().and_then(|policy| policy.per_try_timeout);
        if let Some(asked) = take_millis(request, KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs) {
            per_try = Some(asked);
        }
        let global = global.filter(|timeout| !timeout.is_zero());
        let per_try =
            per_try.filter(|per_try| !per_try.is_zero() && global.is_none_or(|global| *per_try < global));
        let per_try_idle = action.retry_policy.as_ref().and_then(|policy| policy.per_try_idle_timeout);
        let per_try_idle = per_try_idle.filter(|idle| !idle.is_zero());
        let stream = take_millis(request, KnownHeader::XEnvoyUpstreamStreamDurationMs);
        let hedging = hedge::wanted(action, request);
        Self { global, per_try, per_try_idle, stream, hedging }
    }

    /// What upstream is told to expect (`x-envoy-expected-rq-timeout-ms`), in milliseconds, `elapsed` since the limit
    /// began to count: the time of an attempt, but no more than what is left of the whole, and at least 1.
    pub(super) fn expected_millis(&self, elapsed: Duration) -> Option<u64> {
        let millis = |timeout: Duration| timeout.as_millis() as u64;
        // What elapsed counts whole milliseconds, so that parts of one are not missing from what is left.
        let remaining = self.global.map(|global| millis(global).saturating_sub(millis(elapsed)).max(1));
        match (self.per_try.filter(|_| !self.hedging).map(millis), remaining) {
            (Some(per_try), Some(remaining)) => Some(per_try.min(remaining)),
            (per_try, remaining) => per_try.or(remaining),
        }
    }
}

fn take_millis(request: &mut HeaderMap, name: KnownHeader) -> Option<Duration> {
    let millis = parse_millis(request.get_known(name)?);
    request.remove_known(name);
    millis
}

fn parse_millis(value: &[u8]) -> Option<Duration> {
    std::str::from_utf8(value).ok()?.parse().ok().map(Duration::from_millis)
}

/// `grpc-timeout`: up to eight digits and a unit.
pub(crate) fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Sets `grpc-timeout`, in the finest unit of milliseconds and coarser ones that needs no more than eight digits.
pub(crate) fn set_grpc_timeout(request: &mut HeaderMap, timeout: Duration) {
    const MOST: u128 = 99_999_999;
    let millis = timeout.as_millis();
    let units = [(1, 'm'), (1000, 'S'), (60_000, 'M'), (3_600_000, 'H')];
    let (amount, unit) = units
        .iter()
        .map(|(length, unit)| (millis / length, *unit))
        .find(|(amount, _)| *amount <= MOST)
        .unwrap_or((MOST, 'H'));
    request.set_known(KnownHeader::GrpcTimeout, format!("{amount}{unit}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_have_a_unit() {
        assert_eq!(parse_grpc_timeout(b"15S"), Some(Duration::from_secs(15)));
        assert_eq!(parse_grpc_timeout(b"250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_grpc_timeout(b"1H"), Some(Duration::from_secs(3600)));
        for bad in [&b""[..], b"S", b"15", b"123456789S", b"-1S"] {
            assert_eq!(parse_grpc_timeout(bad), None);
        }
    }

    #[test]
    fn grpc_timeouts_have_at_most_eight_digits() {
        let text = |timeout| {
            let mut request = HeaderMap::new();
            set_grpc_timeout(&mut request, timeout);
            String::from_utf8(request.get_known(KnownHeader::GrpcTimeout).unwrap().to_vec()).unwrap()
        };
        assert_eq!(text(Duration::ZERO), "0m");
        assert_eq!(text(Duration::from_secs(3)), "3000m");
        assert_eq!(text(Duration::from_millis(99_999_999)), "99999999m");
        assert_eq!(text(Duration::from_secs(100_000)), "100000S");
    }

    #[test]
    fn upstream_is_told_what_is_left() {
        let second = Duration::from_secs(1);
        let both = RequestTimeouts {
            global: Some(15 * second),
            per_try: Some(second),
            per_try_idle: None,
            stream: None,
            hedging: false,
        };
        assert_eq!(both.expected_millis(second), Some(1000));
        assert_eq!(both.expected_millis(Duration::from_millis(14_600)), Some(400));
        assert_eq!(both.expected_millis(20 * second), Some(1));
        assert_eq!(RequestTimeouts { global: None, ..both }.expected_millis(20 * second), Some(1000));
        assert_eq!(RequestTimeouts { hedging: true, ..both }.expected_millis(second), Some(14_000));
        assert_eq!(RequestTimeouts { hedging: true, global: None, ..both }.expected_millis(second), None);
        let global = RequestTimeouts {
            global: Some(15 * second),
            per_try: None,
            per_try_idle: None,
            stream: None,
            hedging: false,
        };
        assert_eq!(global.expected_millis(Duration::from_millis(55)), Some(14_945));
        assert_eq!(global.expected_millis(20 * second), Some(1));
        assert_eq!(
            RequestTimeouts { global: None, per_try: None, per_try_idle: None, stream: None, hedging: false }
                .expected_millis(second),
            None
        );
    }
}
