//! `envoy.config.cluster.v3.Cluster` -> a validated configuration, field by field.

mod assignment;
mod connections;
mod custom_settings;
mod discovery;
mod dns_cache;
mod fields;
mod health_check;
mod http_options;
mod key_format;
mod load_balancing;
mod outlier;
mod resolver;
mod socket_matcher;
mod sockets;
#[cfg(test)]
mod tests;
mod thresholds;

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_matching::StatsMatcher;
use dhow_proto::envoy::config::cluster::v3::cluster::{ClusterProtocolSelection, LbPolicy as LegacyPolicy};
use dhow_proto::envoy::config::cluster::v3::{Cluster, Filter, TrackClusterStats};
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_proto::{any, open_typed_structs};
use dhow_tls::Secrets;

pub(crate) use assignment::{AssignedEndpoint, Assignment, AssignmentPolicy, EndpointTarget};
pub use custom_settings::{NamedSettings, lower_custom_settings};
use discovery::DiscoveryFields;
pub use discovery::EdsSource;
pub(crate) use discovery::{Discovery, DnsDiscovery};
pub use dns_cache::check_dns_cache;
use fields::{Notes, duration, number, refuse};
use http_options::LegacyHttpFields;
pub(crate) use load_balancing::LoadBalancing;
use load_balancing::LoadBalancingFields;
pub(crate) use sockets::TransportSockets;

use crate::cluster_info::UpstreamProtocol;
use crate::cluster_settings::ClusterSettings;
use crate::connection_options::ConnectionOptions;
use crate::dns::ResolverOptions;
use crate::forwarding_options::ForwardingLowering;
use crate::health_check::HealthCheckConfig;
use crate::lb::LbPolicy;
use crate::tracked_stats::Tracking;

/// A cluster message after validation.
#[derive(Clone, Debug)]
pub(crate) struct ClusterConfig {
    pub(crate) name: String,
    /// `alt_stat_name`, or the name.
    pub(crate) observability_name: String,
    pub(crate) discovery: Discovery,
    pub(crate) health_check: Option<Arc<HealthCheckConfig>>,
    /// `stats_matcher`: which of its stats exist, whatever is said of all.
    pub(crate) stats_matcher: Option<StatsMatcher>,
    pub(crate) metadata: Option<Arc<Metadata>>,
    pub(crate) settings: Arc<ClusterSettings>,
}

impl Deref for ClusterConfig {
    type Target = ClusterSettings;

    fn deref(&self) -> &ClusterSettings {
        &self.settings
    }
}

/// Reads a cluster, which may name the secrets, is resolved by the resolver unless it has its own, and has what concerns the
/// forwarding of requests read by `forwarding`; paths in errors and warnings start at the message.
pub(crate) fn lower_cluster(
    cluster: Cluster,
    secrets: &Arc<Secrets>,
    resolver: &Arc<ResolverOptions>,
    forwarding: &ForwardingLowering,
) -> Result<(ClusterConfig, Vec<ConfigWarning>), ConfigError> {
    let name = if cluster.alt_stat_name.is_empty() { &cluster.name } else { &cluster.alt_stat_name };
    let stat_prefix = format!("cluster.{name}.");
    let mut notes = Notes {
        secrets: secrets.clone(),
        resolver: resolver.clone(),
        forwarding: forwarding.clone(),
        stat_prefix,
        ..Notes::default()
    };
    let config = lower(cluster, &FieldPath::root(), &mut notes)?;
    check_combinations(&config)?;
    Ok((config, notes.warnings))
}

/// Reads an assignment that came by EDS.
pub(crate) fn lower_assignment(
    message: ClusterLoadAssignment,
) -> Result<(Assignment, Vec<ConfigWarning>), ConfigError> {
    let mut notes = Notes::default();
    let assignment = assignment::lower(message, false, &FieldPath::root(), &mut notes)?;
    Ok((assignment, notes.warnings))
}

#[allow(deprecated, reason = "old fields of the message are still accepted by Envoy")]
fn lower(cluster: Cluster, path: &FieldPath, notes: &mut Notes) -> Result<ClusterConfig, ConfigError> {
    let cluster = open_typed_structs(cluster).map_err(|error| error.under(path))?;
    let Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = cluster;
    if name.is_empty() {
        return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
    }
    let stats_matcher =
        stats_matcher.map(|matcher| StatsMatcher::compile(&matcher, &path.field("stats_matcher")));
    refuse(&upstream_config, || path.field("upstream_config"))?;
    refuse(&queuing_policies, || path.field("queuing_policies"))?;
    let TrackClusterStats { timeout_budgets, request_response_sizes, per_endpoint_stats } =
        track_cluster_stats.unwrap_or_default();
    for (field, is_set) in [
        (
            "per_connection_buffer_high_watermark_timeout",
            per_connection_buffer_high_watermark_timeout.is_some(),
        ),
        ("lrs_server", lrs_server.is_some()),
        ("lrs_report_endpoint_metrics", !lrs_report_endpoint_metrics.is_empty()),
    ] {
        if is_set {
            notes.without_effect(path.field(field));
        }
    }
    check_filters(&filters, &path.field("filters"), notes)?;
    let tracking = Tracking {
        timeout_budgets: timeout_budgets || track_timeout_budgets,
        request_response_sizes,
        per_endpoint: per_endpoint_stats,
    };
    if close_connections_on_host_health_failure {
        let reason = "connections of HTTP pools end with the request under way in any case, as in Envoy; those of tcp_proxy \
                      stay";
        notes.warn(path.field("close_connections_on_host_health_failure"), reason);
    }
    let use_downstream_protocol =
        protocol_selection == ClusterProtocolSelection::UseDownstreamProtocol as i32;
    if http_protocol_options.is_some() && http2_protocol_options.is_some() && !use_downstream_protocol {
        let reason = "cluster: Both HTTP1 and HTTP2 options may only be configured with non-default \
                      'protocol_selection' values";
        return Err(ConfigError::new(path.clone(), reason));
    }
    let legacy = LegacyHttpFields {
        max_requests_per_connection,
        upstream: upstream_http_protocol_options,
        common: common_http_protocol_options,
        http1: http_protocol_options,
        http2: http2_protocol_options,
        use_downstream_protocol,
    };
    // A proxy to any host checks that it reached the one that was named, unless it is told how.
    let checks_by_default = typed_extension_protocol_options.is_empty()
        && legacy.upstream.is_none()
        && discovery::is_dynamic_forward_proxy(cluster_discovery_type.as_ref());
    let hashes_names = common_lb_config
        .as_ref()
        .and_then(|common| common.consistent_hashing_lb_config.as_ref())
        .is_some_and(|hashing| hashing.use_hostname_for_hashing);
    let balancing = LoadBalancingFields {
        cluster_name: name.clone(),
        lb_policy,
        lb_config,
        common: common_lb_config,
        policy: load_balancing_policy,
        subset: lb_subset_config,
    };
    let balancing = load_balancing::lower(balancing, path, notes)?;
    let mut http = http_options::lower(typed_extension_protocol_options, legacy, path, notes)?;
    http.auto_sni |= checks_by_default;
    http.auto_san_validation |= checks_by_default;
    let http2 = !matches!(http.protocol, UpstreamProtocol::Http1(_));
    let health_check = health_check::lower(health_checks, http2, &name, &path.field("health_checks"), notes)?;
    let discovery = DiscoveryFields {
        discovery_type: cluster_discovery_type,
        cluster_name: name.clone(),
        eds: eds_cluster_config,
        load_assignment,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        cleanup_interval,
        checks_names: http.auto_sni && http.auto_san_validation,
    };
    let bind_path = path.field("upstream_bind_config");
    let (bind, socket_options) =
        sockets::lower_bind(upstream_bind_config, &format!("Cluster {name}"), &bind_path, notes)?;
    let (tcp_keepalive, families) = sockets::lower_connection_options(upstream_connection_options);
    let breakers_path = path.field("circuit_breakers");
    let (preconnect_ratio, predictive_ratio, preconnect_hosts) =
        connections::preconnect(preconnect_policy, &path.field("preconnect_policy"))?;
    let connections = ConnectionOptions {
        preconnect_ratio,
        predictive_ratio,
        preconnect_hosts,
        pool_per_client: connection_pool_per_downstream_connection,
        max_per_host: connections::max_per_host(circuit_breakers.as_ref(), &breakers_path, notes)?,
        families,
        socket_options: socket_options.into(),
    };
    let observability_name = if alt_stat_name.is_empty() { name.clone() } else { alt_stat_name };
    let discovery = discovery::lower(discovery, path, notes)?;
    let has_names = matches!(&discovery, Discovery::Dns(dns) if !dns.logical);
    if hashes_names && !has_names {
        let reason = format!(
            "Cannot use hostname for consistent hashing loadbalancing for cluster of type: '{}'",
            discovery.factory_name()
        );
        return Err(ConfigError::new(path.field("common_lb_config"), reason));
    }
    let settings = ClusterSettings {
        connect_timeout: connect_timeout_of(connect_timeout, path)?,
        per_connection_buffer_limit: number(per_connection_buffer_limit_bytes).unwrap_or(1 << 20),
        balancing,
        http,
        bind,
        tcp_keepalive,
        connections,
        sockets: sockets::lower_transport_sockets(
            transport_socket,
            transport_socket_matches,
            transport_socket_matcher,
            path,
            notes,
        )?,
        thresholds: Arc::new(thresholds::lower(circuit_breakers, &breakers_path, notes)?),
        tracking,
        outlier_detection: outlier_detection
            .map(|message| outlier::lower(message, &path.field("outlier_detection")))
            .transpose()?,
        ignore_health_on_host_removal,
        wait_for_warm_on_init: wait_for_warm_on_init.is_none_or(|value| value.value),
    };
    Ok(ClusterConfig {
        name,
        observability_name,
        discovery,
        health_check: health_check.map(Arc::new),
        stats_matcher: stats_matcher.transpose()?,
        metadata: metadata.filter(|metadata| *metadata != Metadata::default()).map(Arc::new),
        settings: Arc::new(settings),
    })
}

/// Network filters in front of hosts: there are none. Those by which Istio's proxies tell each other who they are may be
/// named, as the connection is the same without them.
fn check_filters(filters: &[Filter], path: &FieldPath, notes: &mut Notes) -> Result<(), ConfigError> {
    const OF_ISTIO: [&str; 2] = ["istio.metadata_exchange", "envoy.filters.network.upstream_peer_metadata"];
    for (index, Filter { name, typed_config, config_discovery: _ }) in filters.iter().enumerate() {
        let path = path.index(index);
        if OF_ISTIO.contains(&name.as_str()) {
            notes.warn(path, "without effect: peers are not told who this proxy is");
            continue;
        }
        let type_name = typed_config.as_ref().map_or("", |config| any::type_name(&config.type_url));
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
        return Err(ConfigError::new(path, reason));
    }
    Ok(())
}

fn connect_timeout_of(
    value: Option<dhow_proto::google::protobuf::Duration>,
    path: &FieldPath,
) -> Result<Duration, ConfigError> {
    let zero = dhow_proto::google::protobuf::Duration::default();
    match duration(value, || path.field("connect_timeout"))? {
        None => Ok(Duration::from_secs(5)),
        Some(_) if value == Some(zero) => {
            Err(ConfigError::new(path.field("connect_timeout"), "value must be greater than 0s"))
        }
        Some(timeout) => Ok(timeout.max(Duration::from_millis(1))),
    }
}

fn check_combinations(config: &ClusterConfig) -> Result<(), ConfigError> {
    let path = |field: &str| FieldPath::root().field(field);
    let provided = config.balancing.lb.policy == LbPolicy::ClusterProvided;
    match (&config.discovery, provided) {
        (Discovery::Aggregate(_) | Discovery::DynamicForwardProxy(_), false) => {
            let reason = format!(
                "cluster manager: cluster provided LB not specified but cluster '{}' provided one. Check cluster \
                 documentation.",
                config.name
            );
            return Err(ConfigError::new(path("lb_policy"), reason));
        }
        (Discovery::OriginalDst(_), false) => {
            let policy = match config.balancing.lb.policy {
                LbPolicy::LeastRequest { .. } => LegacyPolicy::LeastRequest,
                LbPolicy::Random => LegacyPolicy::Random,
                LbPolicy::Consistent(crate::lb::TableConfig::Ring { .. }) => LegacyPolicy::RingHash,
                LbPolicy::Consistent(crate::lb::TableConfig::Maglev { .. }) => LegacyPolicy::Maglev,
                LbPolicy::RoundRobin | LbPolicy::ClusterProvided => LegacyPolicy::RoundRobin,
            };
            let reason = format!(
                "cluster: LB policy {} is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed \
                 with cluster type 'ORIGINAL_DST'",
                policy.as_str_name()
            );
            return Err(ConfigError::new(path("lb_policy"), reason));
        }
        (Discovery::Static(_) | Discovery::Dns(_) | Discovery::Eds(_), true) => {
            let reason = format!(
                "cluster manager: cluster provided LB specified but cluster '{}' did not provide one. Check cluster \
                 documentation.",
                config.name
            );
            return Err(ConfigError::new(path("lb_policy"), reason));
        }
        _ => {}
    }
    if matches!(config.http.protocol, UpstreamProtocol::Auto(..)) && !config.sockets.default.is_secure() {
        let reason =
            format!("ALPN configured for cluster {} which has a non-ALPN transport socket", config.name);
        return Err(ConfigError::new(path("transport_socket"), reason));
    }
    Ok(())
}
