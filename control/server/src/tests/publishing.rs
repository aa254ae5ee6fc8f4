//! What changes between snapshots, and the HTTP service beside.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_control_discovery::{Discovery, Generation, Settings};
use dhow_control_model::MeshConfig;
use dhow_control_sources::{Directory, watch};
use dhow_xds::{Resource, type_url};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Folder, NODE, SERVICE, node, snapshot};
use crate::mesh_generation::MeshGeneration;
use crate::monitoring;
use crate::publisher::Publisher;
use crate::snapshot::Inputs;

fn routes_to(subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web}}\nspec: {{hosts: [web], http: [{{route: [{{destination: {{host: web, subset: {subset}}}}}]}}]}}\n"
    )
}

fn all(generation: &MeshGeneration, type_url: &str) -> Arc<[Resource]> {
    let view = generation.view(&node(NODE)).unwrap();
    generation.resources(&view, type_url, None)
}

#[test]
fn a_change_makes_new_versions_of_what_changed_and_shares_the_rest() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE), ("routes.yaml", &routes_to("v1"))]);
    let generation = MeshGeneration::new(snapshot(&folder.0));
    let changes = generation.changes();
    let (clusters, routes) = (all(&generation, type_url::CLUSTER), all(&generation, type_url::ROUTE));
    folder.write("routes.yaml", &routes_to("v2"));
    generation.publish(snapshot(&folder.0));
    assert!(changes.has_changed().unwrap());
    let new_clusters = all(&generation, type_url::CLUSTER);
    assert_eq!(clusters.len(), new_clusters.len());
    assert!(clusters.iter().zip(&*new_clusters).all(|(old, new)| Arc::ptr_eq(&old.body, &new.body)));
    let changed: Vec<&str> = routes
        .iter()
        .zip(&*all(&generation, type_url::ROUTE))
        .filter(|(old, new)| old.version != new.version)
        .map(|(_, new)| &*new.name)
        .map(|name| if name == "80" { "80" } else { "another" })
        .collect();
    assert_eq!(changed, ["80"]);
}

#[test]
fn proxies_with_equal_resources_share_their_bytes() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE)]);
    let generation = MeshGeneration::new(snapshot(&folder.0));
    let view = |ip: &str| generation.view(&node(&NODE.replace("10.0.0.1", ip))).unwrap();
    let clusters = |ip: &str| generation.resources(&view(ip), type_url::CLUSTER, None);
    let (one, two) = (clusters("10.0.0.7"), clusters("10.0.0.8"));
    assert!(one.iter().zip(&*two).all(|(one, two)| Arc::ptr_eq(&one.body, &two.body)));
}

#[test]
fn names_select_resources() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE)]);
    let generation = MeshGeneration::new(snapshot(&folder.0));
    let view = generation.view(&node(NODE)).unwrap();
    let wanted = ["81".to_owned(), "missing".to_owned()].into();
    let found = generation.resources(&view, type_url::ROUTE, Some(&wanted));
    assert_eq!(found.iter().map(|resource| &*resource.name).collect::<Vec<_>>(), ["81"]);
    assert!(generation.resources(&view, type_url::SECRET, None).is_empty());
}

#[test]
fn a_written_file_reaches_the_newest_snapshot_within_a_second() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE), ("routes.yaml", &routes_to("v1"))]);
    let mut directory = Directory::new(&folder.0, "default");
    directory.scan().unwrap();
    let publisher = Arc::new(Publisher::new(Inputs::new(&directory, MeshConfig::default()), "cluster.local"));
    let generation = publisher.generation().clone();
    let _watcher = watch(directory, move |directory| publisher.objects_changed(directory)).unwrap();
    let before = all(&generation, type_url::ROUTE)[0].version.clone();
    folder.write("routes.yaml", &routes_to("v2"));
    let written = Instant::now();
    while all(&generation, type_url::ROUTE)[0].version == before {
        assert!(written.elapsed() < Duration::from_secs(10), "the change was never published");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn mesh_config_is_followed() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE), ("config", "accessLogFile: /one\n")]);
    let mut directory = Directory::new(&folder.0, "default");
    directory.scan().unwrap();
    let publisher = Arc::new(Publisher::new(Inputs::new(&directory, MeshConfig::default()), "cluster.local"));
    let generation = publisher.generation().clone();
    let mut changes = generation.changes();
    let path = folder.0.join("config");
    let following = tokio::spawn(async move { publisher.follow_mesh_config(path).await });
    // Gives the task its first look at the file.
    tokio::task::yield_now().await;
    folder.write("config", "accessLogFile: /another\n");
    let changed = tokio::time::timeout(Duration::from_secs(10), changes.changed()).await;
    assert!(changed.is_ok(), "the change was never published");
    assert_eq!(generation.snapshot().push.mesh.access_log_file, "/another");
    assert_eq!(generation.snapshot().objects.len(), 3);
    following.abort();
}

async fn get(address: std::net::SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn monitoring_answers_with_readiness_metrics_and_objects() {
    let folder = Folder::with(&[("mesh.yaml", SERVICE), ("bad.yaml", "{apiVersion: v1, kind: Service}")]);
    let generation = MeshGeneration::new(snapshot(&folder.0));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let discovery = Discovery::new(generation.clone(), Settings::default());
    let serving = tokio::spawn(monitoring::serve(listener, discovery, generation));
    assert_eq!(get(address, "/ready").await.0, "HTTP/1.1 200 OK");
    let metrics = get(address, "/metrics").await.1;
    assert!(
        metrics.contains("\npilot_services 2\n") && metrics.contains("\npilot_total_rejected_configs 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("\npilot_xds 0\n"), "{metrics}");
    let configz: serde_json::Value = serde_json::from_str(&get(address, "/debug/configz").await.1).unwrap();
    assert_eq!(configz.as_array().unwrap().len(), 3);
    let status: serde_json::Value =
        serde_json::from_str(&get(address, "/debug/push_status").await.1).unwrap();
    assert!(
        status["errors"][0].as_str().unwrap().contains("bad.yaml:1: metadata.name: is required"),
        "{status}"
    );
    assert_eq!(get(address, "/debug/syncz").await.1, "[]\n");
    assert_eq!(get(address, "/nowhere").await.0, "HTTP/1.1 404 Not Found");
    serving.abort();
}
