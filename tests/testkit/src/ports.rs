//! Free ports that stay ours until the program under test binds them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};

/// A port that the kernel chose and that this value keeps reserved.
///
/// The socket is bound but does not listen, with `SO_REUSEADDR` and `SO_REUSEPORT`: the kernel gives the port to nobody else,
/// yet a program of the same user can bind it and listen, because servers set at least one of the two options. Keep the value
/// alive for the length of the test; nothing has to be released by hand.
#[derive(Debug)]
pub struct HeldPort {
    socket: Socket,
    address: SocketAddr,
}

impl HeldPort {
    /// Reserves a free port of 127.0.0.1.
    pub fn new() -> io::Result<Self> {
        Self::on(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }

    /// Reserves a free port of `ip`, which has to be an address of this machine.
    pub fn on(ip: IpAddr) -> io::Result<Self> {
        Self::at(SocketAddr::new(ip, 0))
    }

    /// Reserves this very port, as it is wanted on several addresses of this machine; a free one when it is 0.
    pub fn at(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        let address = socket
            .local_addr()?
            .as_socket()
            .ok_or_else(|| io::Error::other("a bound TCP socket has an IP address"))?;
        Ok(Self { socket, address })
    }

    /// The reserved port. Connecting to it is refused until somebody listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The reserved address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts listening on the port by a socket of its own, so that a server can stop, refuse connections and come back while
    /// this value keeps the port.
    pub fn listener(&self) -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&self.address.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    }

    /// Starts listening on the reserved socket itself, so that there is no moment at which the port is free.
    pub fn listen(self) -> io::Result<TcpListener> {
        self.socket.listen(1024)?;
        Ok(self.socket.into())
    }
}

/// A port whose connection attempts never complete: neither accepted nor refused, as behind a firewall that drops packets.
///
/// It is a listener whose queue of unaccepted connections is full, so the kernel ignores further SYNs.
#[derive(Debug)]
pub struct UnansweredPort {
    address: SocketAddr,
    _listener: Socket,
    _fill: Vec<TcpStream>,
}

impl UnansweredPort {
    /// Opens such a port on 127.0.0.1.
    pub fn new() -> io::Result<Self> {
        let held = HeldPort::new()?;
        let address = held.address();
        held.socket.listen(0)?;
        let mut fill = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(100)) {
            fill.push(stream);
            if fill.len() > 16 {
                return Err(io::Error::other("the accept queue does not fill up"));
            }
        }
        Ok(Self { address, _listener: held.socket, _fill: fill })
    }

    /// The address to connect to in vain.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_held_port_refuses_until_a_server_binds_it() {
        let held = HeldPort::new().unwrap();
        assert_eq!(TcpStream::connect(held.address()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let server = TcpListener::bind(held.address()).unwrap();
        let client = TcpStream::connect(held.address()).unwrap();
        let (_, peer) = server.accept().unwrap();
        assert_eq!(client.local_addr().unwrap(), peer);
    }

    #[test]
    fn a_server_can_leave_a_held_port_and_come_back() {
        let held = HeldPort::new().unwrap();
        for _ in 0..2 {
            let server = held.listener().unwrap();
            TcpStream::connect(held.address()).unwrap();
            drop(server);
            let error = TcpStream::connect(held.address()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn the_kernel_gives_a_held_port_to_nobody_else() {
        let held: Vec<_> = (0..50).map(|_| HeldPort::new().unwrap().port()).collect();
        let kept = HeldPort::new().unwrap();
        for _ in 0..200 {
            assert_ne!(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(), kept.port());
        }
        assert_eq!(held.len(), 50);
    }

    #[test]
    fn an_unanswered_port_neither_accepts_nor_refuses() {
        let port = UnansweredPort::new().unwrap();
        let error = TcpStream::connect_timeout(&port.address(), Duration::from_millis(150)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
