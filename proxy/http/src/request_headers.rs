//! What the connection manager does to a request head before routing, in Envoy's order: normalise path and host, drop
//! hop-by-hop headers, decide where the request came from, and set the forwarding headers.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use dhow_base::{Uuid, is_loopback};
use dhow_http::{HeaderMap, HeaderName, KnownHeader, KnownSet, format_decimal};
use dhow_net::StreamAddress;
use dhow_proxy_api::{ConnectionInfo, LocalReply};

use crate::config::{
    ConnectionManagerConfig, EscapedSlashes, ForwardingConfig, InternalAddresses, NormalizationConfig,
    StripPort,
};
use crate::original_ip::AddressDetector;
use crate::path;
use crate::stream::is_grpc;

/// What the mutation found out.
#[derive(Clone, Debug)]
pub(crate) struct RequestOrigin {
    /// Trusted client address.
    pub(crate) client_address: StreamAddress,
    /// Whether the request counts as internal (`x-envoy-internal: true`).
    pub(crate) internal: bool,
}

/// Headers that only internal requests may carry.
const INTERNAL_ONLY: KnownSet = KnownSet::of(&[
    KnownHeader::XEnvoyRetriableStatusCodes,
    KnownHeader::XEnvoyRetriableHeaderNames,
    KnownHeader::XEnvoyRetryOn,
    KnownHeader::XEnvoyRetryGrpcOn,
    KnownHeader::XEnvoyMaxRetries,
    KnownHeader::XEnvoyUpstreamAltStatName,
    KnownHeader::XEnvoyUpstreamRqTimeoutMs,
    KnownHeader::XEnvoyUpstreamRqPerTryTimeoutMs,
    KnownHeader::XEnvoyUpstreamRqTimeoutAltResponse,
    KnownHeader::XEnvoyExpectedRqTimeoutMs,
    KnownHeader::XEnvoyForceTrace,
    KnownHeader::XEnvoyIpTags,
    KnownHeader::XEnvoyOriginalUrl,
    KnownHeader::XEnvoyHedgeOnPerTryTimeout,
    KnownHeader::XEnvoyUpstreamStreamDurationMs,
]);

/// Headers that requests from outside may not carry when this proxy is the edge.
const EDGE_ONLY: KnownSet = KnownSet::of(&[
    KnownHeader::XEnvoyDecoratorOperation,
    KnownHeader::XEnvoyDownstreamServiceCluster,
    KnownHeader::XEnvoyDownstreamServiceNode,
    KnownHeader::XEnvoyOriginalPath,
    KnownHeader::XEnvoyOriginalHost,
]);

/// Headers that never go further than the next hop.
const HOP_BY_HOP: KnownSet =
    KnownSet::of(&[KnownHeader::KeepAlive, KnownHeader::ProxyConnection, KnownHeader::TransferEncoding]);

/// Checks and normalises path and host. The reply, if any, is Envoy's for such a request.
pub(crate) fn normalize(
    config: &NormalizationConfig,
    local_port: Option<u16>,
    head: &mut HeaderMap,
) -> Result<(), Box<LocalReply>> {
    if !head.contains_known(KnownHeader::Authority) {
        return Err(Box::new(LocalReply::new(400, &b""[..], "missing_host_header")));
    }
    let connect = head.method() == b"CONNECT";
    if !connect {
        check_path(head)?;
        normalize_path(config, head)?;
    }
    normalize_host(config, local_port, head);
    Ok(())
}

fn check_path(head: &HeaderMap) -> Result<(), Box<LocalReply>> {
    match head.path().first() {
        None => Err(Box::new(LocalReply::new(404, &b""[..], "missing_path_rejected"))),
        Some(b'/') => Ok(()),
        Some(_) => Err(Box::new(LocalReply::new(404, &b""[..], "absolute_path_rejected"))),
    }
}

fn normalize_path(config: &NormalizationConfig, head: &mut HeaderMap) -> Result<(), Box<LocalReply>> {
    let bad = || Box::new(LocalReply::new(400, &b""[..], "path_normalization_failed"));
    if head.path().contains(&b'#') {
        return Err(bad());
    }
    let mut redirect = false;
    if config.escaped_slashes != EscapedSlashes::Keep && path::has_escaped_slash(head.path()) {
        let unescaped = path::unescape_slashes(head.path());
        head.set_known(KnownHeader::Path, &unescaped);
        if config.escaped_slashes == EscapedSlashes::Reject {
            return Err(bad());
        }
        redirect = config.escaped_slashes == EscapedSlashes::UnescapeAndRedirect;
    }
    if config.normalize_path && path::needs_normalization(head.path()) {
        let normal = path::normalize(head.path()).ok_or_else(bad)?;
        head.set_known(KnownHeader::Path, &normal);
    }
    if config.merge_slashes && path::has_double_slash(head.path()) {
        let merged = path::merge_slashes(head.path());
        head.set_known(KnownHeader::Path, &merged);
    }
    if redirect {
        // A call of gRPC has no way to follow.
        if is_grpc(head) {
            return Err(bad());
        }
        let reply = LocalReply::new(307, &b""[..], "path_normalization_failed");
        return Err(Box::new(reply.header(KnownHeader::Location, head.path().to_vec())));
    }
    Ok(())
}

fn normalize_host(config: &NormalizationConfig, local_port: Option<u16>, head: &mut HeaderMap) {
    if config.strip_trailing_host_dot {
        let authority = head.authority();
        let (host, port) = split_port(authority);
        if host.last() == Some(&b'.') {
            let mut stripped = host[..host.len() - 1].to_vec();
            stripped.extend_from_slice(port);
            head.set_known(KnownHeader::Authority, &stripped);
        }
    }
    if config.strip_port == StripPort::Keep {
        return;
    }
    let (host, port) = split_port(head.authority());
    let number = std::str::from_utf8(port.get(1..).unwrap_or_default()).ok();
    let number = number.and_then(|digits| digits.parse::<u32>().ok());
    let matches = match config.strip_port {
        StripPort::Keep => false,
        StripPort::Any => number.is_some(),
        StripPort::Matching => number.is_some() && number == local_port.map(u32::from),
    };
    if matches {
        let host = host.to_vec();
        head.set_known(KnownHeader::Authority, &host);
    }
}

/// Splits an authority into host and what follows its last colon, with the colon; empty when there is none outside of the
/// brackets of an IPv6 address.
fn split_port(authority: &[u8]) -> (&[u8], &[u8]) {
    match authority.iter().rposition(|b| matches!(b, b':' | b']')) {
        Some(at) if authority[at] == b':' => authority.split_at(at),
        _ => (authority, b""),
    }
}

/// Drops hop-by-hop headers and sets the forwarding headers.
pub(crate) fn mutate(
    config: &ConnectionManagerConfig,
    connection: &ConnectionInfo,
    head: &mut HeaderMap,
    upgrade: bool,
    random: impl FnMut() -> u64,
) -> Result<RequestOrigin, Box<LocalReply>> {
    remove_hop_by_hop(head, upgrade);
    let forwarding = &config.forwarding;
    let peer = &connection.remote_address;
    let encrypted = connection.tls.is_expected();
    let proto = proto_by_port(forwarding, connection);
    let proto = proto.unwrap_or(if encrypted { b"https" } else { b"http" });

    let single_address;
    let client;
    if forwarding.use_remote_address {
        single_address = !head.contains_known(KnownHeader::XForwardedFor);
        client = match forwarding.xff_num_trusted_hops {
            0 => None,
            hops => address_from_right(head, hops as usize - 1),
        };
        if !forwarding.skip_xff_append {
            append_peer(forwarding, peer, head);
        }
        if forwarding.xff_num_trusted_hops == 0 || !head.contains_known(KnownHeader::XForwardedProto) {
            head.set_known(KnownHeader::XForwardedProto, proto);
        }
        if forwarding.append_x_forwarded_port
            && (forwarding.xff_num_trusted_hops == 0 || !head.contains_known(KnownHeader::XForwardedPort))
        {
            set_forwarded_port(connection, head);
        }
    } else if forwarding.detectors.is_empty() {
        single_address = forwarding.xff_num_trusted_hops == 0 && is_single_address(head);
        client = address_from_right(head, forwarding.xff_num_trusted_hops as usize);
    } else {
        let found = AddressDetector::detect(&forwarding.detectors, peer.ip(), head).map_err(|status| {
            Box::new(LocalReply::new(status, &b""[..], "rejecting because detection failed"))
        })?;
        (client, single_address) = (found.address, found.trusted);
        if found.append {
            append_peer(forwarding, peer, head);
        }
    }
    if !head.contains_known(KnownHeader::XForwardedProto) {
        head.append_known(KnownHeader::XForwardedProto, proto);
    }
    if forwarding.append_x_forwarded_port && !head.contains_known(KnownHeader::XForwardedPort) {
        set_forwarded_port(connection, head);
    }
    set_scheme(head, proto);
    if let Some(scheme) = &forwarding.scheme.overwrite {
        head.set_known(KnownHeader::Scheme, scheme);
        head.set_known(KnownHeader::XForwardedProto, scheme);
    }

    let client_address = match client {
        Some(ip) => StreamAddress::Ip(SocketAddr::new(ip, 0)),
        None => peer.clone(),
    };
    let internal = single_address && is_internal(forwarding, &client_address);
    let edge = !internal && forwarding.use_remote_address;
    head.remove_known(KnownHeader::XEnvoyInternal);
    if internal {
        head.append_known(KnownHeader::XEnvoyInternal, b"true");
    } else {
        head.remove_set(INTERNAL_ONLY);
        if edge {
            head.remove_set(EDGE_ONLY);
        }
    }
    if let Some(agent) = &forwarding.user_agent {
        head.set_known(KnownHeader::XEnvoyDownstreamServiceCluster, agent.cluster.as_bytes());
        if head.get_known(KnownHeader::UserAgent).is_none_or(<[u8]>::is_empty) {
            head.set_known(KnownHeader::UserAgent, agent.cluster.as_bytes());
        }
        if !agent.node.is_empty() {
            head.set_known(KnownHeader::XEnvoyDownstreamServiceNode, agent.node.as_bytes());
        }
    }
    append_via(&forwarding.via, head);
    if edge && let Some(address) = client_address.ip() {
        head.set_known(KnownHeader::XEnvoyExternalAddress, format_ip(address).as_bytes());
    }
    set_request_id(forwarding, edge, head, random);
    let chosen = config.client_certificate_by.as_ref().and_then(|by| by.choose(connection, head));
    chosen.unwrap_or(&config.client_certificate).apply(connection.tls.session(), head);
    Ok(RequestOrigin { client_address, internal })
}

/// Says which port the client connected to, where it was one.
fn set_forwarded_port(connection: &ConnectionInfo, head: &mut HeaderMap) {
    if let Some(port) = connection.local_address.port() {
        head.set_known_number(KnownHeader::XForwardedPort, port.into());
    }
}

/// What is spoken by the port that a restored destination has, where the configuration knows.
fn proto_by_port(forwarding: &ForwardingConfig, connection: &ConnectionInfo) -> Option<&'static [u8]> {
    let ports = forwarding.proto_ports.as_ref().filter(|_| connection.local_address_restored)?;
    let port = connection.local_address.port()?.into();
    match () {
        () if ports.https.contains(&port) => Some(b"https"),
        () if ports.http.contains(&port) => Some(b"http"),
        () => None,
    }
}

/// Sets the scheme where the request names none: what a proxy in front said, else that of the connection.
fn set_scheme(head: &mut HeaderMap, proto: &[u8]) {
    if head.contains_known(KnownHeader::Scheme) {
        return;
    }
    let mut scheme = [0u8; 8];
    let from = head.get_known(KnownHeader::XForwardedProto).unwrap_or(proto);
    let scheme = match from.len() {
        n @ 4..=5 if from.eq_ignore_ascii_case(b"http") || from.eq_ignore_ascii_case(b"https") => {
            scheme[..n].copy_from_slice(from);
            scheme[..n].make_ascii_lowercase();
            &scheme[..n]
        }
        _ => proto,
    };
    head.append_known(KnownHeader::Scheme, scheme);
}

fn remove_hop_by_hop(head: &mut HeaderMap, upgrade: bool) {
    if !upgrade {
        remove_named_by_connection(head);
        head.remove_known(KnownHeader::Connection);
        head.remove_known(KnownHeader::Upgrade);
        if let Some(te) = head.get_known(KnownHeader::Te).filter(|te| !te.is_empty()) {
            let trailers = te.split(|b| *b == b',').any(|t| t.trim_ascii() == b"trailers");
            if trailers {
                head.set_known(KnownHeader::Te, b"trailers");
            } else {
                head.remove_known(KnownHeader::Te);
            }
        }
    }
    head.remove_set(HOP_BY_HOP);
    sanitize_referer(head);
}

/// Envoy removes what `connection` names only where that matters to the next hop: `te` is the case that has meaning.
fn remove_named_by_connection(head: &mut HeaderMap) {
    if !head.contains_known(KnownHeader::Te) {
        return;
    }
    let names_te = head
        .get_known(KnownHeader::Connection)
        .is_some_and(|v| v.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"te")));
    let trailers = head.get_known(KnownHeader::Te).is_some_and(|te| te.eq_ignore_ascii_case(b"trailers"));
    match (names_te, trailers) {
        // Only here its case does not matter.
        (true, true) => head.set_known(KnownHeader::Te, b"trailers"),
        (true, false) => _ = head.remove_known(KnownHeader::Te),
        (false, _) => {}
    }
}

/// A referer that is repeated or is no URL is dropped.
fn sanitize_referer(head: &mut HeaderMap) {
    let Some(referer) = head.get_known(KnownHeader::Referer) else { return };
    let name = HeaderName::Known(KnownHeader::Referer);
    if !is_url(referer) || head.get_all(&name).nth(1).is_some() {
        head.remove_known(KnownHeader::Referer);
    }
}

/// Whether a text is what Envoy takes for a URL: `scheme://host:port` and a path, or a path alone; no user and no fragment.
fn is_url(text: &[u8]) -> bool {
    if text.iter().any(|byte| *byte <= b' ' || *byte == b'#' || *byte >= 0x7f) {
        return false;
    }
    let first = text.split(|byte| *byte == b'/').next().unwrap_or_default();
    let Some(colon) = first.iter().position(|byte| *byte == b':') else { return true };
    let (scheme, rest) = text.split_at(colon);
    let is_scheme = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    let Some(rest) = rest.strip_prefix(b"://").filter(|_| is_scheme) else { return false };
    let authority = rest.split(|byte| b"/?".contains(byte)).next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(inside) => match inside.iter().position(|byte| *byte == b']') {
            Some(end) => (&inside[..end], &inside[end + 1..]),
            None => return false,
        },
        None => {
            authority.split_at(authority.iter().position(|byte| *byte == b':').unwrap_or(authority.len()))
        }
    };
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.:".contains(byte);
    let port = match port.strip_prefix(b":") {
        Some(digits) => std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok()),
        None => port.is_empty(),
    };
    !host.is_empty() && host.iter().all(is_host) && port
}

/// The elements of `x-forwarded-for` that are not empty, left to right, unparsed.
pub(crate) fn forwarded_for(head: &HeaderMap) -> impl DoubleEndedIterator<Item = &[u8]> {
    let value = head.get_known(KnownHeader::XForwardedFor).unwrap_or_default();
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|v| !v.is_empty())
}

/// The address `skip` places from the right of `x-forwarded-for`; empty places count, and an address with a port is none.
pub(crate) fn address_from_right(head: &HeaderMap, skip: usize) -> Option<IpAddr> {
    let value = head.get_known(KnownHeader::XForwardedFor)?;
    let element = value.rsplit(|b| *b == b',').nth(skip)?;
    std::str::from_utf8(element.trim_ascii()).ok()?.parse().ok()
}

/// Whether `x-forwarded-for` is one address and nothing else.
pub(crate) fn is_single_address(head: &HeaderMap) -> bool {
    let value = head.get_known(KnownHeader::XForwardedFor).unwrap_or_default();
    !value.contains(&b',') && address_from_right(head, 0).is_some()
}

/// Appends the peer to `x-forwarded-for`; for one on the loopback the node's own address stands, and one on a Unix socket
/// has none.
fn append_peer(forwarding: &ForwardingConfig, peer: &StreamAddress, head: &mut HeaderMap) {
    let Some(peer) = peer.ip() else { return };
    append_forwarded_for(head, if is_loopback(peer) { forwarding.node_address } else { peer });
}

fn append_forwarded_for(head: &mut HeaderMap, address: IpAddr) {
    let address = format_ip(address);
    match head.get_known(KnownHeader::XForwardedFor) {
        None | Some(b"") => head.set_known(KnownHeader::XForwardedFor, address.as_bytes()),
        Some(present) => {
            let mut joined = Vec::with_capacity(present.len() + 1 + address.len);
            joined.extend_from_slice(present);
            joined.push(b',');
            joined.extend_from_slice(address.as_bytes());
            head.set_known(KnownHeader::XForwardedFor, &joined);
        }
    }
}

fn is_internal(forwarding: &ForwardingConfig, address: &StreamAddress) -> bool {
    let Some(InternalAddresses { ranges, unix_sockets }) = &forwarding.internal_addresses else {
        return false;
    };
    address.ip().map_or(*unix_sockets, |ip| ranges.contains(ip))
}

/// Appends our pseudonym to `via`, as on requests and responses.
pub(crate) fn append_via(via: &[u8], head: &mut HeaderMap) {
    if via.is_empty() {
        return;
    }
    match head.get_known(KnownHeader::Via) {
        None => head.append_known(KnownHeader::Via, via),
        Some(present) => {
            let joined = [present, b", ", via].concat();
            head.set_known(KnownHeader::Via, &joined);
        }
    }
}

fn set_request_id(
    forwarding: &ForwardingConfig,
    edge: bool,
    head: &mut HeaderMap,
    mut random: impl FnMut() -> u64,
) {
    if !forwarding.generate_request_id {
        return;
    }
    let replace = edge && !forwarding.preserve_external_request_id;
    if replace || head.get_known(KnownHeader::XRequestId).is_none_or(<[u8]>::is_empty) {
        let id = Uuid::from_random_bits(random(), random());
        head.set_known(KnownHeader::XRequestId, &id.encode());
    }
}

/// An address in text without allocation.
struct IpText {
    buffer: [u8; 46],
    len: usize,
}

impl IpText {
    fn as_bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

fn format_ip(address: IpAddr) -> IpText {
    let mut buffer = [0; 46];
    if let IpAddr::V4(address) = address {
        let mut len = 0;
        for (at, octet) in address.octets().into_iter().enumerate() {
            if at > 0 {
                buffer[len] = b'.';
                len += 1;
            }
            let mut digits = [0; 20];
            let digits = format_decimal(octet.into(), &mut digits);
            buffer[len..len + digits.len()].copy_from_slice(digits);
            len += digits.len();
        }
        return IpText { buffer, len };
    }
    let mut rest = &mut buffer[..];
    // 46 bytes hold the longest textual address; a write error would mean a longer one.
    write!(rest, "{address}").expect("every textual IP address fits into 46 bytes");
    let len = 46 - rest.len();
    IpText { buffer, len }
}

#[cfg(test)]
mod tests;
