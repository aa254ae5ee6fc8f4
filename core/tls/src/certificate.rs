//! Facts of an X.509 certificate.

use std::net::IpAddr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::Oid;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
use x509_parser::x509::X509Name;

/// What logs, matchers and forwarded headers tell of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Subject in the form of RFC 2253 (`CN=x,O=y`).
    pub subject: String,
    /// Issuer in the same form.
    pub issuer: String,
    /// Serial number in lower-case hexadecimal digits.
    pub serial: String,
    /// Start of validity in seconds since 1970.
    pub not_before: i64,
    /// End of validity in seconds since 1970.
    pub not_after: i64,
    /// SHA-256 of the whole certificate in lower-case hexadecimal digits.
    pub fingerprint: String,
    /// SHA-256 of the public key (SubjectPublicKeyInfo) in base64, as `verify_certificate_spki` has it.
    pub spki_hash: String,
    /// URI alternative names, SPIFFE identities among them.
    pub uris: Vec<String>,
    /// DNS alternative names.
    pub dns_names: Vec<String>,
    /// IP address alternative names.
    pub addresses: Vec<IpAddr>,
    /// Mail address alternative names.
    pub emails: Vec<String>,
    /// Whether any alternative name is there.
    pub has_alternative_names: bool,
    /// The certificate itself, DER.
    pub der: Vec<u8>,
}

impl CertificateFacts {
    /// Reads a certificate; `None` when it is not one.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut facts = Self {
            subject: rfc2253(parsed.subject()),
            issuer: rfc2253(parsed.issuer()),
            serial: hex(without_sign(parsed.raw_serial())),
            not_before: parsed.validity().not_before.timestamp(),
            not_after: parsed.validity().not_after.timestamp(),
            fingerprint: hex(&sha256(certificate)),
            spki_hash: dhow_base::base64::encode(&sha256(parsed.public_key().raw)),
            der: certificate.to_vec(),
            ..Self::default()
        };
        for extension in parsed.extensions() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() {
                for name in &names.general_names {
                    facts.add_alternative_name(name);
                }
            }
        }
        Some(facts)
    }

    /// Reads a certificate of DER; `None` when it is not one.
    pub fn of_der(der: &[u8]) -> Option<Self> {
        Self::of(&CertificateDer::from(der))
    }

    fn add_alternative_name(&mut self, name: &GeneralName<'_>) {
        self.has_alternative_names = true;
        match name {
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(address) => self.emails.push((*address).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address = match bytes.len() {
                    4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                    16 => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
                    _ => None,
                };
                self.addresses.extend(address);
            }
            _ => {}
        }
    }

    /// The alternative names, of all kinds in the order of the certificate, as messages list them.
    pub(crate) fn alternative_names(&self) -> Vec<String> {
        let Ok((_, parsed)) = X509Certificate::from_der(&self.der) else { return Vec::new() };
        let mut listed = Vec::new();
        for extension in parsed.extensions() {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                continue;
            };
            for name in &names.general_names {
                let mut one = Self::default();
                one.add_alternative_name(name);
                let Self { uris, dns_names, addresses, emails, .. } = one;
                listed.extend(uris.into_iter().chain(dns_names).chain(emails));
                listed.extend(addresses.iter().map(IpAddr::to_string));
            }
        }
        listed
    }

    /// The public key (SubjectPublicKeyInfo), DER.
    pub(crate) fn public_key(&self) -> Option<&[u8]> {
        X509Certificate::from_der(&self.der).ok().map(|(_, parsed)| parsed.tbs_certificate.subject_pki.raw)
    }

    /// The certificate as PEM, for `x-forwarded-client-cert` and logs.
    pub fn to_pem(&self) -> String {
        pem_of(&self.der)
    }
}

/// A positive integer of DER begins with a zero where its first digit would make it negative.
fn without_sign(integer: &[u8]) -> &[u8] {
    match integer {
        [0, rest @ ..] if !rest.is_empty() => rest,
        digits => digits,
    }
}

/// PEM as it stands in headers and log lines: encoded as in a URL.
pub fn url_encoded(pem: &str) -> String {
    let mut encoded = String::with_capacity(pem.len() + pem.len() / 8);
    for c in pem.chars() {
        match c {
            '\n' => encoded.push_str("%0A"),
            ' ' => encoded.push_str("%20"),
            '+' => encoded.push_str("%2B"),
            '/' => encoded.push_str("%2F"),
            '=' => encoded.push_str("%3D"),
            other => encoded.push(other),
        }
    }
    encoded
}

/// SHA-1 of a certificate in lower-case hexadecimal digits: a name for it, not a proof of anything.
pub fn sha1_fingerprint(der: &[u8]) -> String {
    hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, der).as_ref())
}

/// A certificate of DER as PEM, such as one of [`TlsInfo::peer_chain`](crate::TlsInfo::peer_chain).
pub fn pem_of(der: &[u8]) -> String {
    let encoded = dhow_base::base64::encode(der);
    let mut pem = String::with_capacity(encoded.len() * 66 / 64 + 60);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|b| *b as char));
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The names that a server certificate is for: its DNS names, or its common name when it has no alternative names.
pub(crate) fn server_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let facts = CertificateFacts::of(certificate).unwrap_or_default();
    if facts.has_alternative_names {
        return facts.dns_names;
    }
    parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("the suite is one of TLS 1.3");
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes any text");
        text
    })
}

/// A distinguished name as BoringSSL prints it with `XN_FLAG_RFC2253`: last part first, special characters escaped.
fn rfc2253(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|rdn| {
            let attributes: Vec<String> = rdn
                .iter()
                .map(|attribute| {
                    let value = attribute.as_str().map(str::to_owned).unwrap_or_else(|_| {
                        format!("#{}", hex(attribute.attr_value().data).to_ascii_uppercase())
                    });
                    format!("{}={}", attribute_name(attribute.attr_type()), escape_rfc2253(&value))
                })
                .collect();
            attributes.join("+")
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn attribute_name(oid: &Oid<'_>) -> String {
    let dotted = oid.to_id_string();
    let short = match dotted.as_str() {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return dotted,
    };
    short.to_owned()
}

fn escape_rfc2253(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';');
        let at_edge = (at == 0 && matches!(c, ' ' | '#')) || (at == last && c == ' ');
        if special || at_edge {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_sha256() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hex(&sha256(b"abc")), expected);
    }

    #[test]
    fn special_characters_of_names_are_escaped() {
        assert_eq!(escape_rfc2253("#a, b+ "), "\\#a\\, b\\+\\ ");
    }
}
