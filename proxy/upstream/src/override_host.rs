//! Requests that name their host: the policy `override_host`, and hosts that filters ask for.

use std::net::SocketAddr;
use std::sync::Arc;

use dhow_proto::google::protobuf::{Struct, Value, value::Kind};

use crate::host::Host;
use crate::lb::PrioritySet;
use crate::metadata::MetadataPath;

/// What load balancing may read of a request.
pub trait LbRequest {
    /// The first value of a header; `:authority` is one.
    fn header(&self, name: &str) -> Option<&str>;

    /// A namespace of the stream's dynamic metadata.
    fn metadata(&self, namespace: &str) -> Option<&Struct>;

    /// The destination in the filter state (`envoy.network.transport_socket.original_dst_address`).
    fn wanted_address(&self) -> Option<SocketAddr> {
        None
    }

    /// The host in the filter state (`envoy.upstream.dynamic_host`).
    fn wanted_host(&self) -> Option<&str> {
        None
    }

    /// The port in the filter state (`envoy.upstream.dynamic_port`), not 0.
    fn wanted_port(&self) -> Option<u16> {
        None
    }
}

/// `envoy.load_balancing_policies.override_host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverrideHostPolicy {
    /// Where the hosts are named, in order of preference.
    pub sources: Vec<OverrideSource>,
}

/// One of `override_host_sources`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OverrideSource {
    /// A request header.
    Header(String),
    /// Dynamic metadata.
    Metadata(MetadataPath),
}

impl OverrideHostPolicy {
    /// The host for the attempt `attempt` (from 0) of a request: the first source that names any counts, and its list is
    /// worked through from attempt to attempt. Health does not count. `None` leaves the choice to the fallback policy.
    pub fn choose(&self, hosts: &PrioritySet, request: &dyn LbRequest, attempt: usize) -> Option<Arc<Host>> {
        let list = self.sources.iter().find_map(|source| match source {
            OverrideSource::Header(name) => request.header(name),
            OverrideSource::Metadata(path) => text(path.find(request.metadata(&path.namespace)?)?),
        })?;
        let named = list.split(',').map(str::trim).filter(|address| !address.is_empty()).skip(attempt);
        named.filter_map(|address| hosts.at_address(address)).next().cloned()
    }
}

/// The text that a value is, if it is one.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) if !text.is_empty() => Some(text),
        _ => None,
    }
}
