//! Clusters end to end: configuration in, hosts and connections out, over loopback.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_base::{FieldPath, Rng};
use dhow_net::Transport;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_proto::{LoadOptions, Name, load_yaml};
use dhow_proxy_upstream::{
    Change, ClosedBy, ClusterManager, ClusterObserver, ConnectFailureKind, Host, HostResult, LbContext,
    LbRequest, Origin, SecureOptions, WorkerCluster, WorkerClusters, connect,
};
use dhow_stats::Store;
use dhow_tls::DownstreamTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn yaml<M: Name + Default>(text: &str) -> M {
    load_yaml(text, &LoadOptions::default()).unwrap_or_else(|error| panic!("{text}: {error}")).message
}

fn assignment(name: &str, ports: &[u16]) -> String {
    let endpoints: Vec<String> = ports
        .iter()
        .map(|port| {
            format!(
                "{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}"
            )
        })
        .collect();
    format!("{{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}", endpoints.join(", "))
}

fn static_cluster(name: &str, ports: &[u16], more: &str) -> Cluster {
    yaml(&format!("{{name: {name}, load_assignment: {} {more}}}", assignment(name, ports)))
}

fn eds_cluster(name: &str, more: &str) -> Cluster {
    yaml(&format!(
        "{{name: {name}, type: EDS, eds_cluster_config: {{eds_config: {{ads: {{}}}}, service_name: s}} {more}}}"
    ))
}

fn ports(cluster: &WorkerCluster, count: usize) -> Vec<u16> {
    let mut ports: Vec<u16> = (0..count)
        .filter_map(|_| cluster.choose_host(&LbContext::default()))
        .map(|host| host.address().as_ip().unwrap().port())
        .collect();
    ports.sort();
    ports.dedup();
    ports
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within ten seconds");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[derive(Default)]
struct Gone {
    clusters: RefCell<Vec<String>>,
    hosts: RefCell<Vec<u16>>,
}

impl ClusterObserver for Gone {
    fn cluster_removed(&self, cluster: &Rc<WorkerCluster>) {
        self.clusters.borrow_mut().push(cluster.info().name.to_string());
    }

    fn hosts_removed(&self, _: &Rc<WorkerCluster>, hosts: &[Arc<Host>]) {
        self.hosts.borrow_mut().extend(hosts.iter().map(|host| host.address().as_ip().unwrap().port()));
    }
}

#[test]
fn a_static_cluster_is_there_at_once_and_cannot_be_defined_twice() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        assert!(clusters.get("a").is_none());
        let accepted = manager.add_or_update(static_cluster("a", &[1, 2], ""), "", Origin::Static).unwrap();
        assert_eq!((accepted.change, accepted.warnings), (Change::Added, vec![]));
        assert_eq!(ports(&clusters.get("a").unwrap(), 10), [1, 2]);
        let error = manager.add_or_update(static_cluster("a", &[3], ""), "", Origin::Static).unwrap_err();
        assert_eq!(error.to_string(), "cluster manager: duplicate cluster 'a'");
        let ignored = manager.add_or_update(static_cluster("a", &[3], ""), "1", Origin::Dynamic).unwrap();
        assert_eq!(ignored.change, Change::Unchanged);
        assert!(!manager.remove("a"));
    });
}

#[test]
fn a_dynamic_cluster_is_replaced_only_when_it_differs_and_observers_hear_of_it() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let gone = Rc::new(Gone::default());
        clusters.add_observer(gone.clone());
        let add = |ports: &[u16]| {
            manager.add_or_update(static_cluster("a", ports, ""), "1", Origin::Dynamic).unwrap().change
        };
        assert_eq!(add(&[1]), Change::Added);
        let before = clusters.get("a").unwrap();
        assert_eq!(add(&[1]), Change::Unchanged);
        assert!(Rc::ptr_eq(&before, &clusters.get("a").unwrap()));
        assert_eq!(add(&[2]), Change::Updated);
        assert_eq!(ports(&clusters.get("a").unwrap(), 4), [2]);
        clusters.refresh();
        assert_eq!(*gone.clusters.borrow(), ["a"]);
        // A request that holds the old one can still use it.
        assert_eq!(ports(&before, 4), [1]);
        assert!(manager.remove("a") && !manager.remove("a"));
        assert!(clusters.get("a").is_none());
    });
}

#[test]
fn an_eds_cluster_is_invisible_until_its_assignment_and_keeps_hosts_that_stay() {
    run(async {
        let store = Store::new();
        let manager = ClusterManager::new(store.clone());
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let gone = Rc::new(Gone::default());
        clusters.add_observer(gone.clone());
        tokio::task::spawn_local(clusters.clone().follow());
        manager.add_or_update(eds_cluster("e", ""), "1", Origin::Dynamic).unwrap();
        assert!(clusters.get("e").is_none() && manager.contains("e"));
        assert_eq!(manager.initialization().borrow().secondary, 1);
        let wanted = manager.eds_subscriptions();
        assert_eq!((wanted.len(), &*wanted[0].service_name, &wanted[0].file), (1, "s", &None));

        let assign = |ports: &[u16]| {
            let message: ClusterLoadAssignment = yaml(&assignment("s", ports));
            assert_eq!(manager.apply_assignment(message).unwrap(), []);
        };
        assign(&[1, 2]);
        let cluster = clusters.get("e").unwrap();
        manager.all_ready().await;
        assert_eq!(ports(&cluster, 10), [1, 2]);
        let first: Vec<Arc<Host>> = cluster.hosts().hosts().cloned().collect();
        assign(&[2, 3]);
        assert_eq!(ports(&cluster, 10), [2, 3]);
        assert!(cluster.hosts().hosts().any(|host| Arc::ptr_eq(host, &first[1])));
        eventually("the removed host is reported", || *gone.hosts.borrow() == [1]).await;
        let stats = &cluster.info().stats;
        assert_eq!(
            (stats.discovery.membership_change().value(), stats.discovery.membership_total().value()),
            (2, 2)
        );
        assign(&[2, 3]);
        assert_eq!(
            (stats.discovery.membership_change().value(), stats.discovery.update_no_rebuild().value()),
            (2, 1)
        );

        // A changed cluster starts with the assignment that is known, so that traffic has hosts without a gap.
        manager.add_or_update(eds_cluster("e", ", connect_timeout: 1s"), "2", Origin::Dynamic).unwrap();
        assert_eq!(ports(&clusters.get("e").unwrap(), 10), [2, 3]);
        manager.remove("e");
        assert_eq!(manager.eds_subscriptions(), []);
    });
}

#[test]
fn an_assignment_that_does_not_come_lets_the_cluster_serve_without_hosts() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        manager.add_or_update(eds_cluster("e", ""), "1", Origin::Static).unwrap();
        manager.primary_ready().await;
        manager.assignment_timed_out("s");
        manager.all_ready().await;
        assert!(clusters.get("e").unwrap().choose_host(&LbContext::default()).is_none());
    });
}

#[test]
fn names_are_resolved_and_a_failure_counts_as_an_answer() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let dns = |name: &str, kind: &str, host: &str| -> Cluster {
            yaml(&format!(
                "{{name: {name}, type: {kind}, dns_lookup_family: V4_ONLY, load_assignment: {{cluster_name: x, endpoints: [{{lb_endpoints: \
                 [{{endpoint: {{address: {{socket_address: {{address: {host}, port_value: 80}}}}}}}}]}}]}}}}"
            ))
        };
        manager.add_or_update(dns("strict", "STRICT_DNS", "localhost"), "", Origin::Static).unwrap();
        manager.add_or_update(dns("logical", "LOGICAL_DNS", "localhost"), "", Origin::Static).unwrap();
        manager.add_or_update(dns("literal", "STRICT_DNS", "127.0.0.9"), "", Origin::Static).unwrap();
        tokio::time::timeout(Duration::from_secs(20), manager.primary_ready())
            .await
            .expect("answers in time");
        for (name, address) in
            [("strict", "127.0.0.1:80"), ("logical", "127.0.0.1:80"), ("literal", "127.0.0.9:80")]
        {
            let cluster = clusters.get(name).unwrap();
            let host =
                cluster.choose_host(&LbContext::default()).unwrap_or_else(|| panic!("{name} has no host"));
            assert_eq!(host.address().to_string(), address, "{name}");
            let hostname = if name == "literal" { "127.0.0.9" } else { "localhost" };
            assert_eq!(host.hostname(), hostname, "{name}");
        }
        manager
            .add_or_update(dns("nowhere", "STRICT_DNS", "does-not-exist.invalid"), "", Origin::Static)
            .unwrap();
        tokio::time::timeout(Duration::from_secs(60), manager.primary_ready())
            .await
            .expect("a failure in time");
        let cluster = clusters.get("nowhere").unwrap();
        assert!(cluster.choose_host(&LbContext::default()).is_none());
        // A resolver that answers says that there is no such name, which is an answer.
        let stats = &cluster.info().stats.discovery;
        assert_eq!(stats.update_failure().value() + stats.update_success().value(), 1);
    });
}

#[test]
fn a_connection_carries_bytes_and_is_counted_to_its_end() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let echo = tokio::spawn(async move {
            let (mut stream, from) = listener.accept().await.unwrap();
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            from
        });
        let manager = ClusterManager::new(Store::new());
        let bind = ", upstream_bind_config: {source_address: {address: 127.0.0.77, port_value: 0}}, \
                    upstream_connection_options: {tcp_keepalive: {keepalive_time: 30}}";
        manager.add_or_update(static_cluster("a", &[port], bind), "", Origin::Static).unwrap();
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let cluster = clusters.get("a").unwrap();
        let host = cluster.choose_host(&LbContext::default()).unwrap();
        let mut connection = connect(cluster.info(), &host, &SecureOptions::default(), None).await.unwrap();
        connection.transport.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        connection.transport.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"ping");
        assert_eq!(echo.await.unwrap().ip().to_string(), "127.0.0.77");
        let stats = &cluster.info().stats;
        assert_eq!((stats.upstream_cx_total().value(), stats.upstream_cx_active().value()), (1, 1));
        assert!(host.stats().values().contains(&("cx_active", 1)));
        connection.guard.set_closed_by(ClosedBy::Remote);
        connection.guard.set_requests_active(true);
        drop(connection);
        assert_eq!((stats.upstream_cx_active().value(), stats.upstream_cx_destroy_remote().value()), (0, 1));
        assert_eq!(stats.upstream_cx_destroy_remote_with_active_rq().value(), 1);
        assert!(host.stats().values().contains(&("cx_active", 0)));
    });
}

#[test]
fn a_refused_connection_says_so_in_envoy_s_words() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let manager = ClusterManager::new(Store::new());
        manager.add_or_update(static_cluster("a", &[port], ""), "", Origin::Static).unwrap();
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let cluster = clusters.get("a").unwrap();
        let host = cluster.choose_host(&LbContext::default()).unwrap();
        let failure = connect(cluster.info(), &host, &SecureOptions::default(), None).await.unwrap_err();
        assert_eq!(failure.kind, ConnectFailureKind::Remote);
        assert_eq!(
            failure.to_string(),
            "remote connection failure: delayed connect error: Connection refused"
        );
        let stats = &cluster.info().stats;
        assert_eq!(
            (stats.upstream_cx_connect_fail().value(), stats.upstream_cx_destroy_remote().value()),
            (1, 1)
        );
        assert_eq!(stats.upstream_cx_active().value(), 0);
    });
}

#[test]
fn an_address_that_cannot_be_bound_is_a_failure_of_our_own() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        let bind = ", upstream_bind_config: {source_address: {address: 192.0.2.1, port_value: 0}}";
        manager.add_or_update(static_cluster("a", &[9], bind), "", Origin::Static).unwrap();
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let cluster = clusters.get("a").unwrap();
        let host = cluster.choose_host(&LbContext::default()).unwrap();
        let failure = connect(cluster.info(), &host, &SecureOptions::default(), None).await.unwrap_err();
        assert_eq!(failure.kind, ConnectFailureKind::Local);
        assert_eq!(failure.text, "failed to bind to 192.0.2.1:0: Cannot assign requested address");
        assert_eq!(cluster.info().stats.bind_errors().value(), 1);

        let pipe: Cluster = yaml(
            "{name: p, load_assignment: {cluster_name: p, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /nowhere/s}}}}]}]}}",
        );
        manager.add_or_update(pipe, "", Origin::Static).unwrap();
        let cluster = clusters.get("p").unwrap();
        let host = cluster.choose_host(&LbContext::default()).unwrap();
        let failure = connect(cluster.info(), &host, &SecureOptions::default(), None).await.unwrap_err();
        let text = "immediate connect error: No such file or directory|remote address:/nowhere/s";
        assert_eq!((failure.kind, &*failure.text), (ConnectFailureKind::Remote, text));
    });
}

#[test]
fn consecutive_errors_eject_a_host_and_time_brings_it_back() {
    run(async {
        let store = Store::new();
        let manager = ClusterManager::new(store.clone());
        let outlier = ", outlier_detection: {consecutive_5xx: 2, interval: 0.02s, base_ejection_time: 0.2s, max_ejection_percent: 50}";
        manager.add_or_update(static_cluster("a", &[1, 2], outlier), "", Origin::Static).unwrap();
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let cluster = clusters.get("a").unwrap();
        let hosts: Vec<Arc<Host>> = cluster.hosts().hosts().cloned().collect();
        let fail =
            |host: &Arc<Host>| (0..2).for_each(|_| cluster.note_result(host, HostResult::HttpStatus(503)));
        fail(&hosts[0]);
        eventually("the host is ejected", || ports(&cluster, 10) == [2]).await;
        let printed = dhow_stats::render_text(
            &store,
            &store.snapshot(&dhow_stats::Query::default()),
            dhow_stats::HistogramBuckets::default(),
        );
        for line in ["ejections_active: 1", "ejections_enforced_consecutive_5xx: 1", "ejections_overflow: 0"]
        {
            assert!(printed.contains(&format!("cluster.a.outlier_detection.{line}")), "{line} in {printed}");
        }
        // Half of the hosts are out, so the other one stays whatever it does.
        fail(&hosts[1]);
        assert_eq!(ports(&cluster, 10), [2]);
        eventually("the host is back", || ports(&cluster, 10) == [1, 2]).await;
    });
}

/// A request whose every header has this value.
struct Request(Option<&'static str>);

impl LbRequest for Request {
    fn header(&self, _: &str) -> Option<&str> {
        self.0
    }

    fn metadata(&self, _: &str) -> Option<&dhow_proto::google::protobuf::Struct> {
        None
    }
}

#[test]
fn original_destinations_become_hosts() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        let cluster: Cluster = yaml(
            "{name: o, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true}}",
        );
        manager.add_or_update(cluster, "", Origin::Static).unwrap();
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let cluster = clusters.get("o").unwrap();
        let destination = Some(([127, 0, 0, 5], 81).into());
        let context = LbContext { original_destination: destination, ..LbContext::default() };
        let host = cluster.choose_host(&context).unwrap();
        assert_eq!(host.address().to_string(), "127.0.0.5:81");
        assert!(Arc::ptr_eq(&host, &cluster.choose_host(&context).unwrap()));
        let named = Request(Some("127.0.0.6:82"));
        let header = LbContext { request: Some(&named), ..context };
        assert_eq!(cluster.choose_host(&header).unwrap().address().to_string(), "127.0.0.6:82");
        let bad = LbContext { request: Some(&Request(Some("nonsense"))), ..LbContext::default() };
        assert!(cluster.choose_host(&bad).is_none());
        assert!(cluster.choose_host(&LbContext::default()).is_none());
    });
}

#[test]
fn a_host_to_avoid_is_avoided_when_there_is_another() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        manager.add_or_update(static_cluster("a", &[1, 2], ""), "", Origin::Static).unwrap();
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));
        let cluster = clusters.get("a").unwrap();
        let avoid = |host: &Host| host.address().to_string().ends_with(":1");
        let context = LbContext { avoid: Some(&avoid), reselections: 3, ..LbContext::default() };
        for _ in 0..10 {
            assert_eq!(cluster.choose_host(&context).unwrap().address().to_string(), "127.0.0.1:2");
        }
    });
}

#[test]
fn a_batch_is_published_once() {
    run(async {
        let manager = ClusterManager::new(Store::new());
        let published = manager.published();
        let before = published.generation();
        manager.batch(|manager| {
            for name in ["a", "b", "c"] {
                manager.add_or_update(static_cluster(name, &[1], ""), "1", Origin::Dynamic).unwrap();
            }
            assert_eq!(published.snapshot().len(), 0);
        });
        assert_eq!((published.snapshot().len(), published.generation()), (3, before + 1));
        assert_eq!(manager.describe().len(), 3);
    });
}

/// A certificate for `x.test` signed by itself, and its key, as YAML strings.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(vec!["x.test".to_owned()]).unwrap();
    let quoted = |pem: String| format!("\"{}\"", pem.replace('\n', "\\n"));
    (quoted(made.cert.pem()), quoted(made.signing_key.serialize_pem()))
}

/// Serves TLS on a port of its own until it is dropped.
async fn tls_server() -> (u16, tokio::task::JoinHandle<()>) {
    let (chain, key) = certificate();
    let context = yaml(&format!(
        "{{common_tls_context: {{alpn_protocols: [h2], tls_certificates: [{{certificate_chain: {{inline_string: {chain}}}, \
         private_key: {{inline_string: {key}}}}}]}}}}"
    ));
    let tls =
        DownstreamTls::from_message(&context, &Arc::default(), &FieldPath::root(), &mut Vec::new()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if let Ok((mut transport, _)) = tls.accept(Transport::Tcp(stream)).await {
                let _ = transport.write_all(b"hello").await;
                let _ = transport.shutdown().await;
            }
        }
    });
    (port, serving)
}

const TLS: &str = "transport_socket: {name: envoy.transport_sockets.tls, typed_config: {\
     '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

#[test]
fn a_tls_cluster_encrypts_offers_protocols_and_names_what_fails() {
    run(async {
        let (port, serving) = tls_server().await;
        let manager = ClusterManager::new(Store::new());
        let open = format!(", {TLS}, sni: x.test}}}}");
        manager.add_or_update(static_cluster("open", &[port], &open), "", Origin::Static).unwrap();
        let (other, _) = certificate();
        let strict = format!(
            ", {TLS}, common_tls_context: {{validation_context: {{trusted_ca: {{inline_string: {other}}}}}}}}}}}"
        );
        manager.add_or_update(static_cluster("strict", &[port], &strict), "", Origin::Static).unwrap();
        let clusters = WorkerClusters::new(manager.published(), Rng::seeded(1));

        let cluster = clusters.get("open").unwrap();
        let host = cluster.choose_host(&LbContext::default()).unwrap();
        let options = SecureOptions { alpn: vec![b"h2".to_vec()], ..SecureOptions::default() };
        let mut connection = connect(cluster.info(), &host, &options, None).await.unwrap();
        assert_eq!(connection.alpn.as_deref(), Some(&b"h2"[..]));
        assert!(connection.tls.is_some() && connection.local_address.is_some());
        let mut text = String::new();
        connection.transport.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");

        let cluster = clusters.get("strict").unwrap();
        let host = cluster.choose_host(&LbContext::default()).unwrap();
        let failure = connect(cluster.info(), &host, &options, None).await.unwrap_err();
        assert_eq!(failure.kind, ConnectFailureKind::Remote);
        assert!(failure.text.contains("CERTIFICATE_VERIFY_FAILED"), "{failure}");
        serving.abort();
    });
}
