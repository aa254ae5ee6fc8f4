//! `envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig`, and the cluster type that has one.

use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::config::cluster::v3::cluster::{LbPolicy, RefreshRate};
use dhow_proto::envoy::config::core::v3::{SocketAddress, socket_address::PortSpecifier};
use dhow_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig, SubClustersConfig, cluster_config::ClusterImplementationSpecifier,
};
use dhow_proto::envoy::extensions::common::dynamic_forward_proxy::v3::{
    DnsCacheCircuitBreakers, DnsCacheConfig,
};

use super::discovery::{DynamicHosts, failure_rate, lookup_family};
use super::fields::{Notes, duration, number, refuse};
use super::resolver::resolver_of;
use crate::dns_cache::{DeniedAddresses, DnsCacheSettings, default_port_appended};
use crate::sub_clusters::SubClusterSettings;

/// Reads the cluster type: how hosts are found, and whether names of certificates may go unchecked.
pub(super) fn lower_cluster(
    message: ClusterConfig,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(DynamicHosts, bool), ConfigError> {
    let ClusterConfig {
        allow_insecure_cluster_options,
        allow_coalesced_connections,
        cluster_implementation_specifier,
    } = message;
    refuse(&allow_coalesced_connections, || path.field("allow_coalesced_connections"))?;
    let cache_path = path.field("dns_cache_config");
    let (cache, sub_clusters) = match cluster_implementation_specifier {
        Some(ClusterImplementationSpecifier::DnsCacheConfig(config)) => {
            (lower(config, &cache_path, notes)?, None)
        }
        // Envoy has a cache without a name then.
        Some(ClusterImplementationSpecifier::SubClustersConfig(config)) => {
            let settings = lower_sub_clusters(config, &path.field("sub_clusters_config"))?;
            (lower_unnamed(DnsCacheConfig::default(), &cache_path, notes)?, Some(settings))
        }
        None => (lower_unnamed(DnsCacheConfig::default(), &cache_path, notes)?, None),
    };
    Ok((DynamicHosts { cache, sub_clusters }, allow_insecure_cluster_options))
}

fn lower_sub_clusters(
    message: SubClustersConfig,
    path: &FieldPath,
) -> Result<SubClusterSettings, ConfigError> {
    let SubClustersConfig {
        lb_policy,
        max_sub_clusters,
        sub_cluster_ttl,
        // Envoy checks these and makes no cluster for them.
        preresolve_clusters: _,
        dns_cluster_config,
    } = message;
    if lb_policy == LbPolicy::ClusterProvided as i32 {
        let reason = "unsupported lb_policy 'CLUSTER_PROVIDED' in sub_cluster_config";
        return Err(ConfigError::new(path.field("lb_policy"), reason));
    }
    Ok(SubClusterSettings {
        lb_policy,
        max: number(max_sub_clusters).unwrap_or(1024) as usize,
        ttl: duration(sub_cluster_ttl, || path.field("sub_cluster_ttl"))?.unwrap_or(Duration::from_secs(300)),
        dns: dns_cluster_config,
    })
}

/// Checks the settings of a cache that something else than a cluster names; the cluster's own are in force.
///
/// # Errors
/// As for a cluster with the same settings.
pub fn check_dns_cache(
    message: DnsCacheConfig,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<(), ConfigError> {
    let mut notes = Notes::default();
    let checked = lower(message, path, &mut notes).map(drop);
    warnings.append(&mut notes.warnings);
    checked
}

fn lower(
    message: DnsCacheConfig,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<DnsCacheSettings, ConfigError> {
    if message.name.is_empty() {
        return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
    }
    lower_unnamed(message, path, notes)
}

#[allow(deprecated, reason = "old fields of the message are still accepted by Envoy")]
fn lower_unnamed(
    message: DnsCacheConfig,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<DnsCacheSettings, ConfigError> {
    let DnsCacheConfig {
        name,
        dns_lookup_family,
        dns_refresh_rate,
        dns_min_refresh_rate,
        host_ttl,
        max_hosts,
        disable_dns_refresh_on_failure,
        dns_failure_refresh_rate,
        dns_cache_circuit_breaker,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        preresolve_hostnames,
        dns_query_timeout,
        key_value_config,
        resolved_address_filter,
    } = message;
    refuse(&key_value_config, || path.field("key_value_config"))?;
    let failure = dns_failure_refresh_rate
        .map(|RefreshRate { base_interval, max_interval }| (base_interval, max_interval));
    let max_pending = dns_cache_circuit_breaker
        .and_then(|DnsCacheCircuitBreakers { max_pending_requests }| number(max_pending_requests));
    let time = |value, field: &str, default| {
        duration(value, || path.field(field)).map(|time| time.unwrap_or(default))
    };
    let preresolve = preresolve_hostnames.into_iter().enumerate();
    Ok(DnsCacheSettings {
        family: lookup_family(dns_lookup_family, path)?,
        refresh_rate: time(dns_refresh_rate, "dns_refresh_rate", Duration::from_secs(60))?,
        min_refresh_rate: time(dns_min_refresh_rate, "dns_min_refresh_rate", Duration::from_secs(5))?,
        failure_refresh: failure_rate(failure, &path.field("dns_failure_refresh_rate"))?,
        refreshes_failures: !disable_dns_refresh_on_failure,
        host_ttl: time(host_ttl, "host_ttl", Duration::from_secs(300))?,
        max_hosts: number(max_hosts).unwrap_or(1024) as usize,
        max_pending: u64::from(max_pending.unwrap_or(1024)),
        query_timeout: time(dns_query_timeout, "dns_query_timeout", Duration::from_secs(5))?,
        resolver: resolver_of(
            &[],
            use_tcp_for_dns_lookups,
            dns_resolution_config.as_ref(),
            typed_dns_resolver_config.as_ref(),
            path,
            notes,
        )?,
        denied: resolved_address_filter
            .map(|matcher| DeniedAddresses::compile(matcher, &path.field("resolved_address_filter")))
            .transpose()?,
        preresolve: preresolve
            .map(|(at, address)| preresolved(address, &path.field("preresolve_hostnames").index(at)))
            .collect::<Result<_, _>>()?,
        name,
    })
}

fn preresolved(address: SocketAddress, path: &FieldPath) -> Result<String, ConfigError> {
    let SocketAddress {
        // Names are resolved for TCP on this side of the network whatever these say.
        protocol: _,
        ipv4_compat: _,
        address,
        resolver_name,
        network_namespace_filepath,
        port_specifier,
    } = address;
    refuse(&resolver_name, || path.field("resolver_name"))?;
    refuse(&network_namespace_filepath, || path.field("network_namespace_filepath"))?;
    match port_specifier {
        Some(PortSpecifier::PortValue(port)) => {
            u16::try_from(port).map(|port| default_port_appended(&address, port)).map_err(|_| {
                ConfigError::new(path.field("port_value"), "value must be less than or equal to 65535")
            })
        }
        // Envoy asks for the number of the port whatever was written, which is 0 where it was a name.
        Some(PortSpecifier::NamedPort(_)) => Ok(default_port_appended(&address, 0)),
        None => Err(ConfigError::new(path.field("port_value"), "is required")),
    }
}
