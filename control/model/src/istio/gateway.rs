//! `Gateway`: the ports that gateway workloads open and the hosts that they serve.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The spec of a `Gateway`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Gateway {
    /// Labels of the gateway workloads, in any namespace.
    pub selector: BTreeMap<String, String>,
    /// Ports with their hosts.
    pub servers: Vec<Server>,
}

/// `Server`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Server {
    /// Port to listen on, before mapping through a Service.
    pub port: GatewayPort,
    /// Address to listen on; empty means all.
    pub bind: String,
    /// Hosts: `name`, `namespace/name`, `./name`, `*/name`, `*`.
    pub hosts: Vec<String>,
    /// TLS of the server.
    pub tls: Option<ServerTls>,
    /// Reserved upstream; warned about when set.
    pub default_endpoint: String,
    /// Name for debugging.
    pub name: String,
}

/// `Port` of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct GatewayPort {
    /// 1 to 65535.
    pub number: u32,
    /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, TCP, MONGO.
    pub protocol: String,
    /// Name, part of HTTPS route names.
    pub name: String,
    /// Deprecated and ignored upstream; warned about when set.
    pub target_port: Option<u32>,
}

/// `ServerTLSSettings`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerTls {
    /// Answers plaintext requests with a redirect to HTTPS.
    pub https_redirect: bool,
    /// Whether and how TLS is terminated.
    pub mode: ServerTlsMode,
    /// File of the certificate chain.
    pub server_certificate: String,
    /// File of the key.
    pub private_key: String,
    /// File of the authorities for client certificates.
    pub ca_certificates: String,
    /// File of revoked client certificates.
    pub ca_crl: String,
    /// Name of the secret with certificate and key.
    pub credential_name: String,
    /// Several secrets, for several key types.
    pub credential_names: Vec<String>,
    /// Secret with the authorities for client certificates.
    pub ca_cert_credential_name: String,
    /// Several certificates from files.
    pub tls_certificates: Vec<ServerTlsCertificate>,
    /// Names of which a client certificate must carry one.
    pub subject_alt_names: Vec<String>,
    /// Base64 SHA-256 of accepted public keys.
    pub verify_certificate_spki: Vec<String>,
    /// SHA-256 of accepted certificates.
    pub verify_certificate_hash: Vec<String>,
    /// Oldest accepted version.
    pub min_protocol_version: TlsProtocol,
    /// Newest accepted version.
    pub max_protocol_version: TlsProtocol,
    /// Cipher suites of TLS 1.2, in OpenSSL's names.
    pub cipher_suites: Vec<String>,
    /// Curves for the key exchange.
    pub ecdh_curves: Vec<String>,
    /// Accepts any client certificate.
    pub insecure_skip_verify: Option<bool>,
}

/// `ServerTLSSettings.TLSCertificate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ServerTlsCertificate {
    /// File of the certificate chain.
    pub server_certificate: String,
    /// File of the key.
    pub private_key: String,
    /// File of the authorities for client certificates.
    pub ca_certificates: String,
}

/// `ServerTLSSettings.TLSmode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServerTlsMode {
    /// Not terminated; routed by SNI through VirtualServices.
    #[default]
    Passthrough,
    /// Terminated.
    Simple,
    /// Terminated, client certificate required.
    Mutual,
    /// Not terminated; the SNI names the cluster.
    AutoPassthrough,
    /// Terminated with the mesh's own certificates.
    IstioMutual,
    /// Terminated, client certificate verified when sent.
    OptionalMutual,
}

/// `ServerTLSSettings.TLSProtocol`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum TlsProtocol {
    /// Istio's default, 1.2 to 1.3.
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    /// TLS 1.0.
    #[serde(rename = "TLSV1_0")]
    V1_0,
    /// TLS 1.1.
    #[serde(rename = "TLSV1_1")]
    V1_1,
    /// TLS 1.2.
    #[serde(rename = "TLSV1_2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "TLSV1_3")]
    V1_3,
}
