//! `load_balancing_policy`: the first policy of the list that is known.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::{LoadBalancingPolicy, load_balancing_policy::Policy};
use dhow_proto::envoy::config::core::v3::TypedExtensionConfig;
use dhow_proto::envoy::extensions::load_balancing_policies::{
    client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin,
    cluster_provided::v3::ClusterProvided,
    common::v3::{
        ConsistentHashingLbConfig, LocalityLbConfig, SlowStartConfig,
        locality_lb_config::{
            LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
            zone_aware_lb_config::{ForceLocalZone, LocalityBasis},
        },
    },
    least_request::v3::{LeastRequest, least_request::SelectionMethod},
    maglev::v3::Maglev,
    override_host::v3::{OverrideHost, override_host::OverrideHostSource},
    pick_first::v3::PickFirst,
    random::v3::Random,
    ring_hash::v3::{RingHash, ring_hash::HashFunction as TypedHashFunction},
    round_robin::v3::RoundRobin,
    subset::v3::Subset,
    wrr_locality::v3::WrrLocality,
};
use dhow_proto::google::protobuf::Any;

use super::tables::{maglev, ring};
use super::{ConsistentHashing, LoadBalancing, SlowStartFields, slow_start, subset};
use crate::config::fields::{Notes, metadata_key, number, refuse, runtime_double, unpack};
use crate::lb::{HashFunction, LbPolicy, LocalityMode, SlowStart, ZoneAware};
use crate::override_host::{OverrideHostPolicy, OverrideSource};

pub(super) fn lower(
    policy: LoadBalancingPolicy,
    cluster_name: &str,
    into: &mut LoadBalancing,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    let nothing = |names: &str| {
        format!(
            "cluster: didn't find a registered load balancer factory implementation for cluster: '{cluster_name}' with \
             names from [{names}]"
        )
    };
    lower_list(policy, into, path, notes, &nothing)
}

/// Applies the first policy of the list that is known; `nothing` words that there is none, given their names.
fn lower_list(
    policy: LoadBalancingPolicy,
    into: &mut LoadBalancing,
    path: &FieldPath,
    notes: &mut Notes,
    nothing: &dyn Fn(&str) -> String,
) -> Result<(), ConfigError> {
    let LoadBalancingPolicy { policies } = policy;
    let mut names = Vec::new();
    let policies_path = path.field("policies");
    for (index, Policy { typed_extension_config }) in policies.into_iter().enumerate() {
        let path = policies_path.index(index).field("typed_extension_config");
        let Some(TypedExtensionConfig { name, typed_config }) = typed_extension_config else {
            continue;
        };
        if let Some(any) = &typed_config {
            let mut reader = Reader { into, notes, path: path.field("typed_config") };
            if reader.extension(any)? {
                return Ok(());
            }
        }
        names.push(name);
    }
    Err(ConfigError::new(path.clone(), nothing(&names.join(", "))))
}

struct Reader<'a> {
    into: &'a mut LoadBalancing,
    notes: &'a mut Notes,
    path: FieldPath,
}

impl Reader<'_> {
    /// Applies one extension; false when it is none that is known.
    fn extension(&mut self, any: &Any) -> Result<bool, ConfigError> {
        if self.refused(any)? {
            return Err(ConfigError::unsupported(self.path.clone()));
        }
        let path = self.path.clone();
        let at = || path.clone();
        if let Some(RoundRobin { slow_start_config, locality_lb_config }) = unpack(any, at)? {
            self.into.lb.policy = LbPolicy::RoundRobin;
            self.into.lb.slow_start = self.slow_start(slow_start_config)?;
            self.locality(locality_lb_config);
        } else if let Some(config) = unpack::<LeastRequest>(any, at)? {
            self.least_request(config)?;
        } else if let Some(Random { locality_lb_config }) = unpack(any, at)? {
            self.into.lb.policy = LbPolicy::Random;
            self.locality(locality_lb_config);
        } else if let Some(config) = unpack::<RingHash>(any, at)? {
            self.ring_hash(config)?;
        } else if let Some(config) = unpack::<Maglev>(any, at)? {
            self.maglev(config)?;
        } else if let Some(WrrLocality { endpoint_picking_policy }) = unpack(any, at)? {
            // The only policy that Envoy accepts inside is refused below; anything else gets Envoy's words.
            self.child(endpoint_picking_policy, "endpoint_picking_policy", |_| {
                "No supported endpoint picking policy.".to_owned()
            })?;
            let reason = "Currently WrrLocalityLoadBalancer only supports ClientSideWeightedRoundRobinLoadBalancer as its \
                          endpoint picking policy.";
            return Err(ConfigError::new(path.field("endpoint_picking_policy"), reason));
        } else if let Some(mut config) = unpack::<Subset>(any, at)? {
            self.child(config.subset_lb_policy.take(), "subset_lb_policy", |names| {
                format!(
                    "cluster: didn't find a registered load balancer factory implementation for subset lb with names \
                     from [{names}]"
                )
            })?;
            self.into.lb.subset = Some(Arc::new(subset::lower_typed(config, &path)?));
        } else if let Some(config) = unpack::<OverrideHost>(any, at)? {
            self.override_host(config)?;
        } else if let Some(ClusterProvided {}) = unpack(any, at)? {
            self.into.lb.policy = LbPolicy::ClusterProvided;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Policies that Envoy knows and that are not built here: taking the next of the list would be another behaviour.
    fn refused(&self, any: &Any) -> Result<bool, ConfigError> {
        let at = || self.path.clone();
        Ok(unpack::<ClientSideWeightedRoundRobin>(any, at)?.is_some()
            || unpack::<PickFirst>(any, at)?.is_some())
    }

    /// Applies the policy within this one.
    fn child(
        &mut self,
        policy: Option<LoadBalancingPolicy>,
        field: &str,
        nothing: fn(&str) -> String,
    ) -> Result<(), ConfigError> {
        let path = self.path.field(field);
        lower_list(policy.unwrap_or_default(), self.into, &path, self.notes, &nothing)
    }

    fn slow_start(&mut self, message: Option<SlowStartConfig>) -> Result<Option<SlowStart>, ConfigError> {
        let Some(SlowStartConfig { slow_start_window: window, aggression, min_weight_percent }) = message
        else {
            return Ok(None);
        };
        let path = self.path.field("slow_start_config");
        slow_start(SlowStartFields { window, aggression, min_weight_percent }, &path, self.notes)
    }

    fn least_request(&mut self, config: LeastRequest) -> Result<(), ConfigError> {
        #[allow(deprecated, reason = "still accepted by Envoy")]
        let LeastRequest {
            choice_count,
            active_request_bias,
            slow_start_config,
            locality_lb_config,
            enable_full_scan,
            selection_method,
        } = config;
        let full_scan = enable_full_scan.is_some_and(|scan| scan.value)
            || SelectionMethod::try_from(selection_method) == Ok(SelectionMethod::FullScan);
        let choices = number(choice_count).unwrap_or(2);
        if choices == 0 {
            // Envoy takes it and never finds a host.
            let path = self.path.field("choice_count");
            return Err(ConfigError::new(path, "value must be greater than 0"));
        }
        let bias = match active_request_bias {
            Some(value) => runtime_double(value, self.path.field("active_request_bias"), self.notes),
            None => 1.0,
        };
        self.into.lb.policy =
            LbPolicy::LeastRequest { choices: if full_scan { u32::MAX } else { choices }, bias };
        self.into.lb.slow_start = self.slow_start(slow_start_config)?;
        self.locality(locality_lb_config);
        Ok(())
    }

    fn ring_hash(&mut self, config: RingHash) -> Result<(), ConfigError> {
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
        let has_hashing = consistent_hashing_lb_config.is_some();
        let mut hashing = self.hashing(consistent_hashing_lb_config);
        if !has_hashing {
            hashing = ConsistentHashing {
                by_hostname: use_hostname_for_hashing,
                balance_factor: number(hash_balance_factor).filter(|factor| *factor > 0),
            };
        }
        let function = match TypedHashFunction::try_from(hash_function) {
            Ok(TypedHashFunction::MurmurHash2) => HashFunction::MurmurHash2,
            _ => HashFunction::XxHash,
        };
        let table = ring(minimum_ring_size, maximum_ring_size, function, hashing.by_hostname)
            .map_err(|error| error.under(&self.path))?;
        self.consistent(LbPolicy::Consistent(table), hashing, locality_weighted_lb_config);
        Ok(())
    }

    fn maglev(&mut self, config: Maglev) -> Result<(), ConfigError> {
        let Maglev { table_size, consistent_hashing_lb_config, locality_weighted_lb_config } = config;
        let hashing = self.hashing(consistent_hashing_lb_config);
        let table = maglev(table_size, hashing.by_hostname).map_err(|error| error.under(&self.path))?;
        self.consistent(LbPolicy::Consistent(table), hashing, locality_weighted_lb_config);
        Ok(())
    }

    fn consistent(
        &mut self,
        policy: LbPolicy,
        hashing: ConsistentHashing,
        weighted: Option<LocalityWeightedLbConfig>,
    ) {
        self.into.lb.policy = policy;
        self.into.lb.hash_balance_factor = hashing.balance_factor;
        if let Some(LocalityWeightedLbConfig {}) = weighted {
            self.into.lb.locality = LocalityMode::Weighted;
        }
    }

    fn hashing(&mut self, config: Option<ConsistentHashingLbConfig>) -> ConsistentHashing {
        let Some(ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor, hash_policy }) =
            config
        else {
            return ConsistentHashing::default();
        };
        let path = self.path.field("consistent_hashing_lb_config");
        if !hash_policy.is_empty() {
            self.notes.hash_policy = Some((hash_policy, path.field("hash_policy")));
        }
        ConsistentHashing {
            by_hostname: use_hostname_for_hashing,
            balance_factor: number(hash_balance_factor).filter(|factor| *factor > 0),
        }
    }

    fn locality(&mut self, config: Option<LocalityLbConfig>) {
        let Some(LocalityLbConfig { locality_config_specifier }) = config else {
            return;
        };
        match locality_config_specifier {
            None => {}
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})) => {
                self.into.lb.locality = LocalityMode::Weighted;
            }
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
                self.into.lb.locality = LocalityMode::ZoneAware(zone_aware(zone));
            }
        }
    }

    fn override_host(&mut self, config: OverrideHost) -> Result<(), ConfigError> {
        let OverrideHost { override_host_sources, selected_host_key, fallback_policy } = config;
        refuse(&selected_host_key, || self.path.field("selected_host_key"))?;
        let sources_path = self.path.field("override_host_sources");
        if override_host_sources.is_empty() {
            return Err(ConfigError::new(sources_path, "value must contain at least 1 item(s)"));
        }
        let mut sources = Vec::with_capacity(override_host_sources.len());
        for (index, OverrideHostSource { header, metadata }) in override_host_sources.into_iter().enumerate()
        {
            sources.push(match (header.is_empty(), metadata) {
                (false, None) => OverrideSource::Header(header.to_ascii_lowercase()),
                (true, Some(key)) => OverrideSource::Metadata(metadata_key(key)),
                (false, Some(_)) => {
                    let reason = "Only one of 'header' or 'metadata' fields must be set";
                    return Err(ConfigError::new(sources_path.index(index), reason));
                }
                (true, None) => {
                    return Err(ConfigError::new(sources_path.index(index), "Empty override source"));
                }
            });
        }
        self.child(fallback_policy, "fallback_policy", |names| {
            format!(
                "dynamic forwarding LB: didn't find a registered fallback load balancer factory with names from {names}"
            )
        })?;
        self.into.override_host = Some(OverrideHostPolicy { sources });
        Ok(())
    }
}

fn zone_aware(message: ZoneAwareLbConfig) -> ZoneAware {
    #[allow(deprecated, reason = "still accepted by Envoy")]
    let ZoneAwareLbConfig {
        routing_enabled,
        min_cluster_size,
        fail_traffic_on_panic,
        force_locality_direct_routing,
        force_local_zone,
        locality_basis,
    } = message;
    let mut zone = ZoneAware { fail_on_panic: fail_traffic_on_panic, ..ZoneAware::default() };
    if let Some(enabled) = routing_enabled {
        zone.routing_enabled = enabled.value.round() as u32;
    }
    if let Some(size) = min_cluster_size {
        zone.min_cluster_size = size.value;
    }
    zone.force_local = match force_local_zone {
        Some(ForceLocalZone { min_size }) => Some(number(min_size).unwrap_or(1)),
        None => force_locality_direct_routing.then_some(1),
    };
    zone.by_weight = LocalityBasis::try_from(locality_basis) == Ok(LocalityBasis::HealthyHostsWeight);
    zone
}
