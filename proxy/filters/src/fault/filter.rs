//! Injects the faults.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_matching::all_match;
use dhow_proxy_api::{
    BodyPart, DataVerdict, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply,
    Resumption, Watches,
};
use dhow_routing::{FilterOverride, RuntimeValues};

use super::config::{Abort, AbortStatus, Settings, number};
use super::runtime_keys::PerCaller;
use super::throttle::{SLICE, Throttle};
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
    /// Where dynamic metadata of the filter is.
    pub(super) name: Arc<str>,
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
        let stats = self.stats.clone();
        let name = self.name.clone();
        Some(Box::new(Filter { name, settings, stats, active: OnceCell::new(), throttle: None }))
    }
}

/// The filter of one stream.
struct Filter {
    name: Arc<str>,
    settings: Arc<Settings>,
    stats: FaultStats,
    active: OnceCell<ActiveFault>,
    /// Slows the response down.
    throttle: Option<Throttle>,
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
        let (delay_lot, abort_lot, rate_lot) = (lots.next_u64(), lots.next_u64(), lots.next_u64());
        let caller = Caller::of(request);
        let runtime = stream.runtime;
        self.throttle = self.throttle_of(request, rate_lot, stream);
        let delay = self.settings.delay.as_ref().and_then(|delay| {
            let keys = &self.settings.keys;
            let key = caller.key(PerCaller::DelayPercent, &keys.delay_percent);
            delay.share.hits(request, delay_lot, &key, runtime).then_some(())?;
            caller.duration(delay.duration(request)?, &keys.delay_duration, runtime)
        });
        let delay = delay.filter(|_| self.activate(runtime));
        let abort = self.settings.abort.as_ref().filter(|abort| {
            let key = caller.key(PerCaller::AbortPercent, &self.settings.keys.abort_percent);
            abort.share.hits(request, abort_lot, &key, runtime)
        });
        let abort = abort.and_then(|abort| self.plan(abort, request, &caller, runtime));
        if let Some(delay) = delay {
            self.stats.delays_injected().inc();
            if let Some(cluster) = self.downstream_cluster(request) {
                self.stats
                    .scope()
                    .counter_verbatim(format!("{}.delays_injected", cluster.trim_end_matches('.')))
                    .inc();
            }
            stream.info.flag(ResponseFlag::DelayInjected);
            stream.info.dynamic_metadata.merge(&self.name, &self.settings.metadata);
            return HeadersVerdict::Wait(Box::pin(async move {
                tokio::time::sleep(delay).await;
                abort.map_or(Resumption::Continue, |abort| Resumption::LocalReply(abort.inject()))
            }));
        }
        match abort.filter(|_| self.activate(runtime)) {
            Some(abort) => {
                stream.info.dynamic_metadata.merge(&self.name, &self.settings.metadata);
                HeadersVerdict::LocalReply(abort.inject())
            }
            None => HeadersVerdict::Continue,
        }
    }

    fn watches(&self) -> Watches {
        if self.throttle.is_some() { Watches::RESPONSE } else { Watches::NOTHING }
    }

    fn encode_data(
        &mut self,
        _response: &mut HeaderMap,
        part: BodyPart<'_>,
        _stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        let Some(throttle) = &mut self.throttle else { return DataVerdict::Continue };
        if throttle.split(part.held, part.data, Instant::now()) {
            return DataVerdict::Pace(Box::pin(tokio::time::sleep(SLICE)));
        }
        DataVerdict::Continue
    }

    fn renew(&mut self) -> bool {
        self.active.take();
        self.throttle = None;
        true
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

    /// What slows the response down, if anything does.
    fn throttle_of(&self, request: &HeaderMap, lot: u64, stream: &FilterStream<'_>) -> Option<Throttle> {
        let limit = self.settings.rate_limit.as_ref()?;
        let key = &self.settings.keys.response_rate_limit_percent;
        let hits = limit.share.hits(request, lot, key, stream.runtime);
        let rate = limit.rate(request).filter(|_| hits && self.activate(stream.runtime))?;
        self.stats.response_rl_injected().inc();
        Some(Throttle::new(rate, Instant::now()))
    }

    /// Takes one of the `max_active_faults`, once per stream; tells whether the stream has one.
    fn activate(&self, runtime: &dyn RuntimeValues) -> bool {
        if self.active.get().is_some() {
            return true;
        }
        let active_faults = self.stats.active_faults();
        let max = runtime.number(&self.settings.keys.max_active_faults);
        // Without a limit the sum over all workers is not asked for.
        if max
            .or(self.settings.max_active_faults.map(u64::from))
            .is_some_and(|max| active_faults.value() >= max)
        {
            self.stats.faults_overflow().inc();
            return false;
        }
        active_faults.inc();
        self.active.set(ActiveFault(self.stats.clone())).is_ok()
    }

    /// The abort of this request, not counted yet; none when its headers should give a status and do not.
    fn plan(
        &self,
        abort: &Abort,
        request: &HeaderMap,
        caller: &Caller<'_>,
        runtime: &dyn RuntimeValues,
    ) -> Option<PlannedAbort> {
        let keys = &self.settings.keys;
        let (status, grpc_status) = match abort.status.of(request)? {
            (_, Some(grpc)) => {
                let key = (PerCaller::AbortGrpcStatus, &*keys.abort_grpc_status);
                let status = caller.number(key, grpc.into(), runtime);
                (200, Some(status as u32))
            }
            (http, None) => {
                let key = (PerCaller::AbortHttpStatus, &*keys.abort_http_status);
                (u16::try_from(caller.number(key, http.into(), runtime)).ok()?, None)
            }
        };
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

/// The service that calls, for which runtime keys may say something else.
struct Caller<'a>(Option<Cow<'a, str>>);

impl<'a> Caller<'a> {
    fn of(request: &'a HeaderMap) -> Self {
        let name = request.get_known(KnownHeader::XEnvoyDownstreamServiceCluster);
        Self(name.filter(|name| !name.is_empty()).map(String::from_utf8_lossy))
    }

    /// The key of a share: the caller's own, or the configured one for callers without a name.
    fn key<'k>(&self, per_caller: PerCaller, configured: &'k str) -> Cow<'k, str> {
        match &self.0 {
            Some(name) => per_caller.key_of(name).into(),
            None => configured.into(),
        }
    }

    /// A number: the default, unless the configured key or the caller's own says another one.
    fn number(
        &self,
        (per_caller, configured): (PerCaller, &str),
        default: u64,
        runtime: &dyn RuntimeValues,
    ) -> u64 {
        let own = self.0.as_ref().and_then(|name| runtime.number(&per_caller.key_of(name)));
        own.or_else(|| runtime.number(configured)).unwrap_or(default)
    }

    /// A delay; none when it is zero.
    fn duration(&self, default: Duration, configured: &str, runtime: &dyn RuntimeValues) -> Option<Duration> {
        let default = u64::try_from(default.as_millis()).unwrap_or(u64::MAX);
        let millis = self.number((PerCaller::DelayDuration, configured), default, runtime);
        (millis > 0).then(|| Duration::from_millis(millis))
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
            self.stats
                .scope()
                .counter_verbatim(format!("{}.aborts_injected", cluster.trim_end_matches('.')))
                .inc();
        }
        self.reply
    }
}

impl AbortStatus {
    /// HTTP status, and gRPC status when it is not the one that the HTTP status stands for.
    fn of(&self, request: &HeaderMap) -> Option<(u16, Option<u32>)> {
        match self {
            Self::Http(status) => Some((*status, None)),
            Self::Grpc(status) => Some((200, Some(*status))),
            Self::Headers { http, grpc } => {
                let asked = |name| number(request.get(name)?);
                if let Some(status @ 200..600) = asked(http) {
                    return Some((status as u16, None));
                }
                // A status is 32 bits wide; what does not fit loses its upper ones, as in Envoy.
                Some((200, Some(asked(grpc)? as u32)))
            }
        }
    }
}
