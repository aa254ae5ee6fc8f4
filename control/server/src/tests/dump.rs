//! `xds-dump`, MeshConfig files, and the command line.

use clap::Parser;
use dhow_control_generate::proxy_of_node;
use serde_json::Value;

use super::{Folder, NODE, SERVICE, node, snapshot, xds_dump_args};
use crate::args::{Cli, Command};
use crate::xds_dump::{config_dump, load, run};

fn dump(folder: &Folder) -> Value {
    let resources = snapshot(&folder.0).resources(&proxy_of_node(&node(NODE)).unwrap(), |resource| resource);
    config_dump(&resources)
}

fn section<'a>(dump: &'a Value, name: &str) -> &'a Value {
    let url = format!("type.googleapis.com/envoy.admin.v3.{name}");
    dump["configs"].as_array().unwrap().iter().find(|section| section["@type"] == url.as_str()).unwrap()
}

#[test]
fn a_dump_has_envoys_sections_with_named_resources() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE)]);
    let dump = dump(&folder);
    let cluster = &section(&dump, "ClustersConfigDump")["dynamic_active_clusters"][0];
    assert_eq!(cluster["cluster"]["name"], "outbound|81||other.default.svc.cluster.local");
    assert_eq!(cluster["cluster"]["@type"], "type.googleapis.com/envoy.config.cluster.v3.Cluster");
    assert!(!cluster["version_info"].as_str().unwrap().is_empty());
    let listener = &section(&dump, "ListenersConfigDump")["dynamic_listeners"][0];
    assert_eq!(listener["name"], "virtualOutbound");
    assert_eq!(listener["active_state"]["listener"]["name"], "virtualOutbound");
    let route = &section(&dump, "RoutesConfigDump")["dynamic_route_configs"][0];
    assert_eq!(route["route_config"]["name"], "80");
    let endpoints = section(&dump, "EndpointsConfigDump")["dynamic_endpoint_configs"].as_array().unwrap();
    let names: Vec<_> = endpoints.iter().map(|own| own["endpoint_config"]["cluster_name"].clone()).collect();
    assert_eq!(
        names,
        ["outbound|81||other.default.svc.cluster.local", "outbound|80||web.default.svc.cluster.local"]
    );
}

#[test]
fn a_dump_is_the_same_each_time() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE)]);
    assert_eq!(dump(&folder).to_string(), dump(&folder).to_string());
}

#[test]
fn errors_name_the_file() {
    let folder = Folder::with(&[
        ("mesh.yaml", SERVICE),
        ("node.json", r#"{"id": "who"}"#),
        ("mesh", "rootNamespace: [1]\n"),
    ]);
    let (dir, node, mesh) = (folder.path(""), folder.path("node.json"), folder.path("mesh"));
    let error = run(&xds_dump_args(&["--configDir", &dir, "--node", &node])).unwrap_err();
    assert!(
        format!("{error:#}").contains("node.json: node id \"who\" is not TYPE~IP~ID~DOMAIN"),
        "{error:#}"
    );
    let error =
        run(&xds_dump_args(&["--configDir", &dir, "--node", &node, "--meshConfig", &mesh])).unwrap_err();
    assert!(format!("{error:#}").contains("mesh:1: rootNamespace: invalid type"), "{error:#}");
    let error = run(&xds_dump_args(&["--configDir", "/does/not/exist", "--node", &node])).unwrap_err();
    assert!(format!("{error:#}").contains("/does/not/exist"), "{error:#}");
}

#[test]
fn mesh_config_is_read_from_a_config_map_too() {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata:\n  mesh: |-\n    accessLogFile: /dev/stdout\n    enableTracing: true\n";
    let folder = Folder::with(&[("map.yaml", map), ("node.json", NODE)]);
    let (dir, mesh, node) = (folder.path(""), folder.path("map.yaml"), folder.path("node.json"));
    let args = xds_dump_args(&["--configDir", &dir, "--meshConfig", &mesh, "--node", &node]);
    let mut warnings = Vec::new();
    let (_, config) = load(&args.mesh, |warning| warnings.push(warning)).unwrap();
    assert_eq!(config.access_log_file, "/dev/stdout");
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert!(warning.contains("data.mesh: enableTracing"), "{warning}");
}

#[test]
fn addresses_may_leave_out_the_host() {
    let parse = |address: &str| match Cli::try_parse_from([
        "dhowd",
        "discovery",
        "--configDir",
        "d",
        "--grpcAddr",
        address,
    ]) {
        Ok(Cli { command: Command::Discovery(args) }) => Some(args.grpc_addr.to_string()),
        _ => None,
    };
    assert_eq!(parse(":15010").as_deref(), Some("0.0.0.0:15010"));
    assert_eq!(parse("127.0.0.1:1").as_deref(), Some("127.0.0.1:1"));
    assert_eq!(parse("15010"), None);
    assert_eq!(parse("host:1"), None);
}
