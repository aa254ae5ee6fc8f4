//! What every object carries beside its spec: name, labels, where it came from, how it is ordered among its kind.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

use crate::Labels;

/// The kinds that are read. Other kinds are ignored or reported by [`crate::decode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each variant is the kind's own name")]
pub enum Kind {
    Service,
    Pod,
    EndpointSlice,
    ServiceAccount,
    Node,
    VirtualService,
    DestinationRule,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
}

impl Kind {
    const ALL: [Self; 10] = [
        Self::Service,
        Self::Pod,
        Self::EndpointSlice,
        Self::ServiceAccount,
        Self::Node,
        Self::VirtualService,
        Self::DestinationRule,
        Self::Gateway,
        Self::ServiceEntry,
        Self::WorkloadEntry,
    ];

    /// The kind as manifests spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Pod => "Pod",
            Self::EndpointSlice => "EndpointSlice",
            Self::ServiceAccount => "ServiceAccount",
            Self::Node => "Node",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::Gateway => "Gateway",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
        }
    }

    /// The kind that manifests spell so.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether objects of this kind live outside namespaces.
    pub const fn cluster_scoped(self) -> bool {
        matches!(self, Self::Node)
    }

    /// Group and version under which Istio names the kind in generated metadata, and its dashed name.
    const fn resource(self) -> (&'static str, &'static str) {
        match self {
            Self::Service => ("v1", "service"),
            Self::Pod => ("v1", "pod"),
            Self::EndpointSlice => ("discovery.k8s.io/v1", "endpoint-slice"),
            Self::ServiceAccount => ("v1", "service-account"),
            Self::Node => ("v1", "node"),
            Self::VirtualService => ("networking.istio.io/v1", "virtual-service"),
            Self::DestinationRule => ("networking.istio.io/v1", "destination-rule"),
            Self::Gateway => ("networking.istio.io/v1", "gateway"),
            Self::ServiceEntry => ("networking.istio.io/v1", "service-entry"),
            Self::WorkloadEntry => ("networking.istio.io/v1", "workload-entry"),
        }
    }
}

/// What makes an object unique.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, empty when the kind has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind.as_str(), self.name)
        } else {
            write!(f, "{} {}/{}", self.kind.as_str(), self.namespace, self.name)
        }
    }
}

/// Where an object was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// File, or another name of the source.
    pub file: Arc<str>,
    /// Line of the document's beginning, from 1; 0 when unknown.
    pub line: u32,
}

impl Default for Origin {
    fn default() -> Self {
        Self { file: Arc::from(""), line: 0 }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// `metadata` of an object, with its kind and origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// Kind.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`, with the default filled in; empty when the kind has none.
    pub namespace: String,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
    /// `metadata.creationTimestamp` in RFC 3339, empty when absent (as it is in files).
    pub creation_timestamp: String,
    /// Where the object was read.
    pub origin: Origin,
}

impl Meta {
    /// The object's identity.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Istio's path of the object, which generated resources carry in `filter_metadata.istio.config`.
    pub fn resource_path(&self) -> String {
        let (group_version, kind) = self.kind.resource();
        format!("/apis/{group_version}/namespaces/{}/{kind}/{}", self.namespace, self.name)
    }

    /// Istio's order of precedence: creation time, then name, then namespace.
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.creation_timestamp
            .cmp(&other.creation_timestamp)
            .then_with(|| self.name.cmp(&other.name))
            .then_with(|| self.namespace.cmp(&other.namespace))
    }
}

/// An object: metadata and spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Config<T> {
    /// Metadata.
    pub meta: Meta,
    /// Spec.
    pub spec: T,
}

/// `metadata` as manifests write it. Kubernetes defines more fields than are of interest here, so others are let through.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ObjectMeta {
    pub name: String,
    pub generate_name: String,
    pub namespace: String,
    pub labels: Labels,
    pub annotations: Labels,
    pub creation_timestamp: String,
}
