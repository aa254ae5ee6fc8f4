//! What the `HttpProtocolOptions` of a cluster say about the forwarding of requests; it goes over what the route or the router says.

use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning};
use dhow_matching::ResponsePredicate;
use dhow_proxy_api::FilterContext;
use dhow_proxy_upstream::{ForwardingMessage, ForwardingOptions, WorkerCluster};
use dhow_routing::{HashPolicy, MirrorPolicy, RetryOn, RetryPolicy};
use dhow_stats::Store;

use super::upstream_filters::lower_cluster_filters;
use super::{ConfiguredFilter, FilterRegistry};

/// The options of a cluster that has some.
#[derive(Debug)]
pub(crate) struct ClusterOptions {
    /// `http_filters` in front of the codec; none when the router's apply.
    pub(crate) filters: Option<Vec<ConfiguredFilter>>,
    /// `retry_policy`, but for its times for one attempt, which stay the route's.
    pub(crate) retry_policy: Option<RetryPolicy>,
    /// `hash_policy`; empty when the route's applies.
    pub(crate) hash_policies: Box<[HashPolicy]>,
    /// `request_mirror_policies`; empty when the route's apply.
    pub(crate) mirror_policies: Arc<[MirrorPolicy]>,
    /// `outlier_detection.error_matcher`: the responses that ejection takes for errors, instead of those by status.
    pub(crate) outlier_errors: Option<ResponsePredicate>,
}

impl ClusterOptions {
    /// The options of a cluster, if it has some.
    pub(crate) fn of(cluster: &WorkerCluster) -> Option<&Self> {
        cluster.info().http.forwarding.as_ref()?.get()
    }
}

/// Lowers the options of a cluster.
///
/// # Errors
/// The first filter or policy that is not acceptable.
pub fn lower_cluster_options(
    message: ForwardingMessage<'_>,
    registry: FilterRegistry,
    stats: &Store,
    node_cluster: &str,
) -> Result<ForwardingOptions, ConfigError> {
    let ForwardingMessage {
        filters,
        retry_policy,
        hash_policy,
        hash_path,
        mirror_policies,
        outlier_errors,
        stat_prefix,
        path,
        warnings,
    } = message;
    // Limits that hosts share are not among the filters of clusters.
    let local_cluster = "";
    let mut context = FilterContext {
        stat_prefix,
        stats,
        name: "".into(),
        node_cluster,
        local_cluster,
        check_dns_cache: dhow_proxy_upstream::check_dns_cache,
        warnings,
    };
    let filters = match filters.is_empty() {
        true => None,
        false => Some(lower_cluster_filters(filters, registry, &mut context, &path.field("http_filters"))?),
    };
    if let Some(policy) = &retry_policy {
        for name in RetryOn::unknown(&policy.retry_on) {
            let path = path.field("retry_policy").field("retry_on");
            let why = format!("'{name}' is not a retry condition and has no effect");
            context.warnings.push(ConfigWarning::new(path, why));
        }
    }
    let retry_policy = retry_policy.map(|policy| RetryPolicy::compile(&policy, &path.field("retry_policy")));
    let hash_policies = hash_policy.iter().enumerate();
    let hash_policies = hash_policies.map(|(at, policy)| HashPolicy::compile(policy, &hash_path.index(at)));
    let errors_path = path.field("outlier_detection").field("error_matcher");
    let outlier_errors = outlier_errors.map(|message| ResponsePredicate::compile(&message, &errors_path));
    Ok(ForwardingOptions::new(ClusterOptions {
        outlier_errors: outlier_errors.transpose()?,
        filters,
        retry_policy: retry_policy.transpose()?,
        hash_policies: hash_policies.collect::<Result<_, _>>()?,
        mirror_policies: MirrorPolicy::compile_all(&mirror_policies, path, context.warnings)?,
    }))
}
