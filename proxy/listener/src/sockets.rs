//! Listening sockets: one per worker, bound on the main thread so that an address in use is reported there.

use std::io;
use std::net::{SocketAddr, TcpListener};

use dhow_net::socket_option::{self, SocketOption, SocketState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::ListenerConfig;

/// The sockets of one address, one for each worker.
#[derive(Debug)]
pub(crate) struct BoundAddress {
    pub(crate) address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl BoundAddress {
    /// Binds and listens. With `enable_reuse_port` the kernel spreads connections over the workers' sockets; without,
    /// all workers accept from one.
    ///
    /// # Errors
    /// The error of the operating system, such as address in use.
    pub(crate) fn bind(config: &ListenerConfig, index: usize, workers: usize) -> io::Result<Self> {
        let options = &config.socket_options[index];
        let first = bind_one(config, config.addresses[index], options)?;
        let address = first.local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..workers {
            sockets.push(if config.reuse_port {
                bind_one(config, address, options)?
            } else {
                sockets[0].try_clone()?
            });
        }
        Ok(Self { address, sockets })
    }

    /// The socket of a worker, shared with this owner: the listening socket outlives an update of the listener, and so
    /// do connections that wait in its queue.
    pub(crate) fn for_worker(&self, worker: usize) -> io::Result<TcpListener> {
        self.sockets[worker % self.sockets.len()].try_clone()
    }
}

fn bind_one(
    config: &ListenerConfig,
    address: SocketAddr,
    options: &[SocketOption],
) -> io::Result<TcpListener> {
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
        socket.set_only_v6(true)?;
    }
    let apply = |state| socket_option::apply(options, state, address.is_ipv4(), &socket);
    apply(SocketState::Prebind)?;
    socket.bind(&address.into())?;
    apply(SocketState::Bound)?;
    socket.listen(i32::try_from(config.backlog).unwrap_or(i32::MAX))?;
    apply(SocketState::Listening)?;
    Ok(socket.into())
}
