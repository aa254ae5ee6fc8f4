//! `lb_policy` with `round_robin_lb_config` and its like.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::cluster::{
    self, LbConfig as LegacyConfig, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig,
    RoundRobinLbConfig, SlowStartConfig, ring_hash_lb_config::HashFunction as LegacyHashFunction,
};

use super::tables::{maglev, ring};
use super::{ConsistentHashing, LoadBalancing, SlowStartFields, original_dst, slow_start};
use crate::config::fields::{Notes, number, runtime_double};
use crate::lb::{HashFunction, LbPolicy, SlowStart, TableConfig};

pub(super) fn lower(
    policy: cluster::LbPolicy,
    config: Option<LegacyConfig>,
    hashing: ConsistentHashing,
    into: &mut LoadBalancing,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    into.lb.policy = match policy {
        cluster::LbPolicy::RoundRobin => LbPolicy::RoundRobin,
        cluster::LbPolicy::LeastRequest => LbPolicy::LeastRequest { choices: 2, bias: 1.0 },
        cluster::LbPolicy::Random => LbPolicy::Random,
        cluster::LbPolicy::RingHash => {
            LbPolicy::Consistent(ring(None, None, HashFunction::XxHash, hashing.by_hostname)?)
        }
        cluster::LbPolicy::Maglev => LbPolicy::Consistent(maglev(None, hashing.by_hostname)?),
        cluster::LbPolicy::ClusterProvided => LbPolicy::ClusterProvided,
        cluster::LbPolicy::LoadBalancingPolicyConfig => {
            return Err(ConfigError::new(
                path.field("load_balancing_policy"),
                "cluster: field load_balancing_policy need to be set",
            ));
        }
    };
    if matches!(into.lb.policy, LbPolicy::Consistent(_)) {
        into.lb.hash_balance_factor = hashing.balance_factor;
    }
    match config {
        Some(config) => lower_config(config, hashing.by_hostname, into, path, notes),
        None => Ok(()),
    }
}

/// Applies the configuration of the policy in force; like Envoy, that of another policy is ignored, with a warning.
fn lower_config(
    config: LegacyConfig,
    by_hostname: bool,
    into: &mut LoadBalancing,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    match (config, &mut into.lb.policy) {
        (
            LegacyConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config }),
            LbPolicy::RoundRobin,
        ) => {
            let path = path.field("round_robin_lb_config").field("slow_start_config");
            into.lb.slow_start = lower_slow_start(slow_start_config, &path, notes)?;
        }
        (LegacyConfig::LeastRequestLbConfig(config), LbPolicy::LeastRequest { choices, bias }) => {
            let path = path.field("least_request_lb_config");
            let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = config;
            *choices = number(choice_count).unwrap_or(2);
            if let Some(value) = active_request_bias {
                *bias = runtime_double(value, path.field("active_request_bias"), notes);
            }
            into.lb.slow_start =
                lower_slow_start(slow_start_config, &path.field("slow_start_config"), notes)?;
        }
        (LegacyConfig::RingHashLbConfig(config), LbPolicy::Consistent(table @ TableConfig::Ring { .. })) => {
            let RingHashLbConfig { minimum_ring_size, hash_function, maximum_ring_size } = config;
            let function = match LegacyHashFunction::try_from(hash_function) {
                Ok(LegacyHashFunction::MurmurHash2) => HashFunction::MurmurHash2,
                _ => HashFunction::XxHash,
            };
            *table = ring(minimum_ring_size, maximum_ring_size, function, by_hostname)
                .map_err(|error| error.under(&path.field("ring_hash_lb_config")))?;
        }
        (LegacyConfig::MaglevLbConfig(config), LbPolicy::Consistent(table @ TableConfig::Maglev { .. })) => {
            let MaglevLbConfig { table_size } = config;
            *table = maglev(table_size, by_hostname)
                .map_err(|error| error.under(&path.field("maglev_lb_config")))?;
        }
        (LegacyConfig::OriginalDstLbConfig(config), LbPolicy::ClusterProvided) => {
            into.original_dst = original_dst(config, &path.field("original_dst_lb_config"))?;
        }
        (other, _) => notes.warn(path.field(name_of(&other)), "has no effect with the lb_policy in force"),
    }
    Ok(())
}

fn name_of(config: &LegacyConfig) -> &'static str {
    match config {
        LegacyConfig::RoundRobinLbConfig(_) => "round_robin_lb_config",
        LegacyConfig::LeastRequestLbConfig(_) => "least_request_lb_config",
        LegacyConfig::RingHashLbConfig(_) => "ring_hash_lb_config",
        LegacyConfig::MaglevLbConfig(_) => "maglev_lb_config",
        LegacyConfig::OriginalDstLbConfig(_) => "original_dst_lb_config",
    }
}

fn lower_slow_start(
    message: Option<SlowStartConfig>,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Option<SlowStart>, ConfigError> {
    let Some(SlowStartConfig { slow_start_window: window, aggression, min_weight_percent }) = message else {
        return Ok(None);
    };
    slow_start(SlowStartFields { window, aggression, min_weight_percent }, path, notes)
}
