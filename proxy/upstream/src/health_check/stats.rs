//! `cluster.<name>.health_check.*`.

use dhow_stats::stat_group;

stat_group! {
    /// Counted by the checks of one cluster. `degraded` only grows while hosts stay, as in Envoy.
    pub(crate) struct HealthCheckStats {
        counters { attempt, failure, network_failure, passive_failure, success, verify_cluster }
        gauges { degraded, healthy }
    }
}
