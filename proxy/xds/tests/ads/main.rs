//! The client over loopback, against a server session behind tonic.

mod peer;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dhow_base::Rng;
use dhow_proto::envoy_types::pb::envoy::config::core::v3::Node;
use dhow_proxy_xds::type_url::{CLUSTER, ENDPOINT, LISTENER};
use dhow_proxy_xds::{
    AdsClient, AdsConfig, AdsError, ByteStream, ClientConfig, ConfigSink, Connecting, Connector, Interest,
    InterestChanged, Refusal, SubscriptionObserver, Update, Variant,
};
use dhow_xds::{Request, ServerEvent};
use peer::{Peer, Seen, resource};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

const PATIENCE: Duration = Duration::from_secs(10);

/// Holds what was applied: content by type and name. Content that starts with `bad` is refused.
#[derive(Default)]
struct Applied {
    held: BTreeMap<(String, String), String>,
    updates: Vec<Update>,
    listeners_wanted: bool,
    /// Clusters whose endpoints are to be asked for anew.
    refreshes: Vec<String>,
    failed: Vec<(String, Option<String>)>,
    timeout: Option<Duration>,
}

impl Applied {
    fn names(&self, type_url: &str) -> BTreeSet<String> {
        self.held.keys().filter(|(of, _)| of == type_url).map(|(_, name)| name.clone()).collect()
    }

    fn content(&self, type_url: &str, name: &str) -> Option<&str> {
        self.held.get(&(type_url.to_owned(), name.to_owned())).map(String::as_str)
    }
}

impl ConfigSink for Applied {
    fn apply(&mut self, type_url: &str, update: Update) -> Result<(), Vec<Refusal>> {
        self.updates.push(update.clone());
        let mut refusals = Vec::new();
        for added in update.added {
            // Field 2 follows field 1; both are short strings.
            let content = &added.body.value[added.name.len() + 4..];
            let content = String::from_utf8(content.to_vec()).expect("made by resource()");
            if content.starts_with("bad") {
                refusals.push((added.name, "it is bad".to_owned()));
            } else {
                self.held.insert((type_url.to_owned(), added.name), content);
            }
        }
        for name in update.removed {
            self.held.remove(&(type_url.to_owned(), name));
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    fn subscriptions(&self, type_url: &str) -> Interest {
        match type_url {
            CLUSTER => Interest::Wildcard,
            LISTENER if self.listeners_wanted => Interest::Wildcard,
            ENDPOINT => Interest::Names(self.names(CLUSTER)),
            _ => Interest::None,
        }
    }

    fn take_refreshes(&mut self, type_url: &str) -> Vec<String> {
        if type_url == ENDPOINT { std::mem::take(&mut self.refreshes) } else { Vec::new() }
    }

    fn initial_fetch_timeout(&self, _: &str) -> Option<Duration> {
        self.timeout
    }

    fn fetch_failed(&mut self, type_url: &str, name: Option<&str>) {
        self.failed.push((type_url.to_owned(), name.map(str::to_owned)));
    }
}

#[derive(Default)]
struct Counted {
    counts: BTreeMap<String, u32>,
    connected: bool,
    control_plane: String,
    warnings: Vec<String>,
}

impl Counted {
    fn count(&mut self, what: &str, type_url: &str, name: Option<&str>) {
        let short = dhow_proxy_xds::type_url::short_name(type_url);
        *self.counts.entry(format!("{short}.{}.{what}", name.unwrap_or("*"))).or_default() += 1;
    }

    fn get(&self, key: &str) -> u32 {
        self.counts.get(key).copied().unwrap_or_default()
    }
}

impl SubscriptionObserver for Counted {
    fn update_attempt(&mut self, type_url: &str, name: Option<&str>) {
        self.count("attempt", type_url, name);
    }
    fn update_success(&mut self, type_url: &str, name: Option<&str>, _: &str) {
        self.count("success", type_url, name);
    }
    fn update_failure(&mut self, type_url: &str, name: Option<&str>) {
        self.count("failure", type_url, name);
    }
    fn update_rejected(&mut self, type_url: &str, name: Option<&str>, _: &str) {
        self.count("rejected", type_url, name);
    }
    fn init_fetch_timeout(&mut self, type_url: &str, name: Option<&str>) {
        self.count("timeout", type_url, name);
    }
    fn connected(&mut self, connected: bool) {
        self.connected = connected;
    }
    fn control_plane(&mut self, identifier: &str) {
        self.control_plane = identifier.to_owned();
    }
    fn warning(&mut self, message: &str) {
        self.warnings.push(message.to_owned());
    }
}

/// Connects to a fixed address, after a number of failures.
struct Loopback {
    address: SocketAddr,
    failures: RefCell<u32>,
}

impl Connector for Loopback {
    fn connect<'a>(&'a self, cluster: &'a str) -> Connecting<'a> {
        assert_eq!(cluster, "xds-grpc");
        Box::pin(async {
            if *self.failures.borrow() > 0 {
                *self.failures.borrow_mut() -= 1;
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "no healthy upstream"));
            }
            Ok(Box::new(TcpStream::connect(self.address).await?) as Box<dyn ByteStream>)
        })
    }
}

struct Client {
    applied: Rc<RefCell<Applied>>,
    counted: Rc<RefCell<Counted>>,
    interest_changed: InterestChanged,
    task: JoinHandle<std::convert::Infallible>,
}

impl Client {
    fn start(address: SocketAddr, variant: Variant, failures: u32, timeout: Option<Duration>) -> Self {
        let applied = Rc::new(RefCell::new(Applied { timeout, ..Applied::default() }));
        let counted = Rc::new(RefCell::new(Counted::default()));
        let mut session = ClientConfig::new(variant, Node { id: "sidecar~1".to_owned(), ..Node::default() });
        session.backoff_base = Duration::from_millis(2);
        session.backoff_max = Duration::from_millis(20);
        let types = [CLUSTER, ENDPOINT, LISTENER].map(str::to_owned).to_vec();
        let config = AdsConfig::new("xds-grpc", types, session);
        let connector = Loopback { address, failures: RefCell::new(failures) };
        let client =
            AdsClient::new(config, connector, Rc::clone(&applied), Rc::clone(&counted), Rng::seeded(1))
                .expect("valid");
        let interest_changed = client.interest_changed();
        Self { applied, counted, interest_changed, task: spawn_local(client.run()) }
    }

    /// Waits until `expected` holds for what was applied and counted.
    #[track_caller]
    fn until(&self, expected: impl Fn(&Applied, &Counted) -> bool) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let start = Instant::now();
            while !expected(&self.applied.borrow(), &self.counted.borrow()) {
                let (applied, counted) = (self.applied.borrow(), self.counted.borrow());
                assert!(
                    start.elapsed() < PATIENCE,
                    "{caller}: {:?}, {:?}, {:?}",
                    applied.held,
                    counted.counts,
                    counted.warnings
                );
                drop((applied, counted));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn world(a: &str, endpoints: &str) -> Vec<dhow_xds::Resource> {
    vec![
        resource(CLUSTER, "a", a),
        resource(CLUSTER, "b", "1"),
        resource(ENDPOINT, "a", endpoints),
        resource(ENDPOINT, "b", "1"),
        resource(LISTENER, "l", "1"),
    ]
}

async fn configuration_arrives_and_follows_changes(variant: Variant) {
    let peer = Peer::start(world("1", "1")).await;
    let client = Client::start(peer.address, variant, 0, None);
    client
        .until(|applied, _| applied.content(ENDPOINT, "a") == Some("1") && applied.names(ENDPOINT).len() == 2)
        .await;
    assert!(client.applied.borrow().names(LISTENER).is_empty(), "not asked for yet");
    client.applied.borrow_mut().listeners_wanted = true;
    client.interest_changed.notify();
    client.until(|applied, _| applied.names(LISTENER).len() == 1).await;

    let mut changed = world("2", "2");
    changed.remove(1);
    peer.publish(changed);
    client
        .until(|applied, _| {
            applied.content(CLUSTER, "a") == Some("2")
                && applied.content(ENDPOINT, "a") == Some("2")
                && applied.content(CLUSTER, "b").is_none()
        })
        .await;
    let counted = client.counted.borrow();
    assert!(counted.connected);
    assert_eq!(counted.control_plane, "peer");
    assert!(counted.get("cds.*.success") >= 2, "{:?}", counted.counts);
    assert_eq!(counted.get("cds.*.attempt"), counted.get("cds.*.success") + 1, "{:?}", counted.counts);
    assert!(counted.get("eds.a.success") >= 2, "{:?}", counted.counts);
    assert_eq!(counted.warnings, [""; 0]);
    assert!(peer.saw(|seen| matches!(seen, Seen::Event(ServerEvent::Acked { .. }))));
    assert!(!peer.saw(|seen| matches!(
        seen,
        Seen::Event(ServerEvent::Nacked { .. } | ServerEvent::StaleNonce { .. })
    )));
}

#[tokio::test]
async fn configuration_arrives_by_delta() {
    LocalSet::new().run_until(configuration_arrives_and_follows_changes(Variant::Delta)).await;
}

#[tokio::test]
async fn configuration_arrives_by_state_of_the_world() {
    LocalSet::new().run_until(configuration_arrives_and_follows_changes(Variant::StateOfTheWorld)).await;
}

#[tokio::test]
async fn a_refusal_reaches_the_server_with_every_reason() {
    let test = async {
        let peer = Peer::start(world("bad", "1")).await;
        let client = Client::start(peer.address, Variant::Delta, 0, None);
        client.until(|_, counted| counted.get("cds.*.rejected") == 1).await;
        let refused = |seen: &Seen| {
            matches!(seen, Seen::Event(ServerEvent::Nacked { message, .. })
                if message == "Error adding/updating cluster(s) a: it is bad")
        };
        client.until(|_, _| peer.saw(refused)).await;
        client.until(|applied, _| applied.names(ENDPOINT).len() == 1).await;
        peer.publish(world("2", "1"));
        client.until(|applied, _| applied.content(CLUSTER, "a") == Some("2")).await;
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_new_stream_goes_on_where_the_last_one_ended() {
    let test = async {
        let peer = Peer::start(world("1", "1")).await;
        let client = Client::start(peer.address, Variant::Delta, 0, None);
        client.until(|applied, _| applied.names(ENDPOINT).len() == 2).await;
        let acked = |peer: &Peer| {
            peer.saw(|seen| matches!(seen, Seen::Event(ServerEvent::Acked { type_url, .. }) if **type_url == *ENDPOINT))
        };
        client.until(|_, _| acked(&peer)).await;
        client.applied.borrow_mut().updates.clear();
        peer.shared.seen.lock().clear();
        *peer.shared.world.lock() = world("1", "2");
        peer.end_streams();
        client.until(|applied, _| applied.content(ENDPOINT, "a") == Some("2")).await;
        let initial: Vec<_> = peer
            .requests()
            .into_iter()
            .filter_map(|request| match request {
                Request::Delta(request) if request.response_nonce.is_empty() => Some(request),
                _ => None,
            })
            .collect();
        assert_eq!(initial[0].type_url, CLUSTER);
        assert_eq!(initial[0].initial_resource_versions.len(), 2);
        assert_eq!(initial[1].resource_names_subscribe, ["a", "b"]);
        let resent: usize = client.applied.borrow().updates.iter().map(|update| update.added.len()).sum();
        assert_eq!(resent, 1, "only what changed is sent again");
        let counted = client.counted.borrow();
        assert_eq!(counted.get("cds.*.failure"), 1);
        let closed = "DeltaAggregatedResources gRPC config stream to xds-grpc closed: 14, going away";
        assert_eq!(counted.warnings, [closed]);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn connecting_is_tried_again_and_waiting_ends_meanwhile() {
    let test = async {
        let peer = Peer::start(world("1", "1")).await;
        let client = Client::start(peer.address, Variant::Delta, 12, Some(Duration::from_millis(5)));
        client.until(|applied, _| !applied.failed.is_empty()).await;
        assert_eq!(client.applied.borrow().failed, [(CLUSTER.to_owned(), None)]);
        assert_eq!(client.counted.borrow().get("cds.*.timeout"), 1);
        client.until(|applied, _| applied.content(CLUSTER, "a") == Some("1")).await;
        let counted = client.counted.borrow();
        assert_eq!(counted.get("cds.*.failure"), 12);
        assert!(counted.warnings[0].ends_with("closed: 14, no healthy upstream"), "{:?}", counted.warnings);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_warming_cluster_has_its_endpoints_asked_for_again() {
    let test = async {
        let peer = Peer::start(world("1", "1")).await;
        let client = Client::start(peer.address, Variant::Delta, 0, None);
        client.until(|applied, _| applied.names(ENDPOINT).len() == 2).await;
        client.applied.borrow_mut().updates.clear();
        client.applied.borrow_mut().refreshes.push("b".to_owned());
        client.interest_changed.notify();
        client
            .until(|applied, _| applied.updates.iter().any(|u| u.added.iter().any(|r| r.name == "b")))
            .await;
    };
    LocalSet::new().run_until(test).await;
}

#[test]
fn a_type_without_a_service_is_refused() {
    let session = ClientConfig::new(Variant::StateOfTheWorld, Node::default());
    let mut config = AdsConfig::new("xds-grpc", Vec::new(), session);
    config.only_type = Some("type.googleapis.com/x.Y".to_owned());
    let connector = Loopback { address: ([127, 0, 0, 1], 0).into(), failures: RefCell::new(0) };
    let error =
        AdsClient::new(config, connector, Applied::default(), Counted::default(), Rng::seeded(1)).err();
    assert_eq!(error, Some(AdsError::NoMethod("type.googleapis.com/x.Y".to_owned())));
}
