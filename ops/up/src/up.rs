//! `dhow up`: from a folder of manifests to a running mesh.

use std::path::{Path, PathBuf};

use crate::address::{MeshNumber, gateway_port};
use crate::bootstrap::GATEWAY;
use crate::entry;
use crate::error::UpError;
use crate::image::{ImageMap, ImageRule};
use crate::manifest::{ManifestFile, Validate, read_folder};
use crate::mesh::{Mesh, Setup};
use crate::plan::{Plan, plan};
use crate::process::resolve;
use crate::screen::Screen;
use crate::state::{MeshFolder, MeshState, ProxyState};
use crate::sweep::Sweeper;
use crate::unit::{Programs, Unit, container, control_plane, gateway, sidecar, xds_address};

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
    let plan = plan(&folder, &files, &ImageMap::new(&options.images), &number, &dhow)?;
    check_commands(&plan, options.proxy.as_deref())?;
    let port = gateway_port(options.gateway_port)?;

    let mut screen = Screen::new();
    warnings.iter().chain(&plan.warnings).for_each(|warning| eprintln!("Warning: {warning}"));
    let mesh = MeshFolder::create()?;
    let sweeper = Sweeper::start(&options.dhow, &mesh.id, &mesh.path)?;
    screen.line(&format!("starting {} pods in {}", plan.pods.len(), mesh.path.display()));
    let outcome =
        prepare(options, &files, plan, mesh, &number, &dhow, port).and_then(|setup| run(setup, screen));
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

/// Writes what the processes will read, and decides what they are.
fn prepare(
    options: &Options,
    files: &[ManifestFile],
    plan: Plan,
    folder: MeshFolder,
    number: &MeshNumber,
    dhow: &str,
    gateway_port: u16,
) -> Result<Setup, UpError> {
    for file in files {
        if let Some(text) = without_pods(file) {
            folder.write(Path::new("config").join(file.name()), text.as_bytes())?;
        }
    }
    let mesh_config = options.mesh_config.as_ref().map(std::path::absolute).transpose();
    let mesh_config = mesh_config.map_err(UpError::file(options.mesh_config.clone().unwrap_or_default()))?;
    let programs = Programs { dhow, proxy: options.proxy.as_deref(), mesh_config: mesh_config.as_deref() };
    let control = number.control();
    let gateway_pod = format!("{GATEWAY}-{}", folder.id);
    let mut units: Vec<Unit> = vec![control_plane(&programs, &folder, control)];
    let mut proxies = Vec::new();
    let (unit, identity) = gateway(&programs, &folder, control, &gateway_pod)?;
    units.push(unit);
    proxies.push(ProxyState {
        name: gateway_pod.clone(),
        namespace: crate::bootstrap::GATEWAY_NAMESPACE.to_owned(),
        admin: identity.admin.to_string(),
    });
    for (index, pod) in plan.pods.iter().enumerate() {
        if pod.sidecar {
            let (unit, identity) = sidecar(&programs, &folder, control, index, pod)?;
            units.push(unit);
            let admin = identity.admin.to_string();
            proxies.push(ProxyState { name: pod.name.clone(), namespace: pod.namespace.clone(), admin });
        }
        units.extend(pod.containers.iter().map(|planned| container(&programs, index, pod, planned)));
    }
    let source = std::path::absolute(&options.folder).map_err(UpError::file(&options.folder))?;
    let state = MeshState {
        pid: std::process::id(),
        source,
        config: folder.config(),
        gateway: format!("http://127.0.0.1:{gateway_port}"),
        control_plane: xds_address(control).to_string(),
        proxies,
    };
    Ok(Setup {
        pods: plan.pods,
        units,
        gateway_pod,
        gateway_port,
        path: entry::path(files),
        state,
        verbose: options.verbose,
        folder,
    })
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
