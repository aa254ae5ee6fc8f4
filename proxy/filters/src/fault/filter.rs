//! Injects the faults.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_matching::all_match;
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply, Resumption};
use dhow_routing::FilterOverride;

use super::config::{Abort, AbortStatus, Delay, Settings, number};
use crate::lots::lots;
use crate::route_config::route_configs;

dhow_stats::stat_group! {
    /// `http.<stat_prefix>.fault.*`.
    pub(super) struct FaultStats {
        counters { aborts_injected, delays_injected, faults_overflow, response_rl_injected }
        gauges { active_faults }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    pub(super) settings: Arc<Settings>,
    pub(super) stats: FaultStats,
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let of_route = route_configs(levels).next();
        let settings = of_route.unwrap_or_else(|| self.settings.clone());
        if !settings.has_faults() {
            return None;
        }
        Some(Box::new(Filter { settings, stats: self.stats.clone(), active: OnceCell::new() }))
    }
}

/// The filter of one stream.
struct Filter {
    settings: Arc<Settings>,
    stats: FaultStats,
    active: OnceCell<ActiveFault>,
}

/// A stream under a fault, counted in `active_faults` until the stream ends.
struct ActiveFault(FaultStats);

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.active_faults().dec();
    }
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        if !self.concerns(request, stream) {
            return HeadersVerdict::Continue;
        }
        let mut lots = lots("fault", stream);
        let (delay_lot, abort_lot) = (lots.next_u64(), lots.next_u64());
        let delay = self.settings.delay.as_ref().filter(|delay| delay.share.hits(request, delay_lot));
        let delay = delay.and_then(|delay| duration(delay, request)).filter(|_| self.activate());
        let abort = self.settings.abort.as_ref().filter(|abort| abort.share.hits(request, abort_lot));
        let abort = abort.and_then(|abort| self.plan(abort, request));
        if let Some(delay) = delay {
            self.stats.delays_injected().inc();
            if let Some(cluster) = self.downstream_cluster(request) {
                self.stats.scope().counter(format!("{cluster}.delays_injected")).inc();
            }
            stream.info.flag(ResponseFlag::DelayInjected);
            return HeadersVerdict::Wait(Box::pin(async move {
                tokio::time::sleep(delay).await;
                abort.map_or(Resumption::Continue, |abort| Resumption::LocalReply(abort.inject()))
            }));
        }
        match abort.filter(|_| self.activate()) {
            Some(abort) => HeadersVerdict::LocalReply(abort.inject()),
            None => HeadersVerdict::Continue,
        }
    }
}

impl Filter {
    /// Whether the configuration is about this request.
    fn concerns(&self, request: &HeaderMap, stream: &FilterStream<'_>) -> bool {
        let Settings { upstream_cluster, downstream_nodes, headers, .. } = &*self.settings;
        if !upstream_cluster.is_empty() {
            let cluster = stream.route().and_then(|route| route.cluster(request));
            if cluster != Some(&**upstream_cluster) {
                return false;
            }
        }
        if !downstream_nodes.is_empty() {
            let node = request.get_known(KnownHeader::XEnvoyDownstreamServiceNode);
            if !downstream_nodes.iter().any(|wanted| node == Some(wanted.as_bytes())) {
                return false;
            }
        }
        all_match(headers, request)
    }

    /// Takes one of the `max_active_faults`, once per stream; tells whether the stream has one.
    fn activate(&self) -> bool {
        if self.active.get().is_some() {
            return true;
        }
        let active_faults = self.stats.active_faults();
        // Without a limit the sum over all workers is not asked for.
        if self.settings.max_active_faults.is_some_and(|max| active_faults.value() >= max.into()) {
            self.stats.faults_overflow().inc();
            return false;
        }
        active_faults.inc();
        self.active.set(ActiveFault(self.stats.clone())).is_ok()
    }

    /// The abort of this request, not counted yet; none when its headers should give a status and do not.
    fn plan(&self, abort: &Abort, request: &HeaderMap) -> Option<PlannedAbort> {
        let (status, grpc_status) = abort.status.of(request)?;
        let body = abort.body.as_bytes().to_vec();
        let mut reply = LocalReply::new(status, body, "fault_filter_abort").flag(ResponseFlag::FaultInjected);
        reply.grpc_status = grpc_status;
        let cluster = self.downstream_cluster(request);
        Some(PlannedAbort { reply, stats: self.stats.clone(), downstream_cluster: cluster })
    }

    /// The name under which the faults of the calling service are counted besides.
    fn downstream_cluster(&self, request: &HeaderMap) -> Option<String> {
        if !self.settings.counts_downstream_clusters {
            return None;
        }
        let name = request.get_known(KnownHeader::XEnvoyDownstreamServiceCluster)?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }
}

/// An abort that may still be preceded by a delay.
struct PlannedAbort {
    reply: LocalReply,
    stats: FaultStats,
    downstream_cluster: Option<String>,
}

impl PlannedAbort {
    /// Counts it and gives the reply.
    fn inject(self) -> LocalReply {
        self.stats.aborts_injected().inc();
        if let Some(cluster) = self.downstream_cluster {
            self.stats.scope().counter(format!("{cluster}.aborts_injected")).inc();
        }
        self.reply
    }
}

impl AbortStatus {
    /// HTTP status, and gRPC status when it is not the one that the HTTP status stands for.
    fn of(&self, request: &HeaderMap) -> Option<(u16, Option<u8>)> {
        match *self {
            Self::Http(status) => Some((status, None)),
            Self::Grpc(status) => Some((200, Some(status))),
            Self::Headers => {
                let asked = |name| number(request.get_str(name)?);
                if let Some(status @ 200..600) = asked("x-envoy-fault-abort-request") {
                    return Some((status as u16, None));
                }
                let status = asked("x-envoy-fault-abort-grpc-request")?;
                Some((200, Some(u8::try_from(status).ok()?)))
            }
        }
    }
}

/// How long to wait; none when the request's headers should say it and do not.
fn duration(delay: &Delay, request: &HeaderMap) -> Option<Duration> {
    let asked = || number(request.get_str("x-envoy-fault-delay-request")?).filter(|&millis| millis > 0);
    delay.fixed.or_else(|| asked().map(|millis| Duration::from_millis(millis.into())))
}
