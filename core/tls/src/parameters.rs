//! `TlsParameters`: versions, cipher suites and groups.

use std::sync::Arc;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use rustls::crypto::aws_lc_rs::{cipher_suite as suites, default_provider, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::{SupportedCipherSuite, SupportedProtocolVersion, version};

use crate::info::{cipher_name, group_name};
use crate::key_schedule::tls13_suites;
use crate::pb::{TlsParameters, tls_parameters::TlsProtocol};

/// Which end of connections a context is for: their defaults differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

/// What the parameters come to.
#[derive(Debug)]
pub(crate) struct Parameters {
    pub provider: Arc<CryptoProvider>,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// The suites of TLS 1.2, in groups of equal preference.
    pub tls12_suites: Vec<Vec<SupportedCipherSuite>>,
}

/// The suites of TLS 1.2 in Envoy's order of preference, in groups of equal preference.
pub(crate) const TLS12_SUITES: [&[SupportedCipherSuite]; 4] = [
    &[suites::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, suites::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256],
    &[suites::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, suites::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256],
    &[suites::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384],
    &[suites::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384],
];

/// Suites that Envoy knows and this library leaves out: no forward secrecy, or CBC.
const LEFT_OUT_SUITES: [&str; 12] = [
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-ECDSA-AES128-SHA256",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA256",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES128-SHA",
    "AES128-SHA256",
    "AES256-GCM-SHA384",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

impl Parameters {
    pub(crate) fn lower(
        message: Option<&TlsParameters>,
        side: Side,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let default = TlsParameters::default();
        let TlsParameters {
            tls_minimum_protocol_version,
            tls_maximum_protocol_version,
            cipher_suites,
            ecdh_curves,
            signature_algorithms,
            compliance_policies,
        } = message.unwrap_or(&default);
        ConfigError::refuse_if(!signature_algorithms.is_empty(), path, "signature_algorithms")?;
        ConfigError::refuse_if(!compliance_policies.is_empty(), path, "compliance_policies")?;
        let minimum = protocol(*tls_minimum_protocol_version);
        let maximum = protocol(*tls_maximum_protocol_version);
        let versions = versions(minimum, maximum, side, path, warnings)?;
        let mut provider = default_provider();
        let tls12_suites = tls12_suites(cipher_suites, path, warnings)?;
        // A client does not list the suites of versions that it does not offer.
        let tls13_suites = tls13_suites();
        let suites = tls13_suites.iter().chain(tls12_suites.iter().flatten());
        let offered = |suite: &&SupportedCipherSuite| versions.contains(&suite.version());
        provider.cipher_suites = suites.filter(offered).copied().collect();
        provider.kx_groups = groups(ecdh_curves, path, warnings)?;
        Ok(Self { provider: Arc::new(provider), versions, tls12_suites })
    }
}

fn protocol(number: i32) -> TlsProtocol {
    // Numbers that are no protocol do not pass the rules of the message.
    TlsProtocol::try_from(number).unwrap_or(TlsProtocol::TlsAuto)
}

fn versions(
    minimum: TlsProtocol,
    maximum: TlsProtocol,
    side: Side,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<&'static SupportedProtocolVersion>, ConfigError> {
    // Clients stay at 1.2 unless told otherwise, as in Envoy.
    let with_13 = match maximum {
        TlsProtocol::TlSv13 => true,
        TlsProtocol::TlsAuto => side == Side::Server,
        TlsProtocol::TlSv12 => false,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            let reason = "TLS 1.0 and 1.1 are not supported: the maximum must be TLSv1_2 or TLSv1_3";
            return Err(ConfigError::new(path.field("tls_maximum_protocol_version"), reason));
        }
    };
    let with_12 = match minimum {
        TlsProtocol::TlSv13 => false,
        TlsProtocol::TlSv10 | TlsProtocol::TlSv11 => {
            let message = "TLS 1.0 and 1.1 are not supported: connections start at TLS 1.2";
            warnings.push(ConfigWarning::new(path.field("tls_minimum_protocol_version"), message));
            true
        }
        TlsProtocol::TlsAuto | TlsProtocol::TlSv12 => true,
    };
    match (with_12, with_13) {
        (true, true) => Ok(vec![&version::TLS13, &version::TLS12]),
        (true, false) => Ok(vec![&version::TLS12]),
        (false, true) => Ok(vec![&version::TLS13]),
        (false, false) => Err(ConfigError::new(
            path.field("tls_minimum_protocol_version"),
            "is above the maximum, which is TLSv1_2 unless it is set",
        )),
    }
}

/// The configured suites in their order; `[A|B]` is a group of equal preference, which clients take in the order written.
fn tls12_suites(
    names: &[String],
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<Vec<SupportedCipherSuite>>, ConfigError> {
    if names.is_empty() {
        return Ok(TLS12_SUITES.iter().map(|group| group.to_vec()).collect());
    }
    let path = path.field("cipher_suites");
    let mut chosen = Vec::new();
    for (index, group) in names.iter().enumerate() {
        let group = group.strip_prefix('[').and_then(|group| group.strip_suffix(']')).unwrap_or(group);
        let mut equal = Vec::new();
        for name in group.split('|') {
            let mut known = TLS12_SUITES.iter().copied().flatten();
            if let Some(suite) = known.find(|suite| cipher_name(suite.suite()) == name) {
                equal.push(*suite);
            } else if LEFT_OUT_SUITES.contains(&name) {
                let message = format!("the cipher suite {name} is not supported and left out");
                warnings.push(ConfigWarning::new(path.index(index), message));
            } else {
                let reason = format!("Failed to initialize cipher suites: {name} is not known");
                return Err(ConfigError::new(path.index(index), reason));
            }
        }
        if !equal.is_empty() {
            chosen.push(equal);
        }
    }
    if chosen.is_empty() {
        return Err(ConfigError::new(path, "none of the cipher suites is supported"));
    }
    Ok(chosen)
}

fn groups(
    names: &[String],
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Vec<&'static dyn SupportedKxGroup>, ConfigError> {
    if names.is_empty() {
        return Ok(vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1]);
    }
    let all = [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];
    let path = path.field("ecdh_curves");
    let mut chosen = Vec::new();
    for (index, name) in names.iter().enumerate() {
        if let Some(group) = all.iter().find(|group| group_name(group.name()) == name) {
            chosen.push(*group);
        } else if matches!(name.as_str(), "P-521" | "X25519Kyber768Draft00" | "P-224") {
            let message = format!("the group {name} is not supported and left out");
            warnings.push(ConfigWarning::new(path.index(index), message));
        } else {
            let reason = format!("Failed to initialize ECDH curves: {name} is not known");
            return Err(ConfigError::new(path.index(index), reason));
        }
    }
    if chosen.is_empty() {
        return Err(ConfigError::new(path, "none of the groups is supported"));
    }
    Ok(chosen)
}
