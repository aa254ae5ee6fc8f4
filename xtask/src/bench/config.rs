//! The same job in the language of each peer.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::chain;
use super::job::{Http, Job};
use super::peer::Peer;

/// What a configuration is made of besides the job.
pub struct Setting<'a> {
    /// Port of 127.0.0.1 to serve on.
    pub port: u16,
    /// Port of the upstream.
    pub upstream: u16,
    /// Certificate and key of the server, as files; the third is both in one file.
    pub tls: Option<&'a TlsFiles>,
    /// Filters of a chain that every measured proxy knows.
    pub filters: &'a [&'static str],
    /// Folder for files of the peer.
    pub dir: &'a Path,
}

/// The server's certificate as files.
pub struct TlsFiles {
    /// Certificate, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Both, one after the other.
    pub both: PathBuf,
    /// The authority that the clients trust, PEM.
    pub ca: PathBuf,
}

/// The configuration of `peer` for `job`.
pub fn text(peer: Peer, job: &Job, setting: &Setting<'_>) -> String {
    match peer {
        Peer::Ours | Peer::Envoy => bootstrap(job, setting).to_string(),
        Peer::Haproxy => haproxy(job, setting),
        Peer::Nginx => {
            let Setting { port, upstream, .. } = *setting;
            let protocol = if job.downstream == Http::Two { " http2" } else { "" };
            let secure = if setting.tls.is_some() { " ssl" } else { "" };
            let tls = setting.tls.map_or_else(String::new, |tls| {
                format!(
                    "ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3; ssl_session_cache off; \
                     ssl_session_tickets off; ",
                    tls.cert.display(),
                    tls.key.display()
                )
            });
            let proxy = format!(
                "upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}\n\
                 server {{ listen 127.0.0.1:{port}{secure}{protocol}; {tls}location / {{ proxy_pass http://u; \
                 proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}\n"
            );
            nginx(setting.dir, "proxy", &proxy)
        }
    }
}

fn haproxy(job: &Job, setting: &Setting<'_>) -> String {
    let Setting { port, upstream, .. } = *setting;
    let tls = setting.tls.map_or_else(String::new, |tls| {
        format!(" ssl crt {} ssl-min-ver TLSv1.3 no-tls-tickets", tls.both.display())
    });
    let client = if job.downstream == Http::Two { " proto h2" } else { "" };
    let server = if job.server.speaks() == Http::Two { " proto h2" } else { "" };
    format!(
        "global\n  nbthread 1\n  maxconn 9700\n  no strict-limits\n  tune.ssl.cachesize 0\ndefaults\n  mode http\n  timeout connect 5s\n  \
         timeout client 60s\n  timeout server 60s\n  option http-keep-alive\n  http-reuse always\nfrontend f\n  \
         bind 127.0.0.1:{port}{client}{tls}\n  default_backend b\nbackend b\n  server s 127.0.0.1:{upstream}{server}\n"
    )
}

/// An address of Envoy's configuration.
pub fn address(port: u16) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } })
}

/// A cluster with one host.
pub fn cluster(name: &str, port: u16) -> Value {
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": address(port) } },
        ] }] },
    })
}

/// A connection manager with these virtual hosts; `filters` come before the router.
pub fn connection_manager(virtual_hosts: Value, filters: Vec<Value>) -> Value {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let mut filters = filters;
    filters.push(json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": format!("{types}.http.router.v3.Router") },
    }));
    json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "route_config": { "virtual_hosts": virtual_hosts },
        "http_filters": filters,
    })
}

/// A virtual host for every name, to the cluster `upstream`.
pub fn everything() -> Value {
    json!({
        "name": "all", "domains": ["*"],
        "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
    })
}

/// A bootstrap of one listener and these clusters.
pub fn static_resources(filter_chain: Value, port: u16, clusters: Value) -> Value {
    json!({ "static_resources": {
        "listeners": [{ "name": "bench", "address": address(port), "filter_chains": [filter_chain] }],
        "clusters": clusters,
    } })
}

fn bootstrap(job: &Job, setting: &Setting<'_>) -> Value {
    let mut manager = connection_manager(json!([everything()]), chain::filters(setting.filters));
    if job.chain {
        manager["access_log"] = chain::access_log();
    }
    let mut filter_chain = json!({ "filters": [{ "name": "hcm", "typed_config": manager }] });
    if let Some(tls) = setting.tls {
        filter_chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": { "tls_certificates": [{
                    "certificate_chain": { "filename": tls.cert.display().to_string() },
                    "private_key": { "filename": tls.key.display().to_string() },
                }] },
            },
        });
    }
    let mut upstream = cluster("upstream", setting.upstream);
    if job.server.speaks() == Http::Two {
        upstream["typed_extension_protocol_options"] = json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        });
    }
    static_resources(filter_chain, setting.port, json!([upstream]))
}

/// A configuration of nginx around these blocks of its `http` section; `name` keeps the files of several apart.
pub fn nginx(dir: &Path, name: &str, http: &str) -> String {
    let dir = dir.display();
    let folders: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {dir}/{name}-{kind};\n"))
        .collect();
    format!(
        "daemon off;\nmaster_process off;\nworker_processes 1;\npid {dir}/{name}.pid;\nerror_log {dir}/{name}.log crit;\n\
         events {{ worker_connections 8192; }}\nhttp {{\n  access_log off;\n  keepalive_requests 100000000;\n{folders}\
         {http}}}\n"
    )
}
