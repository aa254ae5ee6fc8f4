//! The PROXY protocol: the header in front of a connection's bytes that names its true ends.

mod decode;

use std::net::{IpAddr, SocketAddr};

pub use decode::{Decoded, ProxyHeader, Wanted, decode};

/// First bytes of a header of version 2.
pub const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with extensions (TLVs).
    V2,
}

/// An extension of a header of version 2: its type and value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlv {
    /// `PP2_TYPE_*`.
    pub kind: u8,
    /// The value, up to 64 KiB.
    pub value: Vec<u8>,
}

/// Appends a header of version 1. Addresses of different families are written as `UNKNOWN`.
pub fn append_v1(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr) {
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => {
            out.extend_from_slice(b"PROXY UNKNOWN\r\n");
            return;
        }
    };
    let line = format!(
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    out.extend_from_slice(line.as_bytes());
}

/// Appends a header of version 2 for a proxied connection. False, and nothing appended, when the addresses are of
/// different families or the extensions are longer than the header can tell (64 KiB).
pub fn append_v2(out: &mut Vec<u8>, source: SocketAddr, destination: SocketAddr, tlvs: &[Tlv]) -> bool {
    let mut addresses = Vec::with_capacity(36);
    let family = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend_from_slice(&from.octets());
            addresses.extend_from_slice(&to.octets());
            0x11
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            addresses.extend_from_slice(&from.octets());
            addresses.extend_from_slice(&to.octets());
            0x21
        }
        _ => return false,
    };
    addresses.extend_from_slice(&source.port().to_be_bytes());
    addresses.extend_from_slice(&destination.port().to_be_bytes());
    let extensions: usize = tlvs.iter().map(|tlv| 3 + tlv.value.len()).sum();
    let Ok(length) = u16::try_from(addresses.len() + extensions) else {
        return false;
    };
    out.extend_from_slice(&V2_SIGNATURE);
    out.extend_from_slice(&[0x21, family]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&addresses);
    for tlv in tlvs {
        out.push(tlv.kind);
        // The sum of all lengths fits 16 bits, so each does.
        out.extend_from_slice(&(tlv.value.len() as u16).to_be_bytes());
        out.extend_from_slice(&tlv.value);
    }
    true
}

/// Appends a header of version 2 for a connection of the proxy's own (`LOCAL`).
pub fn append_v2_local(out: &mut Vec<u8>) {
    out.extend_from_slice(&V2_SIGNATURE);
    out.extend_from_slice(&[0x20, 0, 0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn version_1_is_a_line() {
        let mut out = Vec::new();
        append_v1(&mut out, address("10.0.0.1:1000"), address("10.0.0.2:80"));
        append_v1(&mut out, address("[::1]:1000"), address("[::2]:80"));
        append_v1(&mut out, address("10.0.0.1:1000"), address("[::2]:80"));
        let expected =
            "PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\nPROXY TCP6 ::1 ::2 1000 80\r\nPROXY UNKNOWN\r\n";
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }

    #[test]
    fn version_2_counts_addresses_and_extensions() {
        let mut out = Vec::new();
        let tlv = Tlv { kind: 0xea, value: b"abc".to_vec() };
        assert!(append_v2(&mut out, address("1.2.3.4:256"), address("5.6.7.8:80"), &[tlv]));
        assert_eq!(out[..12], V2_SIGNATURE);
        assert_eq!(out[12..16], [0x21, 0x11, 0, 12 + 6]);
        assert_eq!(out[16..28], [1, 2, 3, 4, 5, 6, 7, 8, 1, 0, 0, 80]);
        assert_eq!(out[28..], [0xea, 0, 3, b'a', b'b', b'c']);

        let long = Tlv { kind: 1, value: vec![0; 70_000] };
        assert!(!append_v2(&mut out, address("1.2.3.4:1"), address("5.6.7.8:2"), &[long]));
        assert!(!append_v2(&mut out, address("1.2.3.4:1"), address("[::1]:2"), &[]));
        assert_eq!(out.len(), 34, "what cannot be written leaves no trace");
    }

    #[test]
    fn a_connection_of_our_own_has_no_addresses() {
        let mut out = Vec::new();
        append_v2_local(&mut out);
        assert_eq!((out.len(), &out[12..]), (16, &[0x20, 0, 0, 0][..]));
    }
}
