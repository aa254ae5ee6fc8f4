//! What generation looks at: the mesh from one proxy's point of view.

use std::cell::RefCell;
use std::sync::Arc;

use dhow_base::{ConfigWarning, FieldPath};
use dhow_control_model::istio::Destination;
use dhow_control_model::push::{
    ConsolidatedRule, EffectivePolicy, Interception, MergedGateway, Notice, Proxy, ProxyType, PushContext,
    Service, ServiceTarget,
};
use dhow_control_model::{Host, ObjectKey, OutboundTrafficMode};

use crate::names;

/// The mesh as a proxy sees it.
#[derive(Debug)]
pub struct ProxyContext<'a> {
    pub(crate) push: &'a PushContext,
    pub(crate) proxy: &'a Proxy,
    /// Services visible to the proxy, one for each host.
    pub(crate) services: Vec<&'a Arc<Service>>,
    /// Services that the proxy's workload is part of.
    pub(crate) targets: Vec<ServiceTarget>,
    /// The proxy's listeners, when it is a gateway.
    pub(crate) gateway: MergedGateway,
    notices: RefCell<Vec<Notice>>,
}

impl<'a> ProxyContext<'a> {
    /// Looks at the mesh with the eyes of the proxy.
    pub fn new(push: &'a PushContext, proxy: &'a Proxy) -> Self {
        let is_router = proxy.proxy_type == ProxyType::Router;
        let gateway = if is_router { push.merged_gateway(proxy) } else { MergedGateway::default() };
        let context = Self {
            push,
            proxy,
            services: push.services.visible(&proxy.namespace),
            targets: proxy.service_targets(&push.services),
            gateway,
            notices: RefCell::default(),
        };
        for (gateway, index, reason) in &context.gateway.conflicts {
            let path = FieldPath::from("spec.servers").index(*index);
            context.notice(gateway.meta.key(), path, format!("the server is left out: {reason}"));
        }
        context
    }

    /// Records what this proxy cannot be given.
    pub(crate) fn notice(&self, object: ObjectKey, path: FieldPath, message: impl Into<String>) {
        let notice = Notice { object, warning: ConfigWarning::new(path, message) };
        let mut notices = self.notices.borrow_mut();
        if !notices.contains(&notice) {
            notices.push(notice);
        }
    }

    pub(crate) fn into_notices(self) -> Vec<Notice> {
        self.notices.into_inner()
    }

    /// Whether connections arrive with the address that the caller wanted. Without interception callers name the proxy
    /// itself, so nothing that needs the original destination makes sense: passthrough is refused and headless services
    /// are balanced.
    pub(crate) fn knows_original_destination(&self) -> bool {
        self.proxy.interception != Interception::None
    }

    /// Whether unknown destinations are let through.
    pub(crate) fn lets_unknown_through(&self) -> bool {
        self.push.mesh.outbound_traffic_policy.mode == OutboundTrafficMode::AllowAny
            && self.knows_original_destination()
    }

    /// The cluster of connections to unknown destinations.
    pub(crate) fn unknown_destination(&self) -> &'static str {
        if self.lets_unknown_through() { names::PASSTHROUGH } else { names::BLACK_HOLE }
    }

    /// The DestinationRule that applies to a service.
    pub(crate) fn rule(&self, service: &Service) -> Option<&'a ConsolidatedRule> {
        self.push.destination_rules.find(self.proxy, service)
    }

    /// The traffic policy of a port of a service, of a subset unless the name is empty.
    pub(crate) fn policy(&self, service: &Service, subset: &str, port: u32) -> EffectivePolicy {
        let subset = (!subset.is_empty()).then_some(subset);
        EffectivePolicy::new(&self.push.mesh, self.rule(service), subset, port)
    }

    /// The service that a complete host name means to the proxy.
    pub(crate) fn service(&self, host: &Host) -> Option<&'a Arc<Service>> {
        self.push.services.find(host, &self.proxy.namespace)
    }

    /// The cluster of a destination: its port, or the only one of the service, or that of the listener.
    pub(crate) fn destination_cluster(&self, destination: &Destination, listener_port: u32) -> String {
        let host = Host::new(&destination.host);
        let port = match (&destination.port, self.service(&host)) {
            (Some(port), _) => port.number,
            (None, Some(service)) if service.ports.len() == 1 => service.ports[0].number,
            _ => listener_port,
        };
        names::outbound_cluster(port, destination.subset.as_deref().unwrap_or_default(), &host)
    }
}
