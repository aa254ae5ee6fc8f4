//! The names under `cluster.<name>.` and who counts them.

use std::sync::OnceLock;

use dhow_stats::{Counter, Histogram, ResponseCodeStats, Scope, TextReadout, Unit, stat_group};
use dhow_tls::TlsStats;

use crate::codec_stats::{Http1CodecStats, Http2CodecStats};
use crate::lb::{HashTable, Outcome, SubsetEvent, ZoneEvent};

stat_group! {
    /// Traffic of one cluster. The connection figures are counted here; `upstream_rq_*`, retries, time-outs, flow control
    /// and bytes by the router, the pools and the TCP proxy.
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
            membership_change,
            original_dst_host_invalid,
            retry_or_shadow_abandoned,
            assignment_stale,
            assignment_timeout_received,
            assignment_use_cached,
            update_attempt,
            update_empty,
            update_failure,
            update_no_rebuild,
            update_success,
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
            lb_subsets_active,
            max_host_weight,
            membership_degraded,
            membership_excluded,
            membership_healthy,
            membership_total,
            upstream_cx_active,
            upstream_cx_rx_bytes_buffered,
            upstream_cx_tx_bytes_buffered,
            upstream_queue_overloaded,
            upstream_rq_active,
            upstream_rq_pending_active,
            version,
            warming_state,
        }
        histograms {
            upstream_cx_connect_ms: Milliseconds,
            upstream_cx_length_ms: Milliseconds,
            upstream_rq_per_cx: Unspecified,
        }
    }
}

stat_group! {
    /// Times of upstream requests, beside the response codes; Envoy has them once a request completed.
    pub struct RequestTimeStats {
        histograms { upstream_rq_time: Milliseconds }
    }
}

stat_group! {
    /// What an EDS cluster counts about its subscription beside the `update_*` of [`TrafficStats`].
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
    completed: Counter,
    eds: Option<(EdsStats, TextReadout)>,
    tls: Option<TlsStats>,
    http1: OnceLock<Http1CodecStats>,
    http2: OnceLock<Http2CodecStats>,
    /// `upstream_rq_<code>`, `upstream_rq_<n>xx`, `upstream_rq_completed`.
    pub response_codes: ResponseCodeStats,
    /// The same under `external.`: requests from outside the mesh.
    pub external_response_codes: ResponseCodeStats,
    /// The same under `internal.`: requests from an internal address.
    pub internal_response_codes: ResponseCodeStats,
    /// The same under `canary.`: responses of canary hosts (`x-envoy-upstream-canary`, endpoint metadata).
    pub canary_response_codes: ResponseCodeStats,
    /// The same under `retry.`: responses that led to a retry.
    pub retry_response_codes: ResponseCodeStats,
    request_time: OnceLock<RequestTimeStats>,
    internal_request_time: OnceLock<RequestTimeStats>,
    external_request_time: OnceLock<RequestTimeStats>,
    canary_request_time: OnceLock<RequestTimeStats>,
    /// `node.locality.zone`, when it is known.
    own_zone: OnceLock<Box<str>>,
    zones: OnceLock<Box<ZoneStats>>,
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
    /// `secure` those of TLS.
    pub fn new(scope: &Scope, eds: bool, secure: bool) -> Self {
        let codes = |prefix: &str| scope.scope(prefix).response_codes("upstream_rq");
        let traffic: TrafficStats = scope.group();
        scope.counter("default.total_match_count");
        Self {
            traffic,
            completed: scope.counter("upstream_rq_completed"),
            eds: eds.then(|| (scope.group(), scope.text_readout("version_text"))),
            tls: secure.then(|| TlsStats::of_cluster(scope)),
            http1: OnceLock::new(),
            http2: OnceLock::new(),
            response_codes: scope.response_codes("upstream_rq"),
            external_response_codes: codes("external"),
            internal_response_codes: codes("internal"),
            canary_response_codes: codes("canary"),
            retry_response_codes: codes("retry"),
            request_time: OnceLock::new(),
            internal_request_time: OnceLock::new(),
            external_request_time: OnceLock::new(),
            canary_request_time: OnceLock::new(),
            own_zone: OnceLock::new(),
            zones: OnceLock::new(),
        }
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
            self.own_zone.get_or_init(|| zone.into());
        }
    }

    /// The stats of responses from `zone`, when both zones are known.
    fn zone(&self, zone: &str) -> Option<&ZoneStats> {
        let own = self.own_zone.get().filter(|_| !zone.is_empty())?;
        let mut cell = &self.zones;
        loop {
            let stats = cell.get_or_init(|| {
                let scope = self.traffic.scope().scope(&format!("zone.{own}.{zone}"));
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
        self.response_codes.charge(status);
        let by_origin = if internal { &self.internal_response_codes } else { &self.external_response_codes };
        by_origin.charge(status);
        if canary {
            self.canary_response_codes.charge(status);
        }
        if let Some(zone) = self.zone(zone) {
            zone.codes.charge(status);
        }
        if let Some(prefix) = alternative {
            self.charge_alternative(status, prefix, internal, canary);
        }
    }

    /// Names that requests choose are looked up each time: they are rare, and there is no end to them.
    fn charge_alternative(&self, status: u16, prefix: &str, internal: bool, canary: bool) {
        let scope = self.traffic.scope();
        for group in alternative_groups(internal, canary) {
            scope.counter(format!("{prefix}.{group}upstream_rq_completed")).inc();
            scope.counter(format!("{prefix}.{group}upstream_rq_{}xx", status / 100)).inc();
            scope.counter(format!("{prefix}.{group}upstream_rq_{status}")).inc();
        }
    }

    /// Requests that got a complete response, by any code.
    pub fn completed(&self) -> Counter {
        self.completed
    }

    /// The subscription of an EDS cluster, and the text readout `version_text`.
    pub fn eds(&self) -> Option<&(EdsStats, TextReadout)> {
        self.eds.as_ref()
    }

    /// `ssl.*`, when connections to hosts can be encrypted.
    pub fn tls(&self) -> Option<&TlsStats> {
        self.tls.as_ref()
    }

    /// The gauge of hosts that `single_host_per_subset` leaves out, which exists where there are subsets.
    pub(crate) fn set_single_host_duplicates(&self, hosts: u64) {
        self.traffic.scope().gauge("lb_subsets_single_host_per_subset_duplicate").set(hosts);
    }

    /// Counts a host that got the transport socket `entry` (`<entry>.total_match_count`).
    pub(crate) fn count_socket_match(&self, entry: &str) {
        self.traffic.scope().counter(format!("{entry}.total_match_count")).inc();
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

    /// The counter of a circuit breaker by its name.
    pub(crate) fn overflow(&self, name: &str) -> Counter {
        match name {
            "upstream_cx_overflow" => self.traffic.upstream_cx_overflow(),
            "upstream_rq_pending_overflow" => self.traffic.upstream_rq_pending_overflow(),
            "upstream_rq_active_overflow" => self.traffic.upstream_rq_active_overflow(),
            "upstream_rq_retry_overflow" => self.traffic.upstream_rq_retry_overflow(),
            _ => self.traffic.upstream_cx_pool_overflow(),
        }
    }

    /// Records the time of a completed request in milliseconds: `upstream_rq_time`, and the same wherever the traits
    /// say. The histograms exist from their first use on.
    pub fn record_request_time(&self, millis: u64, traits: &ResponseTraits<'_>) {
        let ResponseTraits { internal, canary, zone, alternative } = *traits;
        let scope = self.traffic.scope();
        let all = self.request_time.get_or_init(|| scope.group());
        all.upstream_rq_time().record(millis);
        let (cell, origin) = match internal {
            true => (&self.internal_request_time, "internal"),
            false => (&self.external_request_time, "external"),
        };
        cell.get_or_init(|| scope.scope(origin).group()).upstream_rq_time().record(millis);
        if canary {
            let canary = self.canary_request_time.get_or_init(|| scope.scope("canary").group());
            canary.upstream_rq_time().record(millis);
        }
        if let Some(zone) = self.zone(zone) {
            zone.time.record(millis);
        }
        if let Some(prefix) = alternative {
            for group in alternative_groups(internal, canary) {
                let name = format!("{prefix}.{group}upstream_rq_time");
                scope.histogram(name, Unit::Milliseconds).record(millis);
            }
        }
    }
}

/// The groups under the name that a request chose.
fn alternative_groups(internal: bool, canary: bool) -> impl Iterator<Item = &'static str> {
    let origin = if internal { "internal." } else { "external." };
    [Some(""), Some(origin), canary.then_some("canary.")].into_iter().flatten()
}

/// The fixed names are called directly: `stats.upstream_rq_total().inc()`.
impl std::ops::Deref for ClusterStats {
    type Target = TrafficStats;

    fn deref(&self) -> &TrafficStats {
        &self.traffic
    }
}
