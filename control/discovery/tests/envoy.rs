//! The real Envoy as a client, with traffic through it while its configuration changes.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_control_discovery::{Discovery, Generation, Resource, Settings};
use dhow_proto::Name;
use dhow_proto::envoy_types::pb::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy_types::pb::envoy::config::core::v3::Node;
use dhow_proto::envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_proto::envoy_types::pb::envoy::config::listener::v3::Listener;
use dhow_proto::envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use dhow_testkit::{ChildGuard, ChildSpec, TempDir};
use dhow_xds::type_url::short_name;
use parking_lot::Mutex;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(30);

/// Publishes whole worlds.
#[derive(Clone)]
struct World(Arc<(Mutex<Vec<Resource>>, watch::Sender<u64>)>);

impl World {
    fn publish(&self, resources: Vec<Resource>) {
        *self.0.0.lock() = resources;
        self.0.1.send_modify(|number| *number += 1);
    }
}

impl Generation for World {
    type View = ();

    fn view(&self, _: &Node) -> Result<Arc<()>, String> {
        Ok(Arc::new(()))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.1.subscribe()
    }

    fn resources(&self, (): &(), type_url: &str, names: Option<&BTreeSet<String>>) -> Arc<[Resource]> {
        let wanted = |resource: &&Resource| {
            resource.body.type_url == type_url && names.is_none_or(|names| names.contains(&*resource.name))
        };
        self.0.0.lock().iter().filter(wanted).cloned().collect()
    }
}

fn resource<M: Name + Default>(name: &str, yaml: &str) -> Resource {
    let message: M = dhow_proto::load_yaml(yaml, &Default::default()).expect("valid").message;
    let body = dhow_proto::any::pack(&message);
    Resource {
        name: name.into(),
        version: format!("{:?}", message.encode_to_vec()).into(),
        body: Arc::new(body),
    }
}

/// A mesh in which everything goes to `cluster`, the only one there is, at `upstream`.
fn world(cluster: &str, upstream: SocketAddr) -> Vec<Resource> {
    let clusters = format!(
        "{{name: {cluster}, type: EDS, connect_timeout: 1s, eds_cluster_config: {{eds_config: {{ads: {{}}, \
         resource_api_version: V3}}}}}}"
    );
    let endpoints = format!(
        "{{cluster_name: {cluster}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: \
         {}, port_value: {}}}}}}}}}]}}]}}",
        upstream.ip(),
        upstream.port()
    );
    let listener = "
name: inbound
address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: inbound
      rds: { route_config_name: routes, config_source: { ads: {}, resource_api_version: V3 } }
      http_filters:
      - name: envoy.filters.http.router
        typed_config: { '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
";
    let routes = format!(
        "{{name: routes, virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: \
         {{cluster: {cluster}}}}}]}}]}}"
    );
    vec![
        resource::<Cluster>(cluster, &clusters),
        resource::<ClusterLoadAssignment>(cluster, &endpoints),
        resource::<Listener>("inbound", listener),
        resource::<RouteConfiguration>("routes", &routes),
    ]
}

/// Answers every connection with its name, once.
fn upstream(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || answer(connection, name));
        }
    });
    address
}

fn answer(mut connection: TcpStream, name: &str) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match connection.read(&mut buffer) {
            Ok(length @ 1..) => head.extend_from_slice(&buffer[..length]),
            _ => return,
        }
    }
    let length = name.len();
    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{name}");
    let _ = connection.write_all(response.as_bytes());
}

/// The status line and the body of a response, or why there is none.
fn get(address: SocketAddr, path: &str) -> Result<(String, String), std::io::Error> {
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(connection, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    connection.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
}

#[track_caller]
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what} in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Envoy {
    _process: ChildGuard,
    admin: SocketAddr,
    listener: SocketAddr,
}

fn start_envoy(folder: &TempDir, api_type: &str, management: SocketAddr) -> Option<Envoy> {
    let binary = match dhow_testkit::envoy::locate() {
        Ok(binary) => binary,
        Err(unavailable) => {
            println!("skipped: {unavailable}");
            return None;
        }
    };
    let bootstrap = format!(
        "
node: {{ id: sidecar~10.1.1.4~a.default~default.svc.cluster.local, cluster: a.default }}
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: 0 }} }} }}
dynamic_resources:
  ads_config:
    api_type: {api_type}
    transport_api_version: V3
    grpc_services: [{{ envoy_grpc: {{ cluster_name: xds }} }}]
  cds_config: {{ ads: {{}}, resource_api_version: V3 }}
  lds_config: {{ ads: {{}}, resource_api_version: V3 }}
static_resources:
  clusters:
  - name: xds
    connect_timeout: 1s
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: xds
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {ip}, port_value: {port} }} }} }} }}] }}]
",
        ip = management.ip(),
        port = management.port()
    );
    let config = folder.write("bootstrap.yaml", bootstrap).expect("written");
    let admin_file = folder.path().join("admin");
    let process = ChildSpec::new(binary, folder.path().join("envoy.log"))
        .arg("-c")
        .arg(config)
        .args([
            "--disable-hot-restart",
            "--concurrency",
            "1",
            "--log-level",
            "warning",
            "--admin-address-path",
        ])
        .arg(&admin_file)
        .spawn()
        .expect("starts");
    let admin = until("the admin address", || std::fs::read_to_string(&admin_file).ok()?.trim().parse().ok());
    let listener = until("a listener", || {
        let (_, body) = get(admin, "/listeners").ok()?;
        body.lines().find_map(|line| line.strip_prefix("inbound::"))?.trim().parse().ok()
    });
    Some(Envoy { _process: process, admin, listener })
}

fn follow_changes_without_a_failed_request(api_type: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (first, second) = (upstream("first"), upstream("second"));
    let worlds = [("first", world("first", first)), ("second", world("second", second))];
    let world = World(Arc::new((Mutex::new(worlds[0].1.clone()), watch::Sender::new(1))));
    let discovery = Discovery::new(world.clone(), Settings::default());
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let management = listener.local_addr().expect("bound");
    let serving = discovery.clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let server = std::thread::spawn(move || runtime.block_on(serving.serve(listener, stopped)));
    let folder = TempDir::new("discovery-envoy").expect("a folder");
    let Some(envoy) = start_envoy(&folder, api_type, management) else { return };
    until("an answer", || (get(envoy.listener, "/").ok()?.1 == "first").then_some(()));

    for turn in 1..=10 {
        let (name, resources) = &worlds[turn % 2];
        world.publish(resources.clone());
        let published = Instant::now();
        until("the change", || {
            let (status, body) = get(envoy.listener, "/").expect("an answer");
            assert_eq!(status, "HTTP/1.1 200 OK", "turn {turn}");
            (body == *name).then_some(())
        });
        assert!(published.elapsed() < Duration::from_secs(1), "{:?}", published.elapsed());
        until("all of it", || {
            let table = discovery.syncz();
            let synced = |entry: &dhow_control_discovery::SyncStatus| {
                entry.types.len() == 4 && entry.types.values().all(|sync| sync.state == "SYNCED")
            };
            let (_, clusters) = get(envoy.admin, "/clusters").ok()?;
            let gone = !clusters.contains(&format!("{}::", worlds[(turn + 1) % 2].0));
            (table.iter().all(synced) && gone).then_some(())
        });
    }
    let metrics = discovery.metrics();
    for type_url in [Cluster::type_url(), ClusterLoadAssignment::type_url(), RouteConfiguration::type_url()] {
        let short = short_name(&type_url);
        assert!(metrics.pushes(short) > 10, "{short}: {}", metrics.pushes(short));
        assert_eq!((metrics.rejects(short), metrics.expired_nonces(short)), (0, 0), "{short}");
    }
    drop(envoy);
    stop.send(()).expect("still serving");
    server.join().expect("no panic").expect("no error");
}

#[test]
fn envoy_follows_changes_by_delta_without_a_failed_request() {
    follow_changes_without_a_failed_request("DELTA_GRPC");
}

#[test]
fn envoy_follows_changes_by_state_of_the_world_without_a_failed_request() {
    follow_changes_without_a_failed_request("GRPC");
}
