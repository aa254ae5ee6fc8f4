//! `outlier_detection` -> when a host is ejected.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::OutlierDetection;

use super::fields::{Notes, duration, number};
use crate::outlier::OutlierConfig;

/// Consecutive failures are honoured; the statistical modes are warned about when they are asked for.
pub(crate) fn lower(
    message: OutlierDetection,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<OutlierConfig, ConfigError> {
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
    // Zero is how the statistical modes are switched off, which is what happens anyway.
    for (field, asked) in [
        ("enforcing_success_rate", number(enforcing_success_rate).is_some_and(|percent| percent > 0)),
        ("success_rate_minimum_hosts", success_rate_minimum_hosts.is_some()),
        ("success_rate_request_volume", success_rate_request_volume.is_some()),
        ("success_rate_stdev_factor", success_rate_stdev_factor.is_some()),
        (
            "enforcing_local_origin_success_rate",
            number(enforcing_local_origin_success_rate).is_some_and(|percent| percent > 0),
        ),
        ("failure_percentage_threshold", failure_percentage_threshold.is_some()),
        (
            "enforcing_failure_percentage",
            number(enforcing_failure_percentage).is_some_and(|percent| percent > 0),
        ),
        (
            "enforcing_failure_percentage_local_origin",
            number(enforcing_failure_percentage_local_origin).is_some_and(|percent| percent > 0),
        ),
        ("failure_percentage_minimum_hosts", failure_percentage_minimum_hosts.is_some()),
        ("failure_percentage_request_volume", failure_percentage_request_volume.is_some()),
        ("max_ejection_time_jitter", max_ejection_time_jitter.is_some()),
        (
            "successful_active_health_check_uneject_host",
            successful_active_health_check_uneject_host.is_some(),
        ),
        ("detect_degraded_hosts", detect_degraded_hosts.is_some_and(|value| value.value)),
        ("monitors", !monitors.is_empty()),
    ] {
        if asked {
            notes.without_effect(path.field(field));
        }
    }
    let defaults = OutlierConfig::default();
    let base = duration(base_ejection_time, || path.field("base_ejection_time"))?
        .unwrap_or(defaults.base_ejection_time);
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
        interval: duration(interval, || path.field("interval"))?.unwrap_or(defaults.interval),
        base_ejection_time: base,
        max_ejection_time: duration(max_ejection_time, || path.field("max_ejection_time"))?
            .unwrap_or(Duration::from_secs(300).max(base)),
        max_ejection_percent: percent(max_ejection_percent, "max_ejection_percent", 10)?,
        always_eject_one_host: always_eject_one_host.is_some_and(|value| value.value),
    })
}
