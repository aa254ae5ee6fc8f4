//! One byte-stream type for plain and TLS connections, and how a read from it ended.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// A connection's bytes, whatever carries them.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// What TLS negotiated, where a connection is over TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFacts {
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// The agreed application protocol.
    pub alpn: Option<String>,
    /// Version and cipher suite by rustls' names, and `resumed` where an earlier session was.
    pub session: String,
    /// The certificate that the other side presented, DER.
    pub shown: Option<Vec<u8>>,
}

impl TlsFacts {
    /// What is known after a handshake in which the client asked for this server name.
    pub(crate) fn of(session: &rustls::CommonState, sni: Option<String>) -> Self {
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let resumed = match session.handshake_kind() {
            Some(rustls::HandshakeKind::Resumed) => " resumed",
            _ => "",
        };
        Self {
            sni,
            alpn: session.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
            session: format!("{version} {}{resumed}", suite.unwrap_or_default()),
            shown: session.peer_certificates().and_then(|chain| Some(chain.first()?.to_vec())),
        }
    }
}

/// How the other side ended its sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It finished (FIN, or an end of file in TLS).
    Closed,
    /// It reset the connection (RST).
    Reset,
}

/// What one read brought.
#[derive(Debug)]
pub enum Read {
    /// This many bytes were appended.
    Data(usize),
    /// Nothing more will come.
    End(End),
}

/// Appends what is available to `buffer`.
pub async fn read_some(stream: &mut (impl AsyncRead + Unpin + ?Sized), buffer: &mut Vec<u8>) -> Read {
    match stream.read_buf(buffer).await {
        Ok(0) => Read::End(End::Closed),
        Ok(n) => Read::Data(n),
        Err(error) => Read::End(end_of(&error)),
    }
}

/// Sorts an error of a read or write into how the connection ended. A TLS connection closed without its closing alert counts
/// as closed: what matters here is the transport.
pub fn end_of(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            End::Reset
        }
        _ => End::Closed,
    }
}
