//! What becomes of a request: forwarded, redirected, answered.

use dhow_control_model::Host;
use dhow_control_model::istio::{
    BytesOrString, DerivePort, DirectResponse, HttpRedirect, HttpRewrite, HttpRoute, HttpRouteDestination,
    Percent,
};
use dhow_proto::envoy::config::core::v3::{DataSource, RuntimeFractionalPercent, data_source};
use dhow_proto::envoy::config::route::v3 as envoy;
use dhow_proto::envoy::config::route::v3::RouteAction;
use dhow_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use dhow_proto::envoy::config::route::v3::route_action::{
    ClusterSpecifier, HashPolicy, HostRewriteSpecifier, RequestMirrorPolicy,
};
use dhow_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use dhow_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::{hash, headers, retry};
use crate::ProxyContext;
use crate::messages::{ZERO, fraction_of, go_duration, number, regex};
use crate::routes::{self, Scope};

pub(super) fn forward(context: &ProxyContext<'_>, rule: &HttpRoute, scope: &Scope) -> RouteAction {
    let hash_policy = hash_policies(context, &rule.route, scope.port);
    let timeout = rule.timeout.map_or(ZERO, go_duration);
    let mut action = RouteAction {
        retry_policy: retry::policy(context, rule.retries.as_ref(), !hash_policy.is_empty()),
        hash_policy,
        request_mirror_policies: mirrors(context, rule, scope.port),
        ..routes::forward(destinations(context, &rule.route, scope.port), timeout)
    };
    if let Some(rewrite) = &rule.rewrite {
        apply_rewrite(&mut action, rewrite);
    }
    let single =
        if let [only] = rule.route.as_slice() { headers::authority(only.headers.as_ref()) } else { None };
    if let Some(authority) = headers::authority(rule.headers.as_ref()).or(single) {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority));
    }
    action
}

/// Destinations without weight get nothing beside others that have one.
fn destinations(context: &ProxyContext<'_>, targets: &[HttpRouteDestination], port: u32) -> ClusterSpecifier {
    let cluster = |target: &HttpRouteDestination| context.destination_cluster(&target.destination, port);
    let weighted: Vec<&HttpRouteDestination> = targets.iter().filter(|target| target.weight > 0).collect();
    let used: Vec<&HttpRouteDestination> =
        if weighted.is_empty() { targets.iter().collect() } else { weighted };
    if let [only] = used.as_slice()
        && only.headers.is_none()
    {
        return ClusterSpecifier::Cluster(cluster(only));
    }
    let weight = |target: &&HttpRouteDestination| {
        let mut weight = ClusterWeight {
            name: cluster(target),
            weight: number(if target.weight == 0 { 100 } else { target.weight }),
            ..ClusterWeight::default()
        };
        headers::apply_to_destination(&mut weight, target.headers.as_ref());
        weight
    };
    ClusterSpecifier::WeightedClusters(envoy::WeightedCluster {
        clusters: used.iter().map(weight).collect(),
        ..envoy::WeightedCluster::default()
    })
}

/// The hash policies of all destinations, each once.
fn hash_policies(context: &ProxyContext<'_>, targets: &[HttpRouteDestination], port: u32) -> Vec<HashPolicy> {
    let mut policies: Vec<HashPolicy> = Vec::new();
    for target in targets {
        let Some(service) = context.service(&Host::new(&target.destination.host)) else { continue };
        let number = target.destination.port.as_ref().map_or(port, |port| port.number);
        let subset = target.destination.subset.as_deref().unwrap_or_default();
        if let Some(policy) = hash::policy(&context.policy(service, subset, number))
            && !policies.contains(&policy)
        {
            policies.push(policy);
        }
    }
    policies
}

fn mirrors(context: &ProxyContext<'_>, rule: &HttpRoute, port: u32) -> Vec<RequestMirrorPolicy> {
    let policy = |destination, percentage: Option<&Percent>| RequestMirrorPolicy {
        cluster: context.destination_cluster(destination, port),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(fraction_of(percentage)),
            runtime_key: String::new(),
        }),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    };
    let never = |percentage: Option<&Percent>| percentage.is_some_and(|percent| percent.value == 0.0);
    let mut policies = Vec::new();
    if let Some(mirror) = &rule.mirror {
        let deprecated = rule.mirror_percent.map(|percent| Percent { value: f64::from(percent) });
        let percentage = rule.mirror_percentage.as_ref().or(deprecated.as_ref());
        if !never(percentage) {
            policies.push(policy(mirror, percentage));
        }
    }
    let several = rule.mirrors.iter().filter(|mirror| !never(mirror.percentage.as_ref()));
    policies.extend(several.map(|mirror| policy(&mirror.destination, mirror.percentage.as_ref())));
    policies
}

fn apply_rewrite(action: &mut RouteAction, rewrite: &HttpRewrite) {
    let HttpRewrite { uri, authority, uri_regex_rewrite } = rewrite;
    match uri_regex_rewrite {
        Some(rule) => {
            action.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(regex(&rule.pattern)),
                substitution: rule.rewrite.clone(),
            });
        }
        None => action.prefix_rewrite.clone_from(uri),
    }
    if !authority.is_empty() {
        action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority.clone()));
    }
}

pub(super) fn redirect(redirect: &HttpRedirect, listener_port: u32) -> envoy::RedirectAction {
    let HttpRedirect { uri, prefix_rewrite, authority, port, derive_port, scheme, redirect_code } = redirect;
    let code = match redirect_code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let port_redirect = match (port, derive_port) {
        (Some(port), _) => *port,
        (None, Some(DerivePort::FromRequestPort)) => listener_port,
        (None, Some(DerivePort::FromProtocolDefault)) if scheme == "https" => 443,
        (None, Some(DerivePort::FromProtocolDefault)) if scheme == "http" => 80,
        (None, _) => 0,
    };
    let path = if !prefix_rewrite.is_empty() {
        Some(PathRewriteSpecifier::PrefixRewrite(prefix_rewrite.clone()))
    } else {
        (!uri.is_empty()).then(|| PathRewriteSpecifier::PathRedirect(uri.clone()))
    };
    envoy::RedirectAction {
        host_redirect: authority.clone(),
        port_redirect,
        response_code: code.into(),
        scheme_rewrite_specifier: (!scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(scheme.clone())),
        path_rewrite_specifier: path,
        ..envoy::RedirectAction::default()
    }
}

pub(super) fn direct_response(response: &DirectResponse) -> envoy::DirectResponseAction {
    let body = response.body.as_ref().map(|body| match body {
        BytesOrString::String(text) => data_source::Specifier::InlineString(text.clone()),
        BytesOrString::Bytes(bytes) => data_source::Specifier::InlineBytes(bytes.clone()),
    });
    envoy::DirectResponseAction {
        status: response.status,
        body: body.map(|body| DataSource { specifier: Some(body), ..DataSource::default() }),
        ..envoy::DirectResponseAction::default()
    }
}
