//! `lb_policy`, `load_balancing_policy`, `lb_subset_config` and `common_lb_config` -> how hosts are chosen.

mod legacy;
mod subset;
mod tables;
mod typed;

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderName;
use dhow_proto::envoy::config::cluster::v3::{
    LoadBalancingPolicy,
    cluster::{
        self, CommonLbConfig, LbConfig as LegacyConfig, LbSubsetConfig, OriginalDstLbConfig,
        common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier, ZoneAwareLbConfig},
    },
};
use dhow_proto::envoy::config::core::v3::{HealthStatus, HealthStatusSet, RuntimeDouble};
use dhow_proto::envoy::r#type::v3::Percent;
use dhow_proto::google::protobuf::Duration as ProtoDuration;

use super::fields::{Notes, duration, number, runtime_double};
use crate::cluster_info::OriginalDstOptions;
use crate::lb::{LbConfig, LbPolicy, LocalityMode, OverrideStatuses, SlowStart, ZoneAware};
use crate::override_host::OverrideHostPolicy;

/// Everything about load balancing that a cluster message says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadBalancing {
    pub(crate) lb: LbConfig,
    /// In percent.
    pub(crate) panic_threshold: u32,
    pub(crate) ignore_new_hosts: bool,
    pub(crate) close_connections_on_host_set_change: bool,
    /// `update_merge_window`; zero applies every update at once.
    pub(crate) update_merge_window: Duration,
    pub(crate) original_dst: OriginalDstOptions,
    /// The policy that lets requests name their host.
    pub(crate) override_host: Option<OverrideHostPolicy>,
}

/// The fields of `Cluster` that are about load balancing.
pub(crate) struct LoadBalancingFields {
    pub(crate) cluster_name: String,
    pub(crate) lb_policy: i32,
    pub(crate) lb_config: Option<LegacyConfig>,
    pub(crate) common: Option<CommonLbConfig>,
    pub(crate) policy: Option<LoadBalancingPolicy>,
    pub(crate) subset: Option<LbSubsetConfig>,
}

/// `consistent_hashing_lb_config` of all its places.
#[derive(Clone, Copy, Debug, Default)]
struct ConsistentHashing {
    by_hostname: bool,
    balance_factor: Option<u32>,
}

pub(crate) fn lower(
    fields: LoadBalancingFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<LoadBalancing, ConfigError> {
    let LoadBalancingFields { cluster_name, lb_policy, lb_config, common, policy, subset } = fields;
    let mut lowered = LoadBalancing {
        lb: LbConfig::of(LbPolicy::RoundRobin),
        panic_threshold: 50,
        ignore_new_hosts: false,
        close_connections_on_host_set_change: false,
        update_merge_window: Duration::from_secs(1),
        original_dst: OriginalDstOptions::default(),
        override_host: None,
    };
    let legacy = cluster::LbPolicy::try_from(lb_policy).map_err(|_| {
        ConfigError::new(path.field("lb_policy"), "value must be one of the defined enum values")
    })?;
    let mut hashing = ConsistentHashing::default();
    if let Some(common) = common {
        let is_partial =
            common.locality_config_specifier.is_some() || common.consistent_hashing_lb_config.is_some();
        if policy.is_some() && is_partial {
            let reason = "cluster: load_balancing_policy cannot be combined with partial fields (zone_aware_lb_config, \
                          locality_weighted_lb_config, consistent_hashing_lb_config) of common_lb_config";
            return Err(ConfigError::new(path.field("load_balancing_policy"), reason));
        }
        hashing = lower_common(common, &mut lowered, &path.field("common_lb_config"))?;
    }
    if let Some(policy) = policy {
        if subset.is_some() {
            let reason = "cluster: load_balancing_policy cannot be combined with lb_subset_config";
            return Err(ConfigError::new(path.field("load_balancing_policy"), reason));
        }
        typed::lower(policy, &cluster_name, &mut lowered, &path.field("load_balancing_policy"), notes)?;
        if let Some(LegacyConfig::OriginalDstLbConfig(config)) = lb_config {
            lowered.original_dst = original_dst(config, &path.field("original_dst_lb_config"))?;
        }
        return Ok(lowered);
    }
    legacy::lower(legacy, lb_config, hashing, &mut lowered, path, notes)?;
    if let Some(subset) = subset {
        if lowered.lb.policy == LbPolicy::ClusterProvided {
            let reason = "cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config";
            return Err(ConfigError::new(path.field("lb_subset_config"), reason));
        }
        let subset = subset::lower_legacy(subset, &path.field("lb_subset_config"))?;
        if subset.locality_weight_aware && !lowered.lb.is_locality_weighted() {
            let reason = format!(
                "Locality weight aware subset LB requires that a locality_weighted_lb_config be set in {cluster_name}"
            );
            return Err(ConfigError::new(path.field("lb_subset_config"), reason));
        }
        lowered.lb.subset = Some(std::sync::Arc::new(subset));
    }
    Ok(lowered)
}

fn original_dst(config: OriginalDstLbConfig, path: &FieldPath) -> Result<OriginalDstOptions, ConfigError> {
    let OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } =
        config;
    if !use_http_header && !http_header_name.is_empty() {
        let reason = format!(
            "ORIGINAL_DST cluster: invalid config http_header_name={http_header_name} and use_http_header is false. Set \
             use_http_header to true if http_header_name is desired."
        );
        return Err(ConfigError::new(path.clone(), reason));
    }
    let port_override = number(upstream_port_override).map(u16::try_from).transpose().map_err(|_| {
        ConfigError::new(path.field("upstream_port_override"), "value must be less than or equal to 65535")
    })?;
    let header = use_http_header.then(|| match http_header_name.as_str() {
        "" => HeaderName::control("original-dst-host").as_str().to_owned(),
        name => name.to_ascii_lowercase(),
    });
    let metadata_key = metadata_key.map(super::fields::metadata_key);
    Ok(OriginalDstOptions { header, port_override, metadata_key })
}

fn lower_common(
    common: CommonLbConfig,
    into: &mut LoadBalancing,
    path: &FieldPath,
) -> Result<ConsistentHashing, ConfigError> {
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = common;
    if let Some(threshold) = healthy_panic_threshold {
        into.panic_threshold = threshold.value as u32;
    }
    if let Some(window) = duration(update_merge_window, || path.field("update_merge_window"))? {
        into.update_merge_window = window;
    }
    if let Some(statuses) = override_host_status {
        into.lb.override_statuses = override_statuses(&statuses);
    }
    into.ignore_new_hosts = ignore_new_hosts_until_first_hc;
    into.close_connections_on_host_set_change = close_connections_on_host_set_change;
    match locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => {
            into.lb.locality = LocalityMode::Weighted;
        }
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            let ZoneAwareLbConfig { routing_enabled, min_cluster_size, fail_traffic_on_panic } = zone;
            let mut zone = ZoneAware { fail_on_panic: fail_traffic_on_panic, ..ZoneAware::default() };
            if let Some(enabled) = routing_enabled {
                zone.routing_enabled = enabled.value.round() as u32;
            }
            if let Some(size) = min_cluster_size {
                zone.min_cluster_size = size.value;
            }
            into.lb.locality = LocalityMode::ZoneAware(zone);
        }
    }
    let Some(ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor }) =
        consistent_hashing_lb_config
    else {
        return Ok(ConsistentHashing::default());
    };
    Ok(ConsistentHashing {
        by_hostname: use_hostname_for_hashing,
        balance_factor: number(hash_balance_factor).filter(|factor| *factor > 0),
    })
}

fn override_statuses(set: &HealthStatusSet) -> OverrideStatuses {
    let has = |status: HealthStatus| set.statuses.contains(&(status as i32));
    OverrideStatuses {
        healthy: has(HealthStatus::Unknown) || has(HealthStatus::Healthy),
        unhealthy: has(HealthStatus::Unhealthy) || has(HealthStatus::Draining) || has(HealthStatus::Timeout),
        degraded: has(HealthStatus::Degraded),
    }
}

/// `slow_start_config` of both generations of messages.
struct SlowStartFields {
    window: Option<ProtoDuration>,
    aggression: Option<RuntimeDouble>,
    min_weight_percent: Option<Percent>,
}

fn slow_start(
    fields: SlowStartFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Option<SlowStart>, ConfigError> {
    let SlowStartFields { window, aggression, min_weight_percent } = fields;
    let window = duration(window, || path.field("slow_start_window"))?.unwrap_or_default();
    let aggression = aggression.map_or(1.0, |value| runtime_double(value, path.field("aggression"), notes));
    // As in Envoy, what cannot be is what it is without being told.
    let aggression = if aggression > 0.0 { aggression } else { 1.0 };
    let min_weight = match min_weight_percent {
        Some(Percent { value }) => value / 100.0,
        None => 0.1,
    };
    Ok((!window.is_zero()).then_some(SlowStart { window, aggression, min_weight }))
}
