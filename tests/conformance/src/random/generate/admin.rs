//! The area `admin`: questions to the admin interface, with traffic in between that changes the answers.
//!
//! What is asked for is confined to what does not depend on the moment: statistics of requests and not of connections, dumps under masks
//! that leave times out.

use serde_json::{Value, json};

use super::super::case::{Case, NUMBER};
use super::super::dice::{Dice, fields};
use super::http::LOG_COLUMNS;

/// Filters of statistics whose values are settled when a response is there.
const SETTLED: &[&str] = &[
    "upstream_rq_(total|2xx|completed|pending)",
    "%5Ecluster.one.membership",
    "^http.ingress.downstream_rq_([1-5]|completed|total)",
    "^cluster_manager",
    "listener_manager.listener",
    "^runtime",
    "^server.(live|state|concurrency)$",
    "lb_|retry",
    "^nothing at all$",
];

/// The case of `seed` with this many requests.
pub fn admin(seed: u64, count: usize) -> Case {
    let mut dice = Dice::new(seed, "admin configuration");
    let log_columns = LOG_COLUMNS.join("\t");
    let mut admin = json!({ "access_log": [access_log(&mut dice, &log_columns)] });
    let restricted = dice.chance(15);
    if restricted {
        let more = dice.several(&[0, 1, 3], |dice| {
            dice.of(json!([
                { "suffix": "json" }, { "contains": "li" }, { "prefix": "/RUN", "ignore_case": true },
                { "safe_regex": { "regex": "/[a-l].*" } },
            ]))
        });
        // What the run itself asks for is allowed.
        let mut allowed = vec![json!({ "exact": "/ready" }), json!({ "prefix": "/stats" })];
        allowed.extend(more.as_array().into_iter().flatten().cloned());
        admin["allow_paths"] = Value::Array(allowed);
    }
    let mut bootstrap = json!({ "admin": admin });
    if dice.chance(75) {
        bootstrap["layered_runtime"] = layers(&mut dice);
    }
    let mut clusters = json!({});
    for name in ["one", "two"] {
        clusters[name] = cluster(&mut dice);
    }
    let routes = json!([
        { "match": { "prefix": "/two" }, "route": { "cluster": "two" } },
        { "match": { "prefix": "/direct" }, "direct_response": { "status": 200 } },
        { "match": { "prefix": "/" }, "route": { "cluster": "one" } },
    ]);
    let requests = (0..count).map(|number| {
        let mut dice = Dice::new(seed, &format!("admin request {number}"));
        let mut step = if dice.chance(20) { traffic(&mut dice) } else { question(&mut dice, restricted) };
        if step.get("admin").is_none() {
            step["headers"] = json!([format!("{NUMBER}: {number}")]);
            if let Some(form) = step.as_object_mut().and_then(|step| step.remove("form")) {
                step["body"] = form;
                step["headers"] =
                    json!([format!("{NUMBER}: {number}"), "content-type: application/x-www-form-urlencoded"]);
            }
        }
        vec![step]
    });
    Case {
        fields: fields(json!({
            "about": format!("Random questions to the admin interface (area admin, seed {seed})."),
            "header_order": true,
            "upstreams": { "one": {}, "two": {} },
            "clusters": clusters,
            "http": { "routes": routes },
            "bootstrap": bootstrap,
            "all_stats": { "of": ["cluster.one.upstream_rq", "cluster.two.upstream_rq", "http.ingress.downstream_rq", "runtime."] },
        })),
        requests: requests.collect(),
        last: Vec::new(),
        log_columns,
    }
}

fn access_log(dice: &mut Dice, columns: &str) -> Value {
    let mut log = json!({ "name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "{{dir}}/access.log",
        "log_format": { "text_format_source": { "inline_string": format!("{columns}\n") } },
    } });
    // Without the number there are the questions that wait for the start, as many as it takes.
    let numbered = json!({ "header_filter": { "header": { "name": NUMBER, "present_match": true } } });
    let other = dice.of(json!([
        { "status_code_filter": { "comparison": { "op": "GE", "value": { "default_value": 400, "runtime_key": "log.from" } } } },
        { "not_health_check_filter": {} },
        { "duration_filter": { "comparison": { "op": "LE", "value": { "default_value": 60000, "runtime_key": "log.within" } } } },
        { "header_filter": { "header": { "name": ":path", "string_match": { "prefix": "/stats" } } } },
        { "response_flag_filter": {} },
    ]));
    log["filter"] = match dice.chance(40) {
        true => json!({ "and_filter": { "filters": [numbered, other] } }),
        false => numbered,
    };
    log
}

fn layers(dice: &mut Dice) -> Value {
    let mut layers = vec![
        json!({ "name": "fixed", "static_layer": { "log": { "from": dice.pick(&[200, 400, 405]) }, "text": "a b" } }),
    ];
    if dice.chance(80) {
        layers.push(json!({ "name": "admin", "admin_layer": {} }));
    }
    json!({ "layers": layers })
}

fn cluster(dice: &mut Dice) -> Value {
    let mut fields = serde_json::Map::new();
    let thresholds =
        json!([{ "max_connections": 5 }, { "priority": "HIGH", "max_requests": 7, "max_retries": 1 }]);
    dice.field(30, &mut fields, "circuit_breakers", json!([{ "thresholds": thresholds }]));
    dice.field(20, &mut fields, "alt_stat_name", json!(["other", "other.name"]));
    dice.field(20, &mut fields, "outlier_detection", json!([{}, { "consecutive_5xx": 3 }]));
    Value::Object(fields)
}

fn traffic(dice: &mut Dice) -> Value {
    let method = dice.pick(&["GET", "GET", "POST"]);
    let path = dice.pick(&["/", "/two/x", "/direct", "/two?a=b"]);
    json!({ "request": format!("{method} {path}") })
}

/// One question to the admin interface, of which some paths may be `restricted`.
fn question(dice: &mut Dice, restricted: bool) -> Value {
    match dice.below(12) {
        0..=3 => statistics(dice),
        4 => listing(dice),
        5 => dump(dice),
        6 if !restricted => runtime(dice),
        7 => changing_runtime(dice),
        8 => logging(dice),
        9 => odd(dice),
        _ => plain(dice),
    }
}

fn ask(dice: &mut Dice, usual: &str, path: &str, mut parameters: Vec<String>) -> Value {
    dice.shuffle(&mut parameters);
    if !parameters.is_empty() && dice.chance(10) {
        let again = dice.pick(&parameters);
        parameters.push(again);
    }
    let method = if dice.chance(12) { dice.pick(&["GET", "POST", "PUT", "DELETE"]) } else { usual };
    let query = parameters.join("&");
    let mark = if query.is_empty() && !dice.chance(5) { "" } else { "?" };
    json!({ "request": format!("{method} {path}{mark}{query}"), "to": "admin" })
}

/// A parameter in some of `percent` cases.
fn parameter(dice: &mut Dice, percent: usize, into: &mut Vec<String>, name: &str, values: &[&str]) {
    if dice.chance(percent) {
        let value = dice.pick(values);
        into.push(if value.is_empty() && dice.chance(50) {
            name.to_owned()
        } else {
            format!("{name}={value}")
        });
    }
}

fn statistics(dice: &mut Dice) -> Value {
    let path = dice.pick(&["/stats", "/stats", "/stats", "/stats/prometheus"]);
    let filter = if dice.chance(12) {
        dice.pick(&["(", "*a", "[a", "a{3,2}", "%5Cy", "a)", "(?P<n", "a|*"])
    } else {
        dice.pick(SETTLED)
    };
    // Everything but what is filtered would be shown.
    let mut parameters = vec![format!("filter={filter}")];
    parameter(dice, 30, &mut parameters, "usedonly", &["", "1", "false"]);
    let formats = &["json", "json", "prometheus", "text", "", "xml", "JSON"];
    parameter(dice, 50, &mut parameters, "format", formats);
    let kinds = &["Counters", "Gauges", "All", "TextReadouts", "Histograms", "", "counters"];
    parameter(dice, 30, &mut parameters, "type", kinds);
    let modes = &["cumulative", "disjoint", "detailed", "summary", "none", "", "prometheusnative", "nothing"];
    parameter(dice, 30, &mut parameters, "histogram_buckets", modes);
    parameter(dice, 10, &mut parameters, "text_readouts", &[""]);
    ask(dice, "GET", path, parameters)
}

fn listing(dice: &mut Dice) -> Value {
    let path = dice.pick(&["/certs", "/clusters"]);
    let mut parameters = Vec::new();
    parameter(dice, 50, &mut parameters, "format", &["json", "text", "", "xml"]);
    if path == "/clusters" {
        let filter = dice.pick(&["^nothing$", "(", "n{2,1}", "*"]);
        parameters.push(format!("filter={filter}"));
    }
    ask(dice, "GET", path, parameters)
}

fn dump(dice: &mut Dice) -> Value {
    let mut parameters = Vec::new();
    match dice.below(5) {
        0 => parameters.push(format!("name_regex={}", dice.pick(&["(", "*", "a{3,2}", "%5B"]))),
        1 => {
            parameters.push(format!("resource={}", dice.pick(&["nothing", "static_cluster", "configs"])));
        }
        2 => {
            parameters.push("resource=static_clusters".to_owned());
            let masks = &["cluster.name", "cluster.name,cluster.type", "cluster.metadata", "cluster.name,"];
            parameters.push(format!("mask={}", dice.pick(masks)));
            parameter(dice, 30, &mut parameters, "name_regex", &["one", "tw.", "e$", "o", "^$"]);
        }
        3 => {
            parameters.push("resource=static_listeners".to_owned());
            parameters.push(format!(
                "mask={}",
                dice.pick(&["listener.name", "listener.name,listener.metadata", "listener.metadata"])
            ));
        }
        _ => {
            parameters.push("resource=static_route_configs".to_owned());
            let masks = &["route_config.name", "route_config.virtual_hosts", "route_config.vhds"];
            parameters.push(format!("mask={}", dice.pick(masks)));
        }
    }
    parameter(dice, 10, &mut parameters, "include_eds", &[""]);
    ask(dice, "GET", "/config_dump", parameters)
}

fn runtime(dice: &mut Dice) -> Value {
    let target = dice.pick(&["/runtime", "/runtime?format=json"]);
    // In which order Envoy shows entries is a matter of hashes.
    json!({ "admin": format!("GET {target}"), "pick": ["/layers", "/entries"] })
}

fn changing_runtime(dice: &mut Dice) -> Value {
    let mut parameters = Vec::new();
    let values = &["1", "300", "", "true", "text", "a%20b", "a+b", "0.5", "-3"];
    for name in ["log.from", "log.to", "share", "a", ""] {
        parameter(dice, 25, &mut parameters, name, values);
    }
    let path = dice.pick(&["/runtime_modify", "/runtime_modify", "/runtime_modify", "//x/../runtime_modify"]);
    if dice.chance(30) {
        let form = parameters.join("&");
        let query = if dice.chance(20) { "?b=form" } else { "" };
        return json!({ "request": format!("POST {path}{query}"), "to": "admin", "form": form });
    }
    ask(dice, "POST", path, parameters)
}

fn logging(dice: &mut Dice) -> Value {
    let mut parameters = Vec::new();
    let levels = &["info", "critical", "off", "warning", "warn", "", "INFO", "trace:debug"];
    // Nothing is set to tell more than errors for long: both write what they have to say into their logs.
    parameter(dice, 40, &mut parameters, "level", levels);
    let paths = &[
        "http:info",
        "http:info,rbac:off",
        "http",
        ",",
        "http:loud,x:info",
        "x:info",
        "http:info,,",
        ":info",
        "http:",
    ];
    parameter(dice, 40, &mut parameters, "paths", paths);
    parameter(dice, 15, &mut parameters, "group", &["http:info", "", "x"]);
    parameter(dice, 25, &mut parameters, "router", levels);
    parameter(dice, 10, &mut parameters, "nobody", levels);
    ask(dice, "POST", "/logging", parameters)
}

fn plain(dice: &mut Dice) -> Value {
    let post = &[
        "/healthcheck/ok",
        "/reopen_logs",
        "/reset_counters",
        "/stats/recentlookups/enable",
        "/stats/recentlookups/disable",
        "/stats/recentlookups/clear",
        "/heapprofiler",
    ];
    let get = &["/ready", "/certs", "/hot_restart_version", "/contention", "/init_dump", "/listeners"];
    let mut parameters = Vec::new();
    match dice.below(10) {
        0..=3 => ask(dice, "GET", dice.clone().pick(get), parameters),
        4..=6 => ask(dice, "POST", dice.clone().pick(post), parameters),
        7 => {
            parameter(dice, 80, &mut parameters, "enable", &["y", "n", "", "x", "Y"]);
            parameter(dice, 15, &mut parameters, "more", &[""]);
            let path = dice.pick(&["/cpuprofiler", "/heapprofiler"]);
            ask(dice, "POST", path, parameters)
        }
        8 => {
            parameter(dice, 80, &mut parameters, "mask", &["listener", "", "cluster", "listener,x"]);
            ask(dice, "GET", "/init_dump", parameters)
        }
        _ => {
            let path = dice.pick(&["/nothing", "/stats/nothing", "/readyx", "/Ready", "/ready/", "/help/x"]);
            json!({ "admin": format!("GET {path}"), "lines": "^invalid path" })
        }
    }
}

/// Requests that are no plain question.
fn odd(dice: &mut Dice) -> Value {
    let target = dice.pick(&[
        "/ready",
        "//ready",
        "/x/../ready",
        "/%72eady",
        "/ready#x",
        "http://a/ready",
        "*",
        "/ready?%zz",
        "/./ready?a=b#c",
        "/ready?\\x",
    ]);
    let method = dice.pick(&["GET", "GET", "POST", "PUT", "OPTIONS", "BREW"]);
    let version = dice.pick(&["1.1", "1.1", "1.1", "1.0"]);
    let host = dice.pick(&[
        "host: a\r\n",
        "host: a\r\n",
        "host:\r\n",
        "",
        "host: a\r\nhost: b\r\n",
        "host: a b\r\n",
    ]);
    let more = dice.pick(&[
        "",
        "",
        "connection: close\r\n",
        "content-type: application/grpc\r\n",
        "x-forwarded-for: 1.2.3.4\r\n",
        "x-request-id: mine\r\nx-envoy-internal: true\r\n",
        "under_score: 1\r\n",
        "transfer-encoding: gzip\r\n",
    ]);
    json!({ "raw": format!("{method} {target} HTTP/{version}\r\n{host}{more}\r\n"), "to": "admin", "read": "then_glance" })
}
