//! The area `tcp`: random listeners in front of `tcp_proxy`, hosts that greet, echo, close and reset, and clients that do the same.

use serde_json::{Map, Value, json};

use super::super::case::{Case, SOURCE};
use super::super::dice::{Dice, fields};

const LISTENERS: usize = 4;

/// From this one on listeners have filters of their own. Clients do not leave them early: whether their end is noticed before
/// what they said is a matter of the moment.
const INSPECTED: usize = 2;

/// Servers behind the proxy.
const SERVERS: [&str; 9] =
    ["echo", "greets", "closes", "farewell", "five", "resets", "large", "quiet", "secure"];

/// Clusters of one kind of behaviour each, beside those of the servers.
const CLUSTERS: [&str; 6] = ["dead", "levels", "ring", "breaker", "named", "empty"];

/// What is logged of connections by `tcp_proxy`; the first column tells the number of the client.
const LOG_COLUMNS: &[&str] = &[
    "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%ACCESS_LOG_TYPE%",
    "%RESPONSE_FLAGS%",
    "%RESPONSE_FLAGS_LONG%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%PROTOCOL%",
    "%BYTES_RECEIVED%",
    "%BYTES_SENT%",
    "%UPSTREAM_CLUSTER%",
    "%UPSTREAM_HOST%",
    "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "%UPSTREAM_DETECTED_CLOSE_TYPE%",
    "%UPSTREAM_LOCAL_CLOSE_REASON%",
    "%UPSTREAM_TLS_VERSION%",
    "%CONNECTION_TERMINATION_DETAILS%",
    "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "%DOWNSTREAM_LOCAL_CLOSE_REASON%",
    "%DOWNSTREAM_DETECTED_CLOSE_TYPE%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%",
    "%DOWNSTREAM_TLS_VERSION%",
    "%FILTER_CHAIN_NAME%",
    "%REQUESTED_SERVER_NAME%",
    "%ROUTE_NAME%",
    "%VIRTUAL_CLUSTER_NAME%",
    "%DYNAMIC_METADATA(envoy.filters.network.rbac)%",
    "%FILTER_STATE(envoy.tcp_proxy.cluster)%",
];

/// The case of `seed` with this many clients.
pub fn tcp(seed: u64, count: usize) -> Case {
    let mut dice = Dice::new(seed, "tcp configuration");
    let listeners: Vec<Value> = (0..LISTENERS).map(|number| listener(&mut dice, number)).collect();
    let clients = (0..count)
        .map(|number| vec![client(&mut Dice::new(seed, &format!("tcp client {number}")), number)])
        .collect();
    let mut of: Vec<String> = (0..LISTENERS).map(|number| format!("listener.l{number}.")).collect();
    for prefix in
        ["cluster.", "tcp.", "limit.", "local_rate_limit.", "connection_limit.", "proxy_proto.", "l.rbac."]
    {
        of.push(prefix.to_owned());
    }
    let pieces = "depends on the pieces in which bytes arrive";
    Case {
        fields: fields(json!({
            "about": format!("Random TCP proxies and clients (area tcp, seed {seed})."),
            "upstreams": {
                "echo": { "protocol": "tcp", "tcp": { "echo": true } },
                "greets": { "protocol": "tcp", "tcp": { "greeting": "hello" } },
                "closes": { "protocol": "tcp", "tcp": { "greeting": "bye", "close_after": 0 } },
                "farewell": { "protocol": "tcp", "tcp": { "farewell": "farewell" } },
                "five": { "protocol": "tcp", "tcp": { "close_after": 5 } },
                "resets": { "protocol": "tcp", "tcp": { "close_after": 5, "reset": true } },
                "large": { "protocol": "tcp", "tcp": { "greeting": "0123456789".repeat(5000), "close_after": 0 } },
                "quiet": { "protocol": "tcp" },
                "secure": { "protocol": "tcp_tls", "tcp": { "greeting": "s", "farewell": "t" } },
                "nobody": { "protocol": "refused" },
            },
            "clusters": clusters(&mut dice),
            "listeners": listeners,
            "all_stats": { "of": of, "except": {
                "reading_total": pieces,
                "flow_control_backed_up_total": pieces,
                "flow_control_drained_total": pieces,
                "upstream_flush_total": pieces,
            } },
        })),
        requests: clients,
        last: SERVERS.iter().map(|name| json!({ "connections": name })).collect(),
        log_columns: LOG_COLUMNS.join("\t"),
    }
}

fn typed(kind: &str, settings: Value) -> Value {
    let mut config = fields(settings);
    config.shift_insert(0, "@type".to_owned(), json!(format!("type.googleapis.com/{kind}")));
    Value::Object(config)
}

fn endpoint(server: &str) -> Value {
    let port = format!("{{{{upstream.{server}}}}}");
    json!({
        "endpoint": { "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } } },
        "metadata": { "filter_metadata": { "envoy.lb": { "hash_key": server } } },
    })
}

fn assignment(name: &str, levels: &[&[&str]]) -> Value {
    let endpoints: Vec<Value> = levels
        .iter()
        .enumerate()
        .map(|(priority, servers)| {
            json!({ "priority": priority, "lb_endpoints": servers.iter().map(|server| endpoint(server)).collect::<Vec<_>>() })
        })
        .collect();
    json!({
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": { "cluster_name": name, "endpoints": endpoints },
    })
}

fn clusters(dice: &mut Dice) -> Value {
    let mut clusters = Map::new();
    let mut dead = fields(assignment("dead", &[&["nobody"]]));
    let outliers = json!([{ "split_external_local_origin_errors": true, "consecutive_local_origin_failure": 2,
        "enforcing_consecutive_local_origin_failure": 100, "max_ejection_percent": 100, "interval": "300s",
        "base_ejection_time": "300s" }]);
    dice.field(40, &mut dead, "outlier_detection", outliers.clone());
    let calm = json!([{ "healthy_panic_threshold": { "value": 0 } }]);
    dice.field(50, &mut dead, "common_lb_config", calm.clone());
    clusters.insert("dead".to_owned(), Value::Object(dead));
    let mut levels = fields(assignment("levels", &[&["nobody"], &["greets"]]));
    dice.field(80, &mut levels, "outlier_detection", outliers);
    clusters.insert("levels".to_owned(), Value::Object(levels));
    let mut ring = fields(assignment("ring", &[&["greets", "closes", "echo"]]));
    dice.field(100, &mut ring, "lb_policy", json!(["RING_HASH", "MAGLEV"]));
    clusters.insert("ring".to_owned(), Value::Object(ring));
    let mut breaker = fields(assignment("breaker", &[&["greets"]]));
    let thresholds = json!([[{ "max_connections": 0 }], [{ "max_connections": 1, "track_remaining": true }]]);
    dice.made(100, &mut breaker, "circuit_breakers", |dice| json!({ "thresholds": dice.of(thresholds) }));
    clusters.insert("breaker".to_owned(), Value::Object(breaker));
    let mut named = fields(assignment("named", &[&["farewell"]]));
    let version = dice.of(json!(["V1", "V2"]));
    let mut header = fields(json!({ "version": version }));
    dice.field(30, &mut header, "added_tlvs", json!([[{ "type": 240, "value": "AAE=" }]]));
    dice.field(30, &mut header, "pass_through_tlvs", json!([{ "match_type": "INCLUDE_ALL" }]));
    let raw = typed("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    let socket = json!({ "config": header, "transport_socket": { "name": "raw", "typed_config": raw } });
    let kind = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport";
    named.insert(
        "transport_socket".to_owned(),
        json!({ "name": "named", "typed_config": typed(kind, socket) }),
    );
    clusters.insert("named".to_owned(), Value::Object(named));
    clusters.insert("empty".to_owned(), assignment("empty", &[]));
    for name in ["echo", "greets", "closes"] {
        let mut patch = Map::new();
        dice.field(30, &mut patch, "per_connection_buffer_limit_bytes", json!([1000]));
        dice.field(20, &mut patch, "alt_stat_name", json!([format!("alt_{name}")]));
        dice.field(20, &mut patch, "track_cluster_stats", json!([{ "timeout_budgets": true }]));
        clusters.insert(name.to_owned(), Value::Object(patch));
    }
    clusters.insert("nobody".to_owned(), Value::Null);
    Value::Object(clusters)
}

fn log(columns: &str) -> Value {
    json!([{ "name": "file", "typed_config": typed("envoy.extensions.access_loggers.file.v3.FileAccessLog", json!({
        "path": "{{dir}}/access.log",
        "log_format": { "text_format_source": { "inline_string": format!("{columns}\n") } },
    })) }])
}

fn listener(dice: &mut Dice, number: usize) -> Value {
    let port = format!("{{{{port.l{number}}}}}");
    let mut listener = fields(json!({
        "name": format!("l{number}"),
        "stat_prefix": format!("l{number}"),
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
    }));
    let mut before = Vec::new();
    if number >= INSPECTED && dice.chance(50) {
        let mut settings = Map::new();
        dice.field(50, &mut settings, "allow_requests_without_proxy_protocol", json!([true]));
        dice.field(20, &mut settings, "stat_prefix", json!(["pp"]));
        dice.field(20, &mut settings, "disallowed_versions", json!([["V1"], ["V2"]]));
        let rules = json!([[{ "tlv_type": 234, "on_tlv_present": { "key": "k" } }]]);
        dice.field(20, &mut settings, "rules", rules);
        let kind = "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol";
        before.push(json!({ "name": "pp", "typed_config": typed(kind, Value::Object(settings)) }));
    }
    if number >= INSPECTED && dice.chance(80) {
        let kind = "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
        before.push(json!({ "name": "inspect", "typed_config": typed(kind, json!({})) }));
        dice.field(100, &mut listener, "listener_filters_timeout", json!(["0.3s"]));
        dice.field(60, &mut listener, "continue_on_listener_filters_timeout", json!([true]));
    }
    listener.insert("listener_filters".to_owned(), json!(before));
    if dice.chance(50) {
        listener.insert("access_log".to_owned(), log(&format!("{}\tlistener", LOG_COLUMNS.join("\t"))));
    }
    dice.field(15, &mut listener, "per_connection_buffer_limit_bytes", json!([1000]));
    let wanted = [
        json!({ "server_names": ["localhost", "a.example.test"] }),
        json!({ "transport_protocol": "tls" }),
        json!({ "transport_protocol": "raw_buffer" }),
        json!({ "source_prefix_ranges": [{ "address_prefix": "127.1.0.0", "prefix_len": 28 }] }),
        json!({ "direct_source_prefix_ranges": [{ "address_prefix": "127.1.0.16", "prefix_len": 28 }] }),
        json!({ "source_type": "EXTERNAL" }),
        json!({ "source_type": "SAME_IP_OR_LOOPBACK" }),
        json!({ "prefix_ranges": [{ "address_prefix": "127.0.0.1", "prefix_len": 32 }] }),
        json!({ "application_protocols": ["foo"] }),
    ];
    let count = dice.pick(&[0, 0, 1, 2]);
    let mut wanted = dice.sample(&wanted, count);
    if count == 0 || dice.chance(75) {
        wanted.push(json!({}));
    }
    let chains: Vec<Value> =
        wanted.into_iter().enumerate().map(|(at, wanted)| chain(dice, number, at, wanted)).collect();
    listener.insert("filter_chains".to_owned(), json!(chains));
    Value::Object(listener)
}

fn chain(dice: &mut Dice, listener: usize, number: usize, wanted: Value) -> Value {
    let secure =
        wanted["transport_protocol"] == "tls" || wanted["server_names"].is_array() || dice.chance(10);
    let mut filters = Vec::new();
    if dice.chance(12) {
        filters.push(connection_limit(dice));
    }
    if dice.chance(12) {
        filters.push(local_rate_limit(dice));
    }
    if dice.chance(20) {
        filters.push(rbac(dice));
    }
    if dice.chance(12) {
        let kind = "envoy.extensions.filters.network.sni_cluster.v3.SniCluster";
        filters.push(json!({ "name": "sni", "typed_config": typed(kind, json!({})) }));
    }
    filters.push(match dice.below(12) {
        0 => json!({ "name": "echo", "typed_config": typed("envoy.extensions.filters.network.echo.v3.Echo", json!({})) }),
        // Envoy never ends a handshake behind which there is nothing but a response.
        1 if !secure => {
            let kind = "envoy.extensions.filters.network.direct_response.v3.Config";
            json!({ "name": "direct", "typed_config": typed(kind, json!({ "response": { "inline_string": "direct" } })) })
        }
        _ => tcp_proxy(dice, &format!("l{listener}c{number}")),
    });
    let mut chain = fields(json!({
        "name": format!("chain{number}"),
        "filter_chain_match": wanted,
        "filters": filters,
    }));
    if secure {
        let certificate = json!({ "certificate_chain": { "filename": "{{cert.server}}" }, "private_key": { "filename": "{{key.server}}" } });
        let context =
            json!({ "common_tls_context": { "tls_certificates": [certificate], "alpn_protocols": ["foo"] } });
        let kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
        chain.insert(
            "transport_socket".to_owned(),
            json!({ "name": "tls", "typed_config": typed(kind, context) }),
        );
    }
    Value::Object(chain)
}

fn tcp_proxy(dice: &mut Dice, prefix: &str) -> Value {
    let mut proxy = fields(json!({ "stat_prefix": prefix }));
    let targets: Vec<&str> = SERVERS.iter().chain(&CLUSTERS).copied().collect();
    let cluster = dice.pick(&targets);
    if dice.chance(15) {
        let clusters = json!([{ "name": cluster, "weight": 1 }, { "name": cluster, "weight": 3 }]);
        proxy.insert("weighted_clusters".to_owned(), json!({ "clusters": clusters }));
    } else {
        let missing = dice.chance(4);
        proxy.insert("cluster".to_owned(), json!(if missing { "missing" } else { cluster }));
    }
    dice.field(70, &mut proxy, "idle_timeout", json!(["0.25s", "0.4s", "0s"]));
    dice.field(15, &mut proxy, "max_downstream_connection_duration", json!(["0.35s"]));
    dice.field(40, &mut proxy, "max_connect_attempts", json!([1, 2, 3]));
    dice.field(
        10,
        &mut proxy,
        "backoff_options",
        json!([{ "base_interval": "0.01s", "max_interval": "0.02s" }]),
    );
    if cluster == "ring" {
        dice.field(80, &mut proxy, "hash_policy", json!([[{ "source_ip": {} }]]));
    }
    dice.made(90, &mut proxy, "access_log", |_| log(&LOG_COLUMNS.join("\t")));
    dice.made(40, &mut proxy, "access_log_options", |dice| {
        let mut options = Map::new();
        dice.field(50, &mut options, "flush_access_log_on_start", json!([true]));
        dice.field(50, &mut options, "flush_access_log_on_connected", json!([true]));
        Value::Object(options)
    });
    if dice.chance(10) {
        dice.field(
            100,
            &mut proxy,
            "upstream_connect_mode",
            json!(["ON_DOWNSTREAM_DATA", "ON_DOWNSTREAM_TLS_HANDSHAKE"]),
        );
        proxy.insert("max_early_data_bytes".to_owned(), json!(16384));
    }
    if cluster == "named" {
        dice.field(40, &mut proxy, "proxy_protocol_tlvs", json!([[{ "type": 241, "value": "AgM=" }]]));
    }
    json!({ "name": "tcp", "typed_config": typed("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", Value::Object(proxy)) })
}

fn connection_limit(dice: &mut Dice) -> Value {
    let mut limit = fields(json!({ "stat_prefix": "l", "max_connections": dice.pick(&[1, 100]) }));
    dice.field(30, &mut limit, "delay", json!(["0.05s"]));
    let kind = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit";
    json!({ "name": "limit", "typed_config": typed(kind, Value::Object(limit)) })
}

fn local_rate_limit(dice: &mut Dice) -> Value {
    let bucket = json!({ "max_tokens": dice.pick(&[1, 3]), "tokens_per_fill": 1, "fill_interval": "600s" });
    let kind = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
    json!({ "name": "rate", "typed_config": typed(kind, json!({ "stat_prefix": "l", "token_bucket": bucket })) })
}

fn rbac(dice: &mut Dice) -> Value {
    let principal = dice.of(json!([
        { "any": true },
        { "direct_remote_ip": { "address_prefix": "127.1.0.0", "prefix_len": 28 } },
        { "remote_ip": { "address_prefix": "10.0.0.0", "prefix_len": 8 } },
        { "authenticated": {} },
        { "not_id": { "source_ip": { "address_prefix": "127.1.0.8", "prefix_len": 29 } } }
    ]));
    let permission = dice.of(json!([
        { "any": true },
        { "any": true },
        { "requested_server_name": { "exact": "localhost" } },
        { "destination_ip": { "address_prefix": "127.0.0.0", "prefix_len": 8 } },
        { "not_rule": { "destination_port_range": { "start": 1, "end": 1024 } } }
    ]));
    let rules = |action: Value| json!({ "action": action, "policies": { "p": { "permissions": [permission], "principals": [principal] } } });
    let mut rbac = fields(json!({ "stat_prefix": "l." }));
    dice.made(85, &mut rbac, "rules", |dice| rules(dice.of(json!(["ALLOW", "DENY", "LOG"]))));
    dice.made(40, &mut rbac, "shadow_rules", |dice| rules(dice.of(json!(["ALLOW", "DENY"]))));
    dice.field(30, &mut rbac, "shadow_rules_stat_prefix", json!(["s_"]));
    dice.field(30, &mut rbac, "enforcement_type", json!(["CONTINUOUS"]));
    dice.field(20, &mut rbac, "delay_deny", json!(["0.05s"]));
    json!({ "name": "rbac", "typed_config": typed("envoy.extensions.filters.network.rbac.v3.RBAC", Value::Object(rbac)) })
}

/// What a client may say of another client behind it, and the beginning of a TLS hello.
const PREAMBLES: &[&str] = &[
    "PROXY TCP4 10.1.2.3 10.4.5.6 1111 80\r\n",
    "PROXY TCP6 fd00::1 fd00::2 1111 80\r\n",
    "PROXY UNKNOWN\r\n",
    "PROXY TCP4 10.1.2.3 10.4.5.6 111111 80\r\n",
    "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
    "\r\n\r\n\0\r\nQUIT\n!\u{11}\0\u{c}\n\u{1}\u{2}\u{3}\n\u{4}\u{5}\u{6}\u{4}W\0P",
    "\r\n\r\n\0\r\nQUIT\n!\u{11}\0\u{10}\n\u{1}\u{2}\u{3}\n\u{4}\u{5}\u{6}\u{4}W\0P\u{4}\0\u{1}x",
    "\r\n\r\n\0\r\nQUIT\n \0\0\0",
    "PROXY ",
];

fn client(dice: &mut Dice, number: usize) -> Value {
    let listener = dice.below(LISTENERS);
    let mut step = fields(json!({
        "to": format!("l{listener}"),
        "from": format!("{SOURCE}{number}"),
    }));
    let mut bytes = String::new();
    let secure = dice.chance(30);
    if !secure && dice.chance(30) {
        bytes.push_str(dice.pick(PREAMBLES));
    }
    let said = ["", "", "hi", "hello", "hello, world", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"];
    bytes.push_str(dice.pick(&said));
    if dice.chance(10) {
        bytes.push_str(&"0123456789".repeat(2000));
    }
    let silent = bytes.is_empty();
    step.insert("raw".to_owned(), json!(bytes));
    if (listener < INSPECTED || silent) && dice.chance(40) {
        step.insert("finish".to_owned(), json!(true));
    }
    if listener < INSPECTED && dice.chance(15) {
        step.insert("reset".to_owned(), json!(true));
    }
    if secure {
        let mut tls = fields(json!({ "trusting": true }));
        let names = json!(["localhost", "a.example.test", "echo", "closes", "nobody.test", "dead"]);
        dice.field(80, &mut tls, "sni", names);
        dice.field(30, &mut tls, "alpn", json!([["foo"], ["bar"]]));
        step.insert("tls".to_owned(), Value::Object(tls));
    }
    let read = if !silent && dice.chance(15) { json!({ "bytes": 1 }) } else { json!("end") };
    step.insert("read".to_owned(), read);
    step.insert("limit_ms".to_owned(), json!(900));
    Value::Object(step)
}
