//! Istio and Kubernetes objects, and Istio's merge and precedence rules as pure functions; it must not know files, the network, or Envoy's messages.

mod host;
mod kubernetes;
mod labels;
mod mesh_config;
mod meta;
mod object;
mod protocol;
mod visibility;

pub mod istio;
pub mod push;
pub mod validation;

pub use host::{Host, most_specific};
pub use kubernetes::{
    ContainerPort, Endpoint, EndpointPort, EndpointSlice, KubeService, KubeServicePort, KubeServiceType,
    Node, Pod, ServiceAccount, TargetPort,
};
pub use labels::{Labels, selects};
pub use mesh_config::{
    AccessLogEncoding, InboundTrafficMode, MeshConfig, OutboundTrafficMode, PathNormalization,
};
pub use meta::{Config, Kind, Meta, ObjectKey, Origin};
pub use object::{Decoded, Object, Spec, decode};
pub use protocol::Protocol;
pub use visibility::Visibility;

#[cfg(test)]
mod fixtures;
