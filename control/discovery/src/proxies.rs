//! Who is connected, and how far each proxy is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_xds::messages::Node;
use dhow_xds::{SyncState, TypeStatus, Variant, type_url};
use parking_lot::Mutex;
use serde::Serialize;

/// One stream of one proxy.
#[derive(Clone, Debug)]
pub struct ProxyStatus {
    /// Istio's connection id: the node's id and a number that is never used twice.
    pub connection_id: String,
    /// How the proxy introduced itself.
    pub node: Node,
    /// Where it connects from, if that is known.
    pub peer: Option<SocketAddr>,
    /// Which protocol it speaks.
    pub variant: Variant,
    /// When it connected.
    pub connected_since: SystemTime,
    /// The types that it asked for, in push order.
    pub types: Vec<TypeStatus>,
}

impl ProxyStatus {
    fn metadata(&self, key: &str) -> Option<String> {
        self.node.metadata_text(key)
    }

    fn nonces(&self, type_url: &str) -> (Option<String>, Option<String>) {
        let status = self.types.iter().find(|status| &*status.type_url == type_url);
        let text = |nonce: &String| (!nonce.is_empty()).then(|| nonce.clone());
        (status.and_then(|s| text(&s.nonce_sent)), status.and_then(|s| text(&s.nonce_acked)))
    }
}

/// Reads string fields of a node's metadata.
trait MetadataText {
    fn metadata_text(&self, key: &str) -> Option<String>;
}

impl MetadataText for Node {
    fn metadata_text(&self, key: &str) -> Option<String> {
        use dhow_xds::messages::value::Kind;
        match self.metadata.as_ref()?.fields.get(key)?.kind.as_ref()? {
            Kind::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// The table behind `/debug/syncz`.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    entries: Mutex<BTreeMap<u64, ProxyStatus>>,
}

impl Proxies {
    pub(crate) fn set(&self, stream: u64, status: ProxyStatus) {
        self.entries.lock().insert(stream, status);
    }

    pub(crate) fn set_types(&self, stream: u64, types: Vec<TypeStatus>) {
        if let Some(entry) = self.entries.lock().get_mut(&stream) {
            entry.types = types;
        }
    }

    pub(crate) fn remove(&self, stream: u64) {
        self.entries.lock().remove(&stream);
    }

    pub(crate) fn list(&self) -> Vec<ProxyStatus> {
        self.entries.lock().values().cloned().collect()
    }
}

/// An entry of `/debug/syncz`, with istiod's field names; what is beyond them is under `types`.
#[derive(Clone, Debug, Serialize)]
pub struct SyncStatus {
    /// `CLUSTER_ID` of the node's metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// The third part of the node's id: pod and namespace.
    pub proxy: String,
    /// The first part of the node's id: `sidecar`, `router`, ...
    pub proxy_type: String,
    /// The version of the data plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_version: Option<String>,
    /// `ISTIO_VERSION` of the node's metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_version: Option<String>,
    /// Nonce of the CDS response sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_sent: Option<String>,
    /// Nonce of the CDS response acknowledged last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_acked: Option<String>,
    /// Nonce of the LDS response sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_sent: Option<String>,
    /// Nonce of the LDS response acknowledged last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_acked: Option<String>,
    /// Nonce of the RDS response sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_sent: Option<String>,
    /// Nonce of the RDS response acknowledged last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route_acked: Option<String>,
    /// Nonce of the EDS response sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_sent: Option<String>,
    /// Nonce of the EDS response acknowledged last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint_acked: Option<String>,
    /// Nonce of the ECDS response sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensionconfig_sent: Option<String>,
    /// Nonce of the ECDS response acknowledged last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensionconfig_acked: Option<String>,
    /// When the stream was opened, in seconds since 1970.
    pub connected_since: u64,
    /// `delta` or `sotw`.
    pub protocol: &'static str,
    /// Each type in words.
    pub types: BTreeMap<String, TypeSync>,
}

/// How far a proxy is with a type.
#[derive(Clone, Debug, Serialize)]
pub struct TypeSync {
    /// `SYNCED`, `STALE` or `NOT SENT`, as `istioctl proxy-status` prints them. A type that is absent was not asked for,
    /// which it prints as `IGNORED`.
    pub state: &'static str,
    /// The text with which the proxy refused the response sent last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

impl From<&ProxyStatus> for SyncStatus {
    fn from(status: &ProxyStatus) -> Self {
        let mut id = status.node.id.split('~');
        let proxy_type = id.next().unwrap_or_default().to_owned();
        let proxy = id.nth(1).unwrap_or(&status.node.id).to_owned();
        let (cluster_sent, cluster_acked) = status.nonces(type_url::CLUSTER);
        let (listener_sent, listener_acked) = status.nonces(type_url::LISTENER);
        let (route_sent, route_acked) = status.nonces(type_url::ROUTE);
        let (endpoint_sent, endpoint_acked) = status.nonces(type_url::ENDPOINT);
        let (extensionconfig_sent, extensionconfig_acked) = status.nonces(type_url::EXTENSION_CONFIG);
        Self {
            cluster_id: status.metadata("CLUSTER_ID"),
            proxy,
            proxy_type,
            proxy_version: status.metadata("ISTIO_VERSION"),
            istio_version: status.metadata("ISTIO_VERSION"),
            cluster_sent,
            cluster_acked,
            listener_sent,
            listener_acked,
            route_sent,
            route_acked,
            endpoint_sent,
            endpoint_acked,
            extensionconfig_sent,
            extensionconfig_acked,
            connected_since: status
                .connected_since
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()),
            protocol: match status.variant {
                Variant::Delta => "delta",
                Variant::StateOfTheWorld => "sotw",
            },
            types: status
                .types
                .iter()
                .map(|s| (type_url::short_name(&s.type_url).to_owned(), s.into()))
                .collect(),
        }
    }
}

impl From<&TypeStatus> for TypeSync {
    fn from(status: &TypeStatus) -> Self {
        let state = match status.state {
            SyncState::NotSent => "NOT SENT",
            SyncState::Synced => "SYNCED",
            SyncState::Stale => "STALE",
        };
        Self { state, refusal: status.refusal.clone() }
    }
}
