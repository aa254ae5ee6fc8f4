//! The runtime keys that override what the configuration says.

/// The keys of one configuration: Envoy's own unless it names others.
#[derive(Debug)]
pub(super) struct RuntimeKeys {
    pub(super) delay_percent: Box<str>,
    pub(super) abort_percent: Box<str>,
    /// Milliseconds.
    pub(super) delay_duration: Box<str>,
    pub(super) abort_http_status: Box<str>,
    pub(super) abort_grpc_status: Box<str>,
    pub(super) max_active_faults: Box<str>,
    pub(super) response_rate_limit_percent: Box<str>,
}

/// A key that has a variant of its own for each calling service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PerCaller {
    DelayPercent,
    AbortPercent,
    DelayDuration,
    AbortHttpStatus,
    AbortGrpcStatus,
}

impl PerCaller {
    const fn suffix(self) -> &'static str {
        match self {
            Self::DelayPercent => "delay.fixed_delay_percent",
            Self::AbortPercent => "abort.abort_percent",
            Self::DelayDuration => "delay.fixed_duration_ms",
            Self::AbortHttpStatus => "abort.http_status",
            Self::AbortGrpcStatus => "abort.grpc_status",
        }
    }

    /// The key for the requests of a service.
    pub(super) fn key_of(self, caller: &str) -> String {
        format!("fault.http.{caller}.{}", self.suffix())
    }
}

/// The configured key, or Envoy's.
pub(super) fn key_or(configured: String, default: &str) -> Box<str> {
    if configured.is_empty() { default.into() } else { configured.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_callers_have_their_name_in_them() {
        assert_eq!(PerCaller::AbortHttpStatus.key_of("web"), "fault.http.web.abort.http_status");
        assert_eq!(&*key_or(String::new(), "a"), "a");
        assert_eq!(&*key_or("b".into(), "a"), "b");
    }
}
