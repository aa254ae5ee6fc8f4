//! One request or one piece of raw bytes, and what came back.

use std::io;
use std::time::Duration;

use dhow_testkit::client::{
    BodyEnd, Http1Client, Http1Response, Http2Client, Http2Error, Http2Request, Http2Response, Origin,
    ReadError, TlsOptions,
};
use dhow_testkit::poll_until_async;
use dhow_testkit::stream::{End, TlsFacts};
use indexmap::IndexMap;

use crate::environment::Environment;
use crate::normalise::Normaliser;
use crate::outcome::{Answers, ResponseFacts, Seen};
use crate::steps::{Reading, Step};

/// How long a listener that is just being opened may refuse connections.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// How long to watch whether the target ends a connection, where a step asks for the end.
const END_LIMIT: Duration = Duration::from_secs(4);

/// How long to watch for the same where a step asks for a glance.
const GLANCE: Duration = Duration::from_millis(25);

/// An open connection to the target.
pub enum Connection {
    /// HTTP/1 or bytes.
    Bytes(Http1Client),
    /// HTTP/2.
    Http2(Http2Client),
}

/// Carries out a `request` or `raw` step on `connection`, or on a new one, and hands the connection back while it is usable.
pub async fn exchange(
    environment: &Environment,
    step: &Step,
    connection: Option<Connection>,
    limit: Duration,
) -> (Seen, Option<Connection>) {
    let normaliser = environment.normaliser();
    let connection = match connection {
        Some(connection) => connection,
        None => match open_in_time(environment, step, limit).await {
            Ok(connection) => connection,
            Err(error) => return (Seen::Failure(connect_failure(&error)), None),
        },
    };
    let count = step.repeat.unwrap_or(1);
    let mut answers = IndexMap::new();
    let mut connection = Some(connection);
    let mut seen = Seen::Nothing;
    for _ in 0..count {
        let current = match connection.take() {
            Some(open) => open,
            None => match open_in_time(environment, step, limit).await {
                Ok(open) => open,
                Err(error) => return (Seen::Failure(connect_failure(&error)), None),
            },
        };
        (seen, connection) = once(environment, step, current, limit, &normaliser).await;
        if step.repeat.is_some() {
            *answers.entry(answer_line(&seen)).or_insert(0) += 1;
        }
    }
    if step.repeat.is_some() {
        answers.sort_keys();
        seen = Seen::Answers(Answers { kinds: answers.keys().cloned().collect(), counts: answers });
    }
    (seen, connection)
}

fn answer_line(seen: &Seen) -> String {
    match seen {
        Seen::Responses(responses) => {
            responses.last().map(|r| format!("{} {}", r.status, r.body)).unwrap_or_default()
        }
        Seen::Failure(why) => why.clone(),
        other => format!("{other:?}"),
    }
}

async fn once(
    environment: &Environment,
    step: &Step,
    connection: Connection,
    limit: Duration,
    normaliser: &Normaliser,
) -> (Seen, Option<Connection>) {
    let headers = step.headers.iter().map(|(name, value)| Ok((name.clone(), environment.resolve(value)?)));
    let headers = match headers.collect::<anyhow::Result<Vec<_>>>() {
        Ok(headers) => headers,
        Err(error) => return (Seen::Failure(error.to_string()), None),
    };
    let host = match environment.resolve(step.host.as_deref().unwrap_or("example.test")) {
        Ok(host) => host,
        Err(error) => return (Seen::Failure(error.to_string()), None),
    };
    let shown = match shown(environment, step, &connection) {
        Ok(shown) => shown,
        Err(error) => return (Seen::Failure(error.to_string()), None),
    };
    let (mut seen, connection) = match connection {
        Connection::Http2(client) => {
            let tls = client.tls().cloned();
            let seen = match client.request(http2_request(step, &host, headers), limit).await {
                Ok(response) => Seen::Responses(vec![http2_facts(response, tls.as_ref(), normaliser)]),
                Err(error) => Seen::Failure(http2_failure(&error)),
            };
            (seen, Some(Connection::Http2(client)))
        }
        Connection::Bytes(mut client) => {
            let bytes = match &step.raw {
                Some(raw) => match environment.resolve(raw) {
                    Ok(bytes) => bytes.into_bytes(),
                    Err(error) => return (Seen::Failure(error.to_string()), None),
                },
                None => http1_request(step, &host, &headers),
            };
            // A target that refuses early may close while this is sent; what it said is read all the same.
            let _ = client.send(&bytes).await;
            if step.finish {
                let _ = client.finish().await;
            }
            read(step, client, limit, normaliser).await
        }
    };
    if let (Some(name), Seen::Responses(responses)) = (shown, &mut seen) {
        responses.iter_mut().filter_map(|response| response.session.as_mut()).for_each(|session| {
            session.push_str(&format!(" with {name}"));
        });
    }
    (seen, connection)
}

/// Whose certificate the target has shown to a client that takes any.
fn shown(
    environment: &Environment,
    step: &Step,
    connection: &Connection,
) -> anyhow::Result<Option<&'static str>> {
    if !step.tls.as_ref().is_some_and(|tls| tls.trusting) {
        return Ok(None);
    }
    let facts = match connection {
        Connection::Bytes(client) => client.tls(),
        Connection::Http2(client) => client.tls(),
    };
    let certificate = facts.and_then(|facts| facts.shown.as_deref());
    certificate.map(|certificate| environment.shown(certificate)).transpose()
}

async fn read(
    step: &Step,
    mut client: Http1Client,
    limit: Duration,
    normaliser: &Normaliser,
) -> (Seen, Option<Connection>) {
    let method = step.request.as_deref().or(step.method.as_deref()).unwrap_or("GET");
    let method = method.split(' ').next().unwrap_or_default();
    let tls = client.tls().cloned();
    match step.read {
        Reading::Responses(count) => {
            let mut responses = Vec::new();
            for _ in 0..count {
                match client.response(method, limit).await {
                    Ok(response) => responses.push(http1_facts(response, tls.as_ref(), normaliser)),
                    Err(error) => return (Seen::Failure(read_failure(&error, normaliser)), None),
                }
            }
            (Seen::Responses(responses), Some(Connection::Bytes(client)))
        }
        Reading::ThenEnd | Reading::ThenGlance => match client.response(method, limit).await {
            Ok(response) => {
                let glance = step.read == Reading::ThenGlance;
                let closes = response.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
                let mut facts = http1_facts(response, tls.as_ref(), normaliser);
                if glance && closes {
                    return (Seen::Responses(vec![facts]), None);
                }
                let (more, end) = client.read_to_end(if glance { GLANCE } else { END_LIMIT }).await;
                let extra = if more.is_empty() {
                    String::new()
                } else {
                    format!(" after {}", normaliser.body(&more))
                };
                facts.end = Some(format!("{}{extra}", end_text(end)));
                (Seen::Responses(vec![facts]), None)
            }
            Err(error) => (Seen::Failure(read_failure(&error, normaliser)), None),
        },
        Reading::End => {
            let (bytes, end) = client.read_to_end(limit).await;
            (Seen::Bytes { text: normaliser.wire(&bytes), end: end_text(end).to_owned() }, None)
        }
        Reading::Bytes(count) => {
            let (bytes, end) = client.read_bytes(count, limit).await;
            let seen = Seen::Bytes { text: normaliser.body(&bytes), end: end_text(end).to_owned() };
            (seen, Some(Connection::Bytes(client)))
        }
    }
}

async fn open(environment: &Environment, step: &Step) -> io::Result<Connection> {
    let address = environment.port(step.to.as_deref().unwrap_or("http")).map_err(io::Error::other)?;
    let tls =
        step.tls.as_ref().map(|tls| environment.client_tls(tls)).transpose().map_err(io::Error::other)?;
    if step.expect.failure.is_some() {
        return connect(address, step, tls.as_ref()).await;
    }
    let tls = tls.as_ref();
    let attempt = || async move {
        match connect(address, step, tls).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => None,
            result => Some(result),
        }
    };
    poll_until_async(CONNECT_LIMIT, attempt).await.unwrap_or(Err(io::ErrorKind::ConnectionRefused.into()))
}

/// Opens a connection; who does not answer its handshake for as long as a step may take is given up.
async fn open_in_time(environment: &Environment, step: &Step, limit: Duration) -> io::Result<Connection> {
    let opened = tokio::time::timeout(CONNECT_LIMIT + limit, open(environment, step)).await;
    opened.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

async fn connect(
    address: std::net::SocketAddr,
    step: &Step,
    tls: Option<&TlsOptions>,
) -> io::Result<Connection> {
    if let Some(ip) = step.from {
        let stream = Origin { ip, resets: step.reset }.connect(address).await?;
        return Ok(Connection::Bytes(Http1Client::over(stream, tls).await?));
    }
    if step.http2 {
        return Ok(Connection::Http2(Http2Client::connect(address, tls).await?));
    }
    Ok(Connection::Bytes(Http1Client::connect(address, tls).await?))
}

fn connect_failure(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset while connecting".to_owned(),
        io::ErrorKind::UnexpectedEof => "connection closed while connecting".to_owned(),
        io::ErrorKind::TimedOut => "no answer while connecting".to_owned(),
        _ => format!("connecting: {error}"),
    }
}

fn read_failure(error: &ReadError, normaliser: &Normaliser) -> String {
    match error {
        ReadError::Ended(end, text) => format!("{} after {:?}", end_text(Some(*end)), normaliser.text(text)),
        ReadError::TimedOut(text) => format!("nothing more after {:?}", normaliser.text(text)),
    }
}

fn http2_failure(error: &Http2Error) -> String {
    match error {
        // How the library words a broken connection depends on the moment.
        Http2Error::Connection(_) => "connection ended".to_owned(),
        other => other.to_string(),
    }
}

fn end_text(end: Option<End>) -> &'static str {
    match end {
        Some(End::Closed) => "closed",
        Some(End::Reset) => "reset",
        None => "open",
    }
}

fn alpn(tls: Option<&TlsFacts>) -> Option<String> {
    tls.map(|t| t.alpn.clone().unwrap_or_else(|| "none".to_owned()))
}

fn request_line(step: &Step) -> (&str, &str) {
    let line = step.request.as_deref().unwrap_or_default();
    line.split_once(' ').unwrap_or((line, "/"))
}

fn http1_request(step: &Step, host: &str, headers: &[(String, String)]) -> Vec<u8> {
    let (method, target) = request_line(step);
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let pieces = step.body.as_ref().map(dhow_testkit::upstream::Body::pieces).unwrap_or_default();
    if step.chunked {
        head.push_str("transfer-encoding: chunked\r\n");
    } else if step.body.is_some() {
        head.push_str(&format!("content-length: {}\r\n", pieces.iter().map(Vec::len).sum::<usize>()));
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    for piece in &pieces {
        if step.chunked {
            bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        }
        bytes.extend_from_slice(piece);
        if step.chunked {
            bytes.extend_from_slice(b"\r\n");
        }
    }
    if step.chunked {
        bytes.extend_from_slice(b"0\r\n");
        for (name, value) in &step.trailers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn http2_request(step: &Step, host: &str, headers: Vec<(String, String)>) -> Http2Request {
    let (method, target) = request_line(step);
    Http2Request {
        method: method.to_owned(),
        scheme: if step.tls.is_some() { "https" } else { "http" }.to_owned(),
        authority: host.to_owned(),
        path: target.to_owned(),
        headers,
        body: step.body.as_ref().map(dhow_testkit::upstream::Body::pieces).unwrap_or_default(),
        trailers: step.trailers.clone(),
    }
}

fn http1_facts(response: Http1Response, tls: Option<&TlsFacts>, normaliser: &Normaliser) -> ResponseFacts {
    ResponseFacts {
        version: response.version,
        status: response.status,
        reason: response.reason,
        headers: normaliser.headers(&response.headers),
        body: normaliser.body(&response.body),
        trailers: normaliser.headers(&response.trailers),
        interim: response.interim,
        end: match response.body_end {
            BodyEnd::Complete => None,
            BodyEnd::WithConnection => Some("body ends with the connection".to_owned()),
            BodyEnd::CutShort => Some("closed inside the body".to_owned()),
            BodyEnd::Reset => Some("reset inside the body".to_owned()),
        },
        alpn: alpn(tls),
        session: tls.map(|tls| tls.session.clone()),
    }
}

fn http2_facts(response: Http2Response, tls: Option<&TlsFacts>, normaliser: &Normaliser) -> ResponseFacts {
    ResponseFacts {
        version: "HTTP/2".to_owned(),
        status: response.status,
        reason: String::new(),
        headers: normaliser.headers(&response.headers),
        body: normaliser.body(&response.body),
        trailers: normaliser.headers(&response.trailers),
        interim: Vec::new(),
        end: response.reset,
        alpn: alpn(tls),
        session: tls.map(|tls| tls.session.clone()),
    }
}
