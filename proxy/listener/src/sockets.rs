//! Listening sockets: one per worker, bound on the main thread so that an address in use is reported there.

use std::fs::{self, Permissions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use dhow_net::socket_option::{self, SocketOption, SocketState};
use dhow_net::{StreamAddress, kernel_path};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::ListenAddress;
use crate::config::ListenerConfig;

/// Why there is no socket for an address.
#[derive(Debug)]
pub(crate) enum BindFailure {
    /// The address cannot be bound.
    Bind(io::Error),
    /// The mode of its file cannot be set.
    Mode(u32, io::Error),
    /// An option cannot be set, after the socket was bound or before.
    Options,
    /// An option cannot be set once the socket listens.
    ListeningOptions,
}

impl From<io::Error> for BindFailure {
    fn from(error: io::Error) -> Self {
        Self::Bind(error)
    }
}

impl BindFailure {
    /// The failure in Envoy's words.
    pub(crate) fn text(&self, listener: &str, address: &StreamAddress) -> String {
        match self {
            Self::Bind(error) => format!("cannot bind '{address}': {}", system_text(error)),
            Self::Mode(mode, error) => {
                format!("Failed to create socket with mode {mode:o}: {}", system_text(error))
            }
            Self::Options => format!("{listener}: Setting socket options failed"),
            Self::ListeningOptions => {
                format!("cannot set post-listen socket option on socket: {address}")
            }
        }
    }
}

/// The text of the C library for an error, without the number that the standard library adds.
fn system_text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// What is known beforehand of the addresses of a port's connections.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// Whether addresses of IPv4 that come as those of IPv6 are to be taken for what they are.
    pub(crate) unmaps: bool,
    /// The address that all connections were made to, where there is only one: it need not be asked of each.
    pub(crate) at: Option<SocketAddr>,
}

/// A listening socket that no worker watches yet.
#[derive(Debug)]
pub(crate) enum BoundSocket {
    /// A TCP port.
    Tcp(TcpListener, Reached),
    /// A Unix socket, and its address.
    Unix(UnixListener, StreamAddress),
}

/// The sockets of one address, one for each worker.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    pub(crate) address: StreamAddress,
    reached: Reached,
    sockets: Vec<Socket>,
}

impl BoundAddress {
    /// Binds and listens. With `enable_reuse_port` the kernel spreads connections over the workers' sockets; without,
    /// and on Unix sockets, all workers accept from one.
    ///
    /// # Errors
    /// What the operating system refuses, such as an address in use.
    pub(crate) fn bind(config: &ListenerConfig, index: usize, workers: usize) -> Result<Self, BindFailure> {
        let options = &config.socket_options[index];
        let configured = &config.addresses[index];
        let StreamAddress::Ip(ip) = configured.address else {
            let socket = bind_unix(config, configured, options)?;
            let reached = Reached { unmaps: false, at: None };
            return Ok(Self { address: configured.address.clone(), reached, sockets: vec![socket] });
        };
        let first = bind_one(config, ip, configured.ipv4_compat, options)?;
        let address = first.local_addr()?.as_socket().unwrap_or(ip);
        let mut sockets = vec![first];
        if config.reuse_port {
            for _ in 1..workers {
                sockets.push(bind_one(config, address, configured.ipv4_compat, options)?);
            }
        }
        // With either of these the kernel may deliver connections to other addresses.
        let may_differ = config.transparent || !options.is_empty() || address.ip().is_unspecified();
        let reached = Reached { unmaps: configured.unmaps(), at: (!may_differ).then_some(address) };
        Ok(Self { address: address.into(), reached, sockets })
    }

    /// The socket of a worker, shared with this owner: the listening socket outlives an update of the listener, and so
    /// do connections that wait in its queue.
    pub(crate) fn for_worker(&self, worker: usize) -> io::Result<BoundSocket> {
        let socket = self.sockets[worker % self.sockets.len()].try_clone()?;
        Ok(match &self.address {
            StreamAddress::Ip(_) => BoundSocket::Tcp(socket.into(), self.reached),
            StreamAddress::Pipe(_) => BoundSocket::Unix(socket.into(), self.address.clone()),
        })
    }
}

fn bind_one(
    config: &ListenerConfig,
    address: SocketAddr,
    ipv4_compat: bool,
    options: &[SocketOption],
) -> Result<Socket, BindFailure> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if config.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if config.freebind {
        if address.is_ipv4() { socket.set_freebind_v4(true)? } else { socket.set_freebind_v6(true)? }
    }
    if config.transparent {
        socket.set_ip_transparent_v4(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(!ipv4_compat)?;
    }
    let apply = |state| socket_option::apply(options, state, address.is_ipv4(), &socket);
    apply(SocketState::Prebind)?;
    socket.bind(&address.into())?;
    apply(SocketState::Bound)?;
    socket.listen(backlog(config))?;
    apply(SocketState::Listening)?;
    // Heads and small bodies are written whole; waiting for more only adds delay. What is accepted here inherits it.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

/// Takes the place of whatever is at the path, and leaves the file there at the end. As in Envoy no option is set before the
/// socket is bound, and those of IP cannot be set at all.
fn bind_unix(
    config: &ListenerConfig,
    listen: &ListenAddress,
    options: &[SocketOption],
) -> Result<Socket, BindFailure> {
    let ListenAddress { address: StreamAddress::Pipe(path), mode, .. } = listen else {
        return Err(BindFailure::Bind(io::ErrorKind::InvalidInput.into()));
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    let is_file = !path.starts_with('@');
    if is_file {
        // Where nothing is, or what is there stays, binding says all there is to say.
        let _ = fs::remove_file(&**path);
    }
    socket.bind(&SockAddr::unix(&*kernel_path(path))?)?;
    if is_file && *mode != 0 {
        fs::set_permissions(&**path, Permissions::from_mode(*mode))
            .map_err(|error| BindFailure::Mode(*mode, error))?;
    }
    if config.freebind || config.transparent {
        return Err(BindFailure::Options);
    }
    let apply = |state| {
        let mut due = options.iter().filter(|option| option.state == state && option.only_ipv4.is_none());
        due.try_for_each(|option| option.set(&socket))
    };
    apply(SocketState::Bound).map_err(|_| BindFailure::Options)?;
    socket.listen(backlog(config))?;
    apply(SocketState::Listening).map_err(|_| BindFailure::ListeningOptions)?;
    Ok(socket)
}

fn backlog(config: &ListenerConfig) -> i32 {
    i32::try_from(config.backlog).unwrap_or(i32::MAX)
}
