//! The messages that this crate compiles.

pub(crate) use dhow_proto::envoy_types::pb::envoy::config::common::matcher::v3 as common_matcher;
pub(crate) use dhow_proto::envoy_types::pb::envoy::config::core::v3 as core;
pub(crate) use dhow_proto::envoy_types::pb::envoy::config::metrics::v3 as metrics;
pub(crate) use dhow_proto::envoy_types::pb::envoy::config::route::v3 as route;
pub(crate) use dhow_proto::envoy_types::pb::envoy::r#type::matcher::v3 as matcher;
pub(crate) use dhow_proto::envoy_types::pb::google::protobuf;
pub(crate) use dhow_proto::envoy_types::pb::xds;
