//! The protocol messages that cross a session's boundary, under one short path.

pub use dhow_proto::envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
pub use dhow_proto::envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    Resource as WireResource, ResourceError, ResourceLocator, ResourceName,
};
pub use dhow_proto::envoy_types::pb::google::protobuf::{Any, value};
pub use dhow_proto::envoy_types::pb::google::rpc::Status;
