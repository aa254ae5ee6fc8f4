//! From a document's JSON value to a typed object, strict where the mesh owns the kind.

use dhow_base::{ConfigError, FieldPath};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::istio::{DestinationRule, Gateway, ServiceEntry, VirtualService, WorkloadEntry};
use crate::kubernetes::PodDocument;
use crate::meta::ObjectMeta;
use crate::{EndpointSlice, Kind, KubeService, Meta, Node, Origin, Pod, ServiceAccount};

/// The spec of an object, by kind.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant is the kind's own name")]
pub enum Spec {
    Service(KubeService),
    Pod(Pod),
    EndpointSlice(EndpointSlice),
    ServiceAccount(ServiceAccount),
    Node(Node),
    VirtualService(Box<VirtualService>),
    DestinationRule(Box<DestinationRule>),
    Gateway(Box<Gateway>),
    ServiceEntry(Box<ServiceEntry>),
    WorkloadEntry(Box<WorkloadEntry>),
}

/// An object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Metadata.
    pub meta: Meta,
    /// Spec.
    pub spec: Spec,
}

/// What a document turned out to be.
#[derive(Debug)]
pub enum Decoded {
    /// An object of a kind that is read.
    Object(Box<Object>),
    /// A kind that does not configure the mesh, such as a Deployment.
    Ignored,
    /// A kind that would configure the mesh and is not supported yet; the text is `group/version kind name`.
    Unsupported(String),
}

/// Groups whose kinds all configure the mesh.
const MESH_GROUPS: [&str; 7] = [
    "networking.istio.io",
    "security.istio.io",
    "telemetry.istio.io",
    "extensions.istio.io",
    "install.istio.io",
    "gateway.networking.k8s.io",
    "networking.x-k8s.io",
];

/// Reads one document. `default_namespace` is for objects that name none. Errors carry the path of the field.
pub fn decode(mut value: Value, default_namespace: &str, origin: Origin) -> Result<Decoded, ConfigError> {
    remove_nulls(&mut value);
    let Value::Object(fields) = &value else {
        return Err(ConfigError::at_root("a document must be an object with apiVersion and kind"));
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind_name) = (text("apiVersion"), text("kind"));
    if api_version.is_empty() {
        return Err(ConfigError::new(FieldPath::from("apiVersion"), "is required"));
    }
    if kind_name.is_empty() {
        return Err(ConfigError::new(FieldPath::from("kind"), "is required"));
    }
    let kind = match kind_of(&api_version, &kind_name)? {
        KnownKind::Read(kind) => kind,
        KnownKind::Unsupported => {
            let name = fields.get("metadata").and_then(|meta| meta.get("name")).and_then(Value::as_str);
            let name = name.unwrap_or("(unnamed)");
            return Ok(Decoded::Unsupported(format!("{api_version} {kind_name} {name}")));
        }
        KnownKind::Ignored => return Ok(Decoded::Ignored),
    };
    let metadata: ObjectMeta = read_field(&value, "metadata")?;
    if metadata.name.is_empty() {
        let hint = if metadata.generate_name.is_empty() {
            "is required"
        } else {
            "is required; generateName needs an API server"
        };
        return Err(ConfigError::new(FieldPath::from("metadata.name"), hint));
    }
    let namespace = match (kind.cluster_scoped(), metadata.namespace.is_empty()) {
        (true, _) => String::new(),
        (false, true) => default_namespace.to_owned(),
        (false, false) => metadata.namespace,
    };
    let meta = Meta {
        kind,
        name: metadata.name,
        namespace,
        labels: metadata.labels,
        annotations: metadata.annotations,
        creation_timestamp: metadata.creation_timestamp,
        origin,
    };
    let spec = decode_spec(kind, &value)?;
    Ok(Decoded::Object(Box::new(Object { meta, spec })))
}

fn decode_spec(kind: Kind, value: &Value) -> Result<Spec, ConfigError> {
    Ok(match kind {
        Kind::Service => Spec::Service(read_field(value, "spec")?),
        Kind::Pod => Spec::Pod(read::<PodDocument>(value, FieldPath::root())?.into()),
        Kind::EndpointSlice => Spec::EndpointSlice(read(value, FieldPath::root())?),
        Kind::ServiceAccount => Spec::ServiceAccount(ServiceAccount),
        Kind::Node => Spec::Node(Node),
        Kind::VirtualService => Spec::VirtualService(read_istio(value)?),
        Kind::DestinationRule => Spec::DestinationRule(read_istio(value)?),
        Kind::Gateway => Spec::Gateway(read_istio(value)?),
        Kind::ServiceEntry => Spec::ServiceEntry(read_istio(value)?),
        Kind::WorkloadEntry => Spec::WorkloadEntry(read_istio(value)?),
    })
}

enum KnownKind {
    Read(Kind),
    Unsupported,
    Ignored,
}

fn kind_of(api_version: &str, kind: &str) -> Result<KnownKind, ConfigError> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let read = match (group, kind) {
        ("", "Service") => Kind::Service,
        ("", "Pod") => Kind::Pod,
        ("", "ServiceAccount") => Kind::ServiceAccount,
        ("", "Node") => Kind::Node,
        ("discovery.k8s.io", "EndpointSlice") => Kind::EndpointSlice,
        ("networking.istio.io", "VirtualService") => Kind::VirtualService,
        ("networking.istio.io", "DestinationRule") => Kind::DestinationRule,
        ("networking.istio.io", "Gateway") => Kind::Gateway,
        ("networking.istio.io", "ServiceEntry") => Kind::ServiceEntry,
        ("networking.istio.io", "WorkloadEntry") => Kind::WorkloadEntry,
        // Superseded by EndpointSlice, and silently without effect would be worse than said.
        ("", "Endpoints") => return Ok(KnownKind::Unsupported),
        ("networking.k8s.io", "Ingress") => return Ok(KnownKind::Unsupported),
        (group, _) if MESH_GROUPS.contains(&group) => return Ok(KnownKind::Unsupported),
        _ => return Ok(KnownKind::Ignored),
    };
    let served: &[&str] = match group {
        "networking.istio.io" => &["v1", "v1beta1", "v1alpha3"],
        "discovery.k8s.io" => &["v1", "v1beta1"],
        _ => &["v1"],
    };
    if served.contains(&version) {
        Ok(KnownKind::Read(read))
    } else {
        let reason = format!("{kind} is not served in {api_version}; one of {} is", served.join(", "));
        Err(ConfigError::new(FieldPath::from("apiVersion"), reason))
    }
}

/// An Istio object has its spec, and nothing beside it but a status, which belongs to the control plane that wrote it.
fn read_istio<T: DeserializeOwned>(value: &Value) -> Result<Box<T>, ConfigError> {
    if let Value::Object(fields) = value {
        for name in fields.keys() {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "spec" | "status") {
                return Err(ConfigError::new(FieldPath::from(name.as_str()), "unknown field"));
            }
        }
        if !fields.contains_key("spec") {
            return Err(ConfigError::new(FieldPath::from("spec"), "is required"));
        }
    }
    read_field(value, "spec").map(Box::new)
}

fn read_field<T: DeserializeOwned>(value: &Value, name: &str) -> Result<T, ConfigError> {
    let empty = Value::Object(serde_json::Map::new());
    read(value.get(name).unwrap_or(&empty), FieldPath::from(name))
}

/// Reads a value with serde; an error's path is where in the value reading stopped.
pub(crate) fn read<T: DeserializeOwned>(value: &Value, at: FieldPath) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { at } else { at.join(&FieldPath::from(path)) };
        ConfigError::new(path, error.into_inner().to_string())
    })
}

/// Kubernetes reads a null member as an absent one.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, member| !member.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}
