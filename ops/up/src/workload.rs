//! Workloads in manifests: Deployments, StatefulSets and Pods, as far as they say which processes to run.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::error::UpError;
use crate::fields::Field;
use crate::manifest::{Document, ManifestFile, ObjectId};

/// Kinds whose pods are run.
const KINDS: [(&str, &str); 3] = [("apps", "Deployment"), ("apps", "StatefulSet"), ("", "Pod")];

/// Kinds that would run pods too, but not here.
const UNSUPPORTED: [(&str, &str); 4] =
    [("apps", "DaemonSet"), ("apps", "ReplicaSet"), ("batch", "Job"), ("batch", "CronJob")];

/// Fields of a pod or container that need Kubernetes, and that an application may notice the lack of.
const WITHOUT_EFFECT: [&str; 3] = ["initContainers", "volumes", "hostNetwork"];
const WITHOUT_EFFECT_ON_CONTAINERS: [&str; 6] =
    ["command", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "volumeMounts"];

/// An object that stands for a number of pods.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    pub id: ObjectId,
    /// File and line of the object.
    pub at: String,
    pub replicas: usize,
    pub template: PodTemplate,
    /// Fields that are set and have no effect here.
    pub warnings: Vec<String>,
}

/// What all pods of a workload have in common.
#[derive(Clone, Debug)]
pub(crate) struct PodTemplate {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    pub containers: Vec<Container>,
    /// The template's text, from which the names of pods are derived.
    pub json: String,
}

impl PodTemplate {
    /// Whether the pods get a sidecar: unless label or annotation `sidecar.istio.io/inject` says no.
    pub(crate) fn injected(&self) -> bool {
        let key = "sidecar.istio.io/inject";
        let setting = self.labels.get(key).or_else(|| self.annotations.get(key));
        setting.is_none_or(|value| !["false", "no", "off", "n"].contains(&value.as_str()))
    }
}

/// A container of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub name: String,
    pub image: String,
    pub args: Vec<String>,
    pub ports: Vec<Port>,
    pub environment: Vec<(String, Variable)>,
}

/// A declared port of a container.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub name: Option<String>,
    pub number: u16,
}

/// Where a variable's value comes from.
#[derive(Clone, Debug)]
pub(crate) enum Variable {
    /// Text, in which `$(NAME)` stands for an earlier variable.
    Text(String),
    /// A field of the pod, such as `metadata.name`.
    Field(String),
}

/// The workloads of all files, and the ports that Services send to pods with certain labels.
pub(crate) fn workloads(files: &[ManifestFile]) -> Result<Vec<Workload>, UpError> {
    let mut found = Vec::new();
    for file in files {
        for document in &file.documents {
            let wrong = |reason: String| UpError::Manifest {
                file: file.path.display().to_string(),
                line: document.line,
                reason,
            };
            let id = ObjectId::of(&document.value).map_err(wrong)?;
            let kind = (id.group.as_str(), id.kind.as_str());
            if UNSUPPORTED.contains(&kind) {
                return Err(wrong(format!(
                    "{} {}: this kind cannot be run here; Deployment, StatefulSet and Pod can",
                    id.kind, id.name
                )));
            }
            if KINDS.contains(&kind) {
                found.push(
                    workload(file, document, id.clone())
                        .map_err(|reason| wrong(format!("{} {}: {reason}", id.kind, id.name)))?,
                );
            }
        }
    }
    Ok(found)
}

fn workload(file: &ManifestFile, document: &Document, id: ObjectId) -> Result<Workload, String> {
    let root = Field::root(&document.value);
    let (template, replicas) = match id.kind.as_str() {
        "Pod" => (root, 1),
        // More would not find addresses anyway.
        _ => (root.get("spec").get("template"), root.get("spec").get("replicas").number(1, 10_000)?),
    };
    if !template.get("spec").is_set() {
        return Err(template.get("spec").wrong("is required"));
    }
    let mut warnings = Vec::new();
    let template = pod_template(&template, &mut warnings)?;
    Ok(Workload {
        at: file.at(document),
        replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
        template,
        warnings: warnings
            .iter()
            .map(|path| format!("{} {}: {path} has no effect here", id.kind, id.name))
            .collect(),
        id,
    })
}

fn pod_template(template: &Field<'_>, warnings: &mut Vec<String>) -> Result<PodTemplate, String> {
    let (metadata, spec) = (template.get("metadata"), template.get("spec"));
    let is_set =
        |field: &Field<'_>| field.is_set() && field.json().as_array().is_none_or(|items| !items.is_empty());
    warnings.extend(
        WITHOUT_EFFECT.map(|name| spec.get(name)).iter().filter(|f| is_set(f)).map(|f| f.path().to_owned()),
    );
    let mut containers = Vec::new();
    for field in spec.get("containers").items()? {
        let ignored = WITHOUT_EFFECT_ON_CONTAINERS.map(|name| field.get(name));
        warnings.extend(ignored.iter().filter(|field| is_set(field)).map(|field| field.path().to_owned()));
        containers.push(container(&field)?);
    }
    if containers.is_empty() {
        return Err(spec.get("containers").wrong("is required"));
    }
    Ok(PodTemplate {
        labels: metadata.get("labels").map()?,
        annotations: metadata.get("annotations").map()?,
        service_account: spec.get("serviceAccountName").optional_text()?.unwrap_or("default").to_owned(),
        containers,
        json: template.json().to_string(),
    })
}

fn container(field: &Field<'_>) -> Result<Container, String> {
    let mut ports = Vec::new();
    for port in field.get("ports").items()? {
        let number = port.get("containerPort");
        let number = number
            .number(0, u64::from(u16::MAX))
            .ok()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n != 0)
            .ok_or_else(|| number.wrong("must be a port from 1 to 65535"))?;
        ports.push(Port { name: port.get("name").optional_text()?.map(str::to_owned), number });
    }
    if let Some(source) = field.get("envFrom").items()?.first() {
        return Err(
            source.wrong("ConfigMaps and Secrets are not available here; give the variables with env")
        );
    }
    let mut environment = Vec::new();
    for variable in field.get("env").items()? {
        environment.push((variable.get("name").text()?.to_owned(), value_of(&variable)?));
    }
    Ok(Container {
        name: field.get("name").text()?.to_owned(),
        image: field.get("image").text()?.to_owned(),
        args: field.get("args").texts()?,
        ports,
        environment,
    })
}

fn value_of(variable: &Field<'_>) -> Result<Variable, String> {
    let source = variable.get("valueFrom");
    if !source.is_set() {
        return Ok(Variable::Text(variable.get("value").optional_text()?.unwrap_or_default().to_owned()));
    }
    let field = source.get("fieldRef");
    if !field.is_set() {
        return Err(source.wrong("only fieldRef is available here"));
    }
    Ok(Variable::Field(field.get("fieldPath").text()?.to_owned()))
}

/// TCP ports that Services of the manifests send to pods with `labels` in `namespace`, by number or by the name of a container's port.
pub(crate) fn service_ports(
    files: &[ManifestFile],
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Vec<u16> {
    let mut ports = Vec::new();
    for document in files.iter().flat_map(|file| &file.documents) {
        let Ok(id) = ObjectId::of(&document.value) else { continue };
        if id.kind != "Service" || !id.group.is_empty() || id.namespace != namespace {
            continue;
        }
        let spec = Field::root(&document.value).get("spec");
        let Ok(selector) = spec.get("selector").map() else { continue };
        if selector.is_empty() || !selector.iter().all(|(name, value)| labels.get(name) == Some(value)) {
            continue;
        }
        let ports_of_service = spec.get("ports").items().unwrap_or_default();
        for port in ports_of_service
            .iter()
            .filter(|port| matches!(port.get("protocol").optional_text(), Ok(None | Some("TCP"))))
        {
            let target = [port.get("targetPort"), port.get("port")].into_iter().find(Field::is_set);
            let number =
                target.and_then(|field| field.json().as_u64()).and_then(|number| u16::try_from(number).ok());
            ports.extend(number.filter(|number| *number != 0 && !ports.contains(number)));
        }
    }
    ports
}

/// Whether `value` is of a kind whose pods are run.
pub(crate) fn is_workload(value: &Value) -> bool {
    ObjectId::of(value).is_ok_and(|id| KINDS.contains(&(id.group.as_str(), id.kind.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Result<Vec<Workload>, String> {
        let file = ManifestFile::parse(Path::new("a.yaml"), text.to_owned()).unwrap();
        workloads(&[file]).map_err(|error| error.to_string())
    }

    const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: a, labels: {app: a}}
spec:
  containers:
  - name: web
    image: web:1
    args: [-v]
    ports: [{containerPort: 80, name: http}]
    env:
    - {name: A, value: one}
    - {name: B, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
";

    #[test]
    fn a_pod_is_read() {
        let found = read(POD).unwrap();
        let container = &found[0].template.containers[0];
        assert_eq!((found[0].replicas, found[0].at.as_str()), (1, "a.yaml:1"));
        assert_eq!((container.image.as_str(), container.ports[0].number), ("web:1", 80));
        assert_eq!(container.args, ["-v"]);
        assert!(matches!(&container.environment[1].1, Variable::Field(path) if path == "metadata.name"));
        assert!(found[0].template.injected() && found[0].warnings.is_empty());
    }

    #[test]
    fn errors_name_object_and_field() {
        let wrong = |from: &str, to: &str| read(&POD.replace(from, to)).unwrap_err();
        assert_eq!(
            wrong("containerPort: 80", "containerPort: 0"),
            "a.yaml:1: Pod a: spec.containers[0].ports[0].containerPort: must be a port from 1 to 65535"
        );
        assert_eq!(
            wrong("image: web:1", "tty: true"),
            "a.yaml:1: Pod a: spec.containers[0].image: is required"
        );
        assert!(
            wrong("fieldRef: {fieldPath: metadata.name}", "secretKeyRef: {name: s, key: k}")
                .contains("fieldRef")
        );
        assert!(
            wrong("apiVersion: v1\nkind: Pod", "apiVersion: batch/v1\nkind: Job")
                .contains("cannot be run here")
        );
        assert!(wrong("[-v]", "x").contains("spec.containers[0].args: must be a list"));
    }

    #[test]
    fn fields_without_effect_are_warned_about() {
        let found = read(&POD.replace("    args: [-v]", "    command: [x]\n    readinessProbe: {}")).unwrap();
        assert_eq!(
            found[0].warnings,
            [
                "Pod a: spec.containers[0].command has no effect here",
                "Pod a: spec.containers[0].readinessProbe has no effect here"
            ]
        );
    }

    #[test]
    fn ports_of_services_follow_their_selector() {
        let services = "\
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {selector: {app: a}, ports: [{port: 80, targetPort: 8080}, {port: 9000}, {port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: b}
spec: {selector: {app: b}, ports: [{port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: manual}
spec: {ports: [{port: 82}]}
";
        let file = ManifestFile::parse(Path::new("a.yaml"), services.to_owned()).unwrap();
        let labels =
            BTreeMap::from([("app".to_owned(), "a".to_owned()), ("version".to_owned(), "v1".to_owned())]);
        assert_eq!(service_ports(std::slice::from_ref(&file), "default", &labels), [8080, 9000]);
        assert!(service_ports(&[file], "other", &labels).is_empty());
    }
}
