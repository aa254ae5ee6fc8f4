//! `listener.<address>.*` and `listener_manager.*`.

use dhow_stats::{Store, stat_group};

stat_group! {
    /// What one listener counts.
    pub struct ListenerStats {
        counters {
            downstream_cx_destroy, downstream_cx_overflow, downstream_cx_overload_reject, downstream_cx_total,
            downstream_cx_transport_socket_connect_timeout, downstream_global_cx_overflow,
            downstream_listener_filter_error, downstream_listener_filter_remote_close, downstream_pre_cx_timeout,
            no_filter_chain_match,
        }
        gauges { downstream_cx_active, downstream_pre_cx_active }
        histograms { connections_accepted_per_socket_event: Unspecified, downstream_cx_length_ms: Milliseconds }
    }
}

stat_group! {
    /// What listeners of the configuration count besides and the admin interface does not. Filters do not come by themselves, so
    /// none is missing.
    pub(crate) struct DiscoveryStats {
        counters { extension_config_missing, network_extension_config_missing }
    }
}

stat_group! {
    /// What the listener manager counts.
    pub(crate) struct ManagerStats {
        counters {
            listener_added, listener_create_failure, listener_create_success, listener_in_place_updated,
            listener_modified, listener_removed, listener_stopped,
        }
        gauges {
            total_filter_chains_draining, total_listeners_active, total_listeners_draining, total_listeners_warming,
            workers_started,
        }
    }
}

stat_group! {
    /// The figures of a listener on one thread: `listener.<address>.worker_<n>.*`.
    pub(crate) struct WorkerListenerStats {
        counters { downstream_cx_total }
        gauges { downstream_cx_active }
    }
}

impl WorkerListenerStats {
    pub(crate) fn new(store: &Store, stat_prefix: &str, thread: &str) -> Self {
        store.scope(&format!("listener.{stat_prefix}.{thread}.")).group()
    }
}
