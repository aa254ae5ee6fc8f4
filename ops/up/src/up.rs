//! `dhow up`: from a folder of manifests to a running mesh.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::address::{MeshNumber, gateway_port};
use crate::bootstrap::{GATEWAY, GATEWAY_NAMESPACE, ProxyIdentity};
use crate::entry;
use crate::error::UpError;
use crate::image::{ImageMap, ImageRule};
use crate::manifest::{ManifestFile, Validate, read_folder};
use crate::mesh::{Mesh, Opening, Setup};
use crate::plan::{Plan, Planner};
use crate::process::resolve;
use crate::screen::Screen;
use crate::state::{MeshFolder, MeshState, ProxyState};
use crate::sweep::Sweeper;
use crate::unit::{Launcher, Unit};
use crate::workload::service_ports;

/// What `dhow up` is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder with the manifests; those in its subfolders are not read.
    pub folder: PathBuf,
    /// Commands for images, besides those of the samples.
    pub images: Vec<ImageRule>,
    /// Port of the gateway on 127.0.0.1; 0 for any free one.
    pub gateway_port: u16,
    /// File with Istio's mesh configuration.
    pub mesh_config: Option<PathBuf>,
    /// A program with Envoy's command line to be used instead of `dhow proxy`.
    pub proxy: Option<String>,
    /// Whether to forward the output of all processes.
    pub verbose: bool,
    /// The program that has the commands `proxy`, `discovery`, `sample`, `exec` and `sweep`.
    pub dhow: PathBuf,
    /// Says whether the control plane would accept an object.
    pub validate: Validate,
}

/// Brings the mesh up and keeps it running until a signal asks it to stop.
///
/// To be called on the main thread: the kernel ends children with the thread that started them.
///
/// # Errors
/// The first thing that keeps the mesh from running; nothing is left of the mesh then.
pub fn up(options: &Options) -> Result<(), UpError> {
    let folder = options.folder.display().to_string();
    let files = read_folder(&options.folder)?;
    let mut warnings = Vec::new();
    for file in &files {
        warnings.extend(file.validate(options.validate)?);
    }
    let number = MeshNumber::claim()?;
    let dhow = options.dhow.display().to_string();
    let images = ImageMap::new(&options.images);
    let plan = Planner { files: &files, images: &images, mesh: &number, dhow: &dhow }.plan(&folder)?;
    check_commands(&plan, options.proxy.as_deref())?;
    let port = gateway_port(options.gateway_port)?;

    let mut screen = Screen::new();
    warnings.iter().chain(&plan.warnings).for_each(|warning| eprintln!("Warning: {warning}"));
    let mesh = MeshFolder::create()?;
    let sweeper = Sweeper::start(&options.dhow, &mesh, &number)?;
    screen.line(&format!("starting {} pods in {}", plan.pods.len(), mesh.path.display()));
    let prepared = copy(&files, &mesh).and_then(|()| prepare(options, &files, plan, mesh, (&number, port)));
    let outcome = prepared.and_then(|setup| run(setup, screen));
    sweeper.finish();
    outcome
}

fn run(setup: Setup, screen: Screen) -> Result<(), UpError> {
    setup.folder.publish(&setup.state)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|cause| UpError::Part { part: "dhow up".to_owned(), reason: cause.to_string() })?;
    runtime.block_on(Mesh::new(setup, screen).run())
}

/// Refuses commands that are not there before anything is started.
fn check_commands(plan: &Plan, proxy: Option<&str>) -> Result<(), UpError> {
    let containers = plan.pods.iter().flat_map(|pod| {
        pod.containers
            .iter()
            .map(|container| (format!("{} {}", pod.name, container.name), container.command[0].as_str()))
    });
    for (owner, command) in containers.chain(proxy.map(|proxy| ("the proxy".to_owned(), proxy))) {
        resolve(command).map_err(|reason| UpError::Command { owner, command: command.to_owned(), reason })?;
    }
    Ok(())
}

/// Puts the manifests into the watched folder.
fn copy(files: &[ManifestFile], folder: &MeshFolder) -> Result<(), UpError> {
    for file in files {
        if let Some(text) = without_pods(file) {
            folder.write(Path::new("config").join(file.name()), text.as_bytes())?;
        }
    }
    Ok(())
}

/// Decides what the processes are, and writes what they will read.
fn prepare(
    options: &Options,
    files: &[ManifestFile],
    plan: Plan,
    folder: MeshFolder,
    (number, gateway_port): (&MeshNumber, u16),
) -> Result<Setup, UpError> {
    let mesh_config =
        options.mesh_config.as_ref().map(|path| std::path::absolute(path).map_err(UpError::file(path)));
    let mesh_config = mesh_config.transpose()?;
    let launcher = Launcher {
        dhow: &options.dhow.display().to_string(),
        proxy: options.proxy.as_deref(),
        mesh_config: mesh_config.as_deref(),
        folder: &folder,
        control: number.control(),
    };
    let gateway_pod = format!("{GATEWAY}-{}", folder.id);
    let proxy = |name: &str, namespace: &str, identity: &ProxyIdentity| ProxyState {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        admin: identity.admin.to_string(),
    };
    let (gateway, identity) = launcher.gateway(&gateway_pod)?;
    let mut proxies = vec![proxy(&gateway_pod, GATEWAY_NAMESPACE, &identity)];
    let mut units: Vec<Unit> = vec![launcher.control_plane(), gateway];
    let (mut sidecars, mut endpoints) = (Vec::new(), Vec::new());
    for (index, pod) in plan.pods.iter().enumerate() {
        if pod.sidecar {
            let (unit, identity) = launcher.sidecar(index, pod)?;
            units.push(unit);
            sidecars.push(identity.admin);
            proxies.push(proxy(&pod.name, &pod.namespace, &identity));
        }
        let ports = service_ports(files, &pod.namespace, &pod.labels);
        endpoints.extend(ports.iter().map(|port| format!("{}:{port}", pod.addresses.pod)));
        units.extend(pod.containers.iter().map(|container| launcher.container(index, pod, container)));
    }
    let state = MeshState {
        pid: std::process::id(),
        source: std::path::absolute(&options.folder).map_err(UpError::file(&options.folder))?,
        config: folder.config(),
        gateway: format!("http://127.0.0.1:{gateway_port}"),
        control_plane: launcher.xds().to_string(),
        proxies,
    };
    let gateway = (Ipv4Addr::LOCALHOST, gateway_port).into();
    let opening = Opening { gateway, path: entry::path(files), sidecars, endpoints };
    let verbose = options.verbose;
    Ok(Setup { pods: plan.pods, units, gateway_pod, gateway_port, opening, state, verbose, folder })
}

/// The file's text with its Pods turned into comments, as the mesh writes these itself, with their state; lines stay where they are.
/// Nothing when only Pods are in the file.
fn without_pods(file: &ManifestFile) -> Option<String> {
    let is_pod = |value: &serde_json::Value| value["kind"] == "Pod" && value["apiVersion"] == "v1";
    let mut text = String::with_capacity(file.text.len());
    let mut at = 0;
    let mut kept = false;
    for document in &file.documents {
        if !is_pod(&document.value) {
            kept = true;
            continue;
        }
        text.push_str(&file.text[at..document.range.start]);
        for line in file.text[document.range.clone()].split_inclusive('\n') {
            text.push_str("# ");
            text.push_str(line);
        }
        at = document.range.end;
    }
    text.push_str(&file.text[at..]);
    kept.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_become_comments_and_lines_stay() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: c}\n";
        let file = ManifestFile::parse(Path::new("a.yaml"), text.to_owned()).unwrap();
        let copy = ManifestFile::parse(Path::new("b.yaml"), without_pods(&file).unwrap()).unwrap();
        let lines: Vec<_> =
            copy.documents.iter().map(|d| (d.value["metadata"]["name"].as_str().unwrap(), d.line)).collect();
        assert_eq!(lines, [("a", 1), ("c", 9)]);
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\n";
        assert!(without_pods(&ManifestFile::parse(Path::new("a.yaml"), pod.to_owned()).unwrap()).is_none());
    }
}
