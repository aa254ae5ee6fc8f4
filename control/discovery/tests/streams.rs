//! Streams over loopback, spoken to by tonic's generated clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dhow_control_discovery::{Discovery, Generation, Resource, Settings};
use dhow_proto::envoy_types::pb::envoy::config::core::v3::Node;
use dhow_proto::envoy_types::pb::envoy::service::cluster::v3::cluster_discovery_service_client::ClusterDiscoveryServiceClient;
use dhow_proto::envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use dhow_proto::envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use dhow_proto::envoy_types::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use dhow_proto::envoy_types::pb::google::protobuf::Any;
use dhow_proto::envoy_types::pb::google::rpc;
use dhow_xds::type_url::{CLUSTER, ENDPOINT};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tonic::codegen::tokio_stream::{self, Stream};
use tonic::{Code, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(10);
const FAULTY: &str = "type.googleapis.com/test.Faulty";

/// Resources that a test publishes: content by name, by type.
#[derive(Clone)]
struct World(Arc<Shared>);

struct Shared {
    resources: parking_lot::Mutex<BTreeMap<&'static str, BTreeMap<String, String>>>,
    snapshots: watch::Sender<u64>,
}

impl World {
    fn new() -> Self {
        Self(Arc::new(Shared { resources: Default::default(), snapshots: watch::Sender::new(1) }))
    }

    fn publish(&self, type_url: &'static str, resources: &[(&str, &str)]) {
        let resources =
            resources.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect();
        self.0.resources.lock().insert(type_url, resources);
        self.0.snapshots.send_modify(|number| *number += 1);
    }
}

impl Generation for World {
    type View = String;

    fn view(&self, node: &Node) -> Result<Arc<String>, String> {
        if node.id.starts_with("stranger") {
            Err("unknown node type".to_owned())
        } else {
            Ok(Arc::new(node.id.clone()))
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.snapshots.subscribe()
    }

    fn resources(&self, view: &String, type_url: &str, names: Option<&BTreeSet<String>>) -> Arc<[Resource]> {
        assert_ne!(type_url, FAULTY, "a fault in generation");
        let resources = self.0.resources.lock();
        let wanted = resources
            .get(type_url)
            .into_iter()
            .flatten()
            .filter(|(name, _)| names.is_none_or(|n| n.contains(*name)));
        wanted
            .map(|(name, content)| Resource {
                name: name.as_str().into(),
                version: content.as_str().into(),
                body: Arc::new(Any {
                    type_url: type_url.to_owned(),
                    value: format!("{view} {content}").into_bytes(),
                }),
            })
            .collect()
    }
}

struct Server {
    discovery: Discovery<World>,
    world: World,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Server {
    async fn start(settings: Settings) -> Self {
        let world = World::new();
        world.publish(CLUSTER, &[("a", "1"), ("b", "1")]);
        let discovery = Discovery::new(world.clone(), settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = discovery.clone();
        let task = tokio::spawn(async move {
            serving
                .serve(listener, async {
                    let _ = stopped.await;
                })
                .await
        });
        Self { discovery, world, address, stop: Some(stop), task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    async fn delta(&self) -> Delta {
        let mut client = AggregatedDiscoveryServiceClient::connect(self.url()).await.expect("listening");
        let (requests, outgoing) = mpsc::unbounded_channel();
        let responses =
            client.delta_aggregated_resources(Outgoing(outgoing)).await.expect("a stream").into_inner();
        Delta { requests, responses }
    }

    /// Waits until `/debug/syncz` has what `expected` looks for.
    async fn until_synced(&self, expected: impl Fn(&serde_json::Value) -> bool) {
        let start = Instant::now();
        loop {
            let table = serde_json::to_value(self.discovery.syncz()).expect("serialises");
            if expected(&table) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{table:#}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_connected(&self, streams: i64) {
        let start = Instant::now();
        while self.discovery.metrics().connected() != streams {
            assert!(start.elapsed() < PATIENCE, "{} streams", self.discovery.metrics().connected());
            sleep(Duration::from_millis(5)).await;
        }
    }
}

struct Outgoing<T>(mpsc::UnboundedReceiver<T>);

impl<T> Stream for Outgoing<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

struct Delta {
    requests: mpsc::UnboundedSender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Delta {
    fn send(&self, request: DeltaDiscoveryRequest) {
        self.requests.send(request).expect("the stream is open");
    }

    async fn next(&mut self) -> Result<DeltaDiscoveryResponse, Status> {
        let message = timeout(PATIENCE, self.responses.message()).await.expect("an answer in time")?;
        message.ok_or_else(|| Status::ok("the end"))
    }

    fn answer(&self, response: &DeltaDiscoveryResponse, refusal: Option<&str>) {
        let error_detail =
            refusal.map(|message| rpc::Status { code: 13, message: message.to_owned(), details: vec![] });
        self.send(DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail,
            ..DeltaDiscoveryRequest::default()
        });
    }
}

fn node(id: &str) -> Option<Node> {
    Some(Node { id: id.to_owned(), ..Node::default() })
}

fn first(id: &str, type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: node(id),
        type_url: type_url.to_owned(),
        ..DeltaDiscoveryRequest::default()
    }
}

const SIDECAR: &str = "sidecar~10.1.1.4~a.default~default.svc.cluster.local";

#[tokio::test]
async fn a_change_reaches_a_delta_proxy_as_a_difference() {
    let server = Server::start(Settings::default()).await;
    let mut proxy = server.delta().await;
    proxy.send(first(SIDECAR, CLUSTER));
    let response = proxy.next().await.expect("clusters");
    let names = |response: &DeltaDiscoveryResponse| {
        response.resources.iter().map(|resource| resource.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&response), ["a", "b"]);
    let body = response.resources[0].resource.clone().expect("a body");
    assert_eq!((body.type_url.as_str(), body.value), (CLUSTER, format!("{SIDECAR} 1").into_bytes()));
    assert_eq!(response.control_plane.as_ref().expect("named").identifier, "dhowd");
    let state = |table: &serde_json::Value| table[0]["types"]["cds"]["state"].clone();
    server.until_synced(|table| state(table) == "STALE").await;
    proxy.answer(&response, None);
    server.until_synced(|table| state(table) == "SYNCED").await;

    let published = Instant::now();
    server.world.publish(CLUSTER, &[("a", "2")]);
    let response = proxy.next().await.expect("a push");
    assert!(published.elapsed() < Duration::from_secs(1), "{:?}", published.elapsed());
    assert_eq!(
        (names(&response), response.removed_resources.as_slice()),
        (vec!["a".to_owned()], &["b".to_owned()][..])
    );
    proxy.answer(&response, None);
    server
        .until_synced(|table| {
            table[0]["proxy"] == "a.default"
                && table[0]["proxy_type"] == "sidecar"
                && table[0]["cluster_sent"] == table[0]["cluster_acked"]
                && table[0]["cluster_acked"] == *response.nonce
        })
        .await;
    assert_eq!(server.discovery.metrics().pushes("cds"), 2);

    drop(proxy);
    server.until_connected(0).await;
    assert!(server.discovery.proxies().is_empty());
}

#[tokio::test]
async fn a_change_reaches_a_state_of_the_world_proxy_as_a_full_set() {
    let server = Server::start(Settings::default()).await;
    let mut client = AggregatedDiscoveryServiceClient::connect(server.url()).await.expect("listening");
    let (requests, outgoing) = mpsc::unbounded_channel();
    let mut responses =
        client.stream_aggregated_resources(Outgoing(outgoing)).await.expect("a stream").into_inner();
    let mut request =
        DiscoveryRequest { node: node(SIDECAR), type_url: CLUSTER.to_owned(), ..Default::default() };
    let mut last: Option<DiscoveryResponse> = None;
    for (change, expected) in
        [(None, 2), (Some(&[("a", "2"), ("b", "1"), ("c", "1")][..]), 3), (Some(&[]), 0)]
    {
        requests.send(request.clone()).expect("the stream is open");
        if let Some(change) = change {
            server.world.publish(CLUSTER, change);
        }
        let response = timeout(PATIENCE, responses.message())
            .await
            .expect("in time")
            .expect("no error")
            .expect("a response");
        assert_eq!(response.resources.len(), expected);
        assert_ne!(last.as_ref().map(|last| &last.version_info), Some(&response.version_info));
        request.version_info.clone_from(&response.version_info);
        request.response_nonce.clone_from(&response.nonce);
        last = Some(response);
    }
}

#[tokio::test]
async fn a_refusal_is_recorded_and_not_answered() {
    let server = Server::start(Settings::default()).await;
    let mut proxy = server.delta().await;
    proxy.send(first(SIDECAR, CLUSTER));
    let response = proxy.next().await.expect("clusters");
    proxy.answer(&response, Some("a: no such thing"));
    server
        .until_synced(|table| {
            let cds = &table[0]["types"]["cds"];
            cds["state"] == "STALE" && cds["refusal"] == "a: no such thing"
        })
        .await;
    assert_eq!(server.discovery.metrics().rejects("cds"), 1);

    // What follows is about other things only.
    server.world.publish(ENDPOINT, &[("a", "1")]);
    proxy.send(DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["a".to_owned()],
        ..first(SIDECAR, ENDPOINT)
    });
    assert_eq!(proxy.next().await.expect("endpoints").type_url, ENDPOINT);
    assert_eq!(server.discovery.metrics().pushes("cds"), 1);
}

#[tokio::test]
async fn strangers_and_anonymous_proxies_are_refused() {
    let server = Server::start(Settings::default()).await;
    let mut proxy = server.delta().await;
    proxy.send(first("stranger", CLUSTER));
    let status = proxy.next().await.expect_err("refused");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "unknown node type"));
    let mut proxy = server.delta().await;
    proxy.send(first("", CLUSTER));
    assert_eq!(proxy.next().await.expect_err("refused").code(), Code::InvalidArgument);
    server.until_connected(0).await;
}

#[tokio::test]
async fn a_fault_ends_one_stream_only() {
    let server = Server::start(Settings::default()).await;
    let mut healthy = server.delta().await;
    healthy.send(first(SIDECAR, CLUSTER));
    let response = healthy.next().await.expect("clusters");
    healthy.answer(&response, None);
    let mut unlucky = server.delta().await;
    unlucky.send(first(SIDECAR, FAULTY));
    assert_eq!(unlucky.next().await.expect_err("a fault").code(), Code::Internal);
    server.until_connected(1).await;
    server.world.publish(CLUSTER, &[("a", "2"), ("b", "1")]);
    assert_eq!(healthy.next().await.expect("a push").resources.len(), 1);
}

#[tokio::test]
async fn services_of_one_type_need_no_type_and_others_do_not_exist() {
    let server = Server::start(Settings::default()).await;
    let mut client = ClusterDiscoveryServiceClient::connect(server.url()).await.expect("listening");
    let requests = tokio_stream::once(DeltaDiscoveryRequest { node: node(SIDECAR), ..Default::default() });
    let mut responses = client.delta_clusters(requests).await.expect("a stream").into_inner();
    let response =
        timeout(PATIENCE, responses.message()).await.expect("in time").expect("no error").expect("clusters");
    assert_eq!((response.type_url.as_str(), response.resources.len()), (CLUSTER, 2));

    let mut client = LoadReportingServiceClient::connect(server.url()).await.expect("listening");
    let status = client.stream_load_stats(tokio_stream::empty()).await.expect_err("not offered");
    assert_eq!(status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_shutdown_sends_proxies_elsewhere() {
    let mut server = Server::start(Settings::default()).await;
    let mut proxy = server.delta().await;
    proxy.send(first(SIDECAR, CLUSTER));
    proxy.next().await.expect("clusters");
    server.stop.take().expect("still running").send(()).expect("listening for it");
    assert_eq!(proxy.next().await.expect_err("the end").code(), Code::Unavailable);
    drop(proxy);
    timeout(PATIENCE, server.task).await.expect("in time").expect("no panic").expect("no error");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_proxy_that_vanished_without_a_word_is_noticed() {
    let settings = Settings {
        keepalive_interval: Duration::from_millis(50),
        keepalive_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let server = Server::start(settings).await;
    // A relay that stops relaying, as a machine does that lost its network.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let relay = listener.local_addr().expect("bound");
    let target = server.address;
    let (cut, mut is_cut) = watch::channel(false);
    let relaying = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.expect("a client");
        let mut upstream = TcpStream::connect(target).await.expect("listening");
        let (mut to_server, mut to_client) = ([0; 4096], [0; 4096]);
        loop {
            tokio::select! {
                length = client.read(&mut to_server) => {
                    upstream.write_all(&to_server[..length.expect("readable")]).await.expect("writable");
                }
                length = upstream.read(&mut to_client) => {
                    client.write_all(&to_client[..length.expect("readable")]).await.expect("writable");
                }
                _ = is_cut.changed() => break,
            }
        }
        // Both connections stay open, but nothing moves.
        std::future::pending::<()>().await;
        drop((client, upstream));
    });
    let mut client =
        AggregatedDiscoveryServiceClient::connect(format!("http://{relay}")).await.expect("relayed");
    let (requests, outgoing) = mpsc::unbounded_channel();
    requests.send(first(SIDECAR, CLUSTER)).expect("open");
    let mut responses =
        client.delta_aggregated_resources(Outgoing(outgoing)).await.expect("a stream").into_inner();
    timeout(PATIENCE, responses.message()).await.expect("in time").expect("no error").expect("clusters");
    server.until_connected(1).await;
    cut.send_replace(true);
    server.until_connected(0).await;
    relaying.abort();
}
