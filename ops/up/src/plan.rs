//! Which pods a mesh has, and what each of their containers runs: decided before anything starts.

use std::collections::BTreeMap;

use crate::address::{MOST_PODS, MeshNumber, PodAddresses};
use crate::error::UpError;
use crate::image::{ImageMap, Placeholders, fill, short_name};
use crate::manifest::ManifestFile;
use crate::workload::{Container, Variable, Workload, service_ports, workloads};

/// Port of a sidecar's HTTP proxy, in front of everything that the application calls.
pub(crate) const HTTP_PROXY_PORT: u16 = 15007;

/// Letters of generated names: those of Kubernetes, which spell no words.
const NAME_LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A pod to be run.
#[derive(Clone, Debug)]
pub(crate) struct PodPlan {
    pub name: String,
    pub namespace: String,
    /// Name of the Deployment, StatefulSet or Pod that it belongs to.
    pub workload: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub service_account: String,
    pub addresses: PodAddresses,
    /// Whether it has a sidecar; without one the application listens on the pod's own address.
    pub sidecar: bool,
    pub containers: Vec<ContainerPlan>,
}

/// A container to be run as a process.
#[derive(Clone, Debug)]
pub(crate) struct ContainerPlan {
    pub name: String,
    pub image: String,
    /// Ports with their names; the first one tells whether the application is ready.
    pub ports: Vec<(Option<String>, u16)>,
    /// Program and arguments.
    pub command: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// What is to be run, and what should be said about it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub pods: Vec<PodPlan>,
    pub warnings: Vec<String>,
}

/// What a plan is made from.
#[derive(Debug)]
pub(crate) struct Planner<'a> {
    pub files: &'a [ManifestFile],
    pub images: &'a ImageMap,
    pub mesh: &'a MeshNumber,
    /// The program that runs the samples.
    pub dhow: &'a str,
}

impl Planner<'_> {
    /// Plans all pods of the files, which are those of `folder`.
    pub(crate) fn plan(&self, folder: &str) -> Result<Plan, UpError> {
        let workloads = workloads(self.files)?;
        let number: usize = workloads.iter().map(|workload| workload.replicas).fold(0, usize::saturating_add);
        if number == 0 {
            return Err(UpError::Nothing {
                folder: folder.to_owned(),
                reason: "no Deployment, StatefulSet or Pod with a replica",
            });
        }
        if number > MOST_PODS {
            return Err(UpError::Addresses(format!(
                "{number} pods are too many; a mesh here has at most {MOST_PODS}"
            )));
        }
        let mut pods = Vec::with_capacity(number);
        let mut warnings = Vec::new();
        for workload in &workloads {
            warnings.extend(workload.warnings.iter().map(|warning| format!("{}: {warning}", workload.at)));
            for replica in 0..workload.replicas {
                let addresses = self.mesh.pod(pods.len());
                pods.push(self.pod(workload, replica, addresses)?);
            }
        }
        Ok(Plan { pods, warnings })
    }

    fn pod(&self, workload: &Workload, replica: usize, addresses: PodAddresses) -> Result<PodPlan, UpError> {
        let template = &workload.template;
        let sidecar = template.injected();
        let addresses =
            if sidecar { addresses } else { PodAddresses { application: addresses.pod, ..addresses } };
        let mut pod = PodPlan {
            name: pod_name(workload, replica),
            namespace: workload.id.namespace.clone(),
            workload: workload.id.name.clone(),
            labels: template.labels.clone(),
            annotations: template.annotations.clone(),
            service_account: template.service_account.clone(),
            addresses,
            sidecar,
            containers: Vec::new(),
        };
        let undeclared = match template.containers.as_slice() {
            [only] if only.ports.is_empty() => service_ports(self.files, &pod.namespace, &pod.labels),
            _ => Vec::new(),
        };
        for container in &template.containers {
            let container = self.container(workload, container, &pod, &undeclared)?;
            pod.containers.push(container);
        }
        Ok(pod)
    }

    /// Plans a container of `pod`; `undeclared` are ports that it has beside those that it declares.
    fn container(
        &self,
        workload: &Workload,
        container: &Container,
        pod: &PodPlan,
        undeclared: &[u16],
    ) -> Result<ContainerPlan, UpError> {
        let command = self.images.command(&container.image).ok_or_else(|| UpError::UnmappedImage {
            at: workload.at.clone(),
            image: container.image.clone(),
            short: short_name(&container.image).to_owned(),
            object: format!("{} {}", workload.id.kind, workload.id.name),
        })?;
        let declared = container.ports.iter().map(|port| (port.name.clone(), port.number));
        let ports: Vec<_> = declared.chain(undeclared.iter().map(|number| (None, *number))).collect();
        let wrong = |reason: String| UpError::Command {
            owner: format!("{} {}", pod.name, container.name),
            command: container.image.clone(),
            reason,
        };
        let with = Placeholders {
            dhow: self.dhow,
            address: &pod.addresses.application.to_string(),
            port: ports.first().map(|(_, number)| *number),
            pod: &pod.name,
        };
        let mut command = fill(command, &with).map_err(wrong)?;
        command.extend(container.args.iter().cloned());
        Ok(ContainerPlan {
            name: container.name.clone(),
            image: container.image.clone(),
            ports,
            command,
            environment: environment(pod, container).map_err(wrong)?,
        })
    }
}

/// The variables of a container: ours first, so that the manifest may override them.
fn environment(pod: &PodPlan, container: &Container) -> Result<Vec<(String, String)>, String> {
    let application = pod.addresses.application.to_string();
    let mut variables = vec![
        ("HOSTNAME".to_owned(), pod.name.clone()),
        ("POD_IP".to_owned(), pod.addresses.pod.to_string()),
        ("BIND_ADDRESS".to_owned(), application.clone()),
    ];
    if pod.sidecar {
        let proxy = format!("http://{}:{HTTP_PROXY_PORT}", pod.addresses.pod);
        let direct = format!("localhost,127.0.0.1,{application}");
        for (name, value) in [("HTTP_PROXY", &proxy), ("NO_PROXY", &direct)] {
            variables.push((name.to_owned(), value.clone()));
            variables.push((name.to_ascii_lowercase(), value.clone()));
        }
    }
    for (name, variable) in &container.environment {
        let value = match variable {
            Variable::Text(text) => expand(text, &variables),
            Variable::Field(path) => pod_field(pod, path)
                .ok_or_else(|| format!("variable {name}: the field {path} is not available here"))?,
        };
        variables.retain(|(known, _)| known != name);
        variables.push((name.clone(), value));
    }
    Ok(variables)
}

/// Replaces `$(NAME)` by the variable's value and `$$` by `$`; names that are not there stay, as in Kubernetes.
fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let reference = rest.strip_prefix("$(").and_then(|inside| inside.split_once(')'));
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = reference {
            match variables.iter().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&rest[..rest.len() - after.len()]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = &rest[1..];
        }
    }
    out + rest
}

/// A field of the pod as a variable refers to it.
fn pod_field(pod: &PodPlan, path: &str) -> Option<String> {
    let keyed = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    if let Some(label) = keyed("metadata.labels") {
        return Some(pod.labels.get(label).cloned().unwrap_or_default());
    }
    if let Some(annotation) = keyed("metadata.annotations") {
        return Some(pod.annotations.get(annotation).cloned().unwrap_or_default());
    }
    Some(match path {
        "metadata.name" => pod.name.clone(),
        "metadata.namespace" => pod.namespace.clone(),
        "spec.serviceAccountName" => pod.service_account.clone(),
        "spec.nodeName" => "localhost".to_owned(),
        "status.podIP" | "status.podIPs" => pod.addresses.pod.to_string(),
        "status.hostIP" => "127.0.0.1".to_owned(),
        _ => return None,
    })
}

/// The name of a pod: that of a Pod, an ordinal for a StatefulSet, two groups of letters for a Deployment. These come from the template, so
/// that they change with it and not from run to run.
fn pod_name(workload: &Workload, replica: usize) -> String {
    let name = &workload.id.name;
    match workload.id.kind.as_str() {
        "Pod" => name.clone(),
        "StatefulSet" => format!("{name}-{replica}"),
        _ => {
            let template = fnv(0, workload.template.json.as_bytes());
            format!("{name}-{}-{}", letters(template, 10), letters(fnv(template, &replica.to_le_bytes()), 5))
        }
    }
}

fn letters(mut seed: u64, length: usize) -> String {
    let mut letters = String::with_capacity(length);
    for _ in 0..length {
        let count = NAME_LETTERS.len() as u64;
        letters.push(char::from(NAME_LETTERS[usize::try_from(seed % count).unwrap_or(0)]));
        seed /= count;
    }
    letters
}

/// FNV-1a with a finishing shuffle, as its low bits alone are too regular for names.
fn fnv(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const MANIFEST: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      containers:
      - name: web
        image: registry/web:1
        args: [--flag]
        ports: [{containerPort: 80}]
        env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: GREETING, value: '$(NAME) in $(POD_IP) for $$5 $(NOBODY)'}
        - {name: NO_PROXY, value: '*'}
";

    fn plan_of(text: &str, rules: &[&str]) -> Result<Plan, String> {
        let file = ManifestFile::parse(Path::new("a.yaml"), text.to_owned()).unwrap();
        let rules: Vec<_> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let mesh = MeshNumber::claim().unwrap();
        let planner = Planner { files: &[file], images: &ImageMap::new(&rules), mesh: &mesh, dhow: "/dhow" };
        planner.plan("folder").map_err(|error| error.to_string())
    }

    fn variable<'a>(container: &'a ContainerPlan, name: &str) -> Option<&'a str> {
        container.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_deployment_becomes_pods_with_names_addresses_and_commands_of_their_own() {
        let pods = plan_of(MANIFEST, &["web=serve --bind {bind}"]).unwrap().pods;
        assert_eq!(pods.len(), 2);
        assert_ne!(pods[0].name, pods[1].name);
        assert_ne!(pods[0].addresses, pods[1].addresses);
        let parts: Vec<_> = pods[0].name.split('-').map(str::len).collect();
        assert_eq!(parts, [3, 10, 5]);
        let container = &pods[0].containers[0];
        let bind = format!("{}:80", pods[0].addresses.application);
        assert_eq!(container.command, ["serve", "--bind", &bind, "--flag"]);
        let proxy = format!("http://{}:15007", pods[0].addresses.pod);
        assert_eq!(variable(container, "http_proxy"), Some(proxy.as_str()));
        assert_eq!(variable(container, "NO_PROXY"), Some("*"));
        let greeting = format!("{} in {} for $5 $(NOBODY)", pods[0].name, pods[0].addresses.pod);
        assert_eq!(variable(container, "GREETING"), Some(greeting.as_str()));
    }

    #[test]
    fn names_of_pods_stay_the_same_until_the_template_changes() {
        let name = |text: &str| plan_of(text, &["web=x"]).unwrap().pods[1].name.clone();
        assert_eq!(name(MANIFEST), name(MANIFEST));
        assert_ne!(name(MANIFEST), name(&MANIFEST.replace("--flag", "--other")));
    }

    #[test]
    fn a_pod_without_sidecar_listens_on_its_own_address() {
        let text = MANIFEST.replace("{app: web}", "{app: web, sidecar.istio.io/inject: 'false'}");
        let pods = plan_of(&text, &["web={address}"]).unwrap().pods;
        assert!(!pods[0].sidecar);
        assert_eq!(pods[0].containers[0].command[0], pods[0].addresses.pod.to_string());
        assert_eq!(variable(&pods[0].containers[0], "HTTP_PROXY"), None);
    }

    #[test]
    fn what_cannot_run_is_named() {
        assert_eq!(
            plan_of(MANIFEST, &[]).unwrap_err(),
            "a.yaml:1: no command is known for the image registry/web:1 of Deployment web; give one with --image web=COMMAND"
        );
        let zero = MANIFEST.replace("replicas: 2", "replicas: 0");
        assert!(plan_of(&zero, &["web=x"]).unwrap_err().contains("nothing to run"));
        let many = MANIFEST.replace("replicas: 2", "replicas: 251");
        assert!(plan_of(&many, &["web=x"]).unwrap_err().contains("at most 250"));
        let portless = MANIFEST.replace("        ports: [{containerPort: 80}]\n", "");
        assert!(plan_of(&portless, &["web=x {bind}"]).unwrap_err().contains("needs a port"));
        assert!(plan_of(&portless, &["web=x"]).unwrap().pods[0].containers[0].ports.is_empty());
        let unknown = MANIFEST.replace("metadata.name}", "status.phase}");
        assert!(plan_of(&unknown, &["web=x"]).unwrap_err().contains("status.phase"));
    }
}
