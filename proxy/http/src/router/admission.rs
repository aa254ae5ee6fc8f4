//! Requests that the router turns away before it looks for a host.

use dhow_base::ResponseFlag;
use dhow_http::KnownHeader;
use dhow_proxy_api::LocalReply;
use dhow_proxy_upstream::WorkerCluster;
use dhow_routing::{Fraction, RetryOn};
use dhow_runtime_config::with_current;

use crate::config::{RouterConfig, StrictHeader};
use crate::stream::Exchange;

impl StrictHeader {
    fn is_valid(self, value: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(value) else { return false };
        match self {
            Self::UpstreamRqTimeoutMs | Self::UpstreamRqPerTryTimeoutMs | Self::MaxRetries => {
                text.trim().parse::<u64>().is_ok()
            }
            Self::RetryOn => RetryOn::knows_all(text, false),
            Self::RetryGrpcOn => RetryOn::knows_all(text, true),
        }
    }

    fn known(self) -> KnownHeader {
        match self {
            Self::UpstreamRqTimeoutMs => KnownHeader::XEnvoyUpstreamRqTimeoutMs,
            Self::UpstreamRqPerTryTimeoutMs => KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs,
            Self::MaxRetries => KnownHeader::XEnvoyMaxRetries,
            Self::RetryOn => KnownHeader::XEnvoyRetryOn,
            Self::RetryGrpcOn => KnownHeader::XEnvoyRetryGrpcOn,
        }
    }
}

impl Exchange {
    /// `strict_check_headers`: what a client says in them must be understood.
    pub(super) fn check_strictly(&self, router: &RouterConfig) -> Result<(), LocalReply> {
        for header in router.strict_headers.iter() {
            let name = header.known();
            let Some(value) = self.request.get_known(name).filter(|value| !header.is_valid(value)) else {
                continue;
            };
            let name = name.as_str();
            let body = format!("invalid header '{name}' with value '{}'", String::from_utf8_lossy(value));
            let details = format!("request_headers_failed_strict_check{{{name}}}");
            return Err(LocalReply::new(400, body.into_bytes(), details)
                .flag(ResponseFlag::InvalidEnvoyRequestHeaders));
        }
        Ok(())
    }

    /// Runtime `upstream.maintenance_mode.<cluster>`: the percentage of requests that are turned away.
    pub(super) fn refuse_in_maintenance(&self, cluster: &WorkerCluster) -> Result<(), LocalReply> {
        let refused = with_current(|runtime| {
            if runtime.keys().len() == 0 {
                return false;
            }
            let key = format!("upstream.maintenance_mode.{}", cluster.info().name);
            let never = Fraction { numerator: 0, denominator: 100 };
            runtime.feature_enabled(&key, never, self.manager.worker.random())
        });
        if !refused {
            return Ok(());
        }
        cluster.info().stats.upstream_rq_maintenance_mode().inc();
        Err(LocalReply::new(503, &b"maintenance mode"[..], "maintenance_mode")
            .flag(ResponseFlag::UpstreamOverflow)
            .header(KnownHeader::XEnvoyOverloaded, &b"true"[..]))
    }

    /// Whether a time-out is answered with success (`x-envoy-upstream-rq-timeout-alt-response`, which is consumed).
    pub(super) fn takes_timeout_as_success(&mut self) -> bool {
        let asked = self.request.contains_known(KnownHeader::XEnvoyUpstreamRqTimeoutAltResponse);
        if asked {
            self.request.remove_known(KnownHeader::XEnvoyUpstreamRqTimeoutAltResponse);
        }
        asked
    }
}
