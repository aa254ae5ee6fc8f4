//! `tcp.<stat_prefix>.*`.

use dhow_stats::stat_group;

stat_group! {
    /// What a TCP proxy counts, by Envoy's names.
    pub struct TcpStats {
        counters {
            downstream_cx_drain_close, downstream_cx_no_route, downstream_cx_overload_close,
            downstream_cx_rx_bytes_total, downstream_cx_total, downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total, downstream_flow_control_resumed_reading_total,
            early_data_received_count_total, idle_timeout, max_downstream_connection_duration,
            route_delayed_total, upstream_flush_total,
        }
        gauges { downstream_cx_rx_bytes_buffered, downstream_cx_tx_bytes_buffered, upstream_flush_active }
    }
}

stat_group! {
    /// What the router of tunnels counts, `tcp.<stat_prefix>.tcpproxy_tunneling.*`. Tunnels are opened without routes, so nothing
    /// is counted.
    pub struct TunnelingStats {
        counters {
            no_cluster, no_route, passthrough_internal_redirect_bad_location,
            passthrough_internal_redirect_no_route, passthrough_internal_redirect_predicate,
            passthrough_internal_redirect_too_many_redirects, passthrough_internal_redirect_unsafe_scheme,
            rq_direct_response, rq_overload_local_reply, rq_redirect, rq_reset_after_downstream_response_started,
            rq_total,
        }
    }
}
