//! The messages that this crate compiles.

pub(crate) use dhow_proto::envoy_types::pb::envoy::config::core::v3 as core;
pub(crate) use dhow_proto::envoy_types::pb::google::api::expr::v1alpha1 as expr;
pub(crate) use dhow_proto::envoy_types::pb::google::protobuf;
