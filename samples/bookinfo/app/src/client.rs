//! The HTTP client of the services: GET with kept-alive connections, through the proxy of the environment if there is one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::settings::Settings;

/// Idle connections kept for each peer.
const IDLE_PER_PEER: usize = 32;

type Connection = SendRequest<Empty<Bytes>>;

/// A complete answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{0} is not an http address")]
    Address(String),
    #[error("cannot connect to {peer}: {cause}")]
    Connect { peer: String, cause: std::io::Error },
    #[error("{peer}: {cause}")]
    Exchange { peer: String, cause: hyper::Error },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// Connections by peer (`host:port`), shared by all requests of a service.
#[derive(Debug, Default)]
pub(crate) struct Client {
    proxy: Option<String>,
    no_proxy: Vec<String>,
    idle: Mutex<HashMap<String, Vec<Connection>>>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self { proxy: settings.proxy.clone(), no_proxy: settings.no_proxy.clone(), idle: Mutex::default() }
    }

    /// Asks for `url`, sending `headers`; the whole answer has to be there within `timeout`.
    pub(crate) async fn get(
        &self,
        url: &str,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<Reply, CallError> {
        tokio::time::timeout(timeout, self.exchange(url, headers))
            .await
            .unwrap_or(Err(CallError::Timeout(timeout)))
    }

    async fn exchange(&self, url: &str, headers: HeaderMap) -> Result<Reply, CallError> {
        let uri: Uri = url.parse().map_err(|_| CallError::Address(url.to_owned()))?;
        let plan = self.plan(&uri, headers).ok_or_else(|| CallError::Address(url.to_owned()))?;
        // A kept connection may have been closed by the peer just now; only then is another one tried.
        while let Some(connection) = self.take_idle(&plan.peer) {
            match self.send(connection, &plan).await {
                Err(cause) if cause.is_canceled() || cause.is_closed() || cause.is_incomplete_message() => {}
                result => return result.map_err(|cause| CallError::Exchange { peer: plan.peer, cause }),
            }
        }
        let connection = connect(&plan.peer).await?;
        self.send(connection, &plan).await.map_err(|cause| CallError::Exchange { peer: plan.peer, cause })
    }

    /// Decides whom to connect to and which form the request target takes: absolute for a proxy, otherwise the path.
    fn plan(&self, uri: &Uri, mut headers: HeaderMap) -> Option<Plan> {
        let authority = uri.authority()?;
        headers.insert(header::HOST, HeaderValue::from_str(authority.as_str()).ok()?);
        let (peer, target) = match &self.proxy {
            Some(proxy) if !excepted(&self.no_proxy, authority.host()) => (proxy.clone(), uri.clone()),
            _ => {
                let peer = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
                (peer, uri.path_and_query()?.as_str().parse().ok()?)
            }
        };
        Some(Plan { peer, target, headers })
    }

    async fn send(&self, mut connection: Connection, plan: &Plan) -> Result<Reply, hyper::Error> {
        connection.ready().await?;
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = plan.target.clone();
        *request.headers_mut() = plan.headers.clone();
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        self.put_idle(&plan.peer, connection);
        Ok(Reply { status, body })
    }

    fn take_idle(&self, peer: &str) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(peer)?;
        // The newest first: the others may then grow old and be closed.
        while let Some(connection) = connections.pop() {
            if !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn put_idle(&self, peer: &str, connection: Connection) {
        if connection.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(peer.to_owned()).or_default();
        if connections.len() < IDLE_PER_PEER {
            connections.push(connection);
        }
    }
}

/// A request before a connection has been chosen for it.
struct Plan {
    peer: String,
    target: Uri,
    headers: HeaderMap,
}

async fn connect(peer: &str) -> Result<Connection, CallError> {
    let stream = TcpStream::connect(peer)
        .await
        .map_err(|cause| CallError::Connect { peer: peer.to_owned(), cause })?;
    // Without it a small request may wait for the acknowledgement of the last one; a socket that refuses still works.
    let _ = stream.set_nodelay(true);
    let (connection, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|cause| CallError::Exchange { peer: peer.to_owned(), cause })?;
    // The driver's error reaches whoever waits for the answer.
    tokio::spawn(async move {
        let _ = driver.await;
    });
    Ok(connection)
}

/// Whether `host` is in a `NO_PROXY` list: `*`, the name itself, or a domain above it.
fn excepted(no_proxy: &[String], host: &str) -> bool {
    no_proxy.iter().any(|entry| {
        let domain = entry.trim_start_matches('.');
        entry == "*"
            || host.eq_ignore_ascii_case(domain)
            || host
                .len()
                .checked_sub(domain.len() + 1)
                .is_some_and(|at| host.as_bytes()[at] == b'.' && host[at + 1..].eq_ignore_ascii_case(domain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_matches_names_and_domains_above_them() {
        let list = ["localhost".to_owned(), ".corp".to_owned()];
        assert!(excepted(&list, "localhost"));
        assert!(excepted(&list, "db.corp"));
        assert!(excepted(&list, "corp"));
        assert!(!excepted(&list, "details"));
        assert!(!excepted(&list, "mylocalhost"));
        assert!(excepted(&["*".to_owned()], "details"));
    }

    #[test]
    fn a_proxy_gets_the_absolute_form_and_the_host_of_the_target() {
        let client = Client { proxy: Some("127.0.0.9:15007".to_owned()), ..Client::default() };
        let plan = client.plan(&Uri::from_static("http://details:9080/details/0"), HeaderMap::new()).unwrap();
        assert_eq!(plan.peer, "127.0.0.9:15007");
        assert_eq!(plan.target.to_string(), "http://details:9080/details/0");
        assert_eq!(plan.headers[header::HOST], "details:9080");
    }

    #[test]
    fn without_a_proxy_the_target_is_the_path() {
        let plan = Client::default()
            .plan(&Uri::from_static("http://details/details/0?a=b"), HeaderMap::new())
            .unwrap();
        assert_eq!(plan.peer, "details:80");
        assert_eq!(plan.target.to_string(), "/details/0?a=b");
    }
}
