//! `xds-dump`: what a proxy would get, in the form of Envoy's `/config_dump?include_eds`.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use dhow_control_generate::proxy_of_node;
use dhow_control_model::MeshConfig;
use dhow_control_sources::Directory;
use dhow_proto::envoy::admin::v3 as admin;
use dhow_proto::envoy::config::core::v3::Node;
use dhow_proto::google::protobuf::Any;
use dhow_proto::{any, message_to_json};
use dhow_xds::Resource;
use serde_json::Value;

use crate::args::{MeshArgs, XdsDumpArgs};
use crate::mesh_config_file;
use crate::mesh_generation::notice_text;
use crate::snapshot::{Inputs, ProxyResources, Snapshot};

/// Reads the mesh's configuration once. Warnings go to `warn` as complete lines.
pub(crate) fn load(args: &MeshArgs, mut warn: impl FnMut(String)) -> Result<(Directory, MeshConfig)> {
    let mesh = match &args.mesh_config {
        Some(path) => {
            let (mesh, warnings) = mesh_config_file::read(path)?;
            warnings.into_iter().for_each(&mut warn);
            mesh
        }
        None => MeshConfig::default(),
    };
    let mut directory = Directory::new(&args.config_dir, &args.default_namespace);
    directory.scan().with_context(|| format!("cannot list {}", args.config_dir.display()))?;
    Ok((directory, mesh))
}

pub(crate) fn run(args: &XdsDumpArgs) -> Result<()> {
    let say = |line: String| eprintln!("{line}");
    let (directory, mesh) = load(&args.mesh, say)?;
    let node = read_node(&args.node)?;
    let proxy = proxy_of_node(&node).map_err(|reason| anyhow!("{}: {reason}", args.node.display()))?;
    let snapshot = Snapshot::new(Inputs::new(&directory, mesh), &args.mesh.domain);
    let resources = snapshot.resources(&proxy, |resource| resource);
    for problem in &snapshot.problems {
        say(problem.to_string());
    }
    for notice in snapshot.push.notices.iter().chain(&resources.notices) {
        say(notice_text(notice));
    }
    let text = serde_json::to_string_pretty(&config_dump(&resources))?;
    match std::io::stdout().lock().write_all((text + "\n").as_bytes()) {
        // A reader such as `head` may have seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.context("cannot write the dump"),
    }
}

fn read_node(path: &Path) -> Result<Node> {
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the node from standard input")?;
        text
    } else {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
    };
    let loaded = dhow_proto::load_json::<Node>(&text, &dhow_proto::LoadOptions::default())
        .map_err(|error| anyhow!("{}: {error}", path.display()))?;
    Ok(loaded.message)
}

/// The dump, in Envoy's order of sections.
pub(crate) fn config_dump(resources: &ProxyResources) -> Value {
    let body = |resource: &Resource| Some(Any::clone(&resource.body));
    let version = |resource: &Resource| resource.version.to_string();
    let clusters = admin::ClustersConfigDump {
        dynamic_active_clusters: resources
            .clusters
            .iter()
            .map(|resource| admin::clusters_config_dump::DynamicCluster {
                version_info: version(resource),
                cluster: body(resource),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let endpoints = admin::EndpointsConfigDump {
        dynamic_endpoint_configs: resources
            .endpoints
            .iter()
            .map(|resource| admin::endpoints_config_dump::DynamicEndpointConfig {
                version_info: version(resource),
                endpoint_config: body(resource),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let listeners = admin::ListenersConfigDump {
        dynamic_listeners: resources
            .listeners
            .iter()
            .map(|resource| admin::listeners_config_dump::DynamicListener {
                name: resource.name.to_string(),
                active_state: Some(admin::listeners_config_dump::DynamicListenerState {
                    version_info: version(resource),
                    listener: body(resource),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let routes = admin::RoutesConfigDump {
        dynamic_route_configs: resources
            .routes
            .iter()
            .map(|resource| admin::routes_config_dump::DynamicRouteConfig {
                version_info: version(resource),
                route_config: body(resource),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let configs =
        vec![any::pack(&clusters), any::pack(&endpoints), any::pack(&listeners), any::pack(&routes)];
    message_to_json(&admin::ConfigDump { configs })
}
