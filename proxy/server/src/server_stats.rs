//! `server.*`.

use std::time::Duration;

use dhow_proxy_admin::ServerState;
use dhow_stats::{Store, stat_group};
use dhow_tls::days_until;

stat_group! {
    /// What the process says about itself.
    pub(crate) struct ServerStats {
        counters { debug_assertion_failures, dropped_stat_flushes, dynamic_unknown_fields, envoy_bug_failures, envoy_notifications, static_unknown_fields, wip_protos }
        gauges {
            fips_mode = "compilation_settings.fips_mode", concurrency, days_until_first_cert_expiring,
            hot_restart_epoch, hot_restart_generation, live, memory_allocated, memory_heap_size,
            memory_physical_size, parent_connections, seconds_until_first_ocsp_response_expiring, state,
            stats_recent_lookups, total_connections, uptime, version,
        }
        histograms { initialization_time_ms: Milliseconds }
    }
}

stat_group! {
    /// What never happens here and is counted by Envoy: no stream is reset for its memory, and workers run on any processor.
    pub(crate) struct IdleStats {
        counters { reset_high_memory_stream = "envoy.overload_actions.reset_high_memory_stream.count" }
        gauges { workers_pinned = "listener_manager.workers_pinned" }
        histograms { refresh_interval_delay = "overload.refresh_interval_delay": Milliseconds }
    }
}

impl ServerStats {
    /// The stats, with the version that the bootstrap wants to be told. What stays zero is told, too, where Envoy sets it.
    pub(crate) fn new(store: &Store, version: Option<u64>) -> Self {
        let stats: Self = store.scope("server.").group();
        stats.version().set(version.unwrap_or(0));
        for zero in [stats.fips_mode(), stats.stats_recent_lookups(), stats.total_connections()] {
            zero.set(0);
        }
        stats.dynamic_unknown_fields().mark_used();
        stats.static_unknown_fields().mark_used();
        stats.wip_protos().mark_used();
        stats
    }

    /// Tells for how long all certificates are good: the first expires at `end`, in seconds since 1970 as is `now`.
    pub(crate) fn refresh_certificates(&self, end: Option<i64>, now: i64) {
        let days = end.map_or(u32::MAX.into(), |end| days_until(end, now));
        self.days_until_first_cert_expiring().set(days);
    }

    /// Brings the gauges up to date.
    pub(crate) fn refresh(&self, uptime: Duration, state: ServerState, workers: usize, epoch: u64) {
        self.uptime().set(uptime.as_secs());
        self.concurrency().set(workers as u64);
        self.hot_restart_epoch().set(epoch);
        self.live().set(u64::from(state == ServerState::Live));
        self.state().set(match state {
            ServerState::Live => 0,
            ServerState::Draining => 1,
            ServerState::PreInitializing => 2,
            ServerState::Initializing => 3,
        });
        let resident = resident_bytes();
        self.memory_allocated().set(resident);
        self.memory_heap_size().set(resident);
        self.memory_physical_size().set(resident);
    }
}

/// Resident memory of the process in bytes, from the kernel; 0 when it does not tell.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
