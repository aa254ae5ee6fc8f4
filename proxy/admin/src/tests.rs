//! The endpoints over a made-up server.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use dhow_matching::StringMatcher;
use dhow_proto::envoy::admin::v3::{
    BootstrapConfigDump, Certificates, ClustersConfigDump, CommandLineOptions, Memory, ServerInfo,
    clusters_config_dump::StaticCluster,
};
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::core::v3::{
    Address, SocketAddress, address::Address as AddressKind, socket_address::PortSpecifier,
};
use dhow_proto::{Name, any};
use dhow_stats::Store;

use crate::state::{
    AdminState, ClusterStatus, ConfigPart, DrainRequest, HostStatus, ListenerStatus, LogLevel, RuntimeEntry,
    RuntimeValues, ServerState, Thresholds, UnreadyListener,
};
use crate::{Admin, Reply, write_address_file};

struct Server {
    store: Store,
    state: ServerState,
    actions: RefCell<Vec<String>>,
    tracks_lookups: Cell<bool>,
    levels: RefCell<Vec<(String, LogLevel)>>,
}

fn server() -> Rc<Server> {
    Rc::new(Server {
        store: Store::new(),
        state: ServerState::Live,
        actions: RefCell::default(),
        tracks_lookups: Cell::default(),
        levels: RefCell::new(vec![("admin".to_owned(), LogLevel::Info), ("http".to_owned(), LogLevel::Info)]),
    })
}

impl Server {
    fn did(&self, what: impl Into<String>) {
        self.actions.borrow_mut().push(what.into());
    }
}

fn address(port: u32) -> Address {
    let socket = SocketAddress {
        address: "127.0.0.1".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port)),
        ..Default::default()
    };
    Address { address: Some(AddressKind::SocketAddress(socket)) }
}

fn part<M: Name>(type_name: &'static str, message: &M) -> ConfigPart {
    assert_eq!(M::full_name(), type_name);
    ConfigPart { type_name, bytes: message.encode_to_vec() }
}

impl AdminState for Server {
    fn stats(&self) -> &Store {
        &self.store
    }
    fn refresh_stats(&self) {
        self.did("refresh");
    }
    fn state(&self) -> ServerState {
        self.state
    }
    fn server_info(&self) -> ServerInfo {
        ServerInfo {
            version: "v".to_owned(),
            command_line_options: Some(CommandLineOptions { concurrency: 2, ..Default::default() }),
            ..Default::default()
        }
    }
    fn clusters(&self) -> Vec<ClusterStatus> {
        let thresholds = Thresholds {
            max_connections: 1024,
            max_pending_requests: 1024,
            max_requests: 1024,
            max_retries: 3,
        };
        let host = HostStatus {
            address_text: "127.0.0.1:80".to_owned(),
            address: address(80),
            counters: vec![
                ("rq_total", 5),
                ("cx_total", 1),
                ("cx_connect_fail", 0),
                ("rq_error", 0),
                ("rq_success", 5),
                ("rq_timeout", 0),
            ],
            gauges: vec![("cx_active", 0), ("rq_active", 0), ("rq_pending_active", 0)],
            weight: 1,
            ..Default::default()
        };
        let sick = HostStatus {
            address_text: "127.0.0.1:81".to_owned(),
            health_flags: vec!["failed_active_hc", "failed_eds_health"],
            ..host.clone()
        };
        let cluster = ClusterStatus {
            name: "u1".to_owned(),
            observability_name: "u1".to_owned(),
            thresholds: [thresholds; 2],
            outlier: None,
            added_via_api: false,
            eds_service_name: String::new(),
            hosts: vec![host, sick],
        };
        vec![cluster.clone(), ClusterStatus { name: "u2".to_owned(), hosts: vec![], ..cluster }]
    }
    fn listeners(&self) -> Vec<ListenerStatus> {
        vec![ListenerStatus {
            name: "l".to_owned(),
            address_text: "127.0.0.1:10000".to_owned(),
            address: address(10000),
            additional: vec![("127.0.0.1:10001".to_owned(), address(10001))],
        }]
    }
    fn unready_listeners(&self) -> Vec<UnreadyListener> {
        vec![UnreadyListener { name: "l".to_owned(), targets: vec!["routes".to_owned()] }]
    }
    fn tracks_lookups(&self) -> &Cell<bool> {
        &self.tracks_lookups
    }
    fn config_dump(&self, include_eds: bool) -> Vec<ConfigPart> {
        self.did(format!("dump eds={include_eds}"));
        let cluster = |name: &str| StaticCluster {
            cluster: Some(any::pack(&Cluster { name: name.to_owned(), ..Default::default() })),
            last_updated: None,
        };
        let clusters =
            ClustersConfigDump { static_clusters: vec![cluster("u1"), cluster("u2")], ..Default::default() };
        vec![
            part("envoy.admin.v3.BootstrapConfigDump", &BootstrapConfigDump::default()),
            part("envoy.admin.v3.ClustersConfigDump", &clusters),
        ]
    }
    fn certificates(&self) -> Certificates {
        Certificates::default()
    }
    fn memory(&self) -> Memory {
        Memory { allocated: 7, ..Default::default() }
    }
    fn runtime(&self) -> RuntimeValues {
        let entry = RuntimeEntry {
            key: "k".to_owned(),
            layer_values: vec!["1".to_owned()],
            final_value: "1".to_owned(),
        };
        RuntimeValues { layers: vec!["base".to_owned()], entries: vec![entry] }
    }
    fn modify_runtime(&self, values: &[(&str, &str)]) -> Result<(), String> {
        self.did(format!("runtime {values:?}"));
        Err("No admin layer specified".to_owned())
    }
    fn loggers(&self) -> Vec<(String, LogLevel)> {
        self.levels.borrow().clone()
    }
    fn set_log_level(&self, logger: Option<&str>, level: LogLevel) -> bool {
        let mut levels = self.levels.borrow_mut();
        let mut any = false;
        for (_, current) in levels.iter_mut().filter(|(name, _)| logger.is_none_or(|logger| name == logger)) {
            *current = level;
            any = true;
        }
        any
    }
    fn reopen_logs(&self) {
        self.did("reopen");
    }
    fn set_health_check_failing(&self, failing: bool) {
        self.did(format!("failing={failing}"));
    }
    fn drain_listeners(&self, request: DrainRequest) {
        self.did(format!("{request:?}"));
    }
    fn quit(&self) {
        self.did("quit");
    }
    fn hot_restart_version(&self) -> String {
        "11.104".to_owned()
    }
}

fn ask(server: &Rc<Server>, method: &str, path: &str) -> (u16, String) {
    let admin = Admin::new(server.clone(), vec![]);
    let Reply { status, body, .. } = admin.handle(method, path, None);
    let body = admin.render(body);
    (status, String::from_utf8(body).unwrap())
}

fn get(path: &str) -> (u16, String) {
    ask(&server(), "GET", path)
}

#[test]
fn readiness_follows_the_state() {
    assert_eq!(get("/ready"), (200, "LIVE\n".to_owned()));
    for (state, text) in [
        (ServerState::PreInitializing, "PRE_INITIALIZING\n"),
        (ServerState::Initializing, "INITIALIZING\n"),
        (ServerState::Draining, "DRAINING\n"),
    ] {
        let mut server = server();
        Rc::get_mut(&mut server).unwrap().state = state;
        assert_eq!(ask(&server, "GET", "/ready"), (503, text.to_owned()));
    }
}

#[test]
fn clusters_are_envoys_lines() {
    let (status, text) = get("/clusters?filter=^u1$");
    assert_eq!(status, 200);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..10],
        [
            "u1::observability_name::u1",
            "u1::default_priority::max_connections::1024",
            "u1::default_priority::max_pending_requests::1024",
            "u1::default_priority::max_requests::1024",
            "u1::default_priority::max_retries::3",
            "u1::high_priority::max_connections::1024",
            "u1::high_priority::max_pending_requests::1024",
            "u1::high_priority::max_requests::1024",
            "u1::high_priority::max_retries::3",
            "u1::added_via_api::false",
        ]
    );
    let host: Vec<&str> =
        lines[10..29].iter().map(|line| line.strip_prefix("u1::127.0.0.1:80::").unwrap()).collect();
    assert_eq!(
        host.join(" "),
        "cx_active::0 cx_connect_fail::0 cx_total::1 rq_active::0 rq_error::0 rq_pending_active::0 rq_success::5 \
         rq_timeout::0 rq_total::5 hostname:: health_flags::healthy weight::1 region:: zone:: sub_zone:: \
         canary::false priority::0 success_rate::-1 local_origin_success_rate::-1"
    );
    assert!(text.contains("u1::127.0.0.1:81::health_flags::/failed_active_hc/failed_eds_health\n"));
    assert!(!text.contains("u2::"));
    assert_eq!(get("/clusters?filter=("), (400, "Invalid re2 regex".to_owned()));
}

#[test]
fn clusters_and_listeners_are_messages_in_json() {
    let tree = |path: &str| serde_json::from_str::<serde_json::Value>(&get(path).1).unwrap();
    let clusters = tree("/clusters?format=json");
    let host = &clusters["cluster_statuses"][0]["host_statuses"][0];
    assert_eq!(host["address"]["socket_address"]["port_value"], 80);
    assert_eq!(host["stats"][0]["name"], "cx_connect_fail");
    assert_eq!(host["stats"][5], serde_json::json!({"value": "5", "name": "rq_total"}));
    assert_eq!(host["stats"][6], serde_json::json!({"type": "GAUGE", "name": "cx_active"}));
    assert_eq!(host["health_status"]["eds_health_status"], "HEALTHY");
    let sick = &clusters["cluster_statuses"][0]["host_statuses"][1]["health_status"];
    assert_eq!(
        *sick,
        serde_json::json!({"failed_active_health_check": true, "eds_health_status": "UNHEALTHY"})
    );
    let thresholds = &clusters["cluster_statuses"][0]["circuit_breakers"]["thresholds"];
    assert_eq!((&thresholds[1]["priority"], &thresholds[1]["max_retries"]), (&"HIGH".into(), &3.into()));
    assert_eq!(get("/listeners").1, "l::127.0.0.1:10000\nl::127.0.0.1:10001\n");
    let listeners = tree("/listeners?format=json");
    assert_eq!(listeners["listener_statuses"][0]["name"], "l");
    assert_eq!(
        listeners["listener_statuses"][0]["additional_local_addresses"][0]["socket_address"]["port_value"],
        10001
    );
}

#[test]
fn server_info_shows_fields_that_are_not_set() {
    let (status, text) = get("/server_info");
    assert_eq!(status, 200);
    assert!(text.starts_with("{\n \"version\": \"v\",\n \"state\": \"LIVE\",\n"), "{text}");
    let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
    let options = tree["command_line_options"].as_object().unwrap();
    assert_eq!(options["concurrency"], 2);
    assert_eq!(options["mode"], "Serve");
    assert_eq!(options["disable_hot_restart"], false);
    assert_eq!(options["base_id"], "0");
    assert_eq!(options["disabled_extensions"], serde_json::json!([]));
    assert_eq!(get("/certs").1, "{\n \"certificates\": []\n}\n");
    assert!(
        get("/memory").1.starts_with("{\n \"allocated\": \"7\",\n \"heap_size\": \"0\","),
        "{}",
        get("/memory").1
    );
    assert_eq!(get("/hot_restart_version"), (200, "11.104".to_owned()));
}

#[test]
fn config_dump_in_whole_and_in_parts() {
    let tree = |path: &str| serde_json::from_str::<serde_json::Value>(&get(path).1).unwrap();
    let whole = tree("/config_dump");
    assert_eq!(whole["configs"][0]["@type"], "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump");
    assert_eq!(whole["configs"][1]["static_clusters"][1]["cluster"]["name"], "u2");
    let one = tree("/config_dump?resource=static_clusters&name_regex=.2");
    assert_eq!(
        one,
        serde_json::json!({"configs": [{
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster",
            "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "u2"},
        }]})
    );
    let masked = tree("/config_dump?resource=static_clusters&mask=cluster.name");
    assert_eq!(masked["configs"][0]["cluster"]["name"], "u1");
    let named = tree("/config_dump?name_regex=u1");
    assert_eq!(named["configs"][1]["static_clusters"].as_array().unwrap().len(), 1);
    assert_eq!(tree("/config_dump?mask=static_clusters")["configs"].as_array().unwrap().len(), 1);
    for (path, status, text) in [
        ("/config_dump?resource=nope", 404, "nope not found in config dump"),
        ("/config_dump?resource=dynamic_active_clusters", 200, "{}\n"),
        ("/config_dump?resource=static_clusters&name_regex=zz", 200, "{}\n"),
        ("/config_dump?mask=nope", 400, "FieldMask nope could not be successfully applied to any configs."),
        (
            "/config_dump?resource=bootstrap",
            400,
            "bootstrap is not a repeated field. Use ?mask=bootstrap to get only this field",
        ),
    ] {
        assert_eq!(get(path), (status, text.to_owned()), "{path}");
    }
    assert!(
        get("/config_dump?name_regex=(")
            .1
            .starts_with("INVALID_ARGUMENT: Error while parsing name_regex from (: ")
    );
    let server = server();
    ask(&server, "GET", "/config_dump?include_eds");
    assert_eq!(*server.actions.borrow(), ["dump eds=true"]);
}

#[test]
fn stats_in_all_forms() {
    let server = server();
    let scope = server.store.scope("cluster.u1");
    scope.counter("upstream_rq_200").add(4);
    scope.gauge("unused");
    let ask = |path: &str| ask(&server, "GET", path);
    assert_eq!(ask("/stats").1, "cluster.u1.unused: 0\ncluster.u1.upstream_rq_200: 4\n");
    assert_eq!(ask("/stats?usedonly").1, "cluster.u1.upstream_rq_200: 4\n");
    assert_eq!(ask("/stats?hidden=only").1, "");
    assert_eq!(ask("/stats?filter=un&type=Gauges").1, "cluster.u1.unused: 0\n");
    assert_eq!(
        ask("/stats?format=json&usedonly").1,
        "{\"stats\":[{\"name\":\"cluster.u1.upstream_rq_200\",\"value\":4}]}"
    );
    let page = "# TYPE envoy_cluster_upstream_rq counter\n\
                envoy_cluster_upstream_rq{envoy_response_code=\"200\",envoy_cluster_name=\"u1\"} 4\n";
    assert_eq!(ask("/stats/prometheus?usedonly").1, page);
    assert_eq!(ask("/stats?format=prometheus&usedonly").1, page);
    for (path, start) in [
        ("/stats?type=Foo", "invalid &type= param"),
        ("/stats?format=foo", "usage: /stats?format=("),
        ("/stats?format=foo&hidden=foo", "usage: /stats?hidden=("),
        ("/stats?histogram_buckets=foo", "usage: /stats?histogram_buckets=("),
        ("/stats?filter=nope(", "Invalid re2 regex: "),
    ] {
        let (status, text) = ask(path);
        assert!(status == 400 && text.starts_with(start), "{path}: {status} {text}");
    }
    assert!(server.actions.borrow().iter().all(|action| action == "refresh"));
    let (status, text) = self::ask(&server, "POST", "/reset_counters");
    assert_eq!((status, text.as_str()), (200, "OK\n"));
    assert_eq!(ask("/stats?usedonly").1, "cluster.u1.upstream_rq_200: 0\n");
}

#[test]
fn actions_demand_post() {
    let server = server();
    for path in ["/quitquitquit", "/reset_counters", "/drain_listeners", "/healthcheck/fail", "/logging"] {
        assert_eq!(
            ask(&server, "GET", path),
            (405, "Method GET not allowed, POST required.".to_owned()),
            "{path}"
        );
    }
    assert!(server.actions.borrow().is_empty());
    for path in [
        "/healthcheck/fail",
        "/healthcheck/ok",
        "/drain_listeners?graceful&inboundonly",
        "/reopen_logs",
        "/quitquitquit",
    ] {
        assert_eq!(ask(&server, "POST", path), (200, "OK\n".to_owned()), "{path}");
    }
    assert_eq!(
        *server.actions.borrow(),
        [
            "failing=true",
            "failing=false",
            "DrainRequest { graceful: true, skip_exit: false, inbound_only: true }",
            "reopen",
            "quit"
        ]
    );
}

#[test]
fn runtime_is_shown_and_changed() {
    let (_, text) = get("/runtime");
    let tree: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        tree,
        serde_json::json!({"layers": ["base"], "entries": {"k": {"layer_values": ["1"], "final_value": "1"}}})
    );
    let server = server();
    assert_eq!(ask(&server, "POST", "/runtime_modify?a=b"), (503, "No admin layer specified".to_owned()));
    let (status, text) = ask(&server, "POST", "/runtime_modify");
    assert!(status == 400 && text.starts_with("usage: /runtime_modify?key1=value1"), "{text}");
    let form = Admin::new(server.clone(), vec![]).handle("POST", "/runtime_modify", Some(b"x=y"));
    assert_eq!(form.status, 503);
    assert_eq!(server.actions.borrow().last().unwrap(), "runtime [(\"x\", \"y\")]");
}

#[test]
fn log_levels_change_together_or_not_at_all() {
    let server = server();
    let ask = |query: &str| ask(&server, "POST", &format!("/logging{query}"));
    assert_eq!(ask(""), (200, "active loggers:\n  admin: info\n  http: info\n\n".to_owned()));
    assert_eq!(ask("?http=debug").1, "active loggers:\n  admin: info\n  http: debug\n\n");
    assert_eq!(ask("?level=warning").1, "active loggers:\n  admin: warning\n  http: warning\n\n");
    assert_eq!(ask("?paths=http:trace,admin:off").1, "active loggers:\n  admin: off\n  http: trace\n\n");
    for (query, reason) in [
        ("?level=foo", "unknown logger level"),
        ("?zzz=info", "unknown logger name"),
        ("?paths=admin:info,zzz:info", "unknown logger name"),
        ("?paths=http", "empty logger name or empty logger level"),
        ("?level=info&http=debug", "invalid number of parameters"),
        ("?group=http:info", "group parameter requires fine-grain logging to be enabled"),
    ] {
        let (status, text) = ask(query);
        assert!(
            status == 400 && text.starts_with(&format!("error: {reason}\n\nusage: /logging?<name>=<level>")),
            "{text}"
        );
        assert!(text.ends_with("active loggers:\n  admin: off\n  http: trace\n\n"), "{text}");
    }
}

#[test]
fn unknown_paths_get_the_overview() {
    let (status, text) = get("/ready/");
    assert_eq!(status, 404);
    assert!(text.starts_with("invalid path. admin commands are:\n  /: "), "{text}");
    let (status, help) = get("/help");
    assert!(status == 200 && text.ends_with(&help));
    for line in ["\n  /quitquitquit (POST): ", "\n      histogram_buckets: ", "; One of (text, json)\n"] {
        assert!(help.contains(line), "{help}");
    }
    let page = Admin::new(server(), vec![]).handle("GET", "/", None);
    assert_eq!((page.status, page.content_type), (200, "text/html; charset=UTF-8"));
}

#[test]
fn what_waits_is_shown_for_masks_that_mean_it() {
    let (_, all) = get("/init_dump");
    assert!(all.contains("\"name\": \"l\"") && all.contains("\"routes\""), "{all}");
    assert_eq!(get("/init_dump?mask=listener").1, all);
    assert_eq!(get("/init_dump?mask=cluster").1, "{}\n");
}

#[test]
fn lookups_are_remembered_when_asked_for() {
    let server = server();
    assert!(ask(&server, "GET", "/stats/recentlookups").1.starts_with("Lookup tracking is not enabled."));
    ask(&server, "POST", "/stats/recentlookups/enable");
    assert_eq!(ask(&server, "GET", "/stats/recentlookups").1, "   Count Lookup\n\ntotal: 0\n");
    ask(&server, "POST", "/stats/recentlookups/disable");
    assert!(ask(&server, "GET", "/stats/recentlookups").1.starts_with("Lookup tracking is not enabled."));
}

#[test]
fn paths_can_be_restricted() {
    let admin = Admin::new(server(), vec![StringMatcher::prefix("/ready"), StringMatcher::exact("/stats")]);
    assert_eq!(admin.handle("GET", "/ready", None).status, 200);
    let refused = admin.handle("GET", "/clusters", None);
    assert_eq!(
        (refused.status, admin.render(refused.body)),
        (403, b"request to path /clusters not allowed".to_vec())
    );
}

#[test]
fn the_address_is_written_for_others() {
    let path = std::env::temp_dir().join(format!("dhow-admin-address-{}", std::process::id()));
    write_address_file(&path, &"127.0.0.1:19000").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1:19000");
    std::fs::remove_file(&path).unwrap();
}
