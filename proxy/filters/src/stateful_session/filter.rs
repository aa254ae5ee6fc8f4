//! Asks for the host of the session.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dhow_http::HeaderMap;
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, OverrideHost, StreamInfo};
use dhow_routing::FilterOverride;

use super::config::{RouteSettings, Settings};
use crate::route_config::route_configs;

dhow_stats::stat_group! {
    /// `http.<stat_prefix>.stateful_session.<stat_prefix>.*`.
    pub(super) struct SessionStats {
        counters { failed_closed, failed_open, no_session, routed }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) settings: Arc<Settings>,
    pub(super) stats: Option<SessionStats>,
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let (settings, stats) = match route_configs::<RouteSettings>(levels).next() {
            // Routes count nothing, as in Envoy.
            Some(of_route) => (of_route.0.clone()?, None),
            None => (self.settings.clone(), self.stats.clone()),
        };
        settings.state.as_ref()?;
        Some(Box::new(Filter { settings, stats, active: false, asked: None }))
    }
}

/// The filter of one stream.
struct Filter {
    settings: Arc<Settings>,
    stats: Option<SessionStats>,
    /// The request's path has sessions.
    active: bool,
    /// The host that the request brought.
    asked: Option<String>,
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let Some(state) = &self.settings.state else { return HeadersVerdict::Continue };
        self.active = state.concerns(request);
        if self.active {
            self.asked = state.take_host(request, now());
            stream.info.override_host = self.asked.as_deref().map(|address| {
                let Settings { strict, strict_status: status, .. } = *self.settings;
                Box::new(OverrideHost { address: address.into(), strict, status })
            });
        }
        HeadersVerdict::Continue
    }

    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        if let (true, Some(state)) = (self.active, &self.settings.state)
            && let Some(host) = stream.info.upstream.host.as_deref()
        {
            state.give_host(host, self.asked.as_deref(), response, now());
        }
        HeadersVerdict::Continue
    }

    fn on_stream_complete(&mut self, info: &StreamInfo) {
        let Some(stats) = &self.stats else { return };
        let host = info.upstream.host.as_deref();
        if !self.active {
            stats.no_session().inc();
        } else if host.is_some() && host == self.asked.as_deref() {
            stats.routed().inc();
        } else if self.settings.strict {
            stats.failed_closed().inc();
        } else {
            stats.failed_open().inc();
        }
    }
}
