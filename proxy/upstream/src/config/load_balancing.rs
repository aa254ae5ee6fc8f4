//! `lb_policy`, `load_balancing_policy` and `common_lb_config` -> how hosts are chosen.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::{
    LoadBalancingPolicy,
    cluster::{
        self, CommonLbConfig, LbConfig as LegacyConfig, LeastRequestLbConfig, MaglevLbConfig,
        OriginalDstLbConfig, RingHashLbConfig, RoundRobinLbConfig,
        common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier, ZoneAwareLbConfig},
        ring_hash_lb_config::HashFunction as LegacyHashFunction,
    },
    load_balancing_policy::Policy,
};
use dhow_proto::envoy::config::core::v3::TypedExtensionConfig;
use dhow_proto::envoy::extensions::load_balancing_policies::{
    cluster_provided::v3::ClusterProvided,
    common::v3::{
        ConsistentHashingLbConfig as TypedConsistentHashing, LocalityLbConfig,
        locality_lb_config::{
            LocalityConfigSpecifier as TypedLocality, LocalityWeightedLbConfig,
            ZoneAwareLbConfig as TypedZoneAware,
        },
    },
    least_request::v3::{LeastRequest, least_request::SelectionMethod},
    maglev::v3::Maglev,
    random::v3::Random,
    ring_hash::v3::{RingHash, ring_hash::HashFunction as TypedHashFunction},
    round_robin::v3::RoundRobin,
    wrr_locality::v3::WrrLocality,
};
use dhow_proto::envoy::r#type::v3::Percent;
use dhow_proto::google::protobuf::{Any, UInt64Value};

use super::fields::{Notes, number, refuse, runtime_double, unpack};
use crate::cluster_info::OriginalDstOptions;
use crate::lb::{HashFunction, LbConfig, LbPolicy, TableConfig};

const MAX_RING_SIZE: u64 = 8 << 20;

/// Everything about load balancing that a cluster message says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LoadBalancing {
    pub(crate) lb: LbConfig,
    /// In percent.
    pub(crate) panic_threshold: u32,
    pub(crate) ignore_new_hosts: bool,
    pub(crate) close_connections_on_host_set_change: bool,
    pub(crate) original_dst: OriginalDstOptions,
}

/// The fields of `Cluster` that are about load balancing.
pub(crate) struct LoadBalancingFields {
    pub(crate) cluster_name: String,
    pub(crate) lb_policy: i32,
    pub(crate) lb_config: Option<LegacyConfig>,
    pub(crate) common: Option<CommonLbConfig>,
    pub(crate) policy: Option<LoadBalancingPolicy>,
}

pub(crate) fn lower(
    fields: LoadBalancingFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<LoadBalancing, ConfigError> {
    let LoadBalancingFields { cluster_name, lb_policy, lb_config, common, policy } = fields;
    let mut lowered = LoadBalancing {
        lb: LbConfig { policy: LbPolicy::RoundRobin, locality_weighted: false, fail_on_panic: false },
        panic_threshold: 50,
        ignore_new_hosts: false,
        close_connections_on_host_set_change: false,
        original_dst: OriginalDstOptions::default(),
    };
    let mut by_hostname = false;
    if let Some(common) = common {
        by_hostname = lower_common(common, &mut lowered, &path.field("common_lb_config"), notes)?;
    }
    let legacy = cluster::LbPolicy::try_from(lb_policy).map_err(|_| {
        ConfigError::new(path.field("lb_policy"), "value must be one of the defined enum values")
    })?;
    if let Some(policy) = policy {
        lower_typed(policy, &cluster_name, &mut lowered.lb, &path.field("load_balancing_policy"), notes)?;
        if let Some(LegacyConfig::OriginalDstLbConfig(config)) = lb_config {
            lowered.original_dst = original_dst(config, &path.field("original_dst_lb_config"))?;
        }
        return Ok(lowered);
    }
    lowered.lb.policy = match legacy {
        cluster::LbPolicy::RoundRobin => LbPolicy::RoundRobin,
        cluster::LbPolicy::LeastRequest => LbPolicy::LeastRequest { choices: 2, bias: 1.0 },
        cluster::LbPolicy::Random => LbPolicy::Random,
        cluster::LbPolicy::RingHash => {
            LbPolicy::Consistent(ring(None, None, HashFunction::XxHash, by_hostname)?)
        }
        cluster::LbPolicy::Maglev => LbPolicy::Consistent(maglev(None, by_hostname)?),
        cluster::LbPolicy::ClusterProvided => LbPolicy::ClusterProvided,
        cluster::LbPolicy::LoadBalancingPolicyConfig => {
            return Err(ConfigError::new(
                path.field("load_balancing_policy"),
                "cluster: field load_balancing_policy need to be set",
            ));
        }
    };
    if let Some(config) = lb_config {
        lower_legacy(config, by_hostname, &mut lowered, path, notes)?;
    }
    Ok(lowered)
}

/// Applies the configuration of the policy in force; like Envoy, that of another policy is ignored, with a warning.
fn lower_legacy(
    config: LegacyConfig,
    by_hostname: bool,
    into: &mut LoadBalancing,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    let mut unused = |field: &str| notes.warn(path.field(field), "has no effect with the lb_policy in force");
    match (config, &mut into.lb.policy) {
        (
            LegacyConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config }),
            LbPolicy::RoundRobin,
        ) => {
            if slow_start_config.is_some() {
                notes.without_effect(path.field("round_robin_lb_config").field("slow_start_config"));
            }
        }
        (LegacyConfig::LeastRequestLbConfig(config), LbPolicy::LeastRequest { choices, bias }) => {
            let path = path.field("least_request_lb_config");
            let LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } = config;
            *choices = number(choice_count).unwrap_or(2);
            if let Some(value) = active_request_bias {
                *bias = runtime_double(value, path.field("active_request_bias"), notes);
            }
            if slow_start_config.is_some() {
                notes.without_effect(path.field("slow_start_config"));
            }
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
        (LegacyConfig::RoundRobinLbConfig(_), _) => unused("round_robin_lb_config"),
        (LegacyConfig::LeastRequestLbConfig(_), _) => unused("least_request_lb_config"),
        (LegacyConfig::RingHashLbConfig(_), _) => unused("ring_hash_lb_config"),
        (LegacyConfig::MaglevLbConfig(_), _) => unused("maglev_lb_config"),
        (LegacyConfig::OriginalDstLbConfig(_), _) => unused("original_dst_lb_config"),
    }
    Ok(())
}

fn original_dst(config: OriginalDstLbConfig, path: &FieldPath) -> Result<OriginalDstOptions, ConfigError> {
    let OriginalDstLbConfig { use_http_header, http_header_name, upstream_port_override, metadata_key } =
        config;
    if metadata_key.is_some() {
        return Err(ConfigError::unsupported(path.field("metadata_key")));
    }
    let port_override = number(upstream_port_override).map(u16::try_from).transpose().map_err(|_| {
        ConfigError::new(path.field("upstream_port_override"), "value must be less than or equal to 65535")
    })?;
    let header = use_http_header.then(|| match http_header_name.as_str() {
        "" => "x-envoy-original-dst-host".to_owned(),
        name => name.to_ascii_lowercase(),
    });
    Ok(OriginalDstOptions { header, port_override })
}

/// Returns `use_hostname_for_hashing`.
fn lower_common(
    common: CommonLbConfig,
    into: &mut LoadBalancing,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<bool, ConfigError> {
    let CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = common;
    if let Some(Percent { value }) = healthy_panic_threshold {
        if !(0.0..=100.0).contains(&value) {
            let path = path.field("healthy_panic_threshold").field("value");
            return Err(ConfigError::new(path, "value must be inside range [0, 100]"));
        }
        into.panic_threshold = value as u32;
    }
    if update_merge_window.is_some() {
        notes.without_effect(path.field("update_merge_window"));
    }
    if override_host_status.is_some() {
        notes.without_effect(path.field("override_host_status"));
    }
    into.ignore_new_hosts = ignore_new_hosts_until_first_hc;
    into.close_connections_on_host_set_change = close_connections_on_host_set_change;
    match locality_config_specifier {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => into.lb.locality_weighted = true,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            let ZoneAwareLbConfig { routing_enabled, min_cluster_size, fail_traffic_on_panic } = zone;
            into.lb.fail_on_panic = fail_traffic_on_panic;
            let path = path.field("zone_aware_lb_config");
            if routing_enabled.is_some() {
                notes.without_effect(path.field("routing_enabled"));
            }
            if min_cluster_size.is_some() {
                notes.without_effect(path.field("min_cluster_size"));
            }
        }
    }
    let Some(ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor }) =
        consistent_hashing_lb_config
    else {
        return Ok(false);
    };
    refuse(&hash_balance_factor, || path.field("consistent_hashing_lb_config").field("hash_balance_factor"))?;
    Ok(use_hostname_for_hashing)
}

fn lower_typed(
    policy: LoadBalancingPolicy,
    cluster_name: &str,
    into: &mut LbConfig,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    let LoadBalancingPolicy { policies } = policy;
    let mut names = Vec::new();
    let policies_path = path.field("policies");
    for (index, Policy { typed_extension_config }) in policies.into_iter().enumerate() {
        let path = policies_path.index(index).field("typed_extension_config");
        let Some(TypedExtensionConfig { name, typed_config }) = typed_extension_config else {
            continue;
        };
        if let Some(any) = &typed_config
            && lower_extension(any, cluster_name, into, &path.field("typed_config"), notes)?
        {
            return Ok(());
        }
        names.push(name);
    }
    let reason = format!(
        "cluster: didn't find a registered load balancer factory implementation for cluster: '{cluster_name}' with \
         names from [{}]",
        names.join(", ")
    );
    Err(ConfigError::new(path.clone(), reason))
}

/// Applies one extension; false when it is none that is known.
fn lower_extension(
    any: &Any,
    cluster_name: &str,
    into: &mut LbConfig,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<bool, ConfigError> {
    let at = || path.clone();
    if let Some(RoundRobin { slow_start_config, locality_lb_config }) = unpack(any, at)? {
        if slow_start_config.is_some() {
            notes.without_effect(path.field("slow_start_config"));
        }
        into.policy = LbPolicy::RoundRobin;
        locality(locality_lb_config, into, path, notes);
    } else if let Some(config) = unpack::<LeastRequest>(any, at)? {
        into.policy = least_request(config, into, path, notes)?;
    } else if let Some(Random { locality_lb_config }) = unpack(any, at)? {
        into.policy = LbPolicy::Random;
        locality(locality_lb_config, into, path, notes);
    } else if let Some(config) = unpack::<RingHash>(any, at)? {
        into.policy = LbPolicy::Consistent(typed_ring(config, into, path)?);
    } else if let Some(Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config }) =
        unpack(any, at)?
    {
        let by_hostname = consistent(consistent_hashing_lb_config, path)?;
        into.locality_weighted = locality_weighted_lb_config.is_some();
        into.policy =
            LbPolicy::Consistent(maglev(table_size, by_hostname).map_err(|error| error.under(path))?);
    } else if let Some(WrrLocality { endpoint_picking_policy }) = unpack(any, at)? {
        let path = path.field("endpoint_picking_policy");
        let policy =
            endpoint_picking_policy.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        lower_typed(policy, cluster_name, into, &path, notes)?;
        into.locality_weighted = true;
    } else if let Some(ClusterProvided {}) = unpack(any, at)? {
        into.policy = LbPolicy::ClusterProvided;
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn least_request(
    config: LeastRequest,
    into: &mut LbConfig,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<LbPolicy, ConfigError> {
    #[allow(deprecated, reason = "still accepted by Envoy")]
    let LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = config;
    if slow_start_config.is_some() {
        notes.without_effect(path.field("slow_start_config"));
    }
    locality(locality_lb_config, into, path, notes);
    let full_scan = enable_full_scan.is_some_and(|scan| scan.value)
        || SelectionMethod::try_from(selection_method) == Ok(SelectionMethod::FullScan);
    let choices = number(choice_count).unwrap_or(2);
    if choices < 2 {
        return Err(ConfigError::new(path.field("choice_count"), "value must be greater than or equal to 2"));
    }
    let bias = match active_request_bias {
        Some(value) => runtime_double(value, path.field("active_request_bias"), notes),
        None => 1.0,
    };
    Ok(LbPolicy::LeastRequest { choices: if full_scan { u32::MAX } else { choices }, bias })
}

fn typed_ring(config: RingHash, into: &mut LbConfig, path: &FieldPath) -> Result<TableConfig, ConfigError> {
    #[allow(deprecated, reason = "still accepted by Envoy")]
    let RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = config;
    refuse(&hash_balance_factor, || path.field("hash_balance_factor"))?;
    let by_hostname = consistent(consistent_hashing_lb_config, path)? || use_hostname_for_hashing;
    into.locality_weighted = locality_weighted_lb_config.is_some();
    let function = match TypedHashFunction::try_from(hash_function) {
        Ok(TypedHashFunction::MurmurHash2) => HashFunction::MurmurHash2,
        _ => HashFunction::XxHash,
    };
    ring(minimum_ring_size, maximum_ring_size, function, by_hostname).map_err(|error| error.under(path))
}

fn consistent(config: Option<TypedConsistentHashing>, path: &FieldPath) -> Result<bool, ConfigError> {
    let Some(TypedConsistentHashing { use_hostname_for_hashing, hash_balance_factor, hash_policy }) = config
    else {
        return Ok(false);
    };
    let path = path.field("consistent_hashing_lb_config");
    refuse(&hash_balance_factor, || path.field("hash_balance_factor"))?;
    refuse(&hash_policy, || path.field("hash_policy"))?;
    Ok(use_hostname_for_hashing)
}

fn locality(config: Option<LocalityLbConfig>, into: &mut LbConfig, path: &FieldPath, notes: &mut Notes) {
    let Some(LocalityLbConfig { locality_config_specifier }) = config else {
        return;
    };
    match locality_config_specifier {
        None => {}
        Some(TypedLocality::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
            into.locality_weighted = true
        }
        Some(TypedLocality::ZoneAwareLbConfig(zone)) => {
            #[allow(deprecated, reason = "still accepted by Envoy")]
            let TypedZoneAware {
                routing_enabled,
                min_cluster_size,
                fail_traffic_on_panic,
                force_locality_direct_routing,
                force_local_zone,
                locality_basis,
            } = zone;
            into.fail_on_panic = fail_traffic_on_panic;
            let zone_routing_asked = routing_enabled.is_some()
                || min_cluster_size.is_some()
                || force_locality_direct_routing
                || force_local_zone.is_some()
                || locality_basis != 0;
            if zone_routing_asked {
                notes.without_effect(path.field("locality_lb_config").field("zone_aware_lb_config"));
            }
        }
    }
}

fn ring(
    minimum: Option<UInt64Value>,
    maximum: Option<UInt64Value>,
    function: HashFunction,
    by_hostname: bool,
) -> Result<TableConfig, ConfigError> {
    let minimum = minimum.map_or(1024, |size| size.value);
    let maximum = maximum.map_or(MAX_RING_SIZE, |size| size.value);
    for (field, size) in [("minimum_ring_size", minimum), ("maximum_ring_size", maximum)] {
        if size > MAX_RING_SIZE {
            let reason = format!("value must be less than or equal to {MAX_RING_SIZE}");
            return Err(ConfigError::new(FieldPath::root().field(field), reason));
        }
    }
    if minimum > maximum {
        let reason = format!("ring hash: minimum_ring_size ({minimum}) > maximum_ring_size ({maximum})");
        return Err(ConfigError::at_root(reason));
    }
    Ok(TableConfig::Ring { minimum, maximum, function, by_hostname })
}

fn maglev(size: Option<UInt64Value>, by_hostname: bool) -> Result<TableConfig, ConfigError> {
    let size = size.map_or(65_537, |size| size.value);
    let is_prime = size > 1
        && (2..).take_while(|factor| factor * factor <= size).all(|factor| !size.is_multiple_of(factor));
    if size > 5_000_011 {
        let path = FieldPath::root().field("table_size");
        return Err(ConfigError::new(path, "value must be less than or equal to 5000011"));
    }
    if !is_prime {
        let path = FieldPath::root().field("table_size");
        return Err(ConfigError::new(path, "The table size of maglev must be prime number"));
    }
    Ok(TableConfig::Maglev { size, by_hostname })
}
