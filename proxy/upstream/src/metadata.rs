//! Metadata of an endpoint and of its locality.

use std::sync::{Arc, LazyLock};

use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::google::protobuf::{Struct, Value, value::Kind};

/// Filter name under which load balancing finds its metadata.
pub const LB_FILTER: &str = "envoy.lb";
/// Filter name under which `transport_socket_matches` finds its criteria.
pub const TRANSPORT_SOCKET_MATCH_FILTER: &str = "envoy.transport_socket_match";

/// Where in the metadata of a stream a value is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataPath {
    /// The namespace, such as the name of a filter.
    pub namespace: String,
    /// The steps from there.
    pub path: Vec<MetadataStep>,
}

/// One step into metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetadataStep {
    /// To the field of a struct.
    Key(String),
    /// To the element of a list.
    Index(usize),
}

impl MetadataPath {
    /// Follows the path through the struct of the namespace.
    pub fn find<'a>(&self, namespace: &'a Struct) -> Option<&'a Value> {
        let (first, rest) = self.path.split_first()?;
        let MetadataStep::Key(first) = first else {
            return None;
        };
        rest.iter().try_fold(namespace.fields.get(first)?, |value, step| match (step, &value.kind) {
            (MetadataStep::Key(key), Some(Kind::StructValue(fields))) => fields.fields.get(key),
            (MetadataStep::Index(at), Some(Kind::ListValue(list))) => list.values.get(*at),
            _ => None,
        })
    }
}

/// What an assignment says about an endpoint and, for all endpoints of its group, about the locality.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostMetadata {
    /// `LbEndpoint.metadata`.
    pub endpoint: Arc<Metadata>,
    /// `LocalityLbEndpoints.metadata`.
    pub locality: Metadata,
}

impl HostMetadata {
    /// What most endpoints have: nothing, held once.
    pub(crate) fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<HostMetadata>> = LazyLock::new(Arc::default);
        NONE.clone()
    }

    /// Of an endpoint alone.
    pub(crate) fn of_endpoint(metadata: Option<Metadata>) -> Arc<Self> {
        match metadata {
            Some(endpoint) if endpoint != Metadata::default() => {
                Arc::new(Self { endpoint: Arc::new(endpoint), locality: Metadata::default() })
            }
            _ => Self::none(),
        }
    }

    /// The struct of `filter` in the endpoint's metadata.
    pub fn endpoint_struct(&self, filter: &str) -> Option<&Struct> {
        self.endpoint.filter_metadata.get(filter)
    }

    /// The value `key` of `filter`, from the endpoint or else from the locality.
    pub fn value(&self, filter: &str, key: &str) -> Option<&Value> {
        self.endpoint
            .filter_metadata
            .get(filter)
            .and_then(|fields| fields.fields.get(key))
            .or_else(|| self.locality.filter_metadata.get(filter)?.fields.get(key))
    }

    /// `envoy.lb: {hash_key: ...}`, which replaces the address in consistent hashing.
    pub fn hash_key(&self) -> Option<&str> {
        match &self.endpoint_struct(LB_FILTER)?.fields.get("hash_key")?.kind {
            Some(Kind::StringValue(key)) if !key.is_empty() => Some(key),
            _ => None,
        }
    }

    /// `envoy.lb: {canary: true}`: responses count under `canary.`.
    pub fn is_canary(&self) -> bool {
        let canary = self.endpoint_struct(LB_FILTER).and_then(|lb| lb.fields.get("canary"));
        matches!(canary.and_then(|value| value.kind.as_ref()), Some(Kind::BoolValue(true)))
    }
}
