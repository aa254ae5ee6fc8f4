//! HTTP rules of a VirtualService as Envoy routes.

mod action;
mod cors;
mod fault;
mod hash;
mod headers;
mod matching;
mod retry;

use dhow_control_model::istio::{HttpMatchRequest, HttpRoute};
use dhow_control_model::push::{ResolvedVirtualService, Service, ServicePort};
use dhow_control_model::selects;
use dhow_proto::envoy::config::route::v3 as envoy;
use dhow_proto::envoy::config::route::v3::route::Action;
use dhow_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use dhow_proto::envoy::config::route::v3::route_match::PathSpecifier;
use dhow_proto::envoy::config::route::v3::{Decorator, Route};

use super::Scope;
use crate::messages::{ZERO, origin_metadata};
use crate::{ProxyContext, names};

pub(crate) use cors::FILTER as cors_filter_name;
pub(crate) use fault::FILTER as fault_filter_name;

/// The routes of a VirtualService that apply in the scope, in order, up to the first that matches everything.
pub(crate) fn routes(
    context: &ProxyContext<'_>,
    object: &ResolvedVirtualService,
    scope: &Scope,
) -> Vec<Route> {
    let mut all = Vec::new();
    for rule in &object.spec.http {
        if rule.matches.is_empty() {
            all.push(route(context, object, rule, None, scope));
            return all;
        }
        for entry in rule.matches.iter().filter(|entry| applies(context, entry, scope)) {
            all.push(route(context, object, rule, Some(entry), scope));
            // Nothing behind a condition that always holds can be reached.
            if matching::is_catch_all(entry) {
                return all;
            }
        }
    }
    all
}

/// Whether a condition can hold here: conditions on the proxy itself are decided now.
fn applies(context: &ProxyContext<'_>, entry: &HttpMatchRequest, scope: &Scope) -> bool {
    if !entry.gateways.is_empty() && !entry.gateways.iter().any(|name| scope.gateways.contains(name)) {
        return false;
    }
    if entry.port.is_some_and(|port| port != scope.port) {
        return false;
    }
    let from_here = entry.source_namespace.is_empty() || entry.source_namespace == context.proxy.namespace;
    selects(&entry.source_labels, &context.proxy.labels) && from_here
}

fn route(
    context: &ProxyContext<'_>,
    object: &ResolvedVirtualService,
    rule: &HttpRoute,
    entry: Option<&HttpMatchRequest>,
    scope: &Scope,
) -> Route {
    let condition = matching::condition(entry);
    let name = match entry.map(|entry| entry.name.as_str()).unwrap_or_default() {
        "" => rule.name.clone(),
        entry => format!("{}.{entry}", rule.name),
    };
    let mut route = Route {
        name,
        metadata: Some(origin_metadata(&object.meta)),
        stat_prefix: entry.map(|entry| entry.stat_prefix.clone()).unwrap_or_default(),
        ..Route::default()
    };
    headers::apply_to_route(&mut route, rule.headers.as_ref());
    let action = if let Some(redirect) = &rule.redirect {
        Action::Redirect(action::redirect(redirect, scope.port))
    } else if let Some(response) = &rule.direct_response {
        Action::DirectResponse(action::direct_response(response))
    } else {
        Action::Route(action::forward(context, rule, scope))
    };
    route.decorator =
        Some(Decorator { operation: operation(&condition, &action, object, scope.port), propagate: None });
    if let Some(cors) = &rule.cors_policy {
        route.typed_per_filter_config.insert(cors::FILTER.to_owned(), cors::policy(cors));
    }
    if let Some(fault) = &rule.fault {
        route.typed_per_filter_config.insert(fault::FILTER.to_owned(), fault::policy(fault));
    }
    route.r#match = Some(condition);
    route.action = Some(action);
    route
}

/// The route of a service that no VirtualService says anything about.
pub(crate) fn default_route(context: &ProxyContext<'_>, service: &Service, port: &ServicePort) -> Route {
    let cluster = names::outbound_cluster(port.number, "", &service.host);
    let policy = context.policy(service, "", port.number);
    let hash_policy: Vec<_> = hash::policy(&policy).into_iter().collect();
    let action = envoy::RouteAction {
        retry_policy: retry::policy(context, None, !hash_policy.is_empty()),
        hash_policy,
        ..super::forward(ClusterSpecifier::Cluster(cluster), ZERO)
    };
    Route {
        name: names::DEFAULT_ROUTE.to_owned(),
        r#match: Some(matching::condition(None)),
        decorator: Some(Decorator {
            operation: format!("{}:{}/*", service.host, port.number),
            propagate: None,
        }),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

/// Istio's name of a route in traces: where it goes and by which path, or the object when it goes to several places.
fn operation(
    condition: &envoy::RouteMatch,
    action: &Action,
    object: &ResolvedVirtualService,
    port: u32,
) -> String {
    let path = match &condition.path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    if let Action::Route(route) = action
        && let Some(ClusterSpecifier::Cluster(cluster)) = &route.cluster_specifier
        && let Some((port, _, host)) = names::parse_outbound(cluster)
    {
        return format!("{host}:{port}{path}");
    }
    format!("{}:{port}{path}", object.meta.name)
}
