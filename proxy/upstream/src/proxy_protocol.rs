//! `envoy.transport_sockets.upstream_proxy_protocol`: the header in front of a connection that tells the host who the client
//! is.

use std::net::SocketAddr;

use dhow_net::StreamAddress;
use dhow_net::proxy_protocol::{ProxyVersion, Tlv, append_v1, append_v2, append_v2_local};
use dhow_proto::Message;
use dhow_proto::envoy::config::core::v3::{PerHostConfig, TlvEntry};

use crate::cluster_info::ClusterInfo;
use crate::connection_options::ProxiedConnection;
use crate::host::Host;
use crate::transport_socket::TransportSocket;

/// The transport socket as configured.
#[derive(Clone, Debug)]
pub struct ProxyProtocolSocket {
    /// `config.version`.
    pub version: ProxyVersion,
    /// `config.pass_through_tlvs`: extensions of the client's header that are passed on.
    pub passed: PassedTlvs,
    /// `config.added_tlvs`; an extension of the endpoint's metadata goes over one of the same type.
    pub added: Vec<Tlv>,
    /// `transport_socket`: what carries the bytes after the header.
    pub inner: TransportSocket,
}

/// `ProxyProtocolPassThroughTLVs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PassedTlvs {
    /// None, the default.
    #[default]
    None,
    /// `INCLUDE_ALL`.
    All,
    /// `INCLUDE`: those of these types.
    Of(Vec<u8>),
}

impl PassedTlvs {
    /// Whether extensions of this type are passed on.
    pub fn includes(&self, kind: u8) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Of(kinds) => kinds.contains(&kind),
        }
    }
}

impl ProxyProtocolSocket {
    /// The header of a new connection to `host`; `ends` are its own, for connections that serve no client, such as those of
    /// health checks.
    pub(crate) fn header(
        &self,
        proxied: Option<&ProxiedConnection>,
        host: &Host,
        ends: (Option<SocketAddr>, &StreamAddress),
        info: &ClusterInfo,
    ) -> Vec<u8> {
        let mut header = Vec::new();
        match (self.version, proxied) {
            (ProxyVersion::V1, proxied) => {
                let own = || Some((ends.0?, ends.1.as_ip()?));
                match proxied.map_or_else(own, |proxied| proxied.ends) {
                    Some((source, destination)) => append_v1(&mut header, source, destination),
                    None => header.extend_from_slice(b"PROXY UNKNOWN\r\n"),
                }
            }
            (ProxyVersion::V2, Some(ProxiedConnection { ends: Some((source, destination)), tlvs })) => {
                let tlvs = self.tlvs(tlvs, host);
                if !append_v2(&mut header, *source, *destination, &tlvs) {
                    info.stats.count_long_tlvs();
                    append_v2(&mut header, *source, *destination, &[]);
                }
            }
            // Nothing can be told of a client of a Unix socket, and Envoy leaves the header out.
            (ProxyVersion::V2, Some(ProxiedConnection { ends: None, .. })) => {}
            (ProxyVersion::V2, None) => append_v2_local(&mut header),
        }
        header
    }

    /// Extensions of the endpoint, those of the socket, those of the client's header: the first of a type counts.
    fn tlvs(&self, own: &[Tlv], host: &Host) -> Vec<Tlv> {
        let mut tlvs = tlvs_of_host(host);
        let of_host = tlvs.len();
        for tlv in &self.added {
            if !tlvs[..of_host].iter().any(|other| other.kind == tlv.kind) {
                tlvs.push(tlv.clone());
            }
        }
        let added = tlvs.len();
        for tlv in own.iter().filter(|tlv| self.passed.includes(tlv.kind)) {
            if !tlvs[..added].iter().any(|other| other.kind == tlv.kind) {
                tlvs.push(tlv.clone());
            }
        }
        tlvs
    }
}

/// Namespace of an endpoint's metadata with extensions of its own.
const METADATA: &str = "envoy.transport_sockets.proxy_protocol";

fn tlvs_of_host(host: &Host) -> Vec<Tlv> {
    let Some(any) = host.metadata().endpoint.typed_filter_metadata.get(METADATA) else {
        return Vec::new();
    };
    let PerHostConfig { added_tlvs } = PerHostConfig::decode(&*any.value).unwrap_or_default();
    let tlv = |entry| {
        let TlvEntry { r#type: kind, value, format_string: _ } = entry; // formats are not evaluated for hosts
        Some(Tlv { kind: u8::try_from(kind).ok()?, value })
    };
    added_tlvs.into_iter().filter_map(tlv).collect()
}
