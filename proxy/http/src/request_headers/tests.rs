use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhow_base::FieldPath;
use dhow_proto::envoy::config::route::v3::RouteConfiguration;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3 as pb;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use dhow_proto::google::protobuf::BoolValue;
use dhow_proxy_access_log::LogWriter;
use dhow_proxy_api::ConnectionTls;
use dhow_stats::Store;
use dhow_tls::TlsInfo;

use super::*;
use crate::config::{FilterRegistry, LowerContext, lower};

const PEER: &str = "203.0.113.9";
const PRIVATE: &str = "10.1.2.3";

/// A connection manager lowered from its message, as `edit` leaves it.
fn config(edit: impl FnOnce(&mut pb::HttpConnectionManager)) -> ConnectionManagerConfig {
    let mut message = pb::HttpConnectionManager {
        stat_prefix: "test".into(),
        route_specifier: Some(hcm::RouteSpecifier::RouteConfig(RouteConfiguration::default())),
        ..pb::HttpConnectionManager::default()
    };
    edit(&mut message);
    let writer =
        LogWriter::start(Duration::from_secs(60), 64 * 1024, &Store::new()).expect("a thread can be made");
    let context = LowerContext {
        registry: FilterRegistry { filters: &[] },
        store: &Store::new(),
        log_writer: &writer,
        cluster_exists: &|_| true,
        node_cluster: "edge",
        local_cluster: "",
        node_id: "edge-1",
        node_address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    };
    lower(message, &context, &FieldPath::root(), &mut Vec::new()).expect("the configuration is valid")
}

/// Uses the address of the peer and trusts this many proxies in front.
fn edge(hops: u32) -> impl FnOnce(&mut pb::HttpConnectionManager) {
    move |message| {
        message.use_remote_address = Some(BoolValue { value: true });
        message.xff_num_trusted_hops = hops;
        message.internal_address_config = Some(hcm::InternalAddressConfig::default());
    }
}

fn connection(peer: &str, tls: Option<TlsInfo>) -> ConnectionInfo {
    ConnectionInfo {
        direct: None,
        local_address_restored: false,
        bypass_overload_manager: false,
        id: 1,
        remote_address: SocketAddr::new(peer.parse().unwrap(), 40000).into(),
        local_address: SocketAddr::from(([127, 0, 0, 1], 8080)).into(),
        start: Instant::now(),
        tls: tls.map_or_else(ConnectionTls::default, ConnectionTls::established),
        requested_server_name: None,
        filter_chain_name: Arc::from(""),
        listener_name: Arc::from("listener"),
        listener_metadata: None,
        filter_chain_metadata: None,
        buffer_limit: 1 << 20,
        objects: Default::default(),
    }
}

fn request(fields: &[(&str, &str)]) -> HeaderMap {
    let mut head = HeaderMap::new();
    for (known, value) in
        [(KnownHeader::Method, "GET"), (KnownHeader::Path, "/"), (KnownHeader::Authority, "example.test")]
    {
        head.append_known(known, value.as_bytes());
    }
    for (name, value) in fields {
        head.append(name.as_bytes(), value.as_bytes());
    }
    head
}

/// The head after the mutation, and what was found out, for a peer in clear text.
fn mutated(
    config: &ConnectionManagerConfig,
    peer: &str,
    fields: &[(&str, &str)],
) -> (HeaderMap, RequestOrigin) {
    let mut head = request(fields);
    let origin = mutate(config, &connection(peer, None), &mut head, false, || 7);
    (head, origin.expect("the request is not rejected"))
}

fn text<'a>(head: &'a HeaderMap, name: &str) -> Option<&'a str> {
    head.get_str(name).map(|value| std::str::from_utf8(value).unwrap())
}

#[test]
fn the_peer_is_the_client_where_the_proxy_is_the_edge() {
    let (head, origin) = mutated(&config(edge(0)), PEER, &[("x-forwarded-for", "198.51.100.1")]);
    assert_eq!(text(&head, "x-forwarded-for"), Some("198.51.100.1,203.0.113.9"));
    assert_eq!(text(&head, "x-forwarded-proto"), Some("http"));
    assert_eq!(text(&head, "x-envoy-external-address"), Some(PEER));
    assert_eq!(origin.client_address.ip().unwrap().to_string(), PEER);
    assert!(!origin.internal);
}

#[test]
fn trusted_hops_are_counted_from_the_right() {
    let forwarded = [("x-forwarded-for", "198.51.100.1, 198.51.100.2,198.51.100.3")];
    for (hops, client) in [(1, "198.51.100.3"), (2, "198.51.100.2"), (3, "198.51.100.1"), (4, PEER)] {
        let (_, origin) = mutated(&config(edge(hops)), PEER, &forwarded);
        assert_eq!(origin.client_address.ip().unwrap().to_string(), client, "{hops} hops");
    }
    // What a trusted hop says about the protocol stays.
    let proto = [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https")];
    let (head, _) = mutated(&config(edge(1)), PEER, &proto);
    assert_eq!(text(&head, "x-forwarded-proto"), Some("https"));
    assert_eq!(head.scheme(), b"https");
}

#[test]
fn the_list_is_believed_and_kept_behind_another_proxy() {
    let behind = |hops| config(move |message| message.xff_num_trusted_hops = hops);
    let forwarded = [("x-forwarded-for", "198.51.100.1, 198.51.100.2")];
    for (hops, client) in [(0, "198.51.100.2"), (1, "198.51.100.1"), (2, PEER)] {
        let (head, origin) = mutated(&behind(hops), PEER, &forwarded);
        assert_eq!(origin.client_address.ip().unwrap().to_string(), client, "{hops} hops");
        assert_eq!(text(&head, "x-forwarded-for"), Some("198.51.100.1, 198.51.100.2"));
    }
    let (head, origin) = mutated(&behind(0), PEER, &[]);
    assert_eq!(text(&head, "x-forwarded-for"), None);
    assert_eq!(origin.client_address.ip().unwrap().to_string(), PEER);
}

#[test]
fn a_peer_on_the_loopback_is_named_by_the_nodes_address() {
    let (head, _) = mutated(&config(edge(0)), "127.0.0.1", &[]);
    assert_eq!(text(&head, "x-forwarded-for"), Some("192.0.2.1"));
    let skip = config(|message| {
        edge(0)(message);
        message.skip_xff_append = true;
    });
    assert_eq!(text(&mutated(&skip, PEER, &[]).0, "x-forwarded-for"), None);
}

#[test]
fn only_a_single_private_address_is_internal() {
    let edge = config(edge(0));
    let (head, origin) = mutated(&edge, PRIVATE, &[]);
    assert!(origin.internal);
    assert_eq!(text(&head, "x-envoy-internal"), Some("true"));
    assert_eq!(text(&head, "x-envoy-external-address"), None);

    let (head, origin) =
        mutated(&edge, PRIVATE, &[("x-forwarded-for", PRIVATE), ("x-envoy-internal", "true")]);
    assert!(!origin.internal, "more than one address was forwarded");
    assert_eq!(text(&head, "x-envoy-internal"), None);

    let without_ranges = config(|message| message.use_remote_address = Some(BoolValue { value: true }));
    assert!(!mutated(&without_ranges, PRIVATE, &[]).1.internal);
}

#[test]
fn requests_from_outside_lose_what_only_insiders_may_say() {
    let fields = [("x-envoy-retry-on", "5xx"), ("x-envoy-original-path", "/a"), ("x-custom", "1")];
    let inside = mutated(&config(edge(0)), PRIVATE, &fields).0;
    assert_eq!(text(&inside, "x-envoy-retry-on"), Some("5xx"));
    assert_eq!(text(&inside, "x-envoy-original-path"), Some("/a"));
    let outside = mutated(&config(edge(0)), PEER, &fields).0;
    assert_eq!(text(&outside, "x-envoy-retry-on"), None);
    assert_eq!(text(&outside, "x-envoy-original-path"), None);
    assert_eq!(text(&outside, "x-custom"), Some("1"));
    let behind_a_proxy = mutated(&config(|_| {}), PEER, &fields).0;
    assert_eq!(text(&behind_a_proxy, "x-envoy-retry-on"), None);
    assert_eq!(text(&behind_a_proxy, "x-envoy-original-path"), Some("/a"));
}

#[test]
fn a_request_id_from_outside_is_replaced_at_the_edge() {
    const GIVEN: &str = "3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    let fields = [("x-request-id", GIVEN)];
    let id = |config: &ConnectionManagerConfig, peer, fields: &[(&str, &str)]| {
        text(&mutated(config, peer, fields).0, "x-request-id").map(str::to_owned)
    };
    let made = id(&config(|_| {}), PEER, &[]).expect("every request gets an id");
    assert_eq!((made.len(), &made[14..15]), (36, "4"), "{made}");
    assert_eq!(id(&config(|_| {}), PEER, &fields).as_deref(), Some(GIVEN));
    assert_eq!(id(&config(edge(0)), PRIVATE, &fields).as_deref(), Some(GIVEN));
    assert_ne!(id(&config(edge(0)), PEER, &fields).as_deref(), Some(GIVEN));
    let preserving = config(|message| {
        edge(0)(message);
        message.preserve_external_request_id = true;
    });
    assert_eq!(id(&preserving, PEER, &fields).as_deref(), Some(GIVEN));
    let off = config(|message| message.generate_request_id = Some(BoolValue { value: false }));
    assert_eq!(id(&off, PEER, &[]), None);
}

#[test]
fn via_and_user_agent_say_who_forwards() {
    let config = config(|message| {
        message.via = "gate".into();
        message.add_user_agent = Some(BoolValue { value: true });
    });
    let (head, _) = mutated(&config, PEER, &[]);
    assert_eq!(text(&head, "via"), Some("gate"));
    assert_eq!(text(&head, "user-agent"), Some("edge"));
    assert_eq!(text(&head, "x-envoy-downstream-service-cluster"), Some("edge"));
    assert_eq!(text(&head, "x-envoy-downstream-service-node"), Some("edge-1"));
    let (head, _) = mutated(&config, PEER, &[("via", "1.0 outer"), ("user-agent", "mine")]);
    assert_eq!(text(&head, "via"), Some("1.0 outer, gate"));
    assert_eq!(text(&head, "user-agent"), Some("mine"));
}

#[test]
fn hop_by_hop_headers_go_and_an_upgrade_keeps_its_own() {
    let fields = [
        ("connection", "keep-alive, te, upgrade"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("x-a", "1"),
    ];
    let head = mutated(&config(|_| {}), PEER, &fields).0;
    for gone in ["connection", "upgrade", "te", "keep-alive", "proxy-connection"] {
        assert_eq!(text(&head, gone), None, "{gone}");
    }
    assert_eq!(text(&head, "x-a"), Some("1"));
    assert_eq!(text(&mutated(&config(|_| {}), PEER, &[("te", "trailers, gzip")]).0, "te"), Some("trailers"));

    let mut head = request(&fields);
    _ = mutate(&config(|_| {}), &connection(PEER, None), &mut head, true, || 7);
    assert_eq!(text(&head, "upgrade"), Some("websocket"));
    assert_eq!(text(&head, "connection"), Some("keep-alive, te, upgrade"));
}

#[test]
fn the_scheme_is_that_of_the_connection_or_what_a_proxy_said() {
    let mut head = request(&[]);
    _ = mutate(&config(|_| {}), &connection(PEER, Some(TlsInfo::default())), &mut head, false, || 7);
    assert_eq!((head.scheme(), text(&head, "x-forwarded-proto")), (&b"https"[..], Some("https")));
    let (head, _) = mutated(&config(|_| {}), PEER, &[("x-forwarded-proto", "https")]);
    assert_eq!(head.scheme(), b"https");
    let (head, _) = mutated(&config(|_| {}), PEER, &[("x-forwarded-proto", "gopher")]);
    assert_eq!(head.scheme(), b"http");
}

fn normalization(strip_port: StripPort, strip_trailing_host_dot: bool) -> NormalizationConfig {
    NormalizationConfig {
        normalize_path: false,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
        strip_port,
        strip_trailing_host_dot,
    }
}

#[test]
fn hosts_lose_port_and_dot_as_configured() {
    let cases = [
        (StripPort::Keep, false, "a.test.:8080", "a.test.:8080"),
        (StripPort::Matching, false, "a.test:8080", "a.test"),
        (StripPort::Matching, false, "a.test:9090", "a.test:9090"),
        (StripPort::Any, false, "a.test:9090", "a.test"),
        (StripPort::Any, false, "[::1]:9090", "[::1]"),
        (StripPort::Any, false, "[::1]", "[::1]"),
        (StripPort::Keep, true, "a.test.", "a.test"),
        (StripPort::Keep, true, "a.test.:9090", "a.test:9090"),
        (StripPort::Any, true, "a.test.:9090", "a.test"),
    ];
    for (port, dot, given, expected) in cases {
        let mut head = request(&[]);
        head.set_known(KnownHeader::Authority, given.as_bytes());
        normalize(&normalization(port, dot), Some(8080), &mut head).expect("the request is fine");
        assert_eq!(std::str::from_utf8(head.authority()).unwrap(), expected, "{given} with {port:?}");
    }
}

#[test]
fn requests_without_a_usable_path_or_host_are_answered() {
    let config = NormalizationConfig {
        escaped_slashes: EscapedSlashes::Reject,
        normalize_path: true,
        ..normalization(StripPort::Keep, false)
    };
    let refused = |path: &str| {
        let mut head = request(&[]);
        head.set_known(KnownHeader::Path, path.as_bytes());
        normalize(&config, Some(80), &mut head).expect_err(path)
    };
    for (path, status) in [("/a#b", 400), ("/a%2Fb", 400), ("/a%5cb", 400), ("*", 404)] {
        assert_eq!(refused(path).status, status, "{path}");
    }
    let mut head = request(&[]);
    head.remove_known(KnownHeader::Authority);
    let reply = normalize(&config, Some(80), &mut head).expect_err("there is no host");
    assert_eq!((reply.status, reply.details.as_ref()), (400, "missing_host_header"));
}

#[test]
fn escaped_slashes_redirect_to_the_plain_path() {
    let config = NormalizationConfig {
        escaped_slashes: EscapedSlashes::UnescapeAndRedirect,
        ..normalization(StripPort::Keep, false)
    };
    let mut head = request(&[]);
    head.set_known(KnownHeader::Path, b"/a%2Fb?x=%2F");
    let reply = normalize(&config, Some(80), &mut head).expect_err("the client is sent elsewhere");
    assert_eq!((reply.status, reply.close), (307, false));
    assert_eq!(reply.headers, [(HeaderName::Known(KnownHeader::Location), b"/a/b?x=%2F".to_vec())]);
}
