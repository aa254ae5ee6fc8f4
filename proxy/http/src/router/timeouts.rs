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
    /// Whether an attempt that runs out of its time goes on beside the next one: its time is no limit to upstream then.
    pub(super) hedging: bool,
}

impl RequestTimeouts {
    /// Reads the limits; headers that set them are consumed.
    pub(super) fn of(action: &ForwardAction, router: &RouterConfig, request: &mut HeaderMap) -> Self {
        let mut global = action.timeout;
        if let Some(max) = action.grpc_timeout_header_max
            && let Some(asked) = request.get_known(KnownHeader::GrpcTimeout).and_then(parse_grpc_timeout)
        {
            let offset = action.grpc_timeout_header_offset.unwrap_or_default();
            let asked = if asked > offset { asked - offset } else { asked };
            global = Some(if max.is_zero() { asked } else { asked.min(max) });
        }
        if router.respect_expected_rq_timeout
            && let Some(expected) = take_millis(request, KnownHeader::XEnvoyExpectedRqTimeoutMs)
        {
            global = Some(expected);
        }
        if let Some(asked) = take_millis(request, KnownHeader::XEnvoyUpstreamRqTimeoutMs) {
            global = Some(asked);
        }
        let mut per_try = action.retry_policy.as_ref().and_then(|policy| policy.per_try_timeout);
        if let Some(asked) = take_millis(request, KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs) {
            per_try = Some(asked);
        }
        let global = global.filter(|timeout| !timeout.is_zero());
        let per_try =
            per_try.filter(|per_try| !per_try.is_zero() && global.is_none_or(|global| *per_try < global));
        let per_try_idle = action.retry_policy.as_ref().and_then(|policy| policy.per_try_idle_timeout);
        let hedging = hedge::wanted(action, request);
        Self { global, per_try, per_try_idle: per_try_idle.filter(|idle| !idle.is_zero()), hedging }
    }

    /// What upstream is told to expect (`x-envoy-expected-rq-timeout-ms`), `elapsed` since the limit began to count.
    pub(super) fn expected_millis(&self, elapsed: Duration) -> Option<u64> {
        let remaining = self.global.map(|global| global.saturating_sub(elapsed).as_millis().max(1) as u64);
        match self.per_try.filter(|_| !self.hedging) {
            Some(per_try) => Some(per_try.as_millis() as u64),
            None => remaining,
        }
    }
}

fn take_millis(request: &mut HeaderMap, name: KnownHeader) -> Option<Duration> {
    let millis = std::str::from_utf8(request.get_known(name)?).ok().and_then(|text| text.parse().ok());
    request.remove_known(name);
    millis.map(Duration::from_millis)
}

/// `grpc-timeout`: up to eight digits and a unit.
fn parse_grpc_timeout(value: &[u8]) -> Option<Duration> {
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
    fn upstream_is_told_what_is_left() {
        let second = Duration::from_secs(1);
        let both = RequestTimeouts {
            global: Some(15 * second),
            per_try: Some(second),
            per_try_idle: None,
            hedging: false,
        };
        assert_eq!(both.expected_millis(second), Some(1000));
        let global =
            RequestTimeouts { global: Some(15 * second), per_try: None, per_try_idle: None, hedging: false };
        assert_eq!(global.expected_millis(Duration::from_millis(55)), Some(14_945));
        assert_eq!(global.expected_millis(20 * second), Some(1));
        assert_eq!(
            RequestTimeouts { global: None, per_try: None, per_try_idle: None, hedging: false }
                .expected_millis(second),
            None
        );
    }
}
