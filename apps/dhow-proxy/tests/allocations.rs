//! Guards how often a request makes the proxy allocate: the figures below are what it took when they were written down. When
//! a change takes less, lower them; when one takes more, it needs a reason.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use dhow_testkit::allocations::{self, CountingAllocator};
use dhow_testkit::{HeldPort, TempDir, poll_until};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Allocations per request with the router alone.
const ROUTER_ALONE: f64 = 1.0;

/// Allocations per request through filters and with a JSON access log.
const FILTERS_AND_LOG: f64 = 1.0;

/// Requests before counting, so that pools and buffers have their size.
const WARM_UP: u64 = 200;

/// Requests that are counted.
const COUNTED: u64 = 1000;

/// What the process may allocate beside requests (timers of the main thread), per counted request.
const TOLERANCE: f64 = 0.25;

fn main() {
    allocations::ignore_this_thread();
    let dir = TempDir::new("allocations").unwrap();
    let [admin, plain, chain] = [(); 3].map(|()| HeldPort::new().unwrap());
    let upstream = serve_upstream();
    let config = bootstrap(admin.port(), plain.port(), chain.port(), upstream.port());
    let file = dir.write("bootstrap.json", config.to_string()).unwrap();
    let args = ["--concurrency", "1", "--disable-hot-restart", "-l", "error", "-c"];
    let mut args: Vec<std::ffi::OsString> = args.into_iter().map(Into::into).collect();
    args.push(file.into());
    let proxy = thread::spawn(move || dhow_proxy_server::main(args));
    let mut faults = Vec::new();
    for (what, address, limit) in [
        ("router alone", plain.address(), ROUTER_ALONE),
        ("filters and access log", chain.address(), FILTERS_AND_LOG),
    ] {
        let found = per_request(address);
        println!("{what}: {found:.2} allocations per request, at most {limit:.0}");
        if found > limit + TOLERANCE {
            faults.push(format!("{what}: {found:.2} allocations per request instead of {limit:.0}"));
        }
    }
    let quit = b"POST /quitquitquit HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(admin.address()).unwrap();
    stream.write_all(quit).unwrap();
    proxy.join().unwrap();
    assert!(faults.is_empty(), "{}", faults.join("; "));
}

fn per_request(address: SocketAddr) -> f64 {
    let connect = || TcpStream::connect(address).ok();
    let mut stream = poll_until(Duration::from_secs(20), connect).expect("the listener opens");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for _ in 0..WARM_UP {
        request(&mut stream);
    }
    let before = allocations::counted();
    for _ in 0..COUNTED {
        request(&mut stream);
    }
    (allocations::counted() - before) as f64 / COUNTED as f64
}

fn request(stream: &mut TcpStream) {
    stream
        .write_all(b"GET /items/1?x=y HTTP/1.1\r\nhost: a.test\r\nuser-agent: test\r\naccept: */*\r\n\r\n")
        .unwrap();
    let mut buffer = [0; 4096];
    let mut length = 0;
    while !buffer[..length].ends_with(b"\r\n\r\nhello") {
        let read = stream.read(&mut buffer[length..]).unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&buffer[..length]));
        length += read;
    }
    assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..length]));
}

fn serve_upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        allocations::ignore_this_thread();
        for stream in listener.incoming() {
            thread::spawn(move || {
                allocations::ignore_this_thread();
                // The proxy closes when it ends.
                let _ = answer(stream?);
                std::io::Result::Ok(())
            });
        }
    });
    address
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 4096];
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..])?;
        if read == 0 {
            return Ok(());
        }
        length += read;
        if buffer[..length].ends_with(b"\r\n\r\n") {
            length = 0;
            stream.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nhello",
            )?;
        }
    }
}

fn bootstrap(admin: u16, plain: u16, chain: u16, upstream: u16) -> Value {
    let address = |port: u16| json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    let types = "type.googleapis.com/envoy.extensions";
    let filter = |name: &str, message: &str, mut fields: Value| {
        fields["@type"] = format!("{types}.filters.http.{message}").into();
        json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": fields })
    };
    let listener = |port: u16, filters: Vec<Value>, access_log: Value| {
        json!({ "address": address(port), "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": {
            "@type": format!("{types}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "test",
            "access_log": access_log,
            "route_config": { "virtual_hosts": [{
                "name": "all", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "upstream" } }],
            }] },
            "http_filters": filters,
        } }] }] })
    };
    let router = || filter("router", "router.v3.Router", json!({}));
    let bucket = json!({ "max_tokens": 100_000_000, "tokens_per_fill": 100_000_000, "fill_interval": "1s" });
    let percent = json!({ "default_value": { "numerator": 100 } });
    let limit = json!({
        "stat_prefix": "test", "token_bucket": bucket, "filter_enabled": percent, "filter_enforced": percent,
    });
    let everyone = json!({ "all": { "permissions": [{ "any": true }], "principals": [{ "any": true }] } });
    let filters = vec![
        filter("rbac", "rbac.v3.RBAC", json!({ "rules": { "action": "ALLOW", "policies": everyone } })),
        filter("fault", "fault.v3.HTTPFault", json!({})),
        filter("cors", "cors.v3.Cors", json!({})),
        filter("grpc_stats", "grpc_stats.v3.FilterConfig", json!({})),
        filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", limit),
        router(),
    ];
    let log = json!([{ "name": "envoy.access_loggers.file", "typed_config": {
        "@type": format!("{types}.access_loggers.file.v3.FileAccessLog"),
        "path": "/dev/null",
        "log_format": { "json_format": {
            "start_time": "%START_TIME%", "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%",
            "response_code": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "details": "%RESPONSE_CODE_DETAILS%",
            "duration": "%DURATION%", "upstream_host": "%UPSTREAM_HOST%", "request_id": "%REQ(X-REQUEST-ID)%",
            "downstream": "%DOWNSTREAM_REMOTE_ADDRESS%", "authority": "%REQ(:AUTHORITY)%",
        } },
    } }]);
    json!({
        "admin": { "address": address(admin) },
        "static_resources": {
            "listeners": [listener(plain, vec![router()], json!([])), listener(chain, filters, log)],
            "clusters": [{
                "name": "upstream", "type": "STATIC", "connect_timeout": "5s",
                "load_assignment": { "cluster_name": "upstream", "endpoints": [{ "lb_endpoints": [
                    { "endpoint": { "address": address(upstream) } },
                ] }] },
            }],
        },
    })
}
