//! The names under `cluster.<name>.` and who counts them.

use std::borrow::Cow;
use std::sync::OnceLock;

use dhow_stats::{
    Counter, Histogram, ResponseCodeStats, ResponseCodeTable, Scope, TextReadout, Unit, stat_group,
};
use dhow_tls::TlsStats;

use crate::codec_stats::{Http1CodecStats, Http2CodecStats};
use crate::lb::{HashTable, Outcome, SubsetEvent, ZoneEvent};
use crate::tracked_stats::{TrackedStats, Tracking};

stat_group! {
    /// Traffic of one cluster. The connection figures are counted here; `upstream_rq_*`, retries, time-outs, flow control
    /// and bytes by the router, the pools and the TCP proxy. `upstream_rq_completed` is here so that it exists from the start;
    /// it is counted with the response codes.
    pub struct TrafficStats {
        counters {
            bind_errors,
            lb_healthy_panic,
            lb_local_cluster_not_ok,
            lb_recalculate_zone_structures,
            lb_subsets_created,
            lb_subsets_fallback,
            lb_subsets_fallback_panic,
            lb_subsets_removed,
            lb_subsets_selected,
            lb_zone_cluster_too_small,
            lb_zone_no_capacity_left,
            lb_zone_routing_all_directly,
            lb_zone_routing_cross_zone,
            lb_zone_routing_sampled,
            original_dst_host_invalid,
            retry_or_shadow_abandoned,
            assignment_stale,
            assignment_timeout_received,
            assignment_use_cached,
            upstream_cx_close_notify,
            upstream_cx_connect_attempts_exceeded,
            upstream_cx_connect_fail,
            upstream_cx_connect_timeout,
            upstream_cx_connect_with_0_rtt,
            upstream_cx_destroy,
            upstream_cx_destroy_local,
            upstream_cx_destroy_local_with_active_rq,
            upstream_cx_destroy_remote,
            upstream_cx_destroy_remote_with_active_rq,
            upstream_cx_destroy_with_active_rq,
            upstream_cx_http1_total,
            upstream_cx_http2_total,
            upstream_cx_http3_total,
            upstream_cx_idle_timeout,
            upstream_cx_max_duration_reached,
            upstream_cx_max_requests,
            upstream_cx_none_healthy,
            upstream_cx_overflow,
            upstream_cx_pool_overflow,
            upstream_cx_preconnect_skipped,
            upstream_cx_protocol_error,
            upstream_cx_rx_bytes_total,
            upstream_cx_total,
            upstream_cx_tx_bytes_total,
            upstream_flow_control_backed_up_total,
            upstream_flow_control_drained_total,
            upstream_flow_control_paused_reading_total,
            upstream_flow_control_resumed_reading_total,
            upstream_http3_broken,
            upstream_internal_redirect_failed_total,
            upstream_internal_redirect_succeeded_total,
            upstream_rq_0rtt,
            upstream_rq_active_overflow,
            upstream_rq_cancelled,
            upstream_rq_completed,
            upstream_rq_maintenance_mode,
            upstream_rq_max_duration_reached,
            upstream_rq_pending_failure_eject,
            upstream_rq_pending_overflow,
            upstream_rq_pending_total,
            upstream_rq_per_try_idle_timeout,
            upstream_rq_per_try_timeout,
            upstream_rq_retry,
            upstream_rq_retry_backoff_exponential,
            upstream_rq_retry_backoff_ratelimited,
            upstream_rq_retry_limit_exceeded,
            upstream_rq_retry_overflow,
            upstream_rq_retry_success,
            upstream_rq_rx_reset,
            upstream_rq_rx_reset_no_error,
            upstream_rq_timeout,
            upstream_rq_total,
            upstream_rq_tx_reset,
        }
        gauges {
            default_cx_open = "circuit_breakers.default.cx_open",
            default_rq_pending_open = "circuit_breakers.default.rq_pending_open",
            default_rq_open = "circuit_breakers.default.rq_open",
            default_rq_retry_open = "circuit_breakers.default.rq_retry_open",
            default_cx_pool_open = "circuit_breakers.default.cx_pool_open",
            high_cx_open = "circuit_breakers.high.cx_open",
            high_rq_pending_open = "circuit_breakers.high.rq_pending_open",
            high_rq_open = "circuit_breakers.high.rq_open",
            high_rq_retry_open = "circuit_breakers.high.rq_retry_open",
            high_cx_pool_open = "circuit_breakers.high.cx_pool_open",
            lb_subsets_active,
            upstream_cx_active,
            upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            upstream_queue_overloaded,
            upstream_rq_active,
            upstream_rq_pending_active,
        }
        histograms {
            upstream_cx_connect_ms: Milliseconds,
            upstream_cx_length_ms: Milliseconds,
            upstream_rq_per_cx: Unspecified,
        }
    }
}

stat_group! {
    /// What the main thread counts of every cluster as it finds the hosts. Apart from [`TrafficStats`], because a thread has
    /// memory for the groups that it counts in.
    pub struct DiscoveryStats {
        counters {
            default_total_match_count = "default.total_match_count",
            membership_change,
            update_attempt,
            update_empty,
            update_failure,
            update_no_rebuild,
            update_success,
        }
        gauges {
            max_host_weight,
            membership_degraded,
            membership_excluded,
            membership_healthy,
            membership_total,
            version,
            warming_state,
        }
    }
}

stat_group! {
    /// The gauges `circuit_breakers.<priority>.remaining_*`, where they are kept (`track_remaining`).
    pub(crate) struct RemainingStats {
        gauges {
            remaining_cx,
            remaining_pending,
            remaining_rq,
            remaining_retries,
            remaining_cx_pools,
        }
    }
}

stat_group! {
    /// What an EDS cluster counts about its subscription beside the `update_*` of [`DiscoveryStats`].
    pub struct EdsStats {
        counters { init_fetch_timeout, update_rejected }
        gauges { update_time }
        histograms { update_duration: Milliseconds }
    }
}

/// All stats of one cluster.
#[derive(Debug)]
pub struct ClusterStats {
    traffic: TrafficStats,
    /// What the main thread counts.
    pub discovery: DiscoveryStats,
    eds: Option<Box<(EdsStats, TextReadout)>>,
    tls: Option<Box<TlsStats>>,
    tracked: Option<Box<TrackedStats>>,
    http1: OnceLock<Http1CodecStats>,
    http2: OnceLock<Http2CodecStats>,
    /// `upstream_rq_<code>`, `upstream_rq_<n>xx`, `upstream_rq_completed`.
    codes: ResponseCodeTable,
    /// The same under `external.`: requests from outside the mesh.
    external_codes: ResponseCodeTable,
    /// The same under `internal.`: requests from an internal address.
    internal_codes: ResponseCodeTable,
    /// The same under `canary.`: responses of canary hosts (`x-envoy-upstream-canary`, endpoint metadata).
    canary_codes: ResponseCodeTable,
    /// The same under `retry.`: responses that led to a retry.
    retry_codes: ResponseCodeTable,
    request_time: OnceLock<Histogram>,
    internal_request_time: OnceLock<Histogram>,
    external_request_time: OnceLock<Histogram>,
    canary_request_time: OnceLock<Histogram>,
    /// By zone, when that of this proxy is known.
    zones: OnceLock<Box<Zones>>,
}

/// `zone.<own zone>.*`.
#[derive(Debug)]
struct Zones {
    /// `node.locality.zone`.
    own: Box<str>,
    first: OnceLock<Box<ZoneStats>>,
}

/// `zone.<own zone>.<zone of the host>.*`; the zones of a cluster are a list that only grows.
#[derive(Debug)]
struct ZoneStats {
    zone: Box<str>,
    codes: ResponseCodeStats,
    time: Histogram,
    _scope: Scope,
    next: OnceLock<Box<ZoneStats>>,
}

/// What is special about a response, for the names it is counted under beside those of its cluster.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseTraits<'a> {
    /// Whether the request came from an internal address (`internal.`, else `external.`).
    pub internal: bool,
    /// Whether it came from a canary (`canary.`).
    pub canary: bool,
    /// The zone of the host (`zone.<own>.<host>.`); empty when it has none.
    pub zone: &'a str,
    /// `x-envoy-upstream-alt-stat-name` of the request.
    pub alternative: Option<&'a str>,
}

impl ClusterStats {
    /// The stats in `scope`, which is `cluster.<alt_stat_name or name>`; `eds` adds those of a subscription,
    /// `secure` those of TLS, `tracking` those of `track_cluster_stats`.
    pub(crate) fn new(scope: &Scope, eds: bool, secure: bool, tracking: Tracking) -> Self {
        Self {
            traffic: scope.group(),
            discovery: scope.group(),
            eds: eds.then(|| Box::new((scope.group(), scope.text_readout("version_text")))),
            tls: secure.then(|| Box::new(TlsStats::of_cluster(scope))),
            tracked: TrackedStats::of(scope, tracking),
            http1: OnceLock::new(),
            http2: OnceLock::new(),
            codes: ResponseCodeTable::default(),
            external_codes: ResponseCodeTable::default(),
            internal_codes: ResponseCodeTable::default(),
            canary_codes: ResponseCodeTable::default(),
            retry_codes: ResponseCodeTable::default(),
            request_time: OnceLock::new(),
            internal_request_time: OnceLock::new(),
            external_request_time: OnceLock::new(),
            canary_request_time: OnceLock::new(),
            zones: OnceLock::new(),
        }
    }

    /// The traffic, to be held by what counts it.
    pub(crate) fn traffic(&self) -> &TrafficStats {
        &self.traffic
    }

    /// `http1.*`, from the first HTTP/1 connection on.
    pub fn http1(&self) -> &Http1CodecStats {
        self.http1.get_or_init(|| self.traffic.scope().group())
    }

    /// `http2.*`, from the first HTTP/2 connection on.
    pub fn http2(&self) -> &Http2CodecStats {
        self.http2.get_or_init(|| self.traffic.scope().group())
    }

    /// Says in which zone this proxy is, so that responses are counted by zone too.
    pub(crate) fn set_own_zone(&self, zone: &str) {
        if !zone.is_empty() {
            self.zones.get_or_init(|| Box::new(Zones { own: zone.into(), first: OnceLock::new() }));
        }
    }

    /// The stats of responses from `zone`, when both zones are known.
    fn zone(&self, zone: &str) -> Option<&ZoneStats> {
        let Zones { own, first } = &**self.zones.get().filter(|_| !zone.is_empty())?;
        let mut cell = first;
        loop {
            let stats = cell.get_or_init(|| {
                let scope = self.traffic.scope();
                let scope = scope.scope_verbatim(&format!("zone.{own}.{}", zone.trim_end_matches('.')));
                Box::new(ZoneStats {
                    zone: zone.into(),
                    codes: scope.response_codes("upstream_rq"),
                    time: scope.histogram("upstream_rq_time", Unit::Milliseconds),
                    _scope: scope,
                    next: OnceLock::new(),
                })
            });
            if *stats.zone == *zone {
                return Some(stats);
            }
            cell = &stats.next;
        }
    }

    /// Counts a response under its code, its class and `completed`, in the cluster and wherever its traits say.
    pub fn charge_response(&self, status: u16, traits: &ResponseTraits<'_>) {
        let ResponseTraits { internal, canary, zone, alternative } = *traits;
        let scope = self.traffic.scope();
        self.codes.charge(status, scope, "upstream_rq");
        match internal {
            true => self.internal_codes.charge(status, scope, "internal.upstream_rq"),
            false => self.external_codes.charge(status, scope, "external.upstream_rq"),
        }
        if canary {
            self.canary_codes.charge(status, scope, "canary.upstream_rq");
        }
        if let Some(zone) = self.zone(zone) {
            zone.codes.charge(status);
        }
        if let Some(prefix) = alternative {
            self.charge_alternative(status, traits, prefix);
        }
    }

    /// Counts a response that led to a retry (`retry.upstream_rq_<code>`).
    pub fn charge_retry(&self, status: u16) {
        self.retry_codes.charge(status, self.traffic.scope(), "retry.upstream_rq");
    }

    /// Names that requests choose are looked up each time: they are rare, and there is no end to them.
    fn charge_alternative(&self, status: u16, traits: &ResponseTraits<'_>, prefix: &str) {
        let scope = self.traffic.scope();
        let prefix = prefix.trim_end_matches('.');
        for group in self.alternative_groups(traits) {
            scope.counter_verbatim(format!("{prefix}.{group}upstream_rq_completed")).inc();
            scope.counter_verbatim(format!("{prefix}.{group}upstream_rq_{}xx", status / 100)).inc();
            scope.counter_verbatim(format!("{prefix}.{group}upstream_rq_{status}")).inc();
        }
    }

    /// The groups under the name that a request chose, each with a dot at its end.
    fn alternative_groups(&self, traits: &ResponseTraits<'_>) -> impl Iterator<Item = Cow<'static, str>> {
        let ResponseTraits { internal, canary, zone, alternative: _ } = *traits;
        let origin = if internal { "internal." } else { "external." };
        let zones = self.zones.get().filter(|_| !zone.is_empty());
        let zones = zones.map(|zones| format!("zone.{}.{}.", zones.own, zone.trim_end_matches('.')).into());
        let fixed = [Some(""), Some(origin), canary.then_some("canary.")];
        fixed.into_iter().flatten().map(Cow::Borrowed).chain(zones)
    }

    /// The subscription of an EDS cluster, and the text readout `version_text`.
    pub fn eds(&self) -> Option<&(EdsStats, TextReadout)> {
        self.eds.as_deref()
    }

    /// The histograms of `track_cluster_stats`, where there are any.
    pub fn tracked(&self) -> Option<&TrackedStats> {
        self.tracked.as_deref()
    }

    /// `ssl.*`, when connections to hosts can be encrypted.
    pub fn tls(&self) -> Option<&TlsStats> {
        self.tls.as_deref()
    }

    /// The gauge of hosts that `single_host_per_subset` leaves out, which exists where there are subsets.
    pub(crate) fn set_single_host_duplicates(&self, hosts: u64) {
        self.traffic.scope().gauge("lb_subsets_single_host_per_subset_duplicate").set(hosts);
    }

    /// The counter of an entry of `transport_socket_matches` is there before it counts.
    pub(crate) fn declare_socket_match(&self, entry: &str) {
        self.traffic.scope().counter(format!("{entry}.total_match_count"));
    }

    /// Counts a host that got the transport socket `entry` (`<entry>.total_match_count`).
    pub(crate) fn count_socket_match(&self, entry: &str) {
        match entry {
            "default" => self.discovery.default_total_match_count().inc(),
            entry => self.traffic.scope().counter(format!("{entry}.total_match_count")).inc(),
        }
    }

    /// Counts a PROXY protocol header whose extensions were too long to be sent.
    pub(crate) fn count_long_tlvs(&self) {
        self.long_tlvs().inc();
    }

    /// `upstream.proxyprotocol.v2_tlvs_exceed_max_length`, which exists where PROXY protocol headers are sent.
    pub(crate) fn long_tlvs(&self) -> Counter {
        self.traffic.scope().counter("upstream.proxyprotocol.v2_tlvs_exceed_max_length")
    }

    /// Counts what was special about a choice of a host.
    pub(crate) fn count_choice(&self, outcome: Outcome) {
        let Outcome { panicked, zone, subset } = outcome;
        if panicked {
            self.traffic.lb_healthy_panic().inc();
        }
        match zone {
            ZoneEvent::None => {}
            ZoneEvent::Direct => self.traffic.lb_zone_routing_all_directly().inc(),
            ZoneEvent::Sampled => self.traffic.lb_zone_routing_sampled().inc(),
            ZoneEvent::CrossZone => self.traffic.lb_zone_routing_cross_zone().inc(),
            ZoneEvent::NoCapacity => {
                self.traffic.lb_zone_routing_cross_zone().inc();
                self.traffic.lb_zone_no_capacity_left().inc();
            }
            ZoneEvent::LocalClusterNotOk => self.traffic.lb_local_cluster_not_ok().inc(),
        }
        match subset {
            SubsetEvent::None => {}
            SubsetEvent::Selected => self.traffic.lb_subsets_selected().inc(),
            SubsetEvent::Fallback => self.traffic.lb_subsets_fallback().inc(),
            SubsetEvent::FallbackPanic => self.traffic.lb_subsets_fallback_panic().inc(),
        }
    }

    /// The gauges of consistent hashing.
    pub(crate) fn describe_table(&self, table: &HashTable) {
        let scope = self.traffic.scope();
        let (least, most) = table.entries_per_host();
        match table.is_ring() {
            true => {
                scope.gauge("ring_hash_lb.size").set(table.len() as u64);
                scope.gauge("ring_hash_lb.min_hashes_per_host").set(least);
                scope.gauge("ring_hash_lb.max_hashes_per_host").set(most);
            }
            false => {
                scope.gauge("maglev_lb.min_entries_per_host").set(least);
                scope.gauge("maglev_lb.max_entries_per_host").set(most);
            }
        }
    }

    /// Records the time of a completed request in milliseconds: `upstream_rq_time`, and the same wherever the traits
    /// say. The histograms exist from their first use on.
    pub fn record_request_time(&self, millis: u64, traits: &ResponseTraits<'_>) {
        let ResponseTraits { internal, canary, zone, alternative } = *traits;
        let scope = self.traffic.scope();
        let record = |cell: &OnceLock<Histogram>, name: &'static str| {
            cell.get_or_init(|| scope.histogram(name, Unit::Milliseconds)).record(millis);
        };
        record(&self.request_time, "upstream_rq_time");
        match internal {
            true => record(&self.internal_request_time, "internal.upstream_rq_time"),
            false => record(&self.external_request_time, "external.upstream_rq_time"),
        }
        if canary {
            record(&self.canary_request_time, "canary.upstream_rq_time");
        }
        if let Some(zone) = self.zone(zone) {
            zone.time.record(millis);
        }
        if let Some(prefix) = alternative {
            let prefix = prefix.trim_end_matches('.');
            for group in self.alternative_groups(traits) {
                let name = format!("{prefix}.{group}upstream_rq_time");
                scope.histogram_verbatim(name, Unit::Milliseconds).record(millis);
            }
        }
    }
}

/// The fixed names are called directly: `stats.upstream_rq_total().inc()`.
impl std::ops::Deref for ClusterStats {
    type Target = TrafficStats;

    fn deref(&self) -> &TrafficStats {
        &self.traffic
    }
}
