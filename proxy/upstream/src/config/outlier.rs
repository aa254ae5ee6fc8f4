//! `outlier_detection` -> when a host is ejected.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::OutlierDetection;

use super::fields::{duration, number, refuse};
use crate::outlier::{FailurePercentageConfig, OutlierConfig, SuccessRateConfig};

/// Reads the message.
pub(crate) fn lower(message: OutlierDetection, path: &FieldPath) -> Result<OutlierConfig, ConfigError> {
    let OutlierDetection {
        consecutive_5xx,
        interval,
        base_ejection_time,
        max_ejection_percent,
        enforcing_consecutive_5xx,
        enforcing_success_rate,
        success_rate_minimum_hosts,
        success_rate_request_volume,
        success_rate_stdev_factor,
        consecutive_gateway_failure,
        enforcing_consecutive_gateway_failure,
        split_external_local_origin_errors,
        consecutive_local_origin_failure,
        enforcing_consecutive_local_origin_failure,
        enforcing_local_origin_success_rate,
        failure_percentage_threshold,
        enforcing_failure_percentage,
        enforcing_failure_percentage_local_origin,
        failure_percentage_minimum_hosts,
        failure_percentage_request_volume,
        max_ejection_time,
        max_ejection_time_jitter,
        successful_active_health_check_uneject_host,
        monitors,
        always_eject_one_host,
        detect_degraded_hosts,
    } = message;
    refuse(&monitors, || path.field("monitors"))?;
    let defaults = OutlierConfig::default();
    let (success, failure) = (defaults.success_rate, defaults.failure_percentage);
    let base = duration(base_ejection_time, || path.field("base_ejection_time"))?
        .unwrap_or(defaults.base_ejection_time);
    let longest = duration(max_ejection_time, || path.field("max_ejection_time"))?
        .unwrap_or(Duration::from_secs(300).max(base));
    if longest < base {
        let reason = "outlier detector's max_ejection_time cannot be smaller than base_ejection_time";
        return Err(ConfigError::new(path.field("max_ejection_time"), reason));
    }
    let percent = |value, field: &str, default| match number(value) {
        Some(percent) if percent > 100 => {
            Err(ConfigError::new(path.field(field), "value must be less than or equal to 100"))
        }
        Some(percent) => Ok(percent),
        None => Ok(default),
    };
    Ok(OutlierConfig {
        consecutive_5xx: number(consecutive_5xx).unwrap_or(defaults.consecutive_5xx),
        enforcing_consecutive_5xx: percent(enforcing_consecutive_5xx, "enforcing_consecutive_5xx", 100)?,
        consecutive_gateway_failure: number(consecutive_gateway_failure)
            .unwrap_or(defaults.consecutive_gateway_failure),
        enforcing_consecutive_gateway_failure: percent(
            enforcing_consecutive_gateway_failure,
            "enforcing_consecutive_gateway_failure",
            0,
        )?,
        split_local_origin: split_external_local_origin_errors,
        consecutive_local_origin_failure: number(consecutive_local_origin_failure)
            .unwrap_or(defaults.consecutive_local_origin_failure),
        enforcing_consecutive_local_origin_failure: percent(
            enforcing_consecutive_local_origin_failure,
            "enforcing_consecutive_local_origin_failure",
            100,
        )?,
        success_rate: SuccessRateConfig {
            minimum_hosts: number(success_rate_minimum_hosts).unwrap_or(success.minimum_hosts),
            request_volume: number(success_rate_request_volume).unwrap_or(success.request_volume),
            stdev_factor: number(success_rate_stdev_factor).unwrap_or(success.stdev_factor),
            enforcing: percent(enforcing_success_rate, "enforcing_success_rate", success.enforcing)?,
            enforcing_local_origin: percent(
                enforcing_local_origin_success_rate,
                "enforcing_local_origin_success_rate",
                success.enforcing_local_origin,
            )?,
        },
        failure_percentage: FailurePercentageConfig {
            threshold: percent(
                failure_percentage_threshold,
                "failure_percentage_threshold",
                failure.threshold,
            )?,
            minimum_hosts: number(failure_percentage_minimum_hosts).unwrap_or(failure.minimum_hosts),
            request_volume: number(failure_percentage_request_volume).unwrap_or(failure.request_volume),
            enforcing: percent(
                enforcing_failure_percentage,
                "enforcing_failure_percentage",
                failure.enforcing,
            )?,
            enforcing_local_origin: percent(
                enforcing_failure_percentage_local_origin,
                "enforcing_failure_percentage_local_origin",
                failure.enforcing_local_origin,
            )?,
        },
        interval: duration(interval, || path.field("interval"))?.unwrap_or(defaults.interval),
        base_ejection_time: base,
        max_ejection_time: longest,
        max_ejection_percent: percent(max_ejection_percent, "max_ejection_percent", 10)?,
        max_ejection_time_jitter: duration(max_ejection_time_jitter, || {
            path.field("max_ejection_time_jitter")
        })?
        .unwrap_or_default(),
        always_eject_one_host: always_eject_one_host.is_some_and(|value| value.value),
        uneject_on_active_success: successful_active_health_check_uneject_host
            .is_none_or(|value| value.value),
        detect_degraded: detect_degraded_hosts.is_some_and(|value| value.value),
    })
}
