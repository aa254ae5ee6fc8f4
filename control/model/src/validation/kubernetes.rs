//! The Kubernetes kinds, as far as an API server would have refused them.

use super::{Checker, names};
use crate::{EndpointSlice, KubeService, KubeServiceType};

pub(super) fn check_service(checker: &mut Checker, spec: &KubeService) {
    if spec.service_type == KubeServiceType::ExternalName {
        if !names::is_fqdn(&spec.external_name) {
            checker.refuse_at("externalName", format!("{:?} is not a host name", spec.external_name));
        }
    } else if spec.ports.is_empty() && !spec.is_headless() {
        checker.refuse_at("ports", "at least one port is required");
    }
    checker.each("ports", &spec.ports, |checker, port| {
        checker.port("port", port.port);
        if port.name.is_empty() && spec.ports.len() > 1 {
            checker.refuse_at("name", "is required when there are several ports");
        }
        if let Some(crate::TargetPort::Number(number)) = port.target_port {
            checker.port("targetPort", number);
        }
        if !matches!(port.protocol.as_str(), "" | "TCP" | "UDP" | "SCTP") {
            checker.refuse_at("protocol", format!("{:?} is not TCP, UDP or SCTP", port.protocol));
        }
    });
    let key = |index: usize| (&spec.ports[index].protocol, spec.ports[index].port);
    for index in 0..spec.ports.len() {
        if (0..index).any(|earlier| key(earlier) == key(index)) {
            checker.refuse_at("ports", format!("port {} is there twice", spec.ports[index].port));
        }
    }
}

pub(super) fn check_endpoint_slice(checker: &mut Checker, slice: &EndpointSlice) {
    for (index, endpoint) in slice.endpoints.iter().enumerate() {
        if endpoint.addresses.is_empty() {
            let path = dhow_base::FieldPath::from("endpoints").index(index).field("addresses");
            checker.below(path, |checker| checker.refuse("at least one address is required"));
        }
    }
}
