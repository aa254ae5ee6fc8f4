//! VirtualServices: names resolved, delegates merged, and the one that applies to a host.

use std::sync::Arc;

use dhow_base::{ConfigWarning, FieldPath};

use super::Notice;
use crate::istio::{HttpMatchRequest, HttpRoute, StringMatch, VirtualService};
use crate::{Config, Host, MeshConfig, Meta, Visibility};

/// The name that stands for every sidecar in lists of gateways.
pub const MESH_GATEWAY: &str = "mesh";

/// A VirtualService with complete host names and gateway names (`namespace/name`).
#[derive(Debug, Clone)]
pub struct ResolvedVirtualService {
    /// Metadata.
    pub meta: Meta,
    /// Hosts, complete.
    pub hosts: Vec<Host>,
    /// Gateways, complete; `mesh` for sidecars.
    pub gateways: Vec<String>,
    /// Rules, with complete destination hosts.
    pub spec: VirtualService,
    visibility: Visibility,
}

impl ResolvedVirtualService {
    /// Whether proxies of the namespace see it.
    pub fn visible_to(&self, namespace: &str) -> bool {
        self.visibility.includes(namespace)
    }

    /// Whether it names the gateway.
    pub fn on_gateway(&self, gateway: &str) -> bool {
        self.gateways.iter().any(|name| name == gateway)
    }
}

/// All VirtualServices that have hosts, in order of precedence.
#[derive(Debug, Default)]
pub struct VirtualServices {
    all: Vec<Arc<ResolvedVirtualService>>,
}

impl VirtualServices {
    /// Resolves names and merges delegates; the objects are given in order of precedence.
    pub(super) fn new(
        objects: Vec<Config<VirtualService>>,
        mesh: &MeshConfig,
        domain: &str,
        notices: &mut Vec<Notice>,
    ) -> Self {
        let resolved = objects.into_iter().map(|object| resolve(object, mesh, domain));
        let (delegates, roots): (Vec<_>, Vec<_>) = resolved.partition(|object| object.hosts.is_empty());
        let all = roots.into_iter().map(|mut root| {
            let routes = std::mem::take(&mut root.spec.http);
            for (index, route) in routes.into_iter().enumerate() {
                if route.delegate.is_none() {
                    root.spec.http.push(route);
                } else {
                    let merged = delegated(&root, &route, index, &delegates, notices);
                    root.spec.http.extend(merged);
                }
            }
            Arc::new(root)
        });
        Self { all: all.collect() }
    }

    /// Every one.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ResolvedVirtualService>> {
        self.all.iter()
    }

    /// Number of objects with hosts.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Those that sidecars of the namespace apply.
    pub fn on_mesh(&self, namespace: &str) -> impl Iterator<Item = &Arc<ResolvedVirtualService>> {
        self.all.iter().filter(move |object| object.on_gateway(MESH_GATEWAY) && object.visible_to(namespace))
    }

    /// The one that sidecars of the namespace apply to a host: the most specific host wins, then precedence.
    pub fn for_host(&self, host: &Host, namespace: &str) -> Option<&Arc<ResolvedVirtualService>> {
        let mut best: Option<(&Host, &Arc<ResolvedVirtualService>)> = None;
        for object in self.on_mesh(namespace) {
            for own in object.hosts.iter().filter(|own| own.subset_contains(host)) {
                if best.is_none_or(|(known, _)| own.specificity(known).is_lt()) {
                    best = Some((own, object));
                }
            }
        }
        best.map(|(_, object)| object)
    }
}

fn resolve(object: Config<VirtualService>, mesh: &MeshConfig, domain: &str) -> ResolvedVirtualService {
    let Config { meta, mut spec } = object;
    let namespace = meta.namespace.clone();
    let resolve_host =
        |name: &mut String| *name = Host::resolve(name, &namespace, domain).as_str().to_owned();
    for route in &mut spec.http {
        route.route.iter_mut().for_each(|target| resolve_host(&mut target.destination.host));
        route.mirror.iter_mut().for_each(|target| resolve_host(&mut target.host));
        route.mirrors.iter_mut().for_each(|target| resolve_host(&mut target.destination.host));
        for entry in &mut route.matches {
            resolve_gateways(&mut entry.gateways, &namespace);
        }
    }
    for route in &mut spec.tls {
        route.route.iter_mut().for_each(|target| resolve_host(&mut target.destination.host));
        route.matches.iter_mut().for_each(|entry| resolve_gateways(&mut entry.gateways, &namespace));
    }
    for route in &mut spec.tcp {
        route.route.iter_mut().for_each(|target| resolve_host(&mut target.destination.host));
        route.matches.iter_mut().for_each(|entry| resolve_gateways(&mut entry.gateways, &namespace));
    }
    let mut gateways = std::mem::take(&mut spec.gateways);
    resolve_gateways(&mut gateways, &namespace);
    if gateways.is_empty() {
        gateways.push(MESH_GATEWAY.to_owned());
    }
    ResolvedVirtualService {
        hosts: spec.hosts.iter().map(|host| Host::resolve(host, &namespace, domain)).collect(),
        gateways,
        visibility: Visibility::read(&spec.export_to, &namespace, &mesh.default_virtual_service_export_to),
        spec,
        meta,
    }
}

fn resolve_gateways(names: &mut [String], namespace: &str) {
    for name in names {
        if let Some(own) = name.strip_prefix("./") {
            *name = format!("{namespace}/{own}");
        } else if name != MESH_GATEWAY && !name.contains('/') {
            *name = format!("{namespace}/{name}");
        }
    }
}

/// The routes of a delegate as routes of the root: the root's conditions and the delegate's must both hold.
fn delegated(
    root: &ResolvedVirtualService,
    route: &HttpRoute,
    index: usize,
    delegates: &[ResolvedVirtualService],
    notices: &mut Vec<Notice>,
) -> Vec<HttpRoute> {
    let Some(delegate) = &route.delegate else { return Vec::new() };
    let path = FieldPath::from("spec.http").index(index).field("delegate");
    let namespace = if delegate.namespace.is_empty() { &root.meta.namespace } else { &delegate.namespace };
    let found = delegates
        .iter()
        .find(|object| object.meta.name == delegate.name && object.meta.namespace == *namespace);
    let Some(found) = found.filter(|object| object.visible_to(&root.meta.namespace)) else {
        let message =
            format!("there is no VirtualService without hosts {namespace}/{} to delegate to", delegate.name);
        notices.push(Notice { object: root.meta.key(), warning: ConfigWarning::new(path, message) });
        return Vec::new();
    };
    let mut merged = Vec::new();
    for inner in &found.spec.http {
        let Some(matches) = merge_matches(&route.matches, &inner.matches) else {
            let message =
                format!("a route of {} can never match beside the conditions here", found.meta.key());
            notices
                .push(Notice { object: root.meta.key(), warning: ConfigWarning::new(path.clone(), message) });
            continue;
        };
        merged.push(inherit(route, inner, matches));
    }
    merged
}

/// What the root says applies where the delegate says nothing.
fn inherit(root: &HttpRoute, inner: &HttpRoute, matches: Vec<HttpMatchRequest>) -> HttpRoute {
    let name = match (root.name.as_str(), inner.name.as_str()) {
        ("", inner) => inner.to_owned(),
        (root, "") => root.to_owned(),
        (root, inner) => format!("{root}-{inner}"),
    };
    let mut merged = HttpRoute { name, matches, ..inner.clone() };
    merged.rewrite = merged.rewrite.or_else(|| root.rewrite.clone());
    merged.timeout = merged.timeout.or(root.timeout);
    merged.retries = merged.retries.or_else(|| root.retries.clone());
    merged.fault = merged.fault.or_else(|| root.fault.clone());
    merged.mirror = merged.mirror.or_else(|| root.mirror.clone());
    merged.mirror_percent = merged.mirror_percent.or(root.mirror_percent);
    merged.mirror_percentage = merged.mirror_percentage.or_else(|| root.mirror_percentage.clone());
    if merged.mirrors.is_empty() {
        merged.mirrors.clone_from(&root.mirrors);
    }
    merged.cors_policy = merged.cors_policy.or_else(|| root.cors_policy.clone());
    merged.headers = merged.headers.or_else(|| root.headers.clone());
    merged
}

/// Every pair of conditions that can hold together; `None` when there is none.
fn merge_matches(root: &[HttpMatchRequest], inner: &[HttpMatchRequest]) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() || inner.is_empty() {
        return Some(if root.is_empty() { inner } else { root }.to_vec());
    }
    let pairs = root.iter().flat_map(|outer| inner.iter().filter_map(move |inner| merge_match(outer, inner)));
    let merged: Vec<_> = pairs.collect();
    (!merged.is_empty()).then_some(merged)
}

fn merge_match(root: &HttpMatchRequest, inner: &HttpMatchRequest) -> Option<HttpMatchRequest> {
    let mut merged = root.clone();
    merged.name = match (root.name.as_str(), inner.name.as_str()) {
        ("", inner) => inner.to_owned(),
        (root, "") => root.to_owned(),
        (root, inner) => format!("{root}-{inner}"),
    };
    merged.uri = narrower(root.uri.as_ref(), inner.uri.as_ref())?;
    merged.scheme = narrower(root.scheme.as_ref(), inner.scheme.as_ref())?;
    merged.method = narrower(root.method.as_ref(), inner.method.as_ref())?;
    merged.authority = narrower(root.authority.as_ref(), inner.authority.as_ref())?;
    merged.ignore_uri_case = root.ignore_uri_case || inner.ignore_uri_case;
    merged.headers.extend(inner.headers.clone());
    merged.without_headers.extend(inner.without_headers.clone());
    merged.query_params.extend(inner.query_params.clone());
    merged.source_labels.extend(inner.source_labels.clone());
    if root.port.is_some() && inner.port.is_some() && root.port != inner.port {
        return None;
    }
    merged.port = root.port.or(inner.port);
    if merged.gateways.is_empty() {
        merged.gateways.clone_from(&inner.gateways);
    }
    if merged.source_namespace.is_empty() {
        merged.source_namespace.clone_from(&inner.source_namespace);
    }
    if !inner.stat_prefix.is_empty() {
        merged.stat_prefix.clone_from(&inner.stat_prefix);
    }
    Some(merged)
}

/// The narrower of two conditions on one value; the outer `None` when they exclude each other or cannot be joined.
fn narrower(root: Option<&StringMatch>, inner: Option<&StringMatch>) -> Option<Option<StringMatch>> {
    match (root, inner) {
        (None, other) | (other, None) => Some(other.cloned()),
        (Some(root), Some(inner)) => {
            let fits = match (root, inner) {
                (StringMatch::Exact(a), StringMatch::Exact(b)) => a == b,
                (StringMatch::Prefix(a), StringMatch::Exact(b) | StringMatch::Prefix(b)) => {
                    b.starts_with(a.as_str())
                }
                _ => root == inner,
            };
            fits.then(|| Some(inner.clone()))
        }
    }
}
