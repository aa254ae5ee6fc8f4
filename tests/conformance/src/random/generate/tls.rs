//! The area `tls`: random TLS contexts on both sides, filter chains chosen by what clients say, and clients of all kinds.

use serde_json::{Map, Value, json};

use super::super::case::{Case, NUMBER};
use super::super::dice::{Dice, fields};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const INSPECTOR: &str = "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector";
const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const FILE_LOG: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

/// What is logged of requests.
const LOG_COLUMNS: &[&str] = &[
    "%REQ(X-N)%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%RESPONSE_FLAGS%",
    "%PROTOCOL%",
    "%FILTER_CHAIN_NAME%",
    "%REQUESTED_SERVER_NAME%",
    "%DOWNSTREAM_TLS_VERSION%",
    "%DOWNSTREAM_TLS_CIPHER%",
    "%DOWNSTREAM_PEER_SUBJECT%",
    "%DOWNSTREAM_PEER_ISSUER%",
    "%DOWNSTREAM_PEER_URI_SAN%",
    "%DOWNSTREAM_PEER_DNS_SAN%",
    "%DOWNSTREAM_PEER_IP_SAN%",
    "%DOWNSTREAM_PEER_EMAIL_SAN%",
    "%DOWNSTREAM_PEER_SERIAL%",
    "%DOWNSTREAM_PEER_FINGERPRINT_1%",
    "%DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256%",
    "%DOWNSTREAM_PEER_CHAIN_SERIALS%",
    "%DOWNSTREAM_PEER_CERT_V_START%",
    "%DOWNSTREAM_PEER_CERT_V_END(%s)%",
    "%DOWNSTREAM_LOCAL_SUBJECT%",
    "%DOWNSTREAM_LOCAL_DNS_SAN%",
    "%DOWNSTREAM_LOCAL_IP_SAN%",
    "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "%UPSTREAM_PROTOCOL%",
    "%UPSTREAM_TLS_VERSION%",
    "%UPSTREAM_TLS_CIPHER%",
    "%UPSTREAM_PEER_SUBJECT%",
    "%UPSTREAM_PEER_ISSUER%",
    "%UPSTREAM_PEER_DNS_SAN%",
    "%UPSTREAM_LOCAL_URI_SAN%",
    "%UPSTREAM_SERVER_NAME%",
    "%CEL(connection.mtls)%",
    "%CEL(connection.uri_san_peer_certificate)%",
    "%CEL(connection.dns_san_peer_certificate)%",
    "%CEL(connection.subject_peer_certificate)%",
];

/// What is logged of connections.
const CONNECTION_COLUMNS: &str = "-\t%FILTER_CHAIN_NAME%\t%REQUESTED_SERVER_NAME%\t%RESPONSE_FLAGS%\n";

const LISTENERS: usize = 3;
const CLUSTERS: usize = 4;

/// Servers behind the proxy: their names.
const SERVERS: [&str; 4] = ["any", "old", "new", "mutual"];

/// Those that have certificates of the authority which contexts trust, and others.
const CLIENTS: [&str; 9] =
    ["client", "client", "named", "nameless", "foreign", "expired", "revoked", "deep", "deepest"];

const SPIFFE: &str = "spiffe://cluster.local/ns/default/sa/client";

/// The case of `seed` with this many requests.
pub fn tls(seed: u64, count: usize) -> Case {
    let mut dice = Dice::new(seed, "tls configuration");
    let listeners: Vec<Value> = (0..LISTENERS).map(|number| listener(&mut dice, number)).collect();
    let mut clusters = Map::new();
    for number in 0..CLUSTERS {
        clusters.insert(format!("c{number}"), cluster(&mut dice, number));
    }
    for name in SERVERS {
        clusters.insert(name.to_owned(), Value::Null);
    }
    let requests = (0..count)
        .map(|number| vec![request(&mut Dice::new(seed, &format!("tls request {number}")), number)])
        .collect();
    let mut of: Vec<String> = (0..LISTENERS).map(|number| format!("listener.l{number}.")).collect();
    of.extend(["cluster.".to_owned(), "http.ingress.".to_owned()]);
    let pieces = "depends on the pieces in which bytes arrive";
    let untold = "the TLS library does not tell it";
    Case {
        fields: fields(json!({
            "about": format!("Random contexts and clients (area tls, seed {seed})."),
            "upstreams": {
                "any": { "protocol": "any_tls" },
                "old": { "protocol": "h1_tls", "tls_version": "1.2", "certificate": "wild" },
                "new": { "protocol": "any_tls", "tls_version": "1.3", "certificate": "second" },
                "mutual": { "protocol": "any_tls", "client_cert": true },
            },
            "clusters": clusters,
            "listeners": listeners,
            "all_stats": {
                "of": of,
                "except": {
                    "reading_total": pieces,
                    "flow_control_backed_up_total": pieces,
                    "flow_control_drained_total": pieces,
                    "ssl.curves.X25519": "the TLS library tells no group of resumed sessions of TLS 1.2",
                    "ssl.curves.P-256": "the TLS library tells no group of resumed sessions of TLS 1.2",
                    "ssl.ocsp_staple_requests": untold,
                    "ssl.ocsp_staple_omitted": untold,
                    "ssl.sigalgs.ecdsa_secp256r1_sha256": untold,
                },
            },
        })),
        requests,
        last: Vec::new(),
        log_columns: LOG_COLUMNS.join("\t"),
    }
}

fn log(line: &str) -> Value {
    json!([{ "name": "file", "typed_config": {
        "@type": FILE_LOG,
        "path": "{{dir}}/access.log",
        "log_format": { "text_format_source": { "inline_string": line } },
    } }])
}

fn listener(dice: &mut Dice, number: usize) -> Value {
    let wanted = [
        json!({ "server_names": ["localhost", "a.example.test"] }),
        json!({ "server_names": ["*.example.test"] }),
        json!({ "server_names": ["second.test", "*.wild.test"], "transport_protocol": "tls" }),
        json!({ "application_protocols": ["h2"] }),
        json!({ "application_protocols": ["http/1.1", "foo"], "server_names": ["a.example.test"] }),
        json!({ "transport_protocol": "raw_buffer" }),
    ];
    let count = dice.pick(&[0, 1, 2, 3]);
    let mut wanted = dice.sample(&wanted, count);
    if count == 0 || dice.chance(70) {
        wanted.push(json!({}));
    }
    let chains: Vec<Value> =
        wanted.into_iter().enumerate().map(|(at, wanted)| filter_chain(dice, at, wanted)).collect();
    let port = format!("{{{{port.l{number}}}}}");
    json!({
        "name": format!("l{number}"),
        "stat_prefix": format!("l{number}"),
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        "listener_filters": [{ "name": "inspect", "typed_config": { "@type": INSPECTOR } }],
        "access_log": log(CONNECTION_COLUMNS),
        "filter_chains": chains,
    })
}

fn filter_chain(dice: &mut Dice, number: usize, wanted: Value) -> Value {
    let is_plain = wanted["transport_protocol"] == "raw_buffer";
    let routes: Vec<Value> = (0..CLUSTERS)
        .map(|cluster| {
            json!({ "match": { "prefix": format!("/c{cluster}") }, "route": { "cluster": format!("c{cluster}") } })
        })
        .collect();
    let mut hcm = fields(json!({
        "@type": HCM,
        "stat_prefix": "ingress",
        "route_config": { "name": "routes", "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "http_filters": [{ "name": "router", "typed_config": { "@type": ROUTER } }],
        "access_log": log(&format!("{}\n", LOG_COLUMNS.join("\t"))),
    }));
    let modes = ["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY"];
    dice.field(70, &mut hcm, "forward_client_cert_details", json!(modes));
    dice.made(70, &mut hcm, "set_current_client_cert_details", |dice| {
        let mut details = Map::new();
        for name in ["subject", "cert", "chain", "dns", "uri"] {
            dice.field(50, &mut details, name, json!([true]));
        }
        Value::Object(details)
    });
    let mut chain = fields(json!({
        "name": format!("chain{number}"),
        "filter_chain_match": wanted,
        "filters": [{ "name": "hcm", "typed_config": hcm }],
    }));
    if !is_plain && dice.chance(92) {
        let socket = json!({ "name": "tls", "typed_config": downstream(dice) });
        chain.insert("transport_socket".to_owned(), socket);
    }
    Value::Object(chain)
}

fn downstream(dice: &mut Dice) -> Value {
    let mut context = fields(json!({ "@type": DOWNSTREAM }));
    let mut common = common(dice);
    let count = dice.pick(&[1, 1, 2, 3]);
    let shown: Vec<Value> =
        dice.sample(&["server", "second", "wild"], count).into_iter().map(certificate).collect();
    common.insert("tls_certificates".to_owned(), json!(shown));
    let verifies = dice.chance(65);
    if verifies {
        common.insert("validation_context".to_owned(), validation(dice, CLIENTS.as_slice(), SPIFFE));
    }
    context.insert("common_tls_context".to_owned(), Value::Object(common));
    if verifies {
        dice.field(50, &mut context, "require_client_certificate", json!([true]));
    }
    dice.field(20, &mut context, "disable_stateless_session_resumption", json!([true]));
    dice.field(20, &mut context, "disable_stateful_session_resumption", json!([true]));
    dice.field(10, &mut context, "session_timeout", json!(["100s"]));
    dice.field(20, &mut context, "full_scan_certs_on_sni_mismatch", json!([true]));
    dice.field(20, &mut context, "prefer_client_ciphers", json!([true]));
    Value::Object(context)
}

fn certificate(name: &str) -> Value {
    json!({
        "certificate_chain": { "filename": format!("{{{{cert.{name}}}}}") },
        "private_key": { "filename": format!("{{{{key.{name}}}}}") },
    })
}

/// What contexts of both sides have.
fn common(dice: &mut Dice) -> Map<String, Value> {
    let mut common = Map::new();
    dice.made(55, &mut common, "tls_params", |dice| {
        let mut params = Map::new();
        let versions = [
            (None, None),
            (Some("TLSv1_2"), Some("TLSv1_3")),
            (None, Some("TLSv1_3")),
            (Some("TLSv1_2"), Some("TLSv1_2")),
            (Some("TLSv1_3"), Some("TLSv1_3")),
            (None, Some("TLSv1_2")),
        ];
        let (minimum, maximum) = dice.pick(&versions);
        if let Some(minimum) = minimum {
            params.insert("tls_minimum_protocol_version".to_owned(), json!(minimum));
        }
        if let Some(maximum) = maximum {
            params.insert("tls_maximum_protocol_version".to_owned(), json!(maximum));
        }
        let suites = json!([
            ["ECDHE-ECDSA-AES256-GCM-SHA384"],
            ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"],
            [
                "[ECDHE-ECDSA-AES256-GCM-SHA384|ECDHE-ECDSA-CHACHA20-POLY1305]",
                "ECDHE-ECDSA-AES128-GCM-SHA256"
            ],
            ["ECDHE-RSA-AES128-GCM-SHA256"],
        ]);
        dice.field(30, &mut params, "cipher_suites", suites);
        dice.field(30, &mut params, "ecdh_curves", json!([["X25519", "P-256"], ["P-256", "X25519"]]));
        Value::Object(params)
    });
    let protocols =
        json!([["h2", "http/1.1"], ["h2", "http/1.1"], ["http/1.1"], ["h2"], ["http/1.1", "h2"], ["foo"]]);
    dice.field(70, &mut common, "alpn_protocols", protocols);
    common
}

/// What is demanded of peers, of whom `peers` are known and one has `name`.
fn validation(dice: &mut Dice, peers: &[&str], name: &str) -> Value {
    let mut context = Map::new();
    let trusts = dice.chance(88);
    if trusts {
        let authority = dice.pick(&["ca", "ca", "ca", "ca", "stranger"]);
        context.insert("trusted_ca".to_owned(), json!({ "filename": format!("{{{{cert.{authority}}}}}") }));
        dice.made(35, &mut context, "match_typed_subject_alt_names", |dice| {
            dice.several(&[1, 2], |dice| subject_alt_name(dice, name))
        });
        dice.field(20, &mut context, "max_verify_depth", json!([0, 1, 2, 3]));
        if dice.chance(25) {
            context.insert("crl".to_owned(), json!({ "filename": "{{crl}}" }));
            dice.field(60, &mut context, "only_verify_leaf_cert_crl", json!([true]));
        }
        dice.field(20, &mut context, "allow_expired_certificate", json!([true]));
        dice.field(
            20,
            &mut context,
            "trust_chain_verification",
            json!(["ACCEPT_UNTRUSTED", "VERIFY_TRUST_CHAIN"]),
        );
    }
    let mut pins = |field: &str, kind: &str, percent: usize| {
        dice.made(percent, &mut context, field, |dice| {
            dice.several(&[1, 2], |dice| json!(format!("{{{{{kind}.{}}}}}", dice.pick(peers))))
        });
    };
    pins("verify_certificate_hash", "hash", if trusts { 15 } else { 60 });
    pins("verify_certificate_spki", "spki", if trusts { 15 } else { 60 });
    dice.field(15, &mut context, "suppress_client_ca_list", json!([true]));
    Value::Object(context)
}

fn subject_alt_name(dice: &mut Dice, name: &str) -> Value {
    let (kind, matcher) = match dice.below(10) {
        0 => ("URI", json!({ "prefix": "spiffe://cluster.local/" })),
        1 => ("URI", json!({ "exact": name })),
        2 => ("DNS", json!({ "exact": "x.wild.test" })),
        3 => ("DNS", json!({ "suffix": ".client.test" })),
        4 => ("IP_ADDRESS", json!({ "exact": "10.1.2.3" })),
        5 => ("IP_ADDRESS", json!({ "exact": "::1" })),
        6 => ("URI", json!({ "safe_regex": { "regex": ".*/sa/.*" } })),
        7 => ("DNS", json!({ "exact": "A.Client.Test", "ignore_case": true })),
        8 => ("DNS", json!({ "exact": "localhost" })),
        _ => ("EMAIL", json!({ "contains": "@" })),
    };
    json!({ "san_type": kind, "matcher": matcher })
}

fn cluster(dice: &mut Dice, number: usize) -> Value {
    let server = dice.pick(&SERVERS);
    let port = format!("{{{{upstream.{server}}}}}");
    let mut context = fields(json!({ "@type": UPSTREAM }));
    let mut common = common(dice);
    let automatic = dice.chance(50);
    if !automatic {
        // A host that is ready for HTTP/2 says so before it has read a request of HTTP/1: who sees what first is chance.
        common.insert(
            "alpn_protocols".to_owned(),
            dice.of(json!([["http/1.1"], ["foo", "http/1.1"], ["http/1.1", "foo"]])),
        );
    }
    dice.made(if server == "mutual" { 85 } else { 30 }, &mut common, "tls_certificates", |dice| {
        json!([certificate(dice.pick(&CLIENTS))])
    });
    dice.made(65, &mut common, "validation_context", |dice| {
        validation(dice, &["server", "second", "wild"], "localhost")
    });
    let trusts = common.get("validation_context").is_some_and(|context| !context["trusted_ca"].is_null());
    context.insert("common_tls_context".to_owned(), Value::Object(common));
    dice.field(75, &mut context, "sni", json!(["localhost", "a.example.test", "second.test", "x.wild.test"]));
    if trusts {
        dice.field(15, &mut context, "auto_sni_san_validation", json!([true]));
    }
    dice.field(20, &mut context, "max_session_keys", json!([0, 3]));
    let mut cluster = fields(json!({
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": { "cluster_name": format!("c{number}"), "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
        } }] }] },
        "transport_socket": { "name": "tls", "typed_config": context },
    }));
    dice.made(if automatic { 100 } else { 50 }, &mut cluster, "typed_extension_protocol_options", |dice| {
        let mut options = fields(json!({ "@type": format!("type.googleapis.com/{HTTP_OPTIONS}") }));
        let kind = match automatic {
            true => json!({ "auto_config": {} }),
            false => json!({ "explicit_http_config": { "http_protocol_options": {} } }),
        };
        options.extend(fields(kind));
        let mut names = Map::new();
        dice.field(50, &mut names, "auto_sni", json!([true]));
        if trusts {
            dice.field(40, &mut names, "auto_san_validation", json!([true]));
        }
        options.insert("upstream_http_protocol_options".to_owned(), Value::Object(names));
        json!({ HTTP_OPTIONS: options })
    });
    Value::Object(cluster)
}

fn request(dice: &mut Dice, number: usize) -> Value {
    let mut step = fields(json!({
        "request": format!("{} /c{}", dice.pick(&["GET", "GET", "POST"]), dice.below(CLUSTERS)),
        "to": format!("l{}", dice.below(LISTENERS)),
        "host": dice.pick(&["localhost", "a.example.test", "second.test:443", "127.0.0.1"]),
    }));
    let mut headers = vec![format!("{NUMBER}: {number}")];
    if dice.chance(30) {
        headers.push("x-forwarded-client-cert: By=spiffe://x;Hash=00;URI=spiffe://y".to_owned());
    }
    step.insert("headers".to_owned(), json!(headers));
    if dice.chance(6) {
        // In clear text, where it may not be welcome.
        return Value::Object(step);
    }
    let mut client = fields(json!({ "trusting": true }));
    let names = json!([
        "localhost",
        "a.example.test",
        "b.example.test",
        "second.test",
        "x.wild.test",
        "y.x.wild.test",
        "wild.test",
        "nobody.test",
        "127.0.0.1"
    ]);
    dice.field(85, &mut client, "sni", names);
    let http2 = dice.chance(30);
    let protocols = match http2 {
        true => json!([["h2"], ["h2", "http/1.1"]]),
        false => json!([["http/1.1"], [], [], ["foo"], ["bar", "http/1.1"]]),
    };
    dice.field(100, &mut client, "alpn", protocols);
    dice.field(60, &mut client, "certificate", json!(CLIENTS));
    dice.field(40, &mut client, "version", json!(["1.2", "1.3"]));
    if http2 {
        step.insert("http2".to_owned(), json!(true));
    }
    if dice.chance(40) {
        // Sessions are kept by everything that a client is made of.
        let name = format!(
            "{}{}{}{}",
            client["alpn"],
            step["to"],
            json!(client.get("certificate")),
            json!(client.get("version"))
        );
        client.insert("sessions".to_owned(), json!(name));
    }
    step.insert("tls".to_owned(), Value::Object(client));
    Value::Object(step)
}
