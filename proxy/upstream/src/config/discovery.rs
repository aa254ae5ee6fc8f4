//! `type`, `cluster_type` and their settings -> how the hosts are found.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, RefreshRate,
};
use dhow_proto::envoy::config::core::v3::{
    Address, ConfigSource, DnsResolutionConfig, TypedExtensionConfig, config_source::ConfigSourceSpecifier,
};
use dhow_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_proto::envoy::extensions::clusters::aggregate::v3::ClusterConfig as AggregateConfig;
use dhow_proto::envoy::extensions::clusters::common::dns::v3::DnsLookupFamily as TypedLookupFamily;
use dhow_proto::envoy::extensions::clusters::dns::v3::{DnsCluster, dns_cluster};
use dhow_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig as DynamicForwardProxy;
use dhow_proto::google::protobuf::Duration as ProtoDuration;
use dhow_proto::{Name, any::type_name};

use super::assignment::{self, Assignment};
use super::dns_cache;
use super::fields::{Notes, duration, unpack};
use super::resolver::{resolver_of, typed_resolver};
use crate::dns::{LookupError, LookupFamily, ResolverOptions};
use crate::dns_cache::DnsCacheSettings;
use crate::source_file::check_source_file;
use crate::sub_clusters::SubClusterSettings;

/// `cleanup_interval` unless configured.
const ORIGINAL_DST_CLEANUP: Duration = Duration::from_secs(5);

/// How the hosts of a cluster are found, with everything needed to find them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Discovery {
    Static(Assignment),
    Dns(Box<DnsDiscovery>),
    Eds(Box<EdsDiscovery>),
    /// With `cleanup_interval`.
    OriginalDst(Duration),
    /// `envoy.clusters.aggregate`: the clusters in order of preference.
    Aggregate(Vec<String>),
    /// `envoy.clusters.dynamic_forward_proxy`.
    DynamicForwardProxy(Box<DynamicHosts>),
}

impl Discovery {
    /// The name under which Envoy registers the type of cluster.
    pub(crate) fn factory_name(&self) -> &'static str {
        match self {
            Self::Static(_) => "envoy.cluster.static",
            Self::Dns(dns) if dns.logical => "envoy.cluster.logical_dns",
            Self::Dns(_) => "envoy.cluster.strict_dns",
            Self::Eds(_) => "envoy.cluster.eds",
            Self::OriginalDst(_) => "envoy.cluster.original_dst",
            Self::Aggregate(_) => "envoy.clusters.aggregate",
            Self::DynamicForwardProxy(_) => "envoy.clusters.dynamic_forward_proxy",
        }
    }
}

/// How the hosts that requests name are found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DynamicHosts {
    pub(crate) cache: DnsCacheSettings,
    /// `sub_clusters_config`: each host has a cluster of its own, and the cache is idle.
    pub(crate) sub_clusters: Option<SubClusterSettings>,
}

/// `STRICT_DNS`, `LOGICAL_DNS` and `envoy.cluster.dns`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DnsDiscovery {
    /// One host for the first address instead of a host per address.
    pub(crate) logical: bool,
    pub(crate) assignment: Assignment,
    pub(crate) refresh_rate: Duration,
    /// Base and maximum of the back-off after a failure.
    pub(crate) failure_refresh: Option<(Duration, Duration)>,
    pub(crate) jitter: Duration,
    pub(crate) respect_ttl: bool,
    /// The least delay that a TTL may cause.
    pub(crate) min_refresh_rate: Duration,
    pub(crate) family: LookupFamily,
    pub(crate) resolver: ResolverOptions,
}

impl DnsDiscovery {
    /// Whether this is a failure, after which the hosts stay what they are. That there is no such name is an answer, unless
    /// there has to be an address.
    pub(crate) fn is_failure(&self, error: &LookupError) -> bool {
        self.logical || !error.is_no_records()
    }
}

/// `EDS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EdsDiscovery {
    pub(crate) service_name: String,
    pub(crate) source: EdsSource,
    pub(crate) initial_fetch_timeout: Option<Duration>,
}

/// Where assignments come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EdsSource {
    /// `ads`.
    Ads,
    /// `path_config_source` or the deprecated `path`: a file that holds a discovery response.
    Path {
        /// The file.
        path: String,
        /// `watched_directory.path`: the directory whose changes announce a new file; the file's own when `None`.
        watched_directory: Option<String>,
    },
}

/// The fields of `Cluster` that are about discovery.
pub(crate) struct DiscoveryFields {
    pub(crate) discovery_type: Option<ClusterDiscoveryType>,
    pub(crate) cluster_name: String,
    pub(crate) eds: Option<EdsClusterConfig>,
    pub(crate) load_assignment: Option<ClusterLoadAssignment>,
    pub(crate) dns_refresh_rate: Option<ProtoDuration>,
    pub(crate) dns_jitter: Option<ProtoDuration>,
    pub(crate) dns_failure_refresh_rate: Option<RefreshRate>,
    pub(crate) respect_dns_ttl: bool,
    pub(crate) dns_lookup_family: i32,
    pub(crate) dns_resolvers: Vec<Address>,
    pub(crate) use_tcp_for_dns_lookups: bool,
    pub(crate) dns_resolution_config: Option<DnsResolutionConfig>,
    pub(crate) typed_dns_resolver_config: Option<TypedExtensionConfig>,
    pub(crate) cleanup_interval: Option<ProtoDuration>,
    /// `auto_sni` and `auto_san_validation`: connections are checked to be to the host that requests name.
    pub(crate) checks_names: bool,
}

pub(crate) fn lower(
    mut fields: DiscoveryFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Discovery, ConfigError> {
    let kind = match fields.discovery_type.take() {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => DiscoveryType::try_from(kind).map_err(|_| {
            ConfigError::new(path.field("type"), "value must be one of the defined enum values")
        })?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => return lower_custom(custom, fields, path, notes),
    };
    if kind != DiscoveryType::Eds && fields.eds.is_some() {
        let path = path.field("eds_cluster_config");
        return Err(ConfigError::new(path, "eds_cluster_config set in a non-EDS cluster"));
    }
    let assignment_path = path.field("load_assignment");
    match kind {
        DiscoveryType::Static => {
            assigned(fields.load_assignment, false, &assignment_path, notes).map(Discovery::Static)
        }
        DiscoveryType::StrictDns => lower_dns(fields, false, path, notes),
        DiscoveryType::LogicalDns => lower_dns(fields, true, path, notes),
        DiscoveryType::Eds => {
            if fields.load_assignment.is_some() {
                notes.warn(assignment_path, "has no effect on a cluster of type EDS");
            }
            lower_eds(fields.eds, fields.cluster_name, &path.field("eds_cluster_config"), notes)
        }
        DiscoveryType::OriginalDst => {
            if fields.load_assignment.is_some() {
                let reason = "ORIGINAL_DST clusters must have no load assignment configured";
                return Err(ConfigError::new(assignment_path, reason));
            }
            let interval = duration(fields.cleanup_interval, || path.field("cleanup_interval"))?;
            Ok(Discovery::OriginalDst(interval.unwrap_or(ORIGINAL_DST_CLEANUP)))
        }
    }
}

/// Whether a cluster of this type has the hosts that requests name.
pub(crate) fn is_dynamic_forward_proxy(kind: Option<&ClusterDiscoveryType>) -> bool {
    match kind {
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let any = custom.typed_config.as_ref();
            any.is_some_and(|any| type_name(&any.type_url) == DynamicForwardProxy::full_name())
        }
        _ => false,
    }
}

/// The `load_assignment` of a cluster.
fn assigned(
    message: Option<ClusterLoadAssignment>,
    names: bool,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Assignment, ConfigError> {
    let assignment = assignment::lower(message.unwrap_or_default(), names, path, notes)?;
    if assignment.stale_after.is_some() {
        let path = path.field("policy").field("endpoint_stale_after");
        notes.warn(path, "has an effect on clusters of type EDS only");
    }
    Ok(assignment)
}

fn lower_eds(
    config: Option<EdsClusterConfig>,
    cluster_name: String,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Discovery, ConfigError> {
    let EdsClusterConfig { eds_config, service_name } = config.unwrap_or_default();
    let Some(source) = eds_config else {
        return Err(ConfigError::new(path.clone(), "cannot create an EDS cluster without an EDS config"));
    };
    let path = path.field("eds_config");
    let ConfigSource { authorities, initial_fetch_timeout, resource_api_version: _, config_source_specifier } =
        source;
    if !authorities.is_empty() {
        return Err(ConfigError::unsupported(path.field("authorities")));
    }
    let file = |file: String, watched_directory| EdsSource::Path { path: file, watched_directory };
    let source = match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_)) => EdsSource::Ads,
        Some(ConfigSourceSpecifier::PathConfigSource(source)) => {
            let dhow_proto::envoy::config::core::v3::PathConfigSource {
                path: name,
                watched_directory,
                poll_interval,
            } = source;
            if poll_interval.is_some() {
                notes.without_effect(path.field("path_config_source").field("poll_interval"));
            }
            let file_path = path.field("path_config_source").field("path");
            check_source_file(&name, watched_directory.is_none(), &file_path)?;
            file(name, watched_directory.map(|directory| directory.path))
        }
        #[allow(deprecated, reason = "still accepted by Envoy")]
        Some(ConfigSourceSpecifier::Path(name)) => {
            check_source_file(&name, true, &path.field("path"))?;
            file(name, None)
        }
        Some(ConfigSourceSpecifier::Self_(_)) => EdsSource::Ads,
        Some(ConfigSourceSpecifier::ApiConfigSource(_)) => {
            return Err(ConfigError::unsupported(path.field("api_config_source")));
        }
        None => return Err(ConfigError::new(path.field("config_source_specifier"), "is required")),
    };
    let initial_fetch_timeout =
        super::fields::timeout(initial_fetch_timeout, Some(Duration::from_secs(15)), || {
            path.field("initial_fetch_timeout")
        })?;
    let service_name = if service_name.is_empty() { cluster_name } else { service_name };
    Ok(Discovery::Eds(Box::new(EdsDiscovery { service_name, source, initial_fetch_timeout })))
}

fn lower_dns(
    fields: DiscoveryFields,
    logical: bool,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Discovery, ConfigError> {
    let resolver = resolver(&fields, path, notes)?;
    let DiscoveryFields {
        load_assignment,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        // What decided that the hosts are found by DNS, and what `resolver` has read above.
        discovery_type: _,
        cluster_name: _,
        eds: _,
        dns_resolvers: _,
        use_tcp_for_dns_lookups: _,
        dns_resolution_config: _,
        typed_dns_resolver_config: _,
        cleanup_interval: _,
        checks_names: _,
    } = fields;
    let family = lookup_family(dns_lookup_family, path)?;
    let failure = dns_failure_refresh_rate
        .map(|RefreshRate { base_interval, max_interval }| (base_interval, max_interval));
    let assignment_path = path.field("load_assignment");
    let assignment = assigned(load_assignment, true, &assignment_path, notes)?;
    if logical {
        check_logical(&assignment, &assignment_path)?;
    }
    Ok(Discovery::Dns(Box::new(DnsDiscovery {
        logical,
        assignment,
        refresh_rate: refresh_rate(dns_refresh_rate, || path.field("dns_refresh_rate"))?,
        failure_refresh: failure_rate(failure, &path.field("dns_failure_refresh_rate"))?,
        jitter: duration(dns_jitter, || path.field("dns_jitter"))?.unwrap_or_default(),
        respect_ttl: respect_dns_ttl,
        min_refresh_rate: Duration::from_secs(1),
        family,
        resolver,
    })))
}

fn check_logical(assignment: &Assignment, path: &FieldPath) -> Result<(), ConfigError> {
    match &*assignment.groups {
        [group] if group.endpoints.len() == 1 => Ok(()),
        _ => {
            let reason =
                "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint";
            Err(ConfigError::new(path.clone(), reason))
        }
    }
}

/// `dns_lookup_family` of the message at `path`.
pub(super) fn lookup_family(value: i32, path: &FieldPath) -> Result<LookupFamily, ConfigError> {
    match DnsLookupFamily::try_from(value) {
        Ok(DnsLookupFamily::Auto) => Ok(LookupFamily::Auto),
        Ok(DnsLookupFamily::V4Only) => Ok(LookupFamily::V4Only),
        Ok(DnsLookupFamily::V6Only) => Ok(LookupFamily::V6Only),
        Ok(DnsLookupFamily::V4Preferred) => Ok(LookupFamily::V4Preferred),
        Ok(DnsLookupFamily::All) => Ok(LookupFamily::All),
        Err(_) => {
            let path = path.field("dns_lookup_family");
            Err(ConfigError::new(path, "value must be one of the defined enum values"))
        }
    }
}

fn refresh_rate(value: Option<ProtoDuration>, path: impl Fn() -> FieldPath) -> Result<Duration, ConfigError> {
    match duration(value, &path)? {
        None => Ok(Duration::from_secs(5)),
        Some(rate) if rate > Duration::from_millis(1) => Ok(rate),
        Some(_) => Err(ConfigError::new(path(), "value must be greater than 1ms")),
    }
}

pub(super) fn failure_rate(
    value: Option<(Option<ProtoDuration>, Option<ProtoDuration>)>,
    path: &FieldPath,
) -> Result<Option<(Duration, Duration)>, ConfigError> {
    let Some((base, maximum)) = value else {
        return Ok(None);
    };
    let base = duration(base, || path.field("base_interval"))?
        .ok_or_else(|| ConfigError::new(path.field("base_interval"), "is required"))?;
    let maximum = duration(maximum, || path.field("max_interval"))?.unwrap_or(base.saturating_mul(10));
    if maximum < base {
        let reason =
            "dns_failure_refresh_rate must have max_interval greater than or equal to the base_interval";
        return Err(ConfigError::new(path.clone(), reason));
    }
    Ok(Some((base, maximum)))
}

fn lower_custom(
    custom: CustomClusterType,
    fields: DiscoveryFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<Discovery, ConfigError> {
    let CustomClusterType { name, typed_config } = custom;
    let type_path = path.field("cluster_type").field("typed_config");
    if let Some(any) = &typed_config
        && let Some(AggregateConfig { clusters }) = unpack(any, || type_path.clone())?
    {
        if clusters.is_empty() {
            let path = type_path.field("clusters");
            return Err(ConfigError::new(path, "value must contain at least 1 item(s)"));
        }
        return Ok(Discovery::Aggregate(clusters));
    }
    if let Some(any) = &typed_config
        && let Some(message) = unpack::<DynamicForwardProxy>(any, || type_path.clone())?
    {
        let (hosts, insecure) = dns_cache::lower_cluster(message, &type_path, notes)?;
        if !insecure && !fields.checks_names {
            let reason = "dynamic_forward_proxy cluster must have auto_sni and auto_san_validation true unless \
                          allow_insecure_cluster_options is set.";
            return Err(ConfigError::new(type_path, reason));
        }
        return Ok(Discovery::DynamicForwardProxy(Box::new(hosts)));
    }
    let dns = match &typed_config {
        Some(any) => unpack::<DnsCluster>(any, || type_path.clone())?,
        None => None,
    };
    let Some(dns) = dns else {
        let reason = format!("Didn't find a registered cluster factory implementation for name: '{name}'");
        return Err(ConfigError::new(path.field("cluster_type"), reason));
    };
    let DnsCluster {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint,
        dns_min_refresh_rate,
    } = dns;
    let family = match TypedLookupFamily::try_from(dns_lookup_family) {
        Ok(TypedLookupFamily::Unspecified | TypedLookupFamily::Auto) => LookupFamily::Auto,
        Ok(TypedLookupFamily::V4Only) => LookupFamily::V4Only,
        Ok(TypedLookupFamily::V6Only) => LookupFamily::V6Only,
        Ok(TypedLookupFamily::V4Preferred) => LookupFamily::V4Preferred,
        Ok(TypedLookupFamily::All) => LookupFamily::All,
        Err(_) => {
            let path = type_path.field("dns_lookup_family");
            return Err(ConfigError::new(path, "value must be one of the defined enum values"));
        }
    };
    let resolver = match typed_dns_resolver_config {
        None => (*notes.resolver).clone(),
        Some(config) => {
            let mut resolver = ResolverOptions::default();
            typed_resolver(config, &mut resolver, &type_path.field("typed_dns_resolver_config"), notes)?;
            resolver
        }
    };
    let assignment_path = path.field("load_assignment");
    let assignment = assigned(fields.load_assignment, true, &assignment_path, notes)?;
    if all_addresses_in_single_endpoint {
        check_logical(&assignment, &assignment_path)?;
    }
    let failure = dns_failure_refresh_rate
        .map(|dns_cluster::RefreshRate { base_interval, max_interval }| (base_interval, max_interval));
    Ok(Discovery::Dns(Box::new(DnsDiscovery {
        logical: all_addresses_in_single_endpoint,
        assignment,
        refresh_rate: refresh_rate(dns_refresh_rate, || type_path.field("dns_refresh_rate"))?,
        failure_refresh: failure_rate(failure, &type_path.field("dns_failure_refresh_rate"))?,
        jitter: duration(dns_jitter, || type_path.field("dns_jitter"))?.unwrap_or_default(),
        respect_ttl: respect_dns_ttl,
        min_refresh_rate: duration(dns_min_refresh_rate, || type_path.field("dns_min_refresh_rate"))?
            .unwrap_or(Duration::from_secs(1)),
        family,
        resolver,
    })))
}

/// How the names of a cluster are resolved: as it says itself, where it names servers or a resolver, and else as the bootstrap
/// says.
fn resolver(
    fields: &DiscoveryFields,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<ResolverOptions, ConfigError> {
    let resolution = fields.dns_resolution_config.as_ref();
    let typed = fields.typed_dns_resolver_config.as_ref();
    let has_own = typed.is_some()
        || resolution.is_some_and(|resolution| !resolution.resolvers.is_empty())
        || !fields.dns_resolvers.is_empty();
    if !has_own {
        if fields.use_tcp_for_dns_lookups {
            let reason = "has an effect beside dns_resolvers only, as in Envoy";
            notes.warn(path.field("use_tcp_for_dns_lookups"), reason);
        }
        return Ok((*notes.resolver).clone());
    }
    resolver_of(&fields.dns_resolvers, fields.use_tcp_for_dns_lookups, resolution, typed, path, notes)
}
