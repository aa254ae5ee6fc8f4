//! From `RouteAction` to a forwarding action.

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::Format;
use dhow_http::HeaderName;
use dhow_matching::{MetadataCriteria, RegexRewrite};
use dhow_proto::any;

use crate::action::{
    ForwardAction, ForwardSettings, HedgePolicy, HostRewrite, Priority, ProxyProtocol, UpgradeConfig,
};
use crate::cluster::{ClusterChoice, ClusterSource, WeightedCluster, WeightedClusters};
use crate::cluster_matcher::MatchedClusters;
use crate::compile::{Compiler, HostLevel, LevelHeaders, RouteLevel, WITHOUT_EFFECT, mirrors};
use crate::filter_config::FilterConfigs;
use crate::hash::HashPolicy;
use crate::internal_redirect::InternalRedirectPolicy;
use crate::mirror::MirrorPolicy;
use crate::pb::core::{ProxyProtocolConfig, RoutingPriority, proxy_protocol_config::Version};
use crate::pb::route::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, MaxStreamDuration,
    UpgradeConfig as UpgradeMessage, upgrade_config::ConnectConfig,
};
use crate::pb::route::weighted_cluster::{
    ClusterWeight, RandomValueSpecifier, cluster_weight::HostRewriteSpecifier as WeightHostRewrite,
};
use crate::pb::{core, duration, protobuf, route};
use crate::rate_limit::RateLimitRule;
use crate::retry::RetryPolicy;
use crate::rewrite::PathRewrite;
use crate::route_match::RouteMatch;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// `InternalRedirectAction.HANDLE_INTERNAL_REDIRECT`, deprecated.
const HANDLE_INTERNAL_REDIRECT: i32 = 1;

/// The settings of a route and what they were made of, so that the next route like it has the same.
pub(crate) struct LastForward {
    /// Without the cluster.
    message: route::RouteAction,
    retry_policy: Option<Arc<RetryPolicy>>,
    hedge_policy: Option<HedgePolicy>,
    mirror_policies: Arc<[MirrorPolicy]>,
    settings: Arc<ForwardSettings>,
}

impl LastForward {
    fn is_for(&self, message: &route::RouteAction, host: &HostLevel) -> bool {
        let same_retries = match (&self.retry_policy, &host.retry_policy) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same_retries
            && self.hedge_policy == host.hedge_policy
            && Arc::ptr_eq(&self.mirror_policies, &host.mirror_policies)
            && self.message == *message
    }
}

/// Compiles the message.
pub(crate) fn forward(
    compiler: &mut Compiler<'_, '_>,
    message: &route::RouteAction,
    matched: &RouteMatch,
    level: &RouteLevel<'_>,
    path: &FieldPath,
) -> Result<ForwardAction, ConfigError> {
    let rest = route::RouteAction { cluster_specifier: None, ..message.clone() };
    let settings = match &compiler.last_forward {
        Some(last) if last.is_for(&rest, level.host) => last.settings.clone(),
        _ => {
            let said = compiler.warnings.len();
            let settings = Arc::new(forward_settings(compiler, &rest, matched, level, path)?);
            // A rewrite is for a match, and warnings are for every route.
            let is_like_others = settings.path_rewrite.is_none() && compiler.warnings.len() == said;
            compiler.last_forward = is_like_others.then(|| LastForward {
                message: rest,
                retry_policy: level.host.retry_policy.clone(),
                hedge_policy: level.host.hedge_policy,
                mirror_policies: level.host.mirror_policies.clone(),
                settings: settings.clone(),
            });
            settings
        }
    };
    let mut cluster = cluster(compiler, message.cluster_specifier.as_ref(), level, path)?;
    if let (ClusterChoice::Weighted(weighted), Some(route)) = (&mut cluster, &settings.metadata_match) {
        weighted.merge_criteria_over(route);
    }
    Ok(ForwardAction { cluster, settings })
}

fn forward_settings(
    compiler: &mut Compiler<'_, '_>,
    message: &route::RouteAction,
    matched: &RouteMatch,
    level: &RouteLevel<'_>,
    path: &FieldPath,
) -> Result<ForwardSettings, ConfigError> {
    #[allow(deprecated, reason = "deprecated fields are honoured or refused like all others")]
    let route::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy,
        cors: _, // said to the filter
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier: _, // the choice of the cluster is no setting
        host_rewrite_specifier,
    } = message;
    if retry_policy_typed_config.is_some() {
        compiler.warn(path.field("retry_policy_typed_config"), WITHOUT_EFFECT);
    }
    if let Some(core::TypedExtensionConfig { name, typed_config }) = early_data_policy {
        let type_name = typed_config.as_ref().map_or("", |config| any::type_name(&config.type_url));
        if type_name != "envoy.extensions.early_data.v3.DefaultEarlyDataPolicy" {
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
            return Err(ConfigError::new(path.field("early_data_policy"), reason));
        }
        compiler.warn(path.field("early_data_policy"), "there is no early data without HTTP/3 and TLS 0-RTT");
    }
    let MaxStreamDuration {
        max_stream_duration: max_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = max_stream_duration.unwrap_or_default();
    let stream = path.field("max_stream_duration");
    let grpc_max = duration(grpc_timeout_header_max.as_ref(), &stream, "grpc_timeout_header_max")?;
    let grpc_offset = duration(grpc_timeout_header_offset.as_ref(), &stream, "grpc_timeout_header_offset")?;
    let timeout = duration(timeout.as_ref(), path, "timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    let own_mirrors = mirrors(request_mirror_policies, path, compiler.validate, compiler.warnings)?;
    let hash_path = path.field("hash_policy");
    let hash_policies =
        hash_policy.iter().enumerate().map(|(at, m)| HashPolicy::compile(m, &hash_path.index(at)));
    let metadata_match = metadata_match.as_ref().and_then(MetadataCriteria::of_metadata);
    Ok(ForwardSettings {
        cluster_not_found_status: not_found_status(*cluster_not_found_response_code, path)?,
        metadata_match,
        path_rewrite: PathRewrite::compile(
            prefix_rewrite,
            regex_rewrite.as_ref(),
            path_rewrite_policy.as_ref(),
            path_rewrite,
            matched,
            path,
        )?,
        host_rewrite: host_rewrite(host_rewrite_specifier.as_ref(), path)?,
        append_x_forwarded_host: *append_x_forwarded_host,
        timeout: (!timeout.is_zero()).then_some(timeout),
        idle_timeout: duration(idle_timeout.as_ref(), path, "idle_timeout")?,
        flush_timeout: duration(flush_timeout.as_ref(), path, "flush_timeout")?,
        max_stream_duration: duration(max_duration.as_ref(), &stream, "max_stream_duration")?,
        has_stream_duration: max_stream_duration.is_some(),
        grpc_timeout_header_max: grpc_max,
        grpc_timeout_header_offset: grpc_offset,
        max_grpc_timeout: duration(max_grpc_timeout.as_ref(), path, "max_grpc_timeout")?,
        grpc_timeout_offset: duration(grpc_timeout_offset.as_ref(), path, "grpc_timeout_offset")?,
        retry_policy: compiler
            .retry_policy(retry_policy.as_ref(), path)?
            .or_else(|| level.host.retry_policy.clone()),
        hedge_policy: compiler.hedge_policy(hedge_policy.as_ref(), path).or(level.host.hedge_policy),
        mirror_policies: if own_mirrors.is_empty() {
            level.host.mirror_policies.clone()
        } else {
            own_mirrors
        },
        priority: routing_priority(*priority, path)?,
        hash_policies: hash_policies.collect::<Result<_, _>>()?,
        rate_limits: RateLimitRule::compile_all(rate_limits, &path.field("rate_limits"))?,
        include_virtual_host_rate_limits: include_vh_rate_limits.as_ref().is_some_and(|w| w.value),
        upgrades: upgrades(compiler, upgrade_configs, path)?,
        internal_redirect_policy: internal_redirects(
            internal_redirect_policy.as_ref(),
            *internal_redirect_action,
            *max_internal_redirects,
            path,
        )?,
    })
}

fn bad_enum(path: &FieldPath, field: &str) -> ConfigError {
    ConfigError::new(path.field(field), "value must be one of the defined enum values")
}

fn not_found_status(code: i32, path: &FieldPath) -> Result<u16, ConfigError> {
    match ClusterNotFoundResponseCode::try_from(code) {
        Ok(ClusterNotFoundResponseCode::ServiceUnavailable) => Ok(503),
        Ok(ClusterNotFoundResponseCode::NotFound) => Ok(404),
        Ok(ClusterNotFoundResponseCode::InternalServerError) => Ok(500),
        Err(_) => Err(bad_enum(path, "cluster_not_found_response_code")),
    }
}

fn routing_priority(priority: i32, path: &FieldPath) -> Result<Priority, ConfigError> {
    match RoutingPriority::try_from(priority) {
        Ok(RoutingPriority::Default) => Ok(Priority::Default),
        Ok(RoutingPriority::High) => Ok(Priority::High),
        Err(_) => Err(bad_enum(path, "priority")),
    }
}

fn host_rewrite(
    specifier: Option<&HostRewriteSpecifier>,
    path: &FieldPath,
) -> Result<Option<HostRewrite>, ConfigError> {
    Ok(match specifier {
        None => None,
        Some(HostRewriteSpecifier::HostRewriteLiteral(literal)) => {
            (!literal.is_empty()).then(|| HostRewrite::Literal(literal.as_bytes().into()))
        }
        Some(HostRewriteSpecifier::AutoHostRewrite(wrapped)) => wrapped.value.then_some(HostRewrite::Auto),
        Some(HostRewriteSpecifier::HostRewriteHeader(name)) => {
            (!name.is_empty()).then(|| HostRewrite::Header(HeaderName::new(name)))
        }
        Some(HostRewriteSpecifier::HostRewritePathRegex(regex)) => {
            let path = path.field("host_rewrite_path_regex");
            Some(HostRewrite::PathRegex(RegexRewrite::compile(regex, &path)?))
        }
        Some(HostRewriteSpecifier::HostRewrite(format)) if format.is_empty() => None,
        Some(HostRewriteSpecifier::HostRewrite(format)) => {
            let format = Format::parse(format).map_err(|e| e.under(&path.field("host_rewrite")))?;
            Some(HostRewrite::Format(format))
        }
    })
}

fn upgrades(
    compiler: &mut Compiler<'_, '_>,
    messages: &[UpgradeMessage],
    path: &FieldPath,
) -> Result<Box<[UpgradeConfig]>, ConfigError> {
    let path = path.field("upgrade_configs");
    let mut upgrades: Vec<UpgradeConfig> = Vec::new();
    for (at, UpgradeMessage { upgrade_type, enabled, connect_config }) in messages.iter().enumerate() {
        let kind = upgrade_type.to_ascii_lowercase().into_boxed_str();
        if upgrades.iter().any(|known| known.kind == kind) {
            return Err(ConfigError::new(path.index(at), format!("Duplicate upgrade {upgrade_type}")));
        }
        if connect_config.is_some() && &*kind != "connect" && &*kind != "connect-udp" {
            let reason = format!("Non-CONNECT upgrade type {upgrade_type} has ConnectConfig");
            return Err(ConfigError::new(path.index(at), reason));
        }
        let (mut allows_post, mut proxy_protocol) = (false, None);
        if let Some(ConnectConfig { proxy_protocol_config, allow_post }) = connect_config {
            let path = path.index(at).field("connect_config").field("proxy_protocol_config");
            let header =
                proxy_protocol_config.as_ref().map(|config| proxy_protocol_version(compiler, config, &path));
            proxy_protocol = header.transpose()?;
            allows_post = *allow_post;
        }
        upgrades.push(UpgradeConfig {
            kind,
            enabled: enabled.as_ref().is_none_or(|wrapped| wrapped.value),
            terminate_connect: connect_config.is_some(),
            allow_post: allows_post,
            proxy_protocol,
        });
    }
    Ok(upgrades.into())
}

/// The version of the header in front of the bytes of a CONNECT that ends here.
fn proxy_protocol_version(
    compiler: &mut Compiler<'_, '_>,
    message: &ProxyProtocolConfig,
    path: &FieldPath,
) -> Result<ProxyProtocol, ConfigError> {
    let ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = message;
    let unused = [(pass_through_tlvs.is_some(), "pass_through_tlvs"), (!added_tlvs.is_empty(), "added_tlvs")];
    for (_, field) in unused.iter().filter(|(is_set, _)| *is_set) {
        compiler.warn(path.field(field), "without effect, as in Envoy: this header has no extensions");
    }
    match Version::try_from(*version) {
        Ok(Version::V1) => Ok(ProxyProtocol::V1),
        Ok(Version::V2) => Ok(ProxyProtocol::V2),
        Err(_) => Err(bad_enum(path, "version")),
    }
}

/// The policy; the older fields stand for one when it is not there.
fn internal_redirects(
    message: Option<&route::InternalRedirectPolicy>,
    action: i32,
    max: Option<protobuf::UInt32Value>,
    path: &FieldPath,
) -> Result<Option<Box<InternalRedirectPolicy>>, ConfigError> {
    let path = path.field("internal_redirect_policy");
    let older = route::InternalRedirectPolicy { max_internal_redirects: max, ..Default::default() };
    let message = message.or_else(|| (action == HANDLE_INTERNAL_REDIRECT).then_some(&older));
    message.map(|message| InternalRedirectPolicy::compile(message, &path).map(Box::new)).transpose()
}

fn cluster(
    compiler: &Compiler<'_, '_>,
    specifier: Option<&ClusterSpecifier>,
    level: &RouteLevel<'_>,
    path: &FieldPath,
) -> Result<ClusterChoice, ConfigError> {
    Ok(match specifier {
        None => return Err(ConfigError::new(path.field("cluster_specifier"), "is required")),
        Some(ClusterSpecifier::Cluster(name)) => {
            ClusterChoice::One(ClusterSource::named(name, "", &path.field("cluster"), compiler.validate)?)
        }
        Some(ClusterSpecifier::ClusterHeader(name)) => {
            ClusterChoice::One(ClusterSource::Header(HeaderName::new(name)))
        }
        Some(ClusterSpecifier::WeightedClusters(message)) => {
            let weighted = weighted(compiler, message, level, &path.field("weighted_clusters"))?;
            ClusterChoice::Weighted(Box::new(weighted))
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(name)) => {
            let plugin = compiler.plugins.iter().find(|(known, _)| **known == **name);
            let (_, plugin) = plugin.ok_or_else(|| {
                let reason = format!("Unknown cluster specifier plugin name: {name} is used in the route");
                ConfigError::new(path.field("cluster_specifier_plugin"), reason)
            })?;
            ClusterChoice::Matched(plugin.clone())
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(plugin)) => {
            let path = path.field("inline_cluster_specifier_plugin");
            let (_, plugin) = MatchedClusters::compile(plugin, &path)?;
            ClusterChoice::Matched(Arc::new(plugin))
        }
    })
}

fn weighted(
    compiler: &Compiler<'_, '_>,
    message: &route::WeightedCluster,
    level: &RouteLevel<'_>,
    path: &FieldPath,
) -> Result<WeightedClusters, ConfigError> {
    #[allow(deprecated, reason = "the field has had no effect since 1.23 and is accepted")]
    let route::WeightedCluster { clusters, total_weight: _, runtime_key_prefix, random_value_specifier } =
        message;
    let clusters_path = path.field("clusters");
    if clusters.is_empty() {
        return Err(ConfigError::new(clusters_path, "value must contain at least 1 item(s)"));
    }
    let mut use_hash_policy = false;
    let random_header = match random_value_specifier {
        None => None,
        Some(RandomValueSpecifier::HeaderName(name)) => Some(HeaderName::new(name)),
        Some(RandomValueSpecifier::UseHashPolicy(wrapped)) => {
            use_hash_policy = wrapped.value;
            None
        }
    };
    let compiled = clusters.iter().enumerate();
    let compiled = compiled.map(|(at, one)| weighted_cluster(compiler, one, level, &clusters_path.index(at)));
    let compiled: Box<[WeightedCluster]> = compiled.collect::<Result<_, _>>()?;
    let total: u64 = compiled.iter().map(|one| u64::from(one.weight)).sum();
    if total == 0 {
        let reason = "Sum of weights in the weighted_cluster must be greater than 0.";
        return Err(ConfigError::new(path.clone(), reason));
    }
    if total > u64::from(u32::MAX) {
        let reason = format!("The sum of weights of all weighted clusters of route  exceeds {}", u32::MAX);
        return Err(ConfigError::new(path.clone(), reason));
    }
    Ok(WeightedClusters {
        clusters: compiled,
        total,
        runtime_key_prefix: runtime_key_prefix.as_str().into(),
        random_header,
        use_hash_policy,
    })
}

fn weighted_cluster(
    compiler: &Compiler<'_, '_>,
    message: &ClusterWeight,
    level: &RouteLevel<'_>,
    path: &FieldPath,
) -> Result<WeightedCluster, ConfigError> {
    let ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = message;
    let cluster = match (name.is_empty(), cluster_header.is_empty()) {
        (false, true) => ClusterSource::named(name, "weighted ", &path.field("name"), compiler.validate)?,
        (true, false) => ClusterSource::Header(HeaderName::new(cluster_header)),
        (true, true) => {
            let reason = "At least one of name or cluster_header need to be specified";
            return Err(ConfigError::new(path.clone(), reason));
        }
        (false, false) => {
            let reason = "Only one of name or cluster_header can be specified";
            return Err(ConfigError::new(path.clone(), reason));
        }
    };
    let Some(weight) = weight else {
        return Err(ConfigError::new(path.field("weight"), "Field 'weight' is missing in the message"));
    };
    let headers = LevelHeaders::compile(
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        path,
    )?;
    let (request_headers, response_headers) = compiler.header_levels(level, Some(&headers));
    let host_rewrite = host_rewrite_specifier.as_ref().and_then(|specifier| {
        let WeightHostRewrite::HostRewriteLiteral(literal) = specifier;
        (!literal.is_empty()).then(|| literal.as_bytes().into())
    });
    Ok(WeightedCluster {
        cluster,
        weight: weight.value,
        metadata_match: metadata_match.as_ref().and_then(MetadataCriteria::of_metadata),
        host_rewrite,
        request_headers,
        response_headers,
        filter_configs: FilterConfigs::compile(
            typed_per_filter_config,
            &level.filter_configs,
            &path.field("typed_per_filter_config"),
            compiler.options,
        )?,
    })
}
