//! Reading a PROXY protocol header, sans-IO: the first bytes of a connection in, what they say out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{ProxyVersion, Tlv, V2_SIGNATURE};

/// What version 1 begins with.
const V1_SIGNATURE: &[u8] = b"PROXY ";

/// Most bytes among which a header of version 1 has to end.
const V1_MAX: usize = 108;
/// Bytes of a header of version 2 before the addresses.
const V2_FIXED: usize = 16;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// More bytes are needed to tell.
    Incomplete,
    /// Not a header, or not one of a version that is looked for.
    NotFound,
    /// What might have been a header of version 1 and does not end.
    Endless,
    /// A header of a version that is not allowed, whatever is in it.
    Disallowed(ProxyVersion),
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

/// Which connections are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Those with a header of version 1.
    pub v1: bool,
    /// Those with a header of version 2.
    pub v2: bool,
    /// Those without a header; one of a version that is not wanted is none then.
    pub without: bool,
}

/// Looks for a header. What is none is told from one as late as Envoy does: where every connection has to have one, what does
/// not begin like it may still be a line that is told of as malformed.
pub fn decode(bytes: &[u8], wanted: Wanted) -> Decoded {
    let begins = |signature: &[u8]| {
        let common = bytes.len().min(signature.len());
        bytes[..common] == signature[..common]
    };
    let (like_v1, like_v2) = (begins(V1_SIGNATURE), begins(&V2_SIGNATURE));
    if wanted.without && !(wanted.v1 && like_v1) && !(wanted.v2 && like_v2) {
        return Decoded::NotFound;
    }
    match bytes.len() >= V2_FIXED {
        true if like_v2 && !wanted.v2 => Decoded::Disallowed(ProxyVersion::V2),
        true if like_v2 => decode_v2(bytes),
        true if !like_v1 => Decoded::NotFound,
        _ => decode_v1(bytes, wanted.v1),
    }
}

fn decode_v1(bytes: &[u8], allowed: bool) -> Decoded {
    let malformed = Decoded::Malformed(ProxyVersion::V1);
    // An empty line may be the beginning of version 2.
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n").filter(|end| *end > 0) else {
        return if bytes.len() <= V1_MAX { Decoded::Incomplete } else { Decoded::Endless };
    };
    if !allowed {
        return Decoded::Disallowed(ProxyVersion::V1);
    }
    if end + 2 > V1_MAX {
        return malformed;
    }
    let found = |ends| {
        let version = ProxyVersion::V1;
        Decoded::Found(ProxyHeader { version, length: end + 2, ends, tlvs: Vec::new() })
    };
    let text = String::from_utf8_lossy(&bytes[..end]);
    let words: Vec<&str> = text.trim_end().split(' ').collect();
    let ipv4 = match words[..] {
        ["PROXY", "UNKNOWN", ..] => return found(None),
        ["PROXY", "TCP4", _, _, _, _] => true,
        ["PROXY", "TCP6", _, _, _, _] => false,
        _ => return malformed,
    };
    let end_of = |address: &str, port: &str| {
        let address: IpAddr = address.parse().ok()?;
        (address.is_ipv4() == ipv4).then_some(SocketAddr::new(address, port.parse().ok()?))
    };
    match (end_of(words[2], words[4]), end_of(words[3], words[5])) {
        (Some(source), Some(destination)) if is_unicast(source) && is_unicast(destination) => {
            found(Some((source, destination)))
        }
        _ => malformed,
    }
}

/// Whether the address can be an end of a connection.
fn is_unicast(address: SocketAddr) -> bool {
    let ip = address.ip();
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn decode_v2(bytes: &[u8]) -> Decoded {
    let malformed = Decoded::Malformed(ProxyVersion::V2);
    let (version, command) = (bytes[12] >> 4, bytes[12] & 0xf);
    let (family, transport) = (bytes[13] >> 4, bytes[13] & 0xf);
    let local = command == 0;
    let address_length = match family {
        _ if version != 2 => return malformed,
        _ if local => 0,
        1 => 12,
        2 => 36,
        // Unix sockets and families that nobody knows cannot be told of further on.
        _ => return malformed,
    };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length < V2_FIXED + address_length {
        return malformed;
    }
    let Some(addresses) = bytes.get(V2_FIXED..V2_FIXED + address_length) else { return Decoded::Incomplete };
    // Streams and datagrams.
    if !local && (command != 1 || !matches!(transport, 1 | 2)) {
        return malformed;
    }
    let Some(extensions) = bytes.get(V2_FIXED + address_length..length) else { return Decoded::Incomplete };
    let ends = match family {
        _ if local => None,
        1 => ends_v4(addresses),
        _ => ends_v6(addresses),
    };
    let tlvs = if local { Some(Vec::new()) } else { decode_tlvs(extensions) };
    match (ends, tlvs) {
        (Some((source, destination)), _) if !is_unicast(source) || !is_unicast(destination) => malformed,
        (_, None) => malformed,
        (ends, Some(tlvs)) => Decoded::Found(ProxyHeader { version: ProxyVersion::V2, length, ends, tlvs }),
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
        decode(bytes, Wanted { v1: true, v2: true, without: false })
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
            "PROXY TCP4 0.0.0.0 10.0.0.2 1000 80\r\n",
            "PROXY TCP6 ff02::1 ::2 1000 80\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(120)),
            "hi\r\n",
        ] {
            assert_eq!(both(line.as_bytes()), Decoded::Malformed(ProxyVersion::V1), "{line}");
        }
        let v2 = |bytes: &[u8]| [&V2_SIGNATURE[..], bytes].concat();
        for bytes in [
            v2(&[0x31, 0x11, 0, 0]),
            v2(&[0x22, 0x11, 0, 12, 1, 2, 3, 4, 1, 2, 3, 4, 0, 1, 0, 2]),
            v2(&[0x21, 0x11, 0, 4, 1, 2, 3, 4]),
            v2(&[0x21, 0x31, 0, 0]),
            v2(&[0x21, 0x13, 0, 12, 1, 2, 3, 4, 1, 2, 3, 4, 0, 1, 0, 2]),
            v2(&[0x21, 0x11, 0, 12, 224, 2, 3, 4, 1, 2, 3, 4, 0, 1, 0, 2]),
            v2(&[0x21, 0x11, 0, 14, 1, 2, 3, 4, 1, 2, 3, 4, 0, 1, 0, 2, 9, 9]),
        ] {
            assert_eq!(both(&bytes), Decoded::Malformed(ProxyVersion::V2), "{bytes:?}");
        }
    }

    #[test]
    fn versions_that_are_not_allowed_are_refused_or_no_headers() {
        let mut v1 = Vec::new();
        append_v1(&mut v1, address("10.0.0.1:1"), address("10.0.0.2:2"));
        let without_v1 = Wanted { v1: false, v2: true, without: false };
        assert_eq!(decode(&v1, without_v1), Decoded::Disallowed(ProxyVersion::V1));
        assert_eq!(decode(&v1[..20], without_v1), Decoded::Incomplete);
        assert_eq!(decode(&v1, Wanted { without: true, ..without_v1 }), Decoded::NotFound);
        let v2 = [&V2_SIGNATURE[..], &[0x31, 0, 0, 0]].concat();
        let without_v2 = Wanted { v1: true, v2: false, without: false };
        assert_eq!(decode(&v2, without_v2), Decoded::Disallowed(ProxyVersion::V2));
        assert_eq!(decode(&v2, Wanted { without: true, ..without_v2 }), Decoded::NotFound);
    }

    #[test]
    fn what_is_no_header_is_told_early_where_it_is_let_through() {
        let lenient = Wanted { v1: true, v2: true, without: true };
        for bytes in [&b"hi"[..], b"hello, world", b"PUT", b"GET / HTTP/1.1\r\n"] {
            assert_eq!(decode(bytes, lenient), Decoded::NotFound);
        }
        for bytes in [&b"hi"[..], b"hello, world", b"P", b"\r\n", b""] {
            assert_eq!(both(bytes), Decoded::Incomplete);
        }
        assert_eq!(decode(b"PROXY", lenient), Decoded::Incomplete);
        assert_eq!(both(b"GET / HTTP/1.1\r\n"), Decoded::NotFound);
        assert_eq!(decode(&[V1_SIGNATURE, &[b'x'; 103]].concat(), lenient), Decoded::Endless);
        assert_eq!(both(&[V1_SIGNATURE, &[b'x'; 102]].concat()), Decoded::Incomplete);
    }

    #[test]
    fn datagrams_and_blanks_behind_a_line_are_taken() {
        let v2 = [&V2_SIGNATURE[..], &[0x21, 0x12, 0, 12, 1, 2, 3, 4, 1, 2, 3, 4, 0, 1, 0, 2]].concat();
        assert!(matches!(both(&v2), Decoded::Found(header) if header.ends.is_some()));
        let v1 = b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2 \r\n";
        assert!(matches!(both(v1), Decoded::Found(header) if header.length == v1.len()));
    }
}
