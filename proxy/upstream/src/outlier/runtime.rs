//! What the runtime overrides of outlier detection: `outlier_detection.*`.

use std::time::Duration;

use dhow_runtime_config::{Current, RuntimeValues, Snapshot, with_current};

use super::{FailurePercentageConfig, OutlierConfig, SuccessRateConfig};

impl OutlierConfig {
    /// The settings in force now.
    pub(super) fn in_force(&self) -> Self {
        if Current::is_empty() {
            return *self;
        }
        with_current(|runtime| self.overridden(runtime))
    }

    fn overridden(&self, runtime: &Snapshot) -> Self {
        let number = |field: &str, configured: u32| {
            let value = runtime.number(&format!("outlier_detection.{field}"));
            value.map_or(configured, |value| u32::try_from(value).unwrap_or(u32::MAX))
        };
        let time = |field: &str, configured: Duration| {
            let value = runtime.number(&format!("outlier_detection.{field}"));
            value.map_or(configured, Duration::from_millis)
        };
        let Self {
            consecutive_5xx,
            enforcing_consecutive_5xx,
            consecutive_gateway_failure,
            enforcing_consecutive_gateway_failure,
            split_local_origin,
            consecutive_local_origin_failure,
            enforcing_consecutive_local_origin_failure,
            success_rate,
            failure_percentage,
            interval,
            base_ejection_time,
            max_ejection_time,
            max_ejection_time_jitter,
            max_ejection_percent,
            always_eject_one_host,
            uneject_on_active_success,
            detect_degraded,
        } = *self;
        Self {
            consecutive_5xx: number("consecutive_5xx", consecutive_5xx),
            enforcing_consecutive_5xx: number("enforcing_consecutive_5xx", enforcing_consecutive_5xx),
            consecutive_gateway_failure: number("consecutive_gateway_failure", consecutive_gateway_failure),
            enforcing_consecutive_gateway_failure: number(
                "enforcing_consecutive_gateway_failure",
                enforcing_consecutive_gateway_failure,
            ),
            split_local_origin,
            consecutive_local_origin_failure: number(
                "consecutive_local_origin_failure",
                consecutive_local_origin_failure,
            ),
            enforcing_consecutive_local_origin_failure: number(
                "enforcing_consecutive_local_origin_failure",
                enforcing_consecutive_local_origin_failure,
            ),
            success_rate: SuccessRateConfig {
                minimum_hosts: number("success_rate_minimum_hosts", success_rate.minimum_hosts),
                request_volume: number("success_rate_request_volume", success_rate.request_volume),
                stdev_factor: number("success_rate_stdev_factor", success_rate.stdev_factor),
                enforcing: number("enforcing_success_rate", success_rate.enforcing),
                enforcing_local_origin: number(
                    "enforcing_local_origin_success_rate",
                    success_rate.enforcing_local_origin,
                ),
            },
            failure_percentage: FailurePercentageConfig {
                threshold: number("failure_percentage_threshold", failure_percentage.threshold),
                minimum_hosts: number("failure_percentage_minimum_hosts", failure_percentage.minimum_hosts),
                request_volume: number(
                    "failure_percentage_request_volume",
                    failure_percentage.request_volume,
                ),
                enforcing: number("enforcing_failure_percentage", failure_percentage.enforcing),
                enforcing_local_origin: number(
                    "enforcing_failure_percentage_local_origin",
                    failure_percentage.enforcing_local_origin,
                ),
            },
            interval: time("interval_ms", interval),
            base_ejection_time: time("base_ejection_time_ms", base_ejection_time),
            max_ejection_time: time("max_ejection_time_ms", max_ejection_time),
            max_ejection_time_jitter: time("max_ejection_time_jitter_ms", max_ejection_time_jitter),
            max_ejection_percent: number("max_ejection_percent", max_ejection_percent),
            always_eject_one_host,
            uneject_on_active_success,
            detect_degraded,
        }
    }
}

/// A limit of failures in a row, which `outlier_detection.<field>` may override.
pub(super) fn streak_limit(key: &str, configured: u32) -> u32 {
    Current.number(key).map_or(configured, |value| u32::try_from(value).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use dhow_runtime_config::Layer;

    use super::*;

    #[test]
    fn what_the_runtime_does_not_say_stays() {
        let mut layer = Layer::new("l");
        layer.set("outlier_detection.consecutive_5xx", "2");
        layer.set("outlier_detection.base_ejection_time_ms", "700");
        layer.set("outlier_detection.failure_percentage_threshold", "40");
        let config = OutlierConfig::default();
        let overridden = config.overridden(&Snapshot::new(vec![layer]));
        let expected = OutlierConfig {
            consecutive_5xx: 2,
            base_ejection_time: Duration::from_millis(700),
            failure_percentage: FailurePercentageConfig { threshold: 40, ..config.failure_percentage },
            ..config
        };
        assert_eq!(overridden, expected);
    }
}
