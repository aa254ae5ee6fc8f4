//! `ClusterLoadAssignment` -> the endpoints of a cluster, before names are resolved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_net::{StreamAddress, numeric_address};
use dhow_proto::envoy::config::core::v3::{
    Address, HealthStatus, Locality as ProtoLocality, Pipe, SocketAddress, address, socket_address,
};
use dhow_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
    cluster_load_assignment::{Policy, policy::DropOverload},
    endpoint::{AdditionalAddress, HealthCheckConfig},
    lb_endpoint::HostIdentifier,
    locality_lb_endpoints::LbConfig,
};
use dhow_proto::envoy::r#type::v3::{FractionalPercent, fractional_percent::DenominatorType};

use super::fields::{Notes, number, timeout};
use crate::host::{HealthFlag, HealthFlags, Locality};
use crate::metadata::HostMetadata;

/// The endpoints of a cluster as configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Assignment {
    pub(crate) groups: Vec<AssignedGroup>,
    pub(crate) policy: AssignmentPolicy,
    /// `endpoint_stale_after`: the endpoints go when no update came for this long.
    pub(crate) stale_after: Option<Duration>,
}

/// `ClusterLoadAssignment.Policy` as far as it shapes the host sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AssignmentPolicy {
    /// `overprovisioning_factor` in percent.
    pub(crate) overprovisioning: u32,
    pub(crate) weighted_priority_health: bool,
    /// `drop_overloads`: requests of a million that are turned away.
    pub(crate) drop_overload: u32,
}

impl Default for AssignmentPolicy {
    fn default() -> Self {
        Self { overprovisioning: 140, weighted_priority_health: false, drop_overload: 0 }
    }
}

/// One `LocalityLbEndpoints`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AssignedGroup {
    pub(crate) priority: u32,
    pub(crate) weight: u32,
    pub(crate) locality: Arc<Locality>,
    pub(crate) endpoints: Vec<AssignedEndpoint>,
}

/// One `LbEndpoint`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AssignedEndpoint {
    pub(crate) target: EndpointTarget,
    pub(crate) hostname: String,
    pub(crate) weight: u32,
    pub(crate) metadata: Arc<HostMetadata>,
    pub(crate) health: HealthFlags,
    pub(crate) health_check_address: Option<StreamAddress>,
    /// Port of health checks of the addresses behind a name, 0 for that of `target`.
    pub(crate) health_check_port: u16,
    pub(crate) health_check_hostname: String,
    pub(crate) health_check_disabled: bool,
    /// `additional_addresses`, tried when `target` does not answer.
    pub(crate) additional: Vec<SocketAddr>,
}

/// Where an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndpointTarget {
    /// At an address.
    Address(StreamAddress),
    /// Behind a name.
    Name(String, u16),
}

/// Reads an assignment. What is in it are names when `names` is set (DNS clusters).
pub(crate) fn lower(
    assignment: ClusterLoadAssignment,
    names: bool,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Assignment, ConfigError> {
    let ClusterLoadAssignment { cluster_name: _, endpoints, named_endpoints, policy } = assignment;
    let mut lowered = Assignment::default();
    if let Some(policy) = policy {
        lower_policy(policy, &mut lowered, &path.field("policy"))?;
    }
    let groups_path = path.field("endpoints");
    for (index, group) in endpoints.into_iter().enumerate() {
        let path = groups_path.index(index);
        let reader = GroupReader { named: &named_endpoints, names };
        lowered.groups.push(reader.lower(group, &path, notes)?);
    }
    Ok(lowered)
}

fn lower_policy(policy: Policy, into: &mut Assignment, path: &FieldPath) -> Result<(), ConfigError> {
    let Policy { drop_overloads, overprovisioning_factor, endpoint_stale_after, weighted_priority_health } =
        policy;
    into.policy.drop_overload = drop_share(&drop_overloads, &path.field("drop_overloads"))?;
    into.stale_after = timeout(endpoint_stale_after, None, || path.field("endpoint_stale_after"))?;
    into.policy.overprovisioning = number(overprovisioning_factor).unwrap_or(140);
    if into.policy.overprovisioning == 0 {
        return Err(ConfigError::new(path.field("overprovisioning_factor"), "value must be greater than 0"));
    }
    into.policy.weighted_priority_health = weighted_priority_health;
    Ok(())
}

/// The share of requests to drop, in millionths.
fn drop_share(overloads: &[DropOverload], path: &FieldPath) -> Result<u32, ConfigError> {
    let [DropOverload { category: _, drop_percentage }] = overloads else {
        return match overloads.len() {
            0 => Ok(0),
            count => {
                let reason =
                    format!("Cluster drop_overloads config has {count} categories. Envoy only support one.");
                Err(ConfigError::new(path.clone(), reason))
            }
        };
    };
    let FractionalPercent { numerator, denominator } = drop_percentage.unwrap_or_default();
    let whole = match DenominatorType::try_from(denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => {
            let reason = format!(
                "Cluster drop_overloads config denominator setting is invalid : {denominator}. Valid range 0~2."
            );
            return Err(ConfigError::new(path.clone(), reason));
        }
    };
    if numerator > whole {
        let ratio = f64::from(numerator) / f64::from(whole);
        let reason = format!(
            "Cluster drop_overloads config is invalid. drop_ratio={ratio}(Numerator {numerator} / Denominator {whole}). The \
             valid range is 0~1."
        );
        return Err(ConfigError::new(path.clone(), reason));
    }
    Ok(numerator * (1_000_000 / whole))
}

struct GroupReader<'a> {
    named: &'a std::collections::HashMap<String, Endpoint>,
    names: bool,
}

impl GroupReader<'_> {
    fn lower(
        &self,
        group: LocalityLbEndpoints,
        path: &FieldPath,
        notes: &mut Notes,
    ) -> Result<AssignedGroup, ConfigError> {
        let LocalityLbEndpoints {
            locality,
            metadata: locality_metadata,
            mut lb_endpoints,
            load_balancing_weight,
            priority,
            proximity,
            lb_config,
        } = group;
        if proximity.is_some() {
            notes.without_effect(path.field("proximity"));
        }
        match lb_config {
            None => {}
            #[allow(deprecated, reason = "older control planes still send the list form")]
            Some(LbConfig::LoadBalancerEndpoints(list)) => lb_endpoints = list.lb_endpoints,
            Some(LbConfig::LedsClusterLocalityConfig(_)) => {
                return Err(ConfigError::unsupported(path.field("leds_cluster_locality_config")));
            }
        }
        if priority > 128 {
            return Err(ConfigError::new(path.field("priority"), "value must be less than or equal to 128"));
        }
        let ProtoLocality { region, zone, sub_zone } = locality.unwrap_or_default();
        let locality_metadata = locality_metadata.unwrap_or_default();
        let endpoints_path = path.field("lb_endpoints");
        let mut endpoints = Vec::with_capacity(lb_endpoints.len());
        for (index, endpoint) in lb_endpoints.into_iter().enumerate() {
            let path = endpoints_path.index(index);
            let mut lowered = self.endpoint(endpoint, &path, notes)?;
            if locality_metadata != Default::default() {
                let endpoint = lowered.metadata.endpoint.clone();
                lowered.metadata = Arc::new(HostMetadata { endpoint, locality: locality_metadata.clone() });
            }
            endpoints.push(lowered);
        }
        Ok(AssignedGroup {
            priority,
            weight: number(load_balancing_weight).unwrap_or(0),
            locality: Locality { region, zone, sub_zone }.shared(),
            endpoints,
        })
    }

    fn endpoint(
        &self,
        endpoint: LbEndpoint,
        path: &FieldPath,
        notes: &mut Notes,
    ) -> Result<AssignedEndpoint, ConfigError> {
        let LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = endpoint;
        let (endpoint, path) = match host_identifier {
            Some(HostIdentifier::Endpoint(endpoint)) => (endpoint, path.field("endpoint")),
            Some(HostIdentifier::EndpointName(name)) => match self.named.get(&name) {
                Some(endpoint) => (endpoint.clone(), path.field("endpoint_name")),
                None => {
                    return Err(ConfigError::new(path.field("endpoint_name"), "Address must be set"));
                }
            },
            None => return Err(ConfigError::new(path.field("endpoint"), "Address must be set")),
        };
        let Endpoint { address, health_check_config, hostname, additional_addresses, observability_name } =
            endpoint;
        let additional =
            additional_addresses.into_iter().enumerate().map(|(index, AdditionalAddress { address })| {
                let path = path.field("additional_addresses").index(index).field("address");
                let address = address.ok_or_else(|| ConfigError::new(path.clone(), "Address must be set"))?;
                match target_of(address, false, &path)? {
                    EndpointTarget::Address(StreamAddress::Ip(address)) => Ok(address),
                    _ => Err(ConfigError::new(path, "additional_addresses must be IP addresses.")),
                }
            });
        let additional = additional.collect::<Result<_, _>>()?;
        if !observability_name.is_empty() {
            notes.without_effect(path.field("observability_name"));
        }
        let address_path = path.field("address");
        let address = address.ok_or_else(|| ConfigError::new(address_path.clone(), "Address must be set"))?;
        let target = target_of(address, self.names, &address_path)?;
        let health_check = lower_health_check(
            health_check_config.unwrap_or_default(),
            &target,
            &path.field("health_check_config"),
        )?;
        Ok(AssignedEndpoint {
            target,
            hostname,
            weight: number(load_balancing_weight).unwrap_or(1).max(1),
            metadata: HostMetadata::of_endpoint(metadata),
            health: health_flags(health_status),
            health_check_address: health_check.address,
            health_check_port: health_check.port,
            health_check_hostname: health_check.hostname,
            health_check_disabled: health_check.disabled,
            additional,
        })
    }
}

/// `HealthCheckConfig`.
struct CheckedAt {
    address: Option<StreamAddress>,
    port: u16,
    hostname: String,
    disabled: bool,
}

fn lower_health_check(
    config: HealthCheckConfig,
    target: &EndpointTarget,
    path: &FieldPath,
) -> Result<CheckedAt, ConfigError> {
    let HealthCheckConfig { port_value, hostname, address, disable_active_health_check } = config;
    let own = address.map(|address| target_of(address, false, &path.field("address"))).transpose();
    // No name can be given here, whatever the cluster's type.
    let own = own.map_err(|error| ConfigError {
        reason: error.reason.replace(&format!(". {USE_DNS}"), ""),
        ..error
    })?;
    let as_address = |target: &EndpointTarget| match target {
        EndpointTarget::Address(address) => Some(address.clone()),
        EndpointTarget::Name(..) => None,
    };
    let own = own.as_ref().and_then(as_address);
    let port = u16::try_from(port_value).map_err(|_| {
        ConfigError::new(path.field("port_value"), "value must be less than or equal to 65535")
    })?;
    let address = match (own.clone().or_else(|| as_address(target)), port) {
        (_, 0) => own,
        (Some(StreamAddress::Ip(mut ip)), port) => {
            ip.set_port(port);
            Some(StreamAddress::Ip(ip))
        }
        (Some(StreamAddress::Pipe(_)), _) => {
            let reason = "Invalid host configuration: non-zero port for non-IP address";
            return Err(ConfigError::new(path.field("port_value"), reason));
        }
        (None, _) => None,
    };
    Ok(CheckedAt { address, port, hostname, disabled: disable_active_health_check })
}

fn health_flags(status: i32) -> HealthFlags {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => {
            HealthFlags::NONE.with(HealthFlag::FailedEdsHealth)
        }
        Ok(HealthStatus::Draining) => HealthFlags::NONE.with(HealthFlag::EdsStatusDraining),
        Ok(HealthStatus::Degraded) => HealthFlags::NONE.with(HealthFlag::DegradedEdsHealth),
        Ok(HealthStatus::Unknown | HealthStatus::Healthy) | Err(_) => HealthFlags::NONE,
    }
}

fn target_of(address: Address, names: bool, path: &FieldPath) -> Result<EndpointTarget, ConfigError> {
    match address.address {
        Some(address::Address::SocketAddress(address)) => {
            socket_target(address, names, &path.field("socket_address"))
        }
        Some(address::Address::Pipe(Pipe { path: file, mode })) => {
            let address = StreamAddress::pipe(&file, mode).map_err(|reason| {
                ConfigError::new(path.field("pipe").field("path"), format!("{reason}. {USE_DNS}"))
            })?;
            Ok(EndpointTarget::Address(address))
        }
        Some(address::Address::EnvoyInternalAddress(_)) => {
            Err(ConfigError::unsupported(path.field("envoy_internal_address")))
        }
        None => Err(ConfigError::new(path.clone(), "Address must be set")),
    }
}

/// The end of Envoy's messages about addresses of clusters that do not resolve names.
const USE_DNS: &str =
    "Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'";

fn socket_target(
    address: SocketAddress,
    names: bool,
    path: &FieldPath,
) -> Result<EndpointTarget, ConfigError> {
    let SocketAddress {
        // TCP whatever it says, as in Envoy's clusters of HTTP and TCP.
        protocol: _,
        address,
        resolver_name,
        // Only means something for addresses to listen on.
        ipv4_compat: _,
        network_namespace_filepath,
        port_specifier,
    } = address;
    if !resolver_name.is_empty() {
        return Err(ConfigError::unsupported(path.field("resolver_name")));
    }
    if !network_namespace_filepath.is_empty() {
        return Err(ConfigError::unsupported(path.field("network_namespace_filepath")));
    }
    let port = match port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(port).map_err(|_| {
            ConfigError::new(path.field("port_value"), "value must be less than or equal to 65535")
        })?,
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            let reason = format!("IP resolver can't handle port specifier type 4. {USE_DNS}");
            return Err(ConfigError::new(path.field("named_port"), reason));
        }
        None => 0,
    };
    // An address is a name too, which resolves to itself; but no answer has the scope of one.
    if names && !address.contains('%') {
        return Ok(EndpointTarget::Name(address, port));
    }
    match numeric_address(&address, port) {
        Some(address) => Ok(EndpointTarget::Address(StreamAddress::Ip(address))),
        None => {
            let reason = format!("malformed IP address: {address}. {USE_DNS}");
            Err(ConfigError::new(path.field("address"), reason))
        }
    }
}

/// The IP address of a source to bind to.
pub(crate) fn source_address(address: SocketAddress, path: &FieldPath) -> Result<SocketAddr, ConfigError> {
    let text = address.address.clone();
    match socket_target(address, false, path) {
        Ok(EndpointTarget::Address(StreamAddress::Ip(address))) => Ok(address),
        Ok(_) => Err(ConfigError::new(path.clone(), "must be an IP address")),
        Err(mut error) => {
            if error.reason.starts_with("malformed") {
                error.reason = format!("malformed IP address: {text}");
            }
            Err(error)
        }
    }
}
