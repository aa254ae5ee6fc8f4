//! `envoy.filters.listener.proxy_protocol`: the header in front of a connection's bytes that says who the client is.

use std::io;
use std::net::SocketAddr;

use dhow_net::Transport;
use dhow_net::proxy_protocol::{Decoded, ProxyHeader, ProxyVersion, Wanted, decode};
use dhow_proto::envoy::extensions::filters::listener::proxy_protocol::v3 as pb;
use dhow_proxy_api::ConnectionRecord;
use dhow_stats::{Store, stat_group};

use crate::proxy_extensions::ExtensionRules;

/// Bytes that are looked at first; what most headers fit in.
const FIRST_LOOK: usize = 256;
/// Longest header of version 2.
const MAX_HEADER: usize = 16 + u16::MAX as usize;

/// The filter as configured.
#[derive(Debug)]
pub(crate) struct ProxyProtocolConfig {
    /// `allow_requests_without_proxy_protocol` and `disallowed_versions`.
    wanted: Wanted,
    /// `stat_prefix`.
    stat_prefix: String,
    /// What becomes of extensions.
    extensions: ExtensionRules,
}

/// What a connection's header told.
#[derive(Debug, Default)]
pub(crate) struct TakenHeader {
    /// Source and destination, where it told of them.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
    /// What is kept of its extensions.
    pub(crate) record: Option<Box<ConnectionRecord>>,
}

stat_group! {
    /// `proxy_proto.*`.
    struct FoundStats {
        counters { not_found_allowed, not_found_disallowed }
    }
}

stat_group! {
    /// `proxy_proto.versions.v<n>.*`.
    struct VersionStats {
        counters { disallowed, error, found }
    }
}

stat_group! {
    /// An older name, at the root of all stats.
    struct LegacyStats {
        counters { downstream_cx_proxy_proto_error }
    }
}

/// What the filter counts.
#[derive(Debug)]
pub(crate) struct ProxyProtocolStats {
    found: FoundStats,
    versions: [VersionStats; 2],
    legacy: LegacyStats,
}

impl ProxyProtocolStats {
    pub(crate) fn new(config: &ProxyProtocolConfig, store: &Store) -> Self {
        let prefix = match config.stat_prefix.as_str() {
            "" => "proxy_proto.".to_owned(),
            prefix => format!("proxy_proto.{prefix}."),
        };
        let version = |number: u8| store.scope(&format!("{prefix}versions.v{number}.")).group();
        Self {
            found: store.scope(&prefix).group(),
            versions: [version(1), version(2)],
            legacy: store.scope("").group(),
        }
    }

    fn of(&self, version: ProxyVersion) -> &VersionStats {
        &self.versions[index(version)]
    }
}

const fn index(version: ProxyVersion) -> usize {
    match version {
        ProxyVersion::V1 => 0,
        ProxyVersion::V2 => 1,
    }
}

impl ProxyProtocolConfig {
    /// Lowers the message.
    ///
    /// # Errors
    /// No version is allowed.
    pub(crate) fn lower(message: pb::ProxyProtocol) -> Result<Self, &'static str> {
        let pb::ProxyProtocol {
            rules,
            allow_requests_without_proxy_protocol,
            pass_through_tlvs,
            disallowed_versions,
            stat_prefix,
            tlv_location,
        } = message;
        let to_filter_state = tlv_location == pb::proxy_protocol::TlvLocation::FilterState as i32;
        let [v1, v2] = [0, 1].map(|version| !disallowed_versions.contains(&version));
        if !v1 && !v2 {
            return Err(
                "Proxy Protocol filter is misconfigured: all proxy protocol versions are disallowed.",
            );
        }
        Ok(Self {
            extensions: ExtensionRules::lower(rules, to_filter_state, pass_through_tlvs),
            wanted: Wanted { v1, v2, without: allow_requests_without_proxy_protocol },
            stat_prefix,
        })
    }

    /// Takes the header off the connection: the addresses that it tells of, and what is kept of its extensions.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer closed, `InvalidData` when the connection is to be refused, or what the socket reports.
    pub(crate) async fn take_header(
        &self,
        stream: &Transport,
        stats: &ProxyProtocolStats,
    ) -> io::Result<TakenHeader> {
        let refused = || io::Error::from(io::ErrorKind::InvalidData);
        let mut buffer = vec![0; FIRST_LOOK];
        let mut seen = 0;
        loop {
            seen = stream.peek_beyond(seen, &mut buffer).await?;
            match decode(&buffer[..seen], self.wanted) {
                Decoded::Incomplete => {}
                Decoded::NotFound if self.wanted.without => {
                    stats.found.not_found_allowed().inc();
                    return Ok(TakenHeader::default());
                }
                Decoded::NotFound | Decoded::Endless => {
                    stats.found.not_found_disallowed().inc();
                    stats.legacy.downstream_cx_proxy_proto_error().inc();
                    return Err(refused());
                }
                Decoded::Disallowed(version) => {
                    stats.of(version).found().inc();
                    stats.of(version).disallowed().inc();
                    return Err(refused());
                }
                Decoded::Malformed(version) => {
                    stats.of(version).error().inc();
                    stats.legacy.downstream_cx_proxy_proto_error().inc();
                    return Err(refused());
                }
                Decoded::Found(ProxyHeader { version, length, ends, tlvs }) => {
                    stats.of(version).found().inc();
                    skip(stream, &mut buffer[..length])?;
                    return Ok(TakenHeader { ends, record: Some(self.extensions.keep(tlvs)) });
                }
            }
            if seen == buffer.len() {
                buffer.resize((buffer.len() * 4).min(MAX_HEADER), 0);
            }
        }
    }
}

/// Takes the bytes, which were seen a moment ago, off the stream.
fn skip(stream: &Transport, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = stream.try_read(bytes)?;
        bytes = &mut bytes[count..];
    }
    Ok(())
}
