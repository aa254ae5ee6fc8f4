//! Opening a connection to a host, and counting its life.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dhow_net::socket_option::{self, SocketState};
use dhow_net::{StreamAddress, Transport, kernel_path};
use dhow_tls::{ConnectOptions, TlsFailure, TlsInfo, UpstreamTls};
use socket2::{Domain, Protocol, Socket, TcpKeepalive as SocketKeepalive, Type};
use tokio::net::{TcpSocket, UnixStream};

use crate::circuit_breakers::Permit;
use crate::cluster_info::{ClusterInfo, TcpKeepalive};
use crate::happy_eyeballs;
use crate::host::Host;
use crate::transport_socket::{SecureOptions, TransportSocket};

/// An open connection to a host.
#[derive(Debug)]
pub struct UpstreamConnection {
    /// The bytes.
    pub transport: Transport,
    /// Protocol that ALPN chose, such as `h2`; `None` in clear text or when nothing was negotiated.
    pub alpn: Option<Vec<u8>>,
    /// Facts of the TLS session; `None` in clear text.
    pub tls: Option<Arc<TlsInfo>>,
    /// Our address, when it is one of IP.
    pub local_address: Option<SocketAddr>,
    /// Counts the connection for as long as it is kept.
    pub guard: ConnectionGuard,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectFailure {
    /// The class, which decides the reset reason.
    pub kind: ConnectFailureKind,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%` in Envoy's words, such as `delayed connect error: Connection refused`.
    pub text: String,
}

/// Classes of connection failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectFailureKind {
    /// Not established within `connect_timeout`: `connection timeout`.
    Timeout,
    /// Something on this side: no socket, the source address cannot be bound: `local connection failure`.
    Local,
    /// The host refused, or the handshake failed: `remote connection failure`.
    Remote,
}

impl ConnectFailureKind {
    /// The reset reason in replies and logs (`reset reason: ...`).
    pub const fn reset_reason(self) -> &'static str {
        match self {
            Self::Timeout => "connection timeout",
            Self::Local => "local connection failure",
            Self::Remote => "remote connection failure",
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.reset_reason())?;
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

impl std::error::Error for ConnectFailure {}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClosedBy {
    /// This side.
    #[default]
    Local,
    /// The host.
    Remote,
}

/// Opens a connection to `host` within the cluster's `connect_timeout`, TLS included.
///
/// Counts `upstream_cx_total`, `_active`, `_connect_ms`, `_connect_fail`, `_connect_timeout`, `_destroy*`, `_length_ms`,
/// `_rq_per_cx`, `bind_errors` and the host's `cx_*`; `permit` is the connection's place under the circuit breaker. The
/// caller counts `upstream_cx_http1_total` and its like.
pub async fn connect(
    info: &Arc<ClusterInfo>,
    host: &Arc<Host>,
    options: &SecureOptions,
    permit: Option<Permit>,
) -> Result<UpstreamConnection, ConnectFailure> {
    let guard = ConnectionGuard::new(info.clone(), host.clone(), permit);
    if let Some(chosen) = &options.socket {
        info.stats.count_socket_match(&chosen.name);
    }
    let socket = options.socket_for(host);
    let outcome = match tokio::time::timeout(
        info.connect_timeout,
        establish(info, host, (host.address(), socket), options, Some(&guard.connected)),
    )
    .await
    {
        Ok(outcome) => outcome,
        Err(_) => {
            info.stats.upstream_cx_connect_timeout().inc();
            Err(ConnectFailure { kind: ConnectFailureKind::Timeout, text: String::new() })
        }
    };
    match outcome {
        Ok((transport, tls)) => {
            let tls = tls.map(Arc::new);
            // Nobody else has set it: the guard is new.
            let _ = guard.tls.set(tls.clone());
            info.stats.upstream_cx_connect_ms().record(millis(guard.begun.elapsed()));
            let alpn = tls.as_ref().and_then(|tls| tls.alpn.clone());
            let local_address = transport.local_address();
            guard.local_address.set(local_address);
            Ok(UpstreamConnection { local_address, transport, alpn, tls, guard })
        }
        Err(failure) => {
            info.stats.upstream_cx_connect_fail().inc();
            host.stats().cx_connect_fail.fetch_add(1, Ordering::Relaxed);
            guard.set_closed_by(match failure.kind {
                ConnectFailureKind::Remote => ClosedBy::Remote,
                _ => ClosedBy::Local,
            });
            Err(failure)
        }
    }
}

/// Connects to `address` of a host through `socket`, TLS included, and counts nothing but what TLS counts. `connected` is told
/// when there is a connection and before there is TLS.
pub(crate) async fn establish(
    info: &ClusterInfo,
    host: &Host,
    (address, socket): (&StreamAddress, &TransportSocket),
    options: &SecureOptions,
    connected: Option<&OnceLock<Instant>>,
) -> Result<(Transport, Option<TlsInfo>), ConnectFailure> {
    let mut transport = match address {
        StreamAddress::Ip(first) if address == host.address() && !host.additional_addresses().is_empty() => {
            let addresses =
                happy_eyeballs::order(*first, host.additional_addresses(), info.connections.families);
            Transport::Tcp(happy_eyeballs::race(info, host, &addresses).await?)
        }
        StreamAddress::Ip(address) => Transport::Tcp(connect_tcp(info, *address).await?),
        StreamAddress::Pipe(path) => {
            let connected = UnixStream::connect(&*kernel_path(path)).await;
            Transport::Unix(connected.map_err(|error| remote(&error, address))?)
        }
    };
    if let Some(connected) = connected {
        // Set once for each connection.
        let _ = connected.set(Instant::now());
    }
    let mut socket = socket;
    while let TransportSocket::ProxyProtocol(outer) = socket {
        let header =
            outer.header(options.proxied.as_deref(), host, (transport.local_address(), address), info);
        send(&mut transport, &header).await.map_err(|error| remote(&error, host.address()))?;
        socket = &outer.inner;
    }
    match socket {
        TransportSocket::Tls(tls) => secure(info, tls, transport, host, options).await,
        TransportSocket::RawBuffer | TransportSocket::ProxyProtocol(_) => Ok((transport, None)),
    }
}

async fn send(transport: &mut Transport, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|cx| transport.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    Ok(())
}

async fn secure(
    info: &ClusterInfo,
    tls: &UpstreamTls,
    transport: Transport,
    host: &Host,
    options: &SecureOptions,
) -> Result<(Transport, Option<TlsInfo>), ConnectFailure> {
    let host_name =
        || (tls.uses_host_name() && !host.hostname().is_empty()).then(|| host.hostname().to_owned());
    let options = ConnectOptions {
        server_name: options.server_name.clone().or_else(host_name),
        verify_names: options.verify_names.clone(),
        alpn_override: options.alpn_override.clone(),
        alpn_fallback: options.alpn.clone(),
    };
    let result = tls.connect(transport, &options).await;
    if let Some(stats) = info.stats.tls() {
        stats.count(result.as_ref().map(|(_, facts)| facts));
    }
    match result {
        Ok((transport, mut facts)) => {
            facts.completed = Some(Instant::now());
            Ok((transport, Some(facts)))
        }
        Err(error) => {
            let text = match TlsFailure::of(&error) {
                Some(failure) => failure.to_string(),
                None => system_text(&error),
            };
            Err(ConnectFailure { kind: ConnectFailureKind::Remote, text })
        }
    }
}

pub(crate) async fn connect_tcp(
    info: &ClusterInfo,
    address: SocketAddr,
) -> Result<tokio::net::TcpStream, ConnectFailure> {
    let local = |error: io::Error| ConnectFailure {
        kind: ConnectFailureKind::Local,
        text: format!("immediate connect error: {}", system_text(&error)),
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(local)?;
    socket.set_tcp_nodelay(true).map_err(local)?;
    let source = info.bind.as_ref().and_then(|bind| {
        let source = bind.sources.iter().find(|source| source.address.is_ipv4() == address.is_ipv4())?;
        Some((source, bind.freebind))
    });
    let own_options = source.and_then(|(source, _)| source.socket_options.as_ref());
    let options = own_options.unwrap_or(&info.connections.socket_options);
    socket_option::apply(options, SocketState::Prebind, address.is_ipv4(), &socket).map_err(local)?;
    if let Some(keepalive) = &info.tcp_keepalive {
        keep_alive(&socket, keepalive).map_err(local)?;
    }
    if let Some((source, freebind)) = source
        && let Err(error) = bind_source(&socket, source.address, freebind)
    {
        info.stats.bind_errors().inc();
        return Err(error);
    }
    socket_option::apply(options, SocketState::Bound, address.is_ipv4(), &socket).map_err(local)?;
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(address).await.map_err(|error| remote(&error, &StreamAddress::Ip(address)))
}

fn keep_alive(socket: &Socket, options: &TcpKeepalive) -> io::Result<()> {
    let TcpKeepalive { probes, time, interval } = *options;
    let mut keepalive = SocketKeepalive::new();
    if let Some(probes) = probes {
        keepalive = keepalive.with_retries(probes);
    }
    if let Some(time) = time {
        keepalive = keepalive.with_time(time);
    }
    if let Some(interval) = interval {
        keepalive = keepalive.with_interval(interval);
    }
    socket.set_tcp_keepalive(&keepalive)
}

fn bind_source(socket: &Socket, source: SocketAddr, freebind: bool) -> Result<(), ConnectFailure> {
    let free = match (freebind, source.is_ipv4()) {
        (false, _) => Ok(()),
        (true, true) => socket.set_freebind_v4(true),
        (true, false) => socket.set_freebind_v6(true),
    };
    free.and_then(|()| socket.bind(&source.into())).map_err(|error| ConnectFailure {
        kind: ConnectFailureKind::Local,
        text: format!("failed to bind to {source}: {}", system_text(&error)),
    })
}

/// The failure in Envoy's words: a refusal by the peer is known later, what this machine finds out is known at once.
fn remote(error: &io::Error, address: &StreamAddress) -> ConnectFailure {
    let by_peer = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::TimedOut
    );
    let text = match (by_peer, address) {
        (true, StreamAddress::Ip(_)) => format!("delayed connect error: {}", system_text(error)),
        _ => format!("immediate connect error: {}|remote address:{address}", system_text(error)),
    };
    ConnectFailure { kind: ConnectFailureKind::Remote, text }
}

/// The text of the C library for an error, without the number that the standard library adds.
pub(crate) fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Counts one connection from its first SYN to its end.
#[derive(Debug)]
pub struct ConnectionGuard {
    info: Arc<ClusterInfo>,
    host: Arc<Host>,
    id: u64,
    local_address: Cell<Option<SocketAddr>>,
    begun: Instant,
    connected: OnceLock<Instant>,
    tls: OnceCell<Option<Arc<TlsInfo>>>,
    requests: Cell<u64>,
    closed_by: Cell<ClosedBy>,
    requests_active: Cell<bool>,
    _permit: Option<Permit>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl ConnectionGuard {
    fn new(info: Arc<ClusterInfo>, host: Arc<Host>, permit: Option<Permit>) -> Self {
        info.stats.upstream_cx_total().inc();
        info.stats.upstream_cx_active().inc();
        host.stats().cx_total.fetch_add(1, Ordering::Relaxed);
        host.stats().cx_active.fetch_add(1, Ordering::Relaxed);
        Self {
            info,
            host,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            local_address: Cell::default(),
            begun: Instant::now(),
            connected: OnceLock::new(),
            tls: OnceCell::new(),
            requests: Cell::new(0),
            closed_by: Cell::default(),
            requests_active: Cell::new(false),
            _permit: permit,
        }
    }

    /// Tells this connection from the others of the process, `%UPSTREAM_CONNECTION_ID%`.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// When connecting began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// When there was a connection, before TLS.
    pub fn connected(&self) -> Option<Instant> {
        self.connected.get().copied()
    }

    /// Facts of the TLS session; none in clear text.
    pub fn tls(&self) -> Option<&Arc<TlsInfo>> {
        self.tls.get()?.as_ref()
    }

    /// This end of the connection; none where it is not an IP address.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address.get()
    }

    /// The host at the other end.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The cluster.
    pub fn info(&self) -> &Arc<ClusterInfo> {
        &self.info
    }

    /// Notes a request, for `upstream_rq_per_cx` and `max_requests_per_connection`; returns how many there were with it.
    pub fn count_request(&self) -> u64 {
        let requests = self.requests.get() + 1;
        self.requests.set(requests);
        requests
    }

    /// Says who ends the connection; this side unless said otherwise.
    pub fn set_closed_by(&self, by: ClosedBy) {
        self.closed_by.set(by);
    }

    /// Says whether requests are cut off by the end of the connection (`upstream_cx_destroy_with_active_rq`).
    pub fn set_requests_active(&self, active: bool) {
        self.requests_active.set(active);
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let stats = &self.info.stats;
        stats.upstream_cx_active().dec();
        self.host.stats().cx_active.fetch_sub(1, Ordering::Relaxed);
        stats.upstream_cx_destroy().inc();
        let cut_off = self.requests_active.get();
        if cut_off {
            stats.upstream_cx_destroy_with_active_rq().inc();
        }
        match self.closed_by.get() {
            ClosedBy::Local => {
                stats.upstream_cx_destroy_local().inc();
                if cut_off {
                    stats.upstream_cx_destroy_local_with_active_rq().inc();
                }
            }
            ClosedBy::Remote => {
                stats.upstream_cx_destroy_remote().inc();
                if cut_off {
                    stats.upstream_cx_destroy_remote_with_active_rq().inc();
                }
            }
        }
        stats.upstream_cx_length_ms().record(millis(self.begun.elapsed()));
        if self.requests.get() > 0 {
            stats.upstream_rq_per_cx().record(self.requests.get());
        }
    }
}
