//! The route of an inbound listener: everything to the workload's own port.

use dhow_control_model::push::ServiceTarget;
use dhow_proto::envoy::config::route::v3::route::Action;
use dhow_proto::envoy::config::route::v3::route_action::ClusterSpecifier;
use dhow_proto::envoy::config::route::v3::route_match::PathSpecifier;
use dhow_proto::envoy::config::route::v3::{Decorator, Route, RouteConfiguration, RouteMatch, VirtualHost};

use crate::messages::{ZERO, truth};
use crate::names;

/// The configuration that is part of the listener.
pub(crate) fn inline(target: &ServiceTarget) -> RouteConfiguration {
    let cluster = names::inbound_cluster(target.target_port);
    let operation = format!("{}:{}/*", target.service.host, target.port.number);
    to_cluster(&cluster, &format!("inbound|http|{}", target.port.number), Some(operation))
}

/// A configuration with one route to one cluster.
pub(crate) fn to_cluster(cluster: &str, virtual_host: &str, operation: Option<String>) -> RouteConfiguration {
    let action = super::forward(ClusterSpecifier::Cluster(cluster.to_owned()), ZERO);
    let route = Route {
        name: names::DEFAULT_ROUTE.to_owned(),
        r#match: Some(RouteMatch {
            path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
            ..RouteMatch::default()
        }),
        decorator: operation.map(|operation| Decorator { operation, propagate: None }),
        action: Some(Action::Route(action)),
        ..Route::default()
    };
    RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![VirtualHost {
            name: virtual_host.to_owned(),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: truth(false),
        ..RouteConfiguration::default()
    }
}
