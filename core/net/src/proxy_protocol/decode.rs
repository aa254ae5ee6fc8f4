//! Reading a PROXY protocol header, sans-IO: the first bytes of a connection in, what they say out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ProxyVersion, Tlv, V2_SIGNATURE};

/// Longest header of version 1, its end included.
const V1_MAX: usize = 107;
/// Bytes of a header of version 2 before the addresses.
const V2_FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// More bytes are needed to tell.
    Incomplete,
    /// Not a header, or not one of a version that is looked for.
    NotFound,
    /// A header that breaks the rules of its version.
    Malformed(ProxyVersion),
    /// A header.
    Found(ProxyHeader),
}

/// A header as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its version.
    pub version: ProxyVersion,
    /// Bytes that it takes at the beginning of the connection.
    pub length: usize,
    /// Source and destination of the connection that is proxied; `None` when it is the proxy's own or of another kind.
    pub ends: Option<(SocketAddr, SocketAddr)>,
    /// Extensions, of version 2.
    pub tlvs: Vec<Tlv>,
}

/// Looks for a header of the versions `v1` and `v2`.
pub fn decode(bytes: &[u8], v1: bool, v2: bool) -> Decoded {
    let begins = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    if v2 && begins(&V2_SIGNATURE) {
        return if bytes.len() < V2_FIXED { Decoded::Incomplete } else { decode_v2(bytes) };
    }
    if v1 && begins(b"PROXY ") {
        return if bytes.len() < 6 { Decoded::Incomplete } else { decode_v1(bytes) };
    }
    Decoded::NotFound
}

fn decode_v1(bytes: &[u8]) -> Decoded {
    let malformed = Decoded::Malformed(ProxyVersion::V1);
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < V1_MAX { Decoded::Incomplete } else { malformed };
    };
    let Ok(text) = std::str::from_utf8(&line[6..end]) else { return malformed };
    let found = |ends| {
        let version = ProxyVersion::V1;
        Decoded::Found(ProxyHeader { version, length: end + 2, ends, tlvs: Vec::new() })
    };
    let words: Vec<&str> = text.split(' ').collect();
    let ipv4 = match words[..] {
        ["UNKNOWN", ..] => return found(None),
        ["TCP4", _, _, _, _] => true,
        ["TCP6", _, _, _, _] => false,
        _ => return malformed,
    };
    let end_of = |address: &str, port: &str| {
        let address: IpAddr = address.parse().ok()?;
        (address.is_ipv4() == ipv4).then_some(SocketAddr::new(address, port.parse().ok()?))
    };
    match (end_of(words[1], words[3]), end_of(words[2], words[4])) {
        (Some(source), Some(destination)) => found(Some((source, destination))),
        _ => malformed,
    }
}

fn decode_v2(bytes: &[u8]) -> Decoded {
    let malformed = Decoded::Malformed(ProxyVersion::V2);
    let (command, family) = (bytes[12], bytes[13]);
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return malformed,
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let Some(rest) = bytes.get(V2_FIXED..length) else { return Decoded::Incomplete };
    let address_length = match family {
        _ if local => 0,
        0x11 => 12,
        0x21 => 36,
        // Datagrams, Unix sockets and families that nobody knows cannot be told of further on.
        _ => return malformed,
    };
    let Some((addresses, extensions)) = rest.split_at_checked(address_length) else { return malformed };
    let ends = match family {
        _ if local => None,
        0x11 => ends_v4(addresses),
        _ => ends_v6(addresses),
    };
    let tlvs = if local { Some(Vec::new()) } else { decode_tlvs(extensions) };
    match tlvs {
        Some(tlvs) => Decoded::Found(ProxyHeader { version: ProxyVersion::V2, length, ends, tlvs }),
        None => malformed,
    }
}

fn ends_v4(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (source, rest) = bytes.split_first_chunk::<4>()?;
    let (destination, ports) = rest.split_first_chunk::<4>()?;
    ends(Ipv4Addr::from(*source).into(), Ipv4Addr::from(*destination).into(), ports)
}

fn ends_v6(bytes: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let (source, rest) = bytes.split_first_chunk::<16>()?;
    let (destination, ports) = rest.split_first_chunk::<16>()?;
    ends(Ipv6Addr::from(*source).into(), Ipv6Addr::from(*destination).into(), ports)
}

fn ends(source: IpAddr, destination: IpAddr, ports: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let &[a, b, c, d] = ports else { return None };
    let port = u16::from_be_bytes;
    Some((SocketAddr::new(source, port([a, b])), SocketAddr::new(destination, port([c, d]))))
}

fn decode_tlvs(mut bytes: &[u8]) -> Option<Vec<Tlv>> {
    let mut tlvs = Vec::new();
    while !bytes.is_empty() {
        let (&[kind, high, low], rest) = bytes.split_first_chunk::<3>()?;
        let (value, next) = rest.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        tlvs.push(Tlv { kind, value: value.to_vec() });
        bytes = next;
    }
    Some(tlvs)
}

#[cfg(test)]
mod tests {
    use super::super::{append_v1, append_v2, append_v2_local};
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn both(bytes: &[u8]) -> Decoded {
        decode(bytes, true, true)
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let tlvs = [Tlv { kind: 1, value: b"h2".to_vec() }, Tlv { kind: 0xea, value: Vec::new() }];
        for (from, to) in [("10.0.0.1:1000", "10.0.0.2:80"), ("[::1]:1000", "[2001:db8::2]:80")] {
            let ends = Some((address(from), address(to)));
            let mut v1 = Vec::new();
            append_v1(&mut v1, address(from), address(to));
            let mut v2 = Vec::new();
            assert!(append_v2(&mut v2, address(from), address(to), &tlvs));
            for (bytes, version, tlvs) in
                [(v1, ProxyVersion::V1, Vec::new()), (v2, ProxyVersion::V2, tlvs.to_vec())]
            {
                for cut in 0..bytes.len() {
                    assert_eq!(both(&bytes[..cut]), Decoded::Incomplete, "{cut} of {bytes:?}");
                }
                let length = bytes.len();
                let expected = ProxyHeader { version, length, ends, tlvs };
                assert_eq!(both(&[&bytes, &b"GET /"[..]].concat()), Decoded::Found(expected));
            }
        }
    }

    #[test]
    fn connections_of_the_proxy_itself_have_no_ends() {
        let mut local = Vec::new();
        append_v2_local(&mut local);
        for (bytes, version) in [(local, ProxyVersion::V2), (b"PROXY UNKNOWN\r\n".to_vec(), ProxyVersion::V1)]
        {
            let length = bytes.len();
            let expected = ProxyHeader { version, length, ends: None, tlvs: Vec::new() };
            assert_eq!(both(&bytes), Decoded::Found(expected));
        }
    }

    #[test]
    fn headers_that_break_the_rules_are_refused() {
        for line in [
            "PROXY TCP4 10.0.0.1 10.0.0.2 1000\r\n",
            "PROXY TCP4 ::1 ::2 1000 80\r\n",
            "PROXY TCP4 10.0.0.1 10.0.0.2 1000 99999\r\n",
            "PROXY UDP4 10.0.0.1 10.0.0.2 1000 80\r\n",
            &format!("PROXY UNKNOWN{}", "x".repeat(120)),
        ] {
            assert_eq!(both(line.as_bytes()), Decoded::Malformed(ProxyVersion::V1), "{line}");
        }
        let v2 = |bytes: &[u8]| [&V2_SIGNATURE[..], bytes].concat();
        for bytes in [
            v2(&[0x31, 0x11, 0, 0]),
            v2(&[0x22, 0x11, 0, 0]),
            v2(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]),
            v2(&[0x21, 0x12, 0, 0]),
            v2(&[0x21, 0x11, 0, 14, 1, 2, 3, 4, 1, 2, 3, 4, 0, 1, 0, 2, 9, 9]),
        ] {
            assert_eq!(both(&bytes), Decoded::Malformed(ProxyVersion::V2), "{bytes:?}");
        }
    }

    #[test]
    fn only_versions_that_are_looked_for_are_found() {
        let mut v1 = Vec::new();
        append_v1(&mut v1, address("10.0.0.1:1"), address("10.0.0.2:2"));
        assert_eq!(decode(&v1, false, true), Decoded::NotFound);
        assert_eq!(both(b"GET / HTTP/1.1\r\n"), Decoded::NotFound);
        assert_eq!(both(b"P"), Decoded::Incomplete);
        assert_eq!(both(b"PUT"), Decoded::NotFound);
    }
}
