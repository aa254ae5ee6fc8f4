//! Clients that show everything that is on the wire.

mod http1;
mod http2;
pub mod wire;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

pub use http1::{BodyEnd, Http1Client, Http1Response, ReadError};
pub use http2::{Http2Client, Http2Error, Http2Request, Http2Response};

use crate::stream::{ByteStream, TlsFacts};

/// How a client secures its connection.
#[derive(Debug, Clone)]
pub struct TlsOptions {
    /// Trust, protocols offered and client certificate; see [`crate::certs::client_config`].
    pub config: Arc<rustls::ClientConfig>,
    /// The server name sent and verified.
    pub server_name: String,
}

/// Opens a connection, over TLS where `tls` is given, and says what TLS agreed on.
pub async fn connect(
    address: SocketAddr,
    tls: Option<&TlsOptions>,
) -> io::Result<(Box<dyn ByteStream>, Option<TlsFacts>)> {
    over(TcpStream::connect(address).await?, tls).await
}

/// Where a client connects from and how it leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The IPv4 address of this machine to connect from.
    pub ip: IpAddr,
    /// Reset the connection when it is let go, instead of closing it.
    pub resets: bool,
}

impl Origin {
    /// Opens a connection from there.
    pub async fn connect(self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.ip, 0))?;
        let stream = socket.connect(address).await?;
        if self.resets {
            // With no time to linger the kernel sends RST when the socket closes.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(stream)
    }
}

/// Makes a client's stream of a connection that the caller opened, over TLS where `tls` is given.
pub async fn over(
    stream: TcpStream,
    tls: Option<&TlsOptions>,
) -> io::Result<(Box<dyn ByteStream>, Option<TlsFacts>)> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok((Box::new(stream), None)) };
    let name = ServerName::try_from(tls.server_name.clone()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(&tls.config)).connect(name, stream).await?;
    let facts = TlsFacts::of(stream.get_ref().1, Some(tls.server_name.clone()));
    Ok((Box::new(stream), Some(facts)))
}
