//! How an address is printed.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An address as a format string sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address<'a> {
    /// IP address and port.
    Ip(SocketAddr),
    /// Path of a Unix domain socket.
    Pipe(&'a str),
    /// An internal listener and the endpoint id, which may be empty.
    Internal(&'a str, &'a str),
}

impl Address<'_> {
    /// Appends `ip:port`, a path or `envoy://listener/endpoint`.
    pub fn append(&self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = match self {
            Self::Ip(SocketAddr::V4(ip)) => {
                append_v4(*ip.ip(), Some(ip.port()), out);
                Ok(())
            }
            Self::Ip(ip) => write!(out, "{ip}"),
            Self::Pipe(path) => write!(out, "{path}"),
            Self::Internal(listener, endpoint) => write!(out, "envoy://{listener}/{endpoint}"),
        };
    }

    /// Appends the address without its port; other kinds than IP as [`Address::append`].
    pub fn append_without_port(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ip(SocketAddr::V4(ip)) => append_v4(*ip.ip(), None, out),
            Self::Ip(ip) => {
                let _ = write!(out, "{}", ip.ip());
            }
            _ => self.append(out),
        }
    }

    /// Appends the network that the address is in (`10.1.0.0/16`); false for other kinds than IP.
    pub fn append_masked(&self, mask: PrefixLength, out: &mut Vec<u8>) -> bool {
        let Self::Ip(ip) = self else { return false };
        let _ = match ip.ip() {
            IpAddr::V4(v4) => {
                let bits = mask.v4.min(32);
                let kept = u32::from(v4) & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                write!(out, "{}/{bits}", Ipv4Addr::from(kept))
            }
            IpAddr::V6(v6) => {
                let bits = mask.v6.min(128);
                let kept = u128::from(v6) & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                write!(out, "{}/{bits}", Ipv6Addr::from(kept))
            }
        };
        true
    }

    /// The port of an IP address.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(ip) => Some(ip.port()),
            _ => None,
        }
    }
}

/// Every line of an access log has several addresses: this is many times faster than the formatter.
fn append_v4(ip: Ipv4Addr, port: Option<u16>, out: &mut Vec<u8>) {
    // The longest is `255.255.255.255:65535`; an octet is written with a dot and room behind it.
    let mut text = [0; 24];
    let mut length = 0;
    for octet in ip.octets() {
        let (digits, count) = OCTETS[usize::from(octet)];
        text[length..length + 4].copy_from_slice(&digits);
        length += usize::from(count) + 1;
    }
    length -= 1;
    if let Some(port) = port {
        text[length] = b':';
        length += 1;
        let mut rest = port;
        let count = 1 + [10, 100, 1000, 10_000].iter().filter(|least| port >= **least).count();
        for digit in text[length..length + count].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        length += count;
    }
    out.extend_from_slice(&text[..length]);
}

/// The digits of every octet with a dot behind them, and how many digits there are.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut table = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        table[octet] = match octet {
            100.. => ([digits[0], digits[1], digits[2], b'.'], 3),
            10.. => ([digits[1], digits[2], b'.', b'.'], 2),
            _ => ([digits[2], b'.', b'.', b'.'], 1),
        };
        octet += 1;
    }
    table
};

/// How many leading bits of an address are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLength {
    /// For IPv4, 0 to 32.
    pub v4: u8,
    /// For IPv6, 0 to 128.
    pub v6: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_the_standard_library_prints_them() {
        for text in [
            "0.0.0.0:0",
            "127.0.0.1:80",
            "255.10.9.100:65535",
            "99.199.200.1:9",
            "1.2.3.4:10000",
            "10.0.0.1:1234",
            "[::1]:443",
        ] {
            let ip: SocketAddr = text.parse().unwrap();
            let mut out = Vec::new();
            Address::Ip(ip).append(&mut out);
            assert_eq!(out, text.as_bytes());
            out.clear();
            Address::Ip(ip).append_without_port(&mut out);
            assert_eq!(out, ip.ip().to_string().as_bytes());
        }
    }
}
