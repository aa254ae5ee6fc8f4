//! Scripted servers that stand in for applications and record what reached them.

mod frames;
mod http1;
mod http2;
mod record;
mod script;
mod tcp;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

pub use frames::FramesScript;
pub use record::{Record, SeenBytes, SeenRequest};
pub use script::{Body, Fault, Framing, Headers, Reply, Rule, Script, header_lines};
pub use tcp::TcpScript;

use crate::ports::HeldPort;
use crate::stream::TlsFacts;

/// What an upstream speaks on its connections.
#[derive(Debug, Clone, PartialEq)]
pub enum Speaks {
    /// HTTP/1.1, or HTTP/2 when a connection starts with its preface or TLS agreed on `h2`.
    Http(Script),
    /// HTTP/2, frame by frame.
    Frames(FramesScript),
    /// Bytes.
    Tcp(TcpScript),
}

/// A server on a loopback port, with a thread and a runtime of its own so that tests of any flavour can use it.
///
/// It stops, with all its connections, when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    record: Record,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Starts a plain-text HTTP server on a free port.
    pub fn http(script: Script) -> io::Result<Self> {
        Self::start(HeldPort::new()?.listen()?, Speaks::Http(script), None)
    }

    /// Starts a raw TCP server on a free port.
    pub fn tcp(script: TcpScript) -> io::Result<Self> {
        Self::start(HeldPort::new()?.listen()?, Speaks::Tcp(script), None)
    }

    /// Serves `listener`, over TLS when a server configuration is given (see [`crate::certs::Identity::server_config`]).
    pub fn start(
        listener: TcpListener,
        speaks: Speaks,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let record = Record::new(match &speaks {
            Speaks::Http(script) => script.clone(),
            Speaks::Tcp(_) | Speaks::Frames(_) => Script::default(),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let shared = record.clone();
        let thread =
            std::thread::Builder::new().name(format!("upstream-{}", address.port())).spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        _ = stopped => {}
                        () = accept(listener, speaks, tls, shared) => {}
                    }
                });
            })?;
        Ok(Self { address, record, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has seen, and where its script can be replaced.
    pub fn record(&self) -> &Record {
        &self.record
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may have ended with an error already.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: TcpListener,
    speaks: Speaks,
    tls: Option<Arc<rustls::ServerConfig>>,
    record: Record,
) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let acceptor = tls.map(TlsAcceptor::from);
    while let Ok((stream, _)) = listener.accept().await {
        let number = record.accepted();
        tokio::spawn(serve(stream, number, speaks.clone(), acceptor.clone(), record.clone()));
    }
}

async fn serve(
    stream: TcpStream,
    number: usize,
    speaks: Speaks,
    acceptor: Option<TlsAcceptor>,
    record: Record,
) {
    // Loopback replies must not wait for Nagle's algorithm; a socket that is gone already shows itself on the first read.
    let _ = stream.set_nodelay(true);
    let raw = socket2::SockRef::from(&stream).try_clone().ok();
    let reset = Reset(raw);
    match (speaks, acceptor) {
        (Speaks::Tcp(script), None) => tcp::serve(stream, number, script, &reset, &record).await,
        (Speaks::Frames(script), None) => frames::serve(stream, number, &script, &record).await,
        (Speaks::Http(_), None) => serve_http(stream, number, None, &reset, &record).await,
        (speaks, Some(acceptor)) => {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let session = stream.get_ref().1;
            let facts = TlsFacts::of(session, session.server_name().map(str::to_owned));
            match speaks {
                Speaks::Tcp(script) => tcp::serve(stream, number, script, &reset, &record).await,
                Speaks::Frames(script) => frames::serve(stream, number, &script, &record).await,
                Speaks::Http(_) => serve_http(stream, number, Some(facts), &reset, &record).await,
            }
        }
    }
}

async fn serve_http<S>(mut stream: S, number: usize, tls: Option<TlsFacts>, reset: &Reset, record: &Record)
where
    S: crate::stream::ByteStream + 'static,
{
    if tls.as_ref().is_some_and(|t| t.alpn.as_deref() == Some("h2")) {
        return http2::serve(stream, Vec::new(), number, tls, record).await;
    }
    let mut start = Vec::new();
    while start.len() < http2::PREFACE.len() && http2::PREFACE.starts_with(&start) {
        if let crate::stream::Read::End(_) = crate::stream::read_some(&mut stream, &mut start).await {
            return;
        }
    }
    if start.starts_with(http2::PREFACE) {
        http2::serve(stream, start, number, tls, record).await;
    } else {
        http1::Connection { stream, buffer: start, number, tls, record, reset }.serve().await;
    }
}

/// Turns the close of a connection into a reset.
#[derive(Debug)]
struct Reset(Option<socket2::Socket>);

impl Reset {
    fn arm(&self) {
        if let Some(socket) = &self.0 {
            // With no time to linger the kernel sends RST when the last descriptor of the socket closes.
            let _ = socket.set_linger(Some(std::time::Duration::ZERO));
        }
    }
}
