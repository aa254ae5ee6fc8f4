//! `preconnect_policy`, limits per host and the choice between address families.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::{
    CircuitBreakers,
    circuit_breakers::Thresholds,
    cluster::PreconnectPolicy,
    upstream_connection_options::{FirstAddressFamilyVersion, HappyEyeballsConfig},
};

use super::fields::{Notes, number};
use crate::connection_options::PreconnectHosts;
use crate::happy_eyeballs::FamilyOrder;

/// `per_upstream_preconnect_ratio` and `predictive_preconnect_ratio`, 1 without, and the hosts for which the former is.
pub(crate) fn preconnect(
    policy: Option<PreconnectPolicy>,
    path: &FieldPath,
) -> Result<(f32, f32, Option<PreconnectHosts>), ConfigError> {
    let PreconnectPolicy {
        per_upstream_preconnect_ratio,
        predictive_preconnect_ratio,
        preconnect_enabled_metadata,
    } = policy.unwrap_or_default();
    let hosts = preconnect_enabled_metadata
        .map(|message| PreconnectHosts::compile(message, &path.field("preconnect_enabled_metadata")));
    let ratio = |value: Option<dhow_proto::google::protobuf::DoubleValue>, field: &str| {
        let ratio = value.map_or(1.0, |value| value.value);
        if (1.0..=3.0).contains(&ratio) {
            Ok(ratio as f32)
        } else {
            Err(ConfigError::new(path.field(field), "value must be inside range [1, 3]"))
        }
    };
    let predictive = ratio(predictive_preconnect_ratio, "predictive_preconnect_ratio")?;
    let for_host = ratio(per_upstream_preconnect_ratio, "per_upstream_preconnect_ratio")?;
    Ok((for_host, predictive, hosts.transpose()?))
}

/// `per_host_thresholds.max_connections` by priority; the first entry of a priority counts, as in Envoy.
///
/// # Errors
/// A limit of another kind.
pub(crate) fn max_per_host(
    message: Option<&CircuitBreakers>,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<[u64; 2], ConfigError> {
    let mut limits = [None; 2];
    let thresholds = message.map_or(&[][..], |message| &message.per_host_thresholds);
    for (index, thresholds) in thresholds.iter().enumerate() {
        let Thresholds {
            priority,
            max_connections,
            max_pending_requests,
            max_requests,
            max_retries,
            retry_budget,
            track_remaining,
            max_connection_pools,
        } = thresholds;
        let path = path.field("per_host_thresholds").index(index);
        for (field, is_set) in [
            ("max_pending_requests", max_pending_requests.is_some()),
            ("max_requests", max_requests.is_some()),
            ("max_retries", max_retries.is_some()),
            ("retry_budget", retry_budget.is_some()),
            ("max_connection_pools", max_connection_pools.is_some()),
        ] {
            if is_set {
                return Err(ConfigError::new(path.field(field), "Unsupported field in per_host_thresholds"));
            }
        }
        if *track_remaining {
            notes.warn(
                path.field("track_remaining"),
                "without effect: Envoy counts what remains for clusters only",
            );
        }
        let limit = usize::try_from(*priority).ok().and_then(|priority| limits.get_mut(priority));
        if let Some(limit @ None) = limit {
            *limit = Some(max_connections.map_or(u64::MAX, |max| max.value.into()));
        }
    }
    Ok(limits.map(|limit| limit.unwrap_or(u64::MAX)))
}

/// `happy_eyeballs_config`.
pub(crate) fn families(message: Option<HappyEyeballsConfig>) -> FamilyOrder {
    let Some(HappyEyeballsConfig { first_address_family_version, first_address_family_count }) = message
    else {
        return FamilyOrder::default();
    };
    FamilyOrder {
        first_ipv4: match FirstAddressFamilyVersion::try_from(first_address_family_version) {
            Ok(FirstAddressFamilyVersion::V4) => Some(true),
            Ok(FirstAddressFamilyVersion::V6) => Some(false),
            // Other kinds of addresses cannot be additional ones.
            _ => None,
        },
        count: number(first_address_family_count).map_or(1, |count| count.max(1) as usize),
    }
}
