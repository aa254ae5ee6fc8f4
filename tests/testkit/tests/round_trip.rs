//! The kit's clients against the kit's upstreams, over real loopback sockets: what is scripted is what is seen, on both sides.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use dhow_testkit::HeldPort;
use dhow_testkit::certs::{TestCa, TlsVersions, client_config};
use dhow_testkit::client::{
    BodyEnd, Http1Client, Http1Response, Http2Client, Http2Error, Http2Request, ReadError, TlsOptions,
};
use dhow_testkit::stream::End;
use dhow_testkit::upstream::{Body, Fault, Framing, Reply, Rule, Script, Speaks, TcpScript, Upstream};

const LIMIT: Duration = Duration::from_secs(5);

async fn ask(address: SocketAddr, bytes: &str) -> Result<Http1Response, ReadError> {
    let mut client = Http1Client::connect(address, None).await.unwrap();
    client.send(bytes).await.unwrap();
    client.response(bytes.split(' ').next().unwrap(), LIMIT).await
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[tokio::test]
async fn requests_are_recorded_byte_for_byte_and_replies_come_in_turn() {
    let upstream =
        Upstream::http(Script::sequence(vec![Reply::status(503), Reply::ok("hello").header("X-A", "1")]))
            .unwrap();
    let mut client = Http1Client::connect(upstream.address(), None).await.unwrap();
    client
        .send("POST /p?q HTTP/1.1\r\nHost: a\r\nX-Mixed: 1\r\nx-mixed: 2\r\ncontent-length: 3\r\n\r\nabc")
        .await
        .unwrap();
    assert_eq!(client.response("POST", LIMIT).await.unwrap().status, 503);
    let second = client.get("b", "/next", LIMIT).await.unwrap();
    assert_eq!((second.status, second.body.as_slice()), (200, b"hello".as_slice()));
    assert_eq!(second.headers[0], ("X-A".to_owned(), "1".to_owned()));
    let seen = upstream.record().drain();
    assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/p?q"));
    assert_eq!(seen[0].headers[1], ("X-Mixed".to_owned(), "1".to_owned()));
    assert_eq!(seen[0].headers[2], ("x-mixed".to_owned(), "2".to_owned()));
    assert_eq!((seen[0].body.as_slice(), seen[0].complete, seen[1].connection), (b"abc".as_slice(), true, 0));
    assert!(upstream.record().drain().is_empty());
    assert_eq!(upstream.record().connections(), 1);
}

#[tokio::test]
async fn chunks_trailers_and_interim_responses_pass_in_both_directions() {
    let reply = Reply {
        framing: Framing::Chunked,
        body: Body::Chunks(vec!["ab".into(), "cde".into()]),
        trailers: vec![("X-T".into(), "1".into())],
        interim: vec![103],
        ..Reply::default()
    };
    let upstream = Upstream::http(Script::always(reply)).unwrap();
    let request = "PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nxy\r\n1\r\nz\r\n0\r\nx-r: 2\r\n\r\n";
    let response = ask(upstream.address(), request).await.unwrap();
    assert_eq!(response.chunks, Some(vec![2, 3]));
    assert_eq!(
        (response.body.as_slice(), response.interim.as_slice()),
        (b"abcde".as_slice(), [103].as_slice())
    );
    assert_eq!(response.trailers, [("X-T".to_owned(), "1".to_owned())]);
    let seen = &upstream.record().requests()[0];
    assert_eq!((seen.body.as_slice(), seen.chunked), (b"xyz".as_slice(), true));
    assert_eq!(seen.trailers, [("x-r".to_owned(), "2".to_owned())]);
}

#[tokio::test]
async fn each_fault_looks_different_to_the_client() {
    let faulty = |path: &str, reply: Reply| Rule {
        path: Some(path.to_owned()),
        replies: vec![reply],
        ..Rule::default()
    };
    let with = |fault| Reply {
        fault: Some(fault),
        body: Body::Chunks(vec!["one".into(), "two".into()]),
        ..Reply::default()
    };
    let upstream = Upstream::http(Script {
        rules: vec![
            faulty("/close", with(Fault::CloseBeforeHead)),
            faulty("/reset", with(Fault::ResetBeforeHead)),
            faulty("/cut", with(Fault::CloseMidBody)),
            faulty("/garbage", with(Fault::Bytes("junk".into()))),
            faulty(
                "/until",
                Reply { framing: Framing::UntilClose, body: Body::Text("x".into()), ..Reply::default() },
            ),
            faulty("/hang", with(Fault::Hang)),
        ],
    })
    .unwrap();
    let address = upstream.address();
    assert_eq!(ask(address, &get("/close")).await, Err(ReadError::Ended(End::Closed, String::new())));
    assert_eq!(ask(address, &get("/reset")).await, Err(ReadError::Ended(End::Reset, String::new())));
    assert_eq!(ask(address, &get("/garbage")).await, Err(ReadError::Ended(End::Closed, "junk".into())));
    let cut = ask(address, &get("/cut")).await.unwrap();
    assert_eq!((cut.body.as_slice(), cut.body_end), (b"one".as_slice(), BodyEnd::CutShort));
    let until = ask(address, &get("/until")).await.unwrap();
    assert_eq!((until.body.as_slice(), until.body_end), (b"x".as_slice(), BodyEnd::WithConnection));
    assert_eq!(ask(address, &get("/other")).await.unwrap().status, 404);
    let mut client = Http1Client::connect(address, None).await.unwrap();
    let hang = client.get("a", "/hang", Duration::from_millis(50)).await;
    assert_eq!(hang, Err(ReadError::TimedOut(String::new())));
}

#[tokio::test]
async fn one_port_speaks_http1_and_http2() {
    let reply = Reply { trailers: vec![("x-t".into(), "1".into())], ..Reply::ok("two") };
    let upstream = Upstream::http(Script::sequence(vec![
        reply,
        Reply { fault: Some(Fault::RefuseStream), ..Reply::default() },
        Reply::ok("one"),
    ]))
    .unwrap();
    let client = Http2Client::connect(upstream.address(), None).await.unwrap();
    let request = Http2Request {
        method: "POST".into(),
        scheme: "http".into(),
        authority: "a.test".into(),
        path: "/p".into(),
        headers: vec![("x-a".into(), "1".into())],
        body: vec![b"abc".to_vec(), b"def".to_vec()],
        trailers: vec![("x-r".into(), "2".into())],
    };
    let response = client.request(request.clone(), LIMIT).await.unwrap();
    assert_eq!((response.status, response.body.as_slice()), (200, b"two".as_slice()));
    assert_eq!(response.trailers, [("x-t".to_owned(), "1".to_owned())]);
    assert_eq!(client.request(request, LIMIT).await, Err(Http2Error::Reset("REFUSED_STREAM".into())));
    assert_eq!(ask(upstream.address(), &get("/")).await.unwrap().body, b"one");
    let seen = upstream.record().requests();
    assert_eq!((seen[0].protocol.as_str(), seen[0].authority.as_deref()), ("HTTP/2", Some("a.test")));
    assert_eq!((seen[0].body.as_slice(), seen[0].trailers.len()), (b"abcdef".as_slice(), 1));
    assert_eq!((seen[2].protocol.as_str(), seen[2].connection), ("HTTP/1.1", 1));
}

#[tokio::test]
async fn tls_agrees_on_a_protocol_and_checks_both_sides() {
    let ca = TestCa::new("round trip").unwrap();
    let server = ca.issue("server", &["localhost"]).unwrap();
    let identity = ca.issue("client", &["spiffe://cluster.local/ns/a/sa/b"]).unwrap();
    let config = server.server_config(&["h2", "http/1.1"], Some(&ca.cert_pem)).unwrap();
    let listener = HeldPort::new().unwrap().listen().unwrap();
    let upstream =
        Upstream::start(listener, Speaks::Http(Script::always(Reply::ok("safe"))), Some(config)).unwrap();
    let options = |alpn: &[&str], identity| TlsOptions {
        config: client_config(&ca.cert_pem, alpn, identity, TlsVersions::All).unwrap(),
        server_name: "localhost".into(),
    };
    let mut one = Http1Client::connect(upstream.address(), Some(&options(&["http/1.1"], Some(&identity))))
        .await
        .unwrap();
    assert_eq!(one.get("a", "/", LIMIT).await.unwrap().body, b"safe");
    assert_eq!(one.tls().unwrap().alpn.as_deref(), Some("http/1.1"));
    let two =
        Http2Client::connect(upstream.address(), Some(&options(&["h2"], Some(&identity)))).await.unwrap();
    let request = Http2Request {
        method: "GET".into(),
        scheme: "https".into(),
        authority: "a".into(),
        path: "/".into(),
        ..Http2Request::default()
    };
    assert_eq!(two.request(request, LIMIT).await.unwrap().body, b"safe");
    let seen = upstream.record().requests();
    assert_eq!(seen[1].tls.as_ref().and_then(|t| t.alpn.as_deref()), Some("h2"));
    assert_eq!(seen[1].tls.as_ref().and_then(|t| t.sni.as_deref()), Some("localhost"));
    // TLS 1.3 tells a client without certificate only when it reads.
    let mut stranger = Http1Client::connect(upstream.address(), Some(&options(&[], None))).await.unwrap();
    assert!(stranger.get("a", "/", LIMIT).await.is_err());
    assert_eq!(upstream.record().requests().len(), 2);
}

#[tokio::test]
async fn a_raw_upstream_greets_echoes_and_says_goodbye() {
    let script =
        TcpScript { greeting: "hi ".into(), echo: true, farewell: " bye".into(), ..TcpScript::default() };
    let upstream = Upstream::tcp(script).unwrap();
    let mut client = Http1Client::connect(upstream.address(), None).await.unwrap();
    client.send("data").await.unwrap();
    client.finish().await.unwrap();
    assert_eq!(client.read_to_end(LIMIT).await, (b"hi data bye".to_vec(), Some(End::Closed)));
    let seen = upstream.record().tcp();
    assert_eq!((seen[0].received.as_slice(), seen[0].end), (b"data".as_slice(), Some(End::Closed)));
}

#[test]
fn dropping_an_upstream_closes_its_port() {
    let upstream = Upstream::http(Script::default()).unwrap();
    let address = upstream.address();
    drop(upstream);
    let refused = std::net::TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}
