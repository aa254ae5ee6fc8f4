//! How a cluster chooses among its hosts.

use dhow_control_model::istio::{ConsistentHash, LoadBalancer, SimpleLb, Warmup};
use dhow_control_model::push::EffectivePolicy;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig,
};
use dhow_proto::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig,
    SlowStartConfig,
};
use dhow_proto::envoy::config::core::v3::RuntimeDouble;
use dhow_proto::envoy::r#type::v3::Percent;
use dhow_proto::google::protobuf::UInt64Value;

use crate::messages::go_duration;

/// Istio's least number of entries on a hash ring.
const RING_SIZE: u64 = 1024;
/// Envoy's and Istio's least share of a host that warms up, in percent.
const WARMUP_MINIMUM: f64 = 10.0;

pub(super) fn is_passthrough(policy: &EffectivePolicy) -> bool {
    policy.load_balancer.as_ref().is_some_and(|balancer| balancer.simple == Some(SimpleLb::Passthrough))
}

pub(super) fn apply(cluster: &mut Cluster, policy: &EffectivePolicy) {
    let default = LoadBalancer::default();
    let balancer = policy.load_balancer.as_ref().unwrap_or(&default);
    if balancer.locality_lb_setting.as_ref().is_some_and(|setting| setting.enabled != Some(false)) {
        let common = cluster.common_lb_config.get_or_insert_default();
        common.locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
    }
    if let Some(hash) = &balancer.consistent_hash {
        consistent_hash(cluster, hash);
        return;
    }
    let warmup = warmup(balancer);
    match balancer.simple.unwrap_or(SimpleLb::Unspecified) {
        SimpleLb::Random => cluster.lb_policy = LbPolicy::Random.into(),
        SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin.into();
            cluster.lb_config = warmup.map(|slow_start| {
                LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(slow_start) })
            });
        }
        SimpleLb::Unspecified | SimpleLb::LeastRequest | SimpleLb::LeastConn | SimpleLb::Passthrough => {
            cluster.lb_policy = LbPolicy::LeastRequest.into();
            cluster.lb_config = warmup.map(|slow_start| {
                LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    slow_start_config: Some(slow_start),
                    ..LeastRequestLbConfig::default()
                })
            });
        }
    }
}

fn warmup(balancer: &LoadBalancer) -> Option<SlowStartConfig> {
    let (window, minimum, aggression) = match (&balancer.warmup, balancer.warmup_duration_secs) {
        (Some(Warmup { duration, minimum_percent, aggression }), _) => {
            ((*duration)?, *minimum_percent, *aggression)
        }
        (None, Some(duration)) => (duration, None, None),
        (None, None) => return None,
    };
    Some(SlowStartConfig {
        slow_start_window: Some(go_duration(window)),
        aggression: aggression.map(|value| RuntimeDouble {
            default_value: value,
            // Envoy requires a key; nothing sets it.
            runtime_key: "slow_start_aggression".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: minimum.unwrap_or(WARMUP_MINIMUM) }),
    })
}

fn consistent_hash(cluster: &mut Cluster, hash: &ConsistentHash) {
    if let Some(maglev) = &hash.maglev {
        cluster.lb_policy = LbPolicy::Maglev.into();
        cluster.lb_config = maglev.table_size.map(|size| {
            LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(UInt64Value { value: size }) })
        });
        return;
    }
    let given = hash.ring_hash.as_ref().and_then(|ring| ring.minimum_ring_size).or(hash.minimum_ring_size);
    let size = given.filter(|size| *size > 0).unwrap_or(RING_SIZE);
    cluster.lb_policy = LbPolicy::RingHash.into();
    cluster.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
        minimum_ring_size: Some(UInt64Value { value: size }),
        ..RingHashLbConfig::default()
    }));
}
