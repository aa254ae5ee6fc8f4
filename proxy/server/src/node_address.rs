//! The address that Envoy calls the node's own: the first of an interface that is not the loopback.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The node's address of IP version 4 or 6; the loopback when there is no other.
///
/// Connecting a datagram socket sends nothing: it only asks the kernel which source address it would use.
pub(crate) fn of_version(v6: bool) -> IpAddr {
    let (any, beyond): (IpAddr, IpAddr) = if v6 {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into())
    } else {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into())
    };
    let chosen = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((beyond, 9))?;
        socket.local_addr()
    });
    let loopback = if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    chosen.map_or(loopback, |address| address.ip())
}
