//! What is known of a TLS session after its handshake.

use std::sync::Arc;
use std::time::Instant;

use rustls::{CipherSuite, Connection, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::certificate::CertificateFacts;
use crate::overlooked::Overlooked;

/// Facts of a TLS session, for logs, matching and forwarded client certificates.
#[derive(Clone, Debug, Default)]
pub struct TlsInfo {
    /// Server name that the client asked for.
    pub server_name: Option<String>,
    /// Protocol chosen by ALPN.
    pub alpn: Option<Vec<u8>>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub version: &'static str,
    /// Cipher suite, by OpenSSL's name for TLS 1.2 and the official one for TLS 1.3.
    pub cipher: &'static str,
    /// Group of the key exchange, such as `X25519`.
    pub group: &'static str,
    /// Whether an earlier session was resumed.
    pub resumed: bool,
    /// Whether the peer's certificate passed a verification. A peer without a certificate, or one that nothing was
    /// configured to verify, did not.
    pub peer_verified: bool,
    /// What was wrong with certificates that were accepted all the same, for the statistics.
    pub overlooked: Overlooked,
    /// The peer's certificate.
    pub peer: Option<Arc<CertificateFacts>>,
    /// The chain that the peer sent, its own certificate first, DER.
    pub peer_chain: Vec<Vec<u8>>,
    /// The certificate that this side presented.
    pub local: Option<Arc<CertificateFacts>>,
    /// When the handshake was complete; whoever drives it sets this.
    pub completed: Option<Instant>,
}

impl TlsInfo {
    /// Reads the facts of a finished handshake.
    pub(crate) fn of(connection: &Connection) -> Self {
        let peer = connection.peer_certificates().unwrap_or_default();
        let server_name = match connection {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        Self {
            server_name,
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            version: connection.protocol_version().map_or("", version_name),
            cipher: connection.negotiated_cipher_suite().map_or("", |suite| cipher_name(suite.suite())),
            group: connection.negotiated_key_exchange_group().map_or("", |group| group_name(group.name())),
            resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            peer_verified: false,
            overlooked: Overlooked::default(),
            peer: peer.first().and_then(CertificateFacts::of).map(Arc::new),
            peer_chain: peer.iter().map(|certificate| certificate.to_vec()).collect(),
            local: None,
            completed: None,
        }
    }
}

fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        _ => "",
    }
}

/// The name by which Envoy logs and counts a suite.
pub(crate) fn cipher_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => "",
    }
}

/// The name by which Envoy configures, logs and counts a group.
pub(crate) fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "P-256",
        NamedGroup::secp384r1 => "P-384",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        _ => "",
    }
}
