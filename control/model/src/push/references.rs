//! References between objects that lead nowhere.

use dhow_base::{ConfigWarning, FieldPath};

use super::{MESH_GATEWAY, Notice, PushContext, ResolvedVirtualService};
use crate::Host;
use crate::istio::Destination;

pub(super) fn check(context: &PushContext) -> Vec<Notice> {
    let mut notices = Vec::new();
    for object in context.virtual_services.iter() {
        let mut report = |path: FieldPath, message: String| {
            notices.push(Notice { object: object.meta.key(), warning: ConfigWarning::new(path, message) });
        };
        for name in object.gateways.iter().filter(|name| *name != MESH_GATEWAY) {
            let known = context.gateways.iter().any(|gateway| {
                name.split_once('/') == Some((gateway.meta.namespace.as_str(), gateway.meta.name.as_str()))
            });
            if !known {
                report(FieldPath::from("spec.gateways"), format!("there is no Gateway {name}"));
            }
        }
        for (path, destination) in destinations(object) {
            if let Some(message) = dangling(context, object, destination) {
                report(path, message);
            }
        }
    }
    notices
}

fn destinations(object: &ResolvedVirtualService) -> Vec<(FieldPath, &Destination)> {
    let mut all = Vec::new();
    let below = |list: &str, route: usize, target: usize| {
        FieldPath::from("spec").field(list).index(route).field("route").index(target).field("destination")
    };
    for (index, route) in object.spec.http.iter().enumerate() {
        all.extend(
            route
                .route
                .iter()
                .enumerate()
                .map(|(at, target)| (below("http", index, at), &target.destination)),
        );
    }
    for (index, route) in object.spec.tls.iter().enumerate() {
        all.extend(
            route.route.iter().enumerate().map(|(at, target)| (below("tls", index, at), &target.destination)),
        );
    }
    for (index, route) in object.spec.tcp.iter().enumerate() {
        all.extend(
            route.route.iter().enumerate().map(|(at, target)| (below("tcp", index, at), &target.destination)),
        );
    }
    all
}

fn dangling(
    context: &PushContext,
    object: &ResolvedVirtualService,
    destination: &Destination,
) -> Option<String> {
    let host = Host::new(&destination.host);
    let Some(service) = context.services.find(&host, &object.meta.namespace) else {
        return Some(format!("there is no service {host}: requests get 503"));
    };
    if let Some(port) = &destination.port
        && service.port(port.number).is_none()
    {
        return Some(format!("{host} has no port {}: requests get 503", port.number));
    }
    let subset = destination.subset.as_deref()?;
    let known = context
        .destination_rules
        .iter()
        .any(|(rule_host, rule)| rule_host.subset_contains(&host) && rule.subset(subset).is_some());
    (!known).then(|| format!("no DestinationRule defines subset {subset:?} of {host}: requests get 503"))
}
