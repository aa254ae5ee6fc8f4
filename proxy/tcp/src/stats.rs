//! `tcp.<stat_prefix>.*`.

use dhow_stats::stat_group;

stat_group! {
    /// What a TCP proxy counts, by Envoy's names.
    pub struct TcpStats {
        counters {
            downstream_cx_no_route, downstream_cx_rx_bytes_total, downstream_cx_total, downstream_cx_tx_bytes_total,
            downstream_flow_control_paused_reading_total, downstream_flow_control_resumed_reading_total,
            early_data_received_count_total, idle_timeout, max_downstream_connection_duration,
            on_demand_cluster_attempt, on_demand_cluster_missing, on_demand_cluster_success,
            on_demand_cluster_timeout, upstream_flush_total,
        }
        gauges { downstream_cx_rx_bytes_buffered, downstream_cx_tx_bytes_buffered, upstream_flush_active }
    }
}
