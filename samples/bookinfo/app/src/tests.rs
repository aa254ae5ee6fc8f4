//! The four services talking to each other over loopback, within one thread.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::args::{Args, Role, Version};
use crate::client::{Client, Reply};
use crate::server::{Service, serve};
use crate::settings::Settings;

fn settings(version: Version) -> Settings {
    let variable = |name: &str| (name == "HOSTNAME").then(|| format!("pod-{version:?}"));
    Settings::read(version, variable).unwrap()
}

async fn start(role: Role, settings: Settings) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Arc::new(Service::new(role, settings))));
    address
}

/// All four services, reviews in `version`; the address of the product page.
async fn bookinfo(version: Version) -> String {
    let base = |address: SocketAddr| format!("http://{address}");
    let details = base(start(Role::Details, settings(Version::V1)).await);
    let ratings = base(start(Role::Ratings, settings(Version::V1)).await);
    let reviews =
        base(start(Role::Reviews, Settings { ratings: ratings.clone(), ..settings(version) }).await);
    base(start(Role::Productpage, Settings { details, reviews, ratings, ..settings(Version::V1) }).await)
}

async fn get(url: String, headers: HeaderMap) -> Reply {
    Client::default().get(&url, headers, Duration::from_secs(10)).await.unwrap()
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn the_page_shows_the_stars_of_each_version() {
    run(async {
        for (version, color) in
            [(Version::V1, None), (Version::V2, Some("black")), (Version::V3, Some("red"))]
        {
            let page = bookinfo(version).await;
            let reply = get(format!("{page}/productpage"), HeaderMap::new()).await;
            let html = String::from_utf8(reply.body.to_vec()).unwrap();
            assert_eq!(reply.status, StatusCode::OK);
            assert!(html.contains("<title>Simple Bookstore App</title>"));
            assert!(html.contains("123-1234567890"), "details are missing: {html}");
            assert!(html.contains(&format!("pod-{version:?}")), "{html}");
            for candidate in ["black", "red"] {
                let shown = html.contains(&format!("color=\"{candidate}\""));
                assert_eq!(shown, color == Some(candidate), "{version:?} {html}");
            }
        }
    });
}

#[test]
fn the_api_has_the_shapes_of_the_sample() {
    run(async {
        let page = bookinfo(Version::V2).await;
        let json = async |path: &str| -> Value {
            let reply = get(format!("{page}{path}"), HeaderMap::new()).await;
            assert_eq!(reply.status, StatusCode::OK, "{path}");
            serde_json::from_slice(&reply.body).unwrap()
        };
        assert_eq!(json("/api/v1/products").await[0]["title"], "The Comedy of Errors");
        let details = json("/api/v1/products/7").await;
        assert_eq!(
            (&details["id"], &details["author"]),
            (&Value::from(7), &Value::from("William Shakespeare"))
        );
        let reviews = json("/api/v1/products/7/reviews").await;
        assert_eq!(reviews["id"], "7");
        assert_eq!(reviews["clustername"], "null");
        assert_eq!(reviews["reviews"][1]["reviewer"], "Reviewer2");
        assert_eq!(reviews["reviews"][1]["rating"], serde_json::json!({"stars": 4, "color": "black"}));
        assert_eq!(json("/api/v1/products/7/ratings").await["ratings"]["Reviewer1"], 5);
        let wrong = get(format!("{page}/api/v1/products/seven"), HeaderMap::new()).await;
        assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    });
}

#[test]
fn absent_services_are_named_on_the_page() {
    run(async {
        // A port that was free a moment ago refuses connections.
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let dead = format!("http://{closed}");
        let reviews = Settings { ratings: dead.clone(), ..settings(Version::V3) };
        let reviews = format!("http://{}", start(Role::Reviews, reviews).await);
        let alone = Settings { details: dead.clone(), reviews: dead.clone(), ..settings(Version::V1) };
        let page = start(Role::Productpage, alone).await;
        let html = get(format!("http://{page}/productpage"), HeaderMap::new()).await;
        let html = String::from_utf8(html.body.to_vec()).unwrap();
        assert!(html.contains("Sorry, product reviews are currently unavailable for this book."), "{html}");
        assert!(html.contains("Sorry, product details are currently unavailable for this book."), "{html}");
        let api = get(format!("http://{page}/api/v1/products/0"), HeaderMap::new()).await;
        assert_eq!(api.status, StatusCode::INTERNAL_SERVER_ERROR);

        let page = start(Role::Productpage, Settings { reviews, ..settings(Version::V1) }).await;
        let html = get(format!("http://{page}/productpage"), HeaderMap::new()).await;
        let html = String::from_utf8(html.body.to_vec()).unwrap();
        assert!(html.contains("Ratings service is currently unavailable"), "{html}");
    });
}

/// One request on a connection of its own; the head of the answer.
async fn head(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).await.unwrap() > 2 {}
    head
}

#[test]
fn signing_in_sets_the_session_and_returns_to_where_it_came_from() {
    run(async {
        let page = bookinfo(Version::V1).await;
        let body = "username=jason&passwd=";
        let login = format!(
            "POST /login HTTP/1.1\r\nhost: a\r\nreferer: http://a/productpage?u=1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = head(&page, &login).await;
        assert!(answer.starts_with("HTTP/1.1 302"), "{answer}");
        assert!(answer.contains("location: http://a/productpage?u=1\r\n"), "{answer}");
        assert!(answer.contains("set-cookie: session=jason;"), "{answer}");

        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("session=jason"));
        let reply = get(format!("{page}/productpage"), headers).await;
        assert!(String::from_utf8_lossy(&reply.body).contains("jason"));

        let answer = head(&page, "GET /logout HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.contains("location: /productpage\r\n") && answer.contains("Max-Age=0"), "{answer}");
    });
}

#[test]
fn calls_go_to_the_proxy_in_absolute_form_with_user_and_trace_and_reuse_the_connection() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let seen = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut reader = BufReader::new(stream);
            let mut requests = Vec::new();
            for _ in 0..2 {
                let mut request = String::new();
                while reader.read_line(&mut request).await.unwrap() > 2 {}
                requests.push(request);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
                reader.get_mut().write_all(answer).await.unwrap();
            }
            requests
        });
        let through = Settings { proxy: Some(proxy.to_string()), ..settings(Version::V1) };
        let page = start(Role::Productpage, through).await;
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_static("session=jason"));
        headers.insert("x-request-id", HeaderValue::from_static("42"));
        assert_eq!(get(format!("http://{page}/productpage"), headers).await.status, StatusCode::OK);
        let requests = seen.await.unwrap();
        assert!(requests[0].starts_with("GET http://details:9080/details/0 HTTP/1.1\r\n"), "{requests:?}");
        assert!(requests[1].starts_with("GET http://reviews:9080/reviews/0 HTTP/1.1\r\n"), "{requests:?}");
        for line in ["host: reviews:9080\r\n", "end-user: jason\r\n", "x-request-id: 42\r\n"] {
            assert!(requests[1].contains(line), "{line} {requests:?}");
        }
    });
}

#[test]
fn a_connection_closed_by_the_peer_is_replaced_unnoticed() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 1024];
                assert!(stream.read(&mut buffer).await.unwrap() > 0);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
            }
        });
        let client = Client::default();
        for _ in 0..3 {
            let reply =
                client.get(&format!("http://{address}/"), HeaderMap::new(), Duration::from_secs(5)).await;
            assert_eq!(reply.unwrap().status, StatusCode::OK);
        }
    });
}

#[test]
fn arguments_are_checked() {
    let parse = |line: &str| Args::parse_after_name(line.split(' ').map(Into::into).collect());
    assert_eq!(parse("reviews --version v3").unwrap().version, Version::V3);
    assert!(parse("ratings --version v2").is_err());
    assert!(parse("movies").is_err());
    let bound = parse("details --bind 127.0.0.5:8080").unwrap();
    assert_eq!(bound.listen_on(Some("127.0.0.9")).unwrap().to_string(), "127.0.0.5:8080");
    let unbound = parse("details").unwrap();
    assert_eq!(unbound.listen_on(Some("127.0.0.9")).unwrap().to_string(), "127.0.0.9:9080");
    assert_eq!(unbound.listen_on(None).unwrap().to_string(), "0.0.0.0:9080");
    assert!(unbound.listen_on(Some("here")).is_err());
}
