//! An HTTP/2 client over plain text with prior knowledge, or over TLS.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Uri, Version};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{TlsOptions, connect};
use crate::h2_frames::{header_map, listed, send_all};
use crate::stream::TlsFacts;

/// One request.
#[derive(Debug, Clone, Default)]
pub struct Http2Request {
    /// `:method`.
    pub method: String,
    /// `:scheme`.
    pub scheme: String,
    /// `:authority`.
    pub authority: String,
    /// `:path`.
    pub path: String,
    /// The other headers; names are lower-cased.
    pub headers: Vec<(String, String)>,
    /// The body, in the DATA frames it is handed over in; none for a request that ends with its headers.
    pub body: Vec<Vec<u8>>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
}

/// One response.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http2Response {
    /// `:status`.
    pub status: u16,
    /// The other headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// Trailers.
    pub trailers: Vec<(String, String)>,
    /// The error code (such as `CANCEL`) when the stream was reset after its headers.
    pub reset: Option<String>,
}

/// No response came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Http2Error {
    /// The stream was reset with this error code.
    #[error("stream reset: {0}")]
    Reset(String),
    /// The server is going away with this error code.
    #[error("connection ended by GOAWAY: {0}")]
    GoAway(String),
    /// The connection broke.
    #[error("connection: {0}")]
    Connection(String),
    /// Nothing came in time.
    #[error("no complete response in time")]
    TimedOut,
    /// The request cannot be expressed; the fault is the test's.
    #[error("request: {0}")]
    Request(String),
}

impl From<h2::Error> for Http2Error {
    fn from(error: h2::Error) -> Self {
        let reason = error.reason().map_or_else(|| error.to_string(), |r| format!("{r:?}"));
        if error.is_go_away() {
            Self::GoAway(reason)
        } else if error.is_reset() {
            Self::Reset(reason)
        } else {
            Self::Connection(error.to_string())
        }
    }
}

/// An HTTP/2 connection; requests may overlap.
pub struct Http2Client {
    sender: SendRequest<Bytes>,
    driver: JoinHandle<()>,
    tls: Option<TlsFacts>,
}

impl Http2Client {
    /// Connects and exchanges settings; over TLS where options are given (which should offer `h2`).
    pub async fn connect(address: SocketAddr, tls: Option<&TlsOptions>) -> io::Result<Self> {
        let (stream, tls) = connect(address, tls).await?;
        let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        // How the connection ends shows on its streams.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver, tls })
    }

    /// What TLS negotiated.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.tls.as_ref()
    }

    /// Sends a request and reads the whole response, within `limit`.
    pub async fn request(&self, request: Http2Request, limit: Duration) -> Result<Http2Response, Http2Error> {
        timeout(limit, exchange(self.sender.clone(), request)).await.unwrap_or(Err(Http2Error::TimedOut))
    }
}

impl Drop for Http2Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn exchange(sender: SendRequest<Bytes>, request: Http2Request) -> Result<Http2Response, Http2Error> {
    let uri = Uri::builder()
        .scheme(request.scheme.as_str())
        .authority(request.authority.as_str())
        .path_and_query(request.path.as_str())
        .build()
        .map_err(|e| Http2Error::Request(e.to_string()))?;
    let mut head = Request::builder()
        .version(Version::HTTP_2)
        .method(request.method.as_str())
        .uri(uri)
        .body(())
        .map_err(|e| Http2Error::Request(e.to_string()))?;
    *head.headers_mut() = header_map(&request.headers);
    let ends = request.body.is_empty() && request.trailers.is_empty();
    let mut sender = sender.ready().await?;
    let (response, mut stream) = sender.send_request(head, ends)?;
    let upload = async move {
        if ends {
            return Ok(());
        }
        let count = request.body.len();
        for (number, piece) in request.body.into_iter().enumerate() {
            let last = number + 1 == count && request.trailers.is_empty();
            send_all(&mut stream, piece.into(), last).await?;
        }
        if !request.trailers.is_empty() {
            stream.send_trailers(header_map(&request.trailers))?;
        }
        Ok::<(), h2::Error>(())
    };
    // A server may answer before it has read the request and then stop reading it: only the response decides.
    let (_, response) = tokio::join!(upload, receive(response));
    response
}

async fn receive(response: h2::client::ResponseFuture) -> Result<Http2Response, Http2Error> {
    let (head, mut body) = response.await?.into_parts();
    let mut received = Http2Response {
        status: head.status.as_u16(),
        headers: listed(&head.headers),
        ..Http2Response::default()
    };
    while let Some(piece) = body.data().await {
        match piece {
            Ok(piece) => {
                // The window was granted for bytes just received, so giving it back cannot overflow it.
                let _ = body.flow_control().release_capacity(piece.len());
                received.body.extend_from_slice(&piece);
            }
            Err(error) => {
                received.reset = Some(Http2Error::from(error).to_string());
                return Ok(received);
            }
        }
    }
    match body.trailers().await {
        Ok(trailers) => received.trailers = trailers.as_ref().map(listed).unwrap_or_default(),
        Err(error) => received.reset = Some(Http2Error::from(error).to_string()),
    }
    Ok(received)
}
