//! A whole bootstrap with something of everything, for the area `invalid`: it is valid, and no request is ever sent through it.

use serde_json::{Map, Value, json};

use super::super::dice::{Dice, fields};
use super::{connection_manager, http};

fn typed(kind: &str, settings: Value) -> Value {
    let mut config = fields(settings);
    config.shift_insert(0, "@type".to_owned(), json!(format!("type.googleapis.com/{kind}")));
    Value::Object(config)
}

/// The scenario of `seed` without its verdict.
pub fn bootstrap(seed: u64) -> Value {
    let mut dice = Dice::new(seed, "bootstrap");
    let mut hcm = connection_manager::connection_manager(&mut dice, &["one", "one", "two", "dead"]);
    hcm = http::with_log(hcm, &http::LOG_COLUMNS[..6].join("\t"));
    timeouts(&mut dice, &mut hcm);
    if let (true, Value::Array(logs)) = (dice.chance(60), &mut hcm["access_log"]) {
        logs.push(json_log(&mut dice));
    }
    let mut clusters = Map::new();
    for name in ["one", "two", "dead"] {
        clusters.insert(name.to_owned(), cluster(&mut dice));
    }
    let refused = json!({ "protocol": "refused" });
    let mut scenario = fields(json!({
        "about": format!("Random configuration (area invalid, seed {seed})."),
        "upstreams": { "one": refused, "two": refused, "dead": refused },
        "clusters": clusters,
        "http": { "hcm": hcm, "listener": listener(&mut dice) },
        "bootstrap": process(&mut dice),
    }));
    if dice.chance(50) {
        scenario.insert("listeners".to_owned(), json!([tcp_listener(&mut dice)]));
    }
    scenario["http"]["tls"] = json!(dice.chance(30));
    Value::Object(scenario)
}

fn timeouts(dice: &mut Dice, hcm: &mut Value) {
    let Value::Object(fields) = hcm else { return };
    for name in ["stream_idle_timeout", "request_timeout", "request_headers_timeout", "drain_timeout"] {
        dice.field(20, fields, name, json!(["5s", "0s", "0.250s"]));
    }
    dice.field(20, fields, "delayed_close_timeout", json!(["1s"]));
    dice.field(20, fields, "max_request_headers_kb", json!([1, 96, 8192]));
    dice.field(
        20,
        fields,
        "http2_protocol_options",
        json!([{ "max_concurrent_streams": 100, "initial_stream_window_size": 65535,
            "initial_connection_window_size": 65535,
            "connection_keepalive": { "interval": "10s", "timeout": "2s" } }]),
    );
}

fn json_log(dice: &mut Dice) -> Value {
    let comparison = json!({ "op": "GE", "value": { "default_value": 400, "runtime_key": "k" } });
    let filter = dice.of(json!([
        { "status_code_filter": { "comparison": comparison } },
        { "duration_filter": { "comparison": comparison } },
        { "and_filter": { "filters": [{ "not_health_check_filter": {} }, { "traceable_filter": {} }] } },
        { "response_flag_filter": { "flags": ["NR", "UH"] } },
        { "grpc_status_filter": { "statuses": ["OK"] } },
        { "header_filter": { "header": { "name": "x", "string_match": { "prefix": "a" } } } },
        { "runtime_filter": { "runtime_key": "k", "percent_sampled": { "numerator": 5 } } },
        { "metadata_filter": { "matcher": { "filter": "envoy.lb", "path": [{ "key": "a" }], "value": { "string_match": { "exact": "b" } } } } }
    ]));
    let format = json!({ "code": "%RESPONSE_CODE%", "nested": { "path": "%REQ(:path):5%", "list": ["%PROTOCOL%", 1] } });
    let settings = json!({ "path": "{{dir}}/other.log", "log_format": {
        "json_format": format, "omit_empty_values": dice.chance(50),
    } });
    let kind = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
    json!({ "name": "json", "filter": filter, "typed_config": typed(kind, settings) })
}

fn cluster(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    dice.field(40, &mut fields, "connect_timeout", json!(["0.5s", "5s"]));
    balancing(dice, &mut fields);
    let thresholds = json!([
        { "thresholds": [{ "max_retries": 1 }, { "priority": "HIGH", "max_requests": 7 }] },
        { "thresholds": [{ "retry_budget": { "budget_percent": { "value": 25.5 }, "min_retry_concurrency": 1 } }] }
    ]);
    dice.field(40, &mut fields, "circuit_breakers", thresholds);
    let outliers = json!([{ "consecutive_5xx": 3, "interval": "10s", "base_ejection_time": "30s",
        "max_ejection_percent": 50, "enforcing_success_rate": 100, "success_rate_stdev_factor": 1900 }]);
    dice.field(30, &mut fields, "outlier_detection", outliers);
    dice.made(40, &mut fields, "typed_extension_protocol_options", protocol_options);
    let options = fields.get("typed_extension_protocol_options").map(Value::to_string).unwrap_or_default();
    let with_http2 = options.contains("\"explicit_http_config\":{\"http2_protocol_options\"");
    dice.made(40, &mut fields, "health_checks", |dice| json!([health_check(dice, with_http2)]));
    dice.field(15, &mut fields, "per_connection_buffer_limit_bytes", json!([32768]));
    dice.field(15, &mut fields, "alt_stat_name", json!(["other"]));
    dice.field(15, &mut fields, "preconnect_policy", json!([{ "per_upstream_preconnect_ratio": 1.5 }]));
    dice.field(15, &mut fields, "dns_lookup_family", json!(["V4_ONLY", "AUTO"]));
    dice.field(15, &mut fields, "dns_refresh_rate", json!(["5s"]));
    let bind = json!([{ "source_address": { "address": "127.0.0.1", "port_value": 0 } }]);
    dice.field(15, &mut fields, "upstream_bind_config", bind);
    let keepalive = json!([{ "tcp_keepalive": { "keepalive_probes": 3, "keepalive_time": 60 } }]);
    dice.field(15, &mut fields, "upstream_connection_options", keepalive);
    let metadata = json!([{ "filter_metadata": { "a": { "b": [1, "c", null] } } }]);
    dice.field(20, &mut fields, "metadata", metadata);
    dice.made(25, &mut fields, "transport_socket", |dice| {
        let mut context = Map::new();
        let validation = json!({ "trusted_ca": { "filename": "{{cert.ca}}" },
            "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": "localhost" } }] });
        dice.field(80, &mut context, "validation_context", json!([validation]));
        let versions =
            json!([{ "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3" }]);
        dice.field(50, &mut context, "tls_params", versions);
        dice.field(50, &mut context, "alpn_protocols", json!([["h2", "http/1.1"]]));
        let settings = json!({ "sni": "localhost", "common_tls_context": context });
        let kind = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
        json!({ "name": "envoy.transport_sockets.tls", "typed_config": typed(kind, settings) })
    });
    Value::Object(fields)
}

fn balancing(dice: &mut Dice, fields: &mut Map<String, Value>) {
    match dice.below(6) {
        0 => {
            fields.insert("lb_policy".to_owned(), json!("RING_HASH"));
            let settings =
                json!({ "minimum_ring_size": 64, "maximum_ring_size": 1024, "hash_function": "XX_HASH" });
            fields.insert("ring_hash_lb_config".to_owned(), settings);
        }
        1 => {
            fields.insert("lb_policy".to_owned(), json!("MAGLEV"));
            fields.insert("maglev_lb_config".to_owned(), json!({ "table_size": 101 }));
        }
        2 => {
            fields.insert("lb_policy".to_owned(), json!("LEAST_REQUEST"));
            let bias = json!({ "default_value": 1.5, "runtime_key": "k" });
            let settings = json!({ "choice_count": 3, "active_request_bias": bias });
            fields.insert("least_request_lb_config".to_owned(), settings);
        }
        3 => {
            let selectors = json!([{ "keys": ["a", "b"], "fallback_policy": "ANY_ENDPOINT" }]);
            let settings = json!({ "fallback_policy": "DEFAULT_SUBSET", "default_subset": { "a": "b" }, "subset_selectors": selectors });
            fields.insert("lb_subset_config".to_owned(), settings);
        }
        _ => {}
    }
    let common = json!([
        { "healthy_panic_threshold": { "value": 40 } },
        { "zone_aware_lb_config": { "routing_enabled": { "value": 50 }, "min_cluster_size": 2 } },
        { "locality_weighted_lb_config": {} },
        { "update_merge_window": "1s", "ignore_new_hosts_until_first_hc": true }
    ]);
    dice.field(30, fields, "common_lb_config", common);
}

fn health_check(dice: &mut Dice, with_http2: bool) -> Value {
    let mut check = fields(
        json!({ "timeout": "1s", "interval": "5s", "unhealthy_threshold": 2, "healthy_threshold": 1 }),
    );
    match dice.below(3) {
        0 => {
            let headers = json!([{ "header": { "key": "x-hc", "value": "1" } }]);
            let settings = json!({ "path": "/health", "host": "h", "request_headers_to_add": headers,
                "expected_statuses": [{ "start": 200, "end": 204 }] });
            check.insert("http_health_check".to_owned(), settings);
        }
        1 => {
            let settings = json!({ "send": { "text": "50494e47" }, "receive": [{ "text": "504f4e47" }] });
            check.insert("tcp_health_check".to_owned(), settings);
        }
        // A check by gRPC needs a cluster of HTTP/2.
        _ if with_http2 => _ = check.insert("grpc_health_check".to_owned(), json!({ "service_name": "s" })),
        _ => _ = check.insert("tcp_health_check".to_owned(), json!({})),
    }
    dice.field(30, &mut check, "interval_jitter_percent", json!([10]));
    dice.field(30, &mut check, "no_traffic_interval", json!(["30s"]));
    Value::Object(check)
}

fn protocol_options(dice: &mut Dice) -> Value {
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut settings = fields(dice.of(json!([
        { "explicit_http_config": { "http2_protocol_options": { "max_concurrent_streams": 10 } } },
        { "explicit_http_config": { "http_protocol_options": { "header_key_format": { "proper_case_words": {} } } } },
        { "use_downstream_protocol_config": { "http2_protocol_options": {} } }
    ])));
    let common = json!([{ "idle_timeout": "60s", "max_requests_per_connection": 5 }]);
    dice.field(50, &mut settings, "common_http_protocol_options", common);
    let codec = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";
    let mutation = typed("envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", json!({}));
    let chain = json!([[{ "name": "m", "typed_config": mutation }, { "name": "c", "typed_config": typed(codec, json!({})) }]]);
    dice.field(30, &mut settings, "http_filters", chain);
    json!({ kind: typed(kind, Value::Object(settings)) })
}

fn listener(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    dice.field(20, &mut fields, "per_connection_buffer_limit_bytes", json!([1000]));
    dice.field(20, &mut fields, "stat_prefix", json!(["lis"]));
    dice.field(20, &mut fields, "listener_filters_timeout", json!(["2s"]));
    let proxied = typed(
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        json!({ "allow_requests_without_proxy_protocol": true }),
    );
    let hello = typed("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({}));
    let filters =
        json!([[{ "name": "p", "typed_config": proxied }], [{ "name": "i", "typed_config": hello }]]);
    dice.field(30, &mut fields, "listener_filters", filters);
    let buffers = json!([[{ "level": 1, "name": 9, "int_value": 1, "state": "STATE_PREBIND" }]]);
    dice.field(20, &mut fields, "socket_options", buffers);
    dice.field(20, &mut fields, "connection_balance_config", json!([{ "exact_balance": {} }]));
    Value::Object(fields)
}

fn tcp_listener(dice: &mut Dice) -> Value {
    let mut proxy = fields(json!({ "stat_prefix": "tcp" }));
    match dice.below(2) {
        0 => _ = proxy.insert("cluster".to_owned(), json!("one")),
        _ => {
            let weights =
                json!({ "clusters": [{ "name": "one", "weight": 1 }, { "name": "two", "weight": 3 }] });
            proxy.insert("weighted_clusters".to_owned(), weights);
        }
    }
    dice.field(40, &mut proxy, "idle_timeout", json!(["5s", "0s"]));
    dice.field(40, &mut proxy, "max_connect_attempts", json!([3]));
    dice.field(30, &mut proxy, "hash_policy", json!([[{ "source_ip": {} }]]));
    let kind = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let filters = json!([{ "name": "tcp", "typed_config": typed(kind, Value::Object(proxy)) }]);
    let matches = json!({ "server_names": ["a.com", "*.b.com"], "transport_protocol": "tls" });
    let ranges = json!({ "prefix_ranges": [{ "address_prefix": "10.0.0.0", "prefix_len": 8 }], "destination_port": 443 });
    let hello = typed("envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({}));
    json!({
        "name": "tcp",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": "{{port.tcp}}" } },
        "listener_filters": [{ "name": "i", "typed_config": hello }],
        "filter_chains": [
            { "name": "names", "filter_chain_match": matches, "filters": filters },
            { "name": "ranges", "filter_chain_match": ranges, "filters": filters },
            { "name": "rest", "filters": filters },
        ],
    })
}

/// What is configured once for the process.
fn process(dice: &mut Dice) -> Value {
    let mut fields = Map::new();
    let layers = json!([{ "layers": [{ "name": "static", "static_layer": { "k": { "numerator": 1 }, "n": 5 } }, { "name": "admin", "admin_layer": {} }] }]);
    dice.field(40, &mut fields, "layered_runtime", layers);
    let tags = json!([{ "tag_name": "t", "regex": "^x((.+)\\.)" }, { "tag_name": "f", "fixed_value": "v" }]);
    let buckets = json!([{ "match": { "prefix": "cluster" }, "buckets": [1, 5, 10] }]);
    let inclusion = json!({ "exclusion_list": { "patterns": [{ "prefix": "zzz" }] } });
    let stats =
        json!([{ "stats_tags": tags, "histogram_bucket_settings": buckets, "stats_matcher": inclusion }]);
    dice.field(40, &mut fields, "stats_config", stats);
    dice.field(30, &mut fields, "stats_flush_interval", json!(["5s"]));
    let statsd = typed(
        "envoy.config.metrics.v3.StatsdSink",
        json!({ "address": { "socket_address": { "protocol": "UDP", "address": "127.0.0.1", "port_value": 8125 } }, "prefix": "p" }),
    );
    dice.field(
        20,
        &mut fields,
        "stats_sinks",
        json!([[{ "name": "envoy.stat_sinks.statsd", "typed_config": statsd }]]),
    );
    let heap = typed(
        "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
        json!({ "max_heap_size_bytes": 1_000_000_000 }),
    );
    let overload = json!([{
        "refresh_interval": "0.25s",
        "resource_monitors": [{ "name": "envoy.resource_monitors.fixed_heap", "typed_config": heap }],
        "actions": [{ "name": "envoy.overload_actions.stop_accepting_requests",
            "triggers": [{ "name": "envoy.resource_monitors.fixed_heap", "threshold": { "value": 0.95 } }] }],
    }]);
    dice.field(30, &mut fields, "overload_manager", overload);
    let node = json!([{ "id": "n", "cluster": "c", "locality": { "region": "r", "zone": "z" }, "metadata": { "a": { "b": 1.5 } } }]);
    dice.field(30, &mut fields, "node", node);
    Value::Object(fields)
}
