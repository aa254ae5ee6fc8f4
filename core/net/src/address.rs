//! The address of one end of a connection.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Longest path of a Unix socket with the zero byte behind it, as the kernel stores it.
const LONGEST_PATH: usize = 108;

/// Where one end of a connection is (`envoy.config.core.v3.Address`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamAddress {
    /// A TCP port.
    Ip(SocketAddr),
    /// The path of a Unix domain socket; a leading `@` names the abstract namespace.
    Pipe(Arc<str>),
}

impl StreamAddress {
    /// The Unix socket of a `Pipe` message.
    ///
    /// # Errors
    /// Why there cannot be such a socket, in Envoy's words.
    pub fn pipe(path: &str, mode: u32) -> Result<Self, String> {
        if path.len() >= LONGEST_PATH {
            return Err(format!(
                "Path \"{path}\" exceeds maximum UNIX domain socket path size of {LONGEST_PATH}."
            ));
        }
        match path.starts_with('@') {
            true if mode != 0 => Err("Cannot set mode for Abstract AF_UNIX sockets".to_owned()),
            false if path.contains('\0') => {
                Err("UNIX domain socket pathname contains embedded null characters".to_owned())
            }
            _ => Ok(Self::Pipe(path.into())),
        }
    }

    /// The IP address and port, when it has one.
    pub fn as_ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe(_) => None,
        }
    }

    /// The IP address, when it has one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.as_ip().map(|address| address.ip())
    }

    /// The port, when it has one.
    pub fn port(&self) -> Option<u16> {
        self.as_ip().map(|address| address.port())
    }
}

impl From<SocketAddr> for StreamAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// `10.0.0.1:80`, `[::1]:80` or the path, as Envoy prints addresses.
impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Pipe(path) => f.write_str(path),
        }
    }
}

/// An IP address as it is written in a configuration, with a port: IPv6 may have a scope, which is an interface's name for
/// link-local addresses, and a number for all of them (`fe80::1%eth0`).
pub fn numeric_address(text: &str, port: u16) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some(SocketAddr::new(text.parse().ok()?, port)),
        // The C library knows the interfaces. It asks nobody for the name of what is an address, and says that there is no such.
        Some((address, _)) => {
            address.parse::<Ipv6Addr>().ok()?;
            (text, port).to_socket_addrs().ok()?.next()
        }
    }
}

/// The path of a Unix socket as the kernel reads it: an abstract name begins with a zero byte.
pub fn kernel_path(path: &str) -> Cow<'_, str> {
    match path.strip_prefix('@') {
        Some(name) => format!("\0{name}").into(),
        None => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_socket_can_have_are_refused() {
        let refusal = |path: &str, mode| StreamAddress::pipe(path, mode).unwrap_err();
        assert!(
            refusal(&"x".repeat(108), 0).ends_with("exceeds maximum UNIX domain socket path size of 108.")
        );
        assert_eq!(refusal("@a", 0o600), "Cannot set mode for Abstract AF_UNIX sockets");
        assert_eq!(refusal("/a\0b", 0), "UNIX domain socket pathname contains embedded null characters");
        for (path, mode) in [("/tmp/s", 0o777), ("@", 0), ("@a\0b", 0)] {
            assert_eq!(StreamAddress::pipe(path, mode), Ok(StreamAddress::Pipe(path.into())));
        }
        assert!(StreamAddress::pipe(&"x".repeat(107), 0).is_ok());
    }

    #[test]
    fn a_leading_at_names_the_abstract_namespace() {
        assert_eq!(kernel_path("@a"), "\0a");
        assert_eq!(kernel_path("/a@"), "/a@");
    }

    #[test]
    fn an_address_takes_no_more_room_than_one_of_ip() {
        assert_eq!(size_of::<StreamAddress>(), size_of::<SocketAddr>());
    }
}
