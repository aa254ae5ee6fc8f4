//! `x-forwarded-client-cert`: what the next hop is told about the client's certificate.

mod choice;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName, KnownHeader};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use dhow_tls::{CertificateFacts, TlsInfo, url_encoded};

pub use choice::CertificateChoice;
pub(crate) use choice::compile_choice;

/// `forward_client_cert_details`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardMode {
    /// Remove the header.
    #[default]
    Sanitize,
    /// With a client certificate, keep the header as it is.
    ForwardOnly,
    /// With a client certificate, add an element of ours.
    AppendForward,
    /// With a client certificate, replace the header by an element of ours.
    SanitizeSet,
    /// Keep the header as it is in any case.
    AlwaysForwardOnly,
}

/// `forward_client_cert_details` with `set_current_client_cert_details`: what an element of ours holds besides the
/// server's URI names and the certificate's digest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCertificateConfig {
    /// What is done with the header.
    pub mode: ForwardMode,
    /// The certificate as PEM.
    pub cert: bool,
    /// The chain as PEM.
    pub chain: bool,
    /// The subject.
    pub subject: bool,
    /// The alternative names that are URIs.
    pub uri: bool,
    /// The alternative names of DNS.
    pub dns: bool,
    /// The issuer.
    pub issuer: bool,
    /// Write JSON where no header tells the form.
    pub json: bool,
}

impl ClientCertificateConfig {
    /// Lowers the two fields of the connection manager at `path`.
    pub(crate) fn lower(
        mode: i32,
        details: Option<hcm::SetCurrentClientCertDetails>,
        path: &FieldPath,
    ) -> Result<Self, ConfigError> {
        let hcm::SetCurrentClientCertDetails { subject, cert, chain, dns, uri, issuer, format } =
            details.unwrap_or_default();
        let unknown =
            |field: &str| ConfigError::new(path.field(field), "value must be one of the defined enum values");
        Ok(Self {
            mode: match hcm::ForwardClientCertDetails::try_from(mode) {
                Ok(hcm::ForwardClientCertDetails::Sanitize) => ForwardMode::Sanitize,
                Ok(hcm::ForwardClientCertDetails::ForwardOnly) => ForwardMode::ForwardOnly,
                Ok(hcm::ForwardClientCertDetails::AppendForward) => ForwardMode::AppendForward,
                Ok(hcm::ForwardClientCertDetails::SanitizeSet) => ForwardMode::SanitizeSet,
                Ok(hcm::ForwardClientCertDetails::AlwaysForwardOnly) => ForwardMode::AlwaysForwardOnly,
                Err(_) => return Err(unknown("forward_client_cert_details")),
            },
            cert,
            chain,
            subject: subject.is_some_and(|b| b.value),
            uri,
            dns,
            issuer,
            json: match hcm::ForwardClientCertFormat::try_from(format) {
                Ok(format) => format == hcm::ForwardClientCertFormat::Json,
                Err(_) => return Err(unknown("set_current_client_cert_details.format")),
            },
        })
    }

    /// Sets, keeps or removes the header of a request that came over `tls` (or in clear text).
    pub(crate) fn apply(&self, tls: Option<&TlsInfo>, head: &mut HeaderMap) {
        const NAME: KnownHeader = KnownHeader::XForwardedClientCert;
        if self.mode == ForwardMode::AlwaysForwardOnly {
            return;
        }
        let presented = tls.and_then(|tls| Some((tls, tls.peer.as_deref()?)));
        let Some((tls, peer)) = presented.filter(|_| self.mode != ForwardMode::Sanitize) else {
            head.remove_known(NAME);
            return;
        };
        match self.mode {
            ForwardMode::AppendForward => {
                let present: Vec<&[u8]> = head.get_all(&HeaderName::Known(NAME)).collect();
                let present = present.join(&b","[..]);
                let joined = self.append(&present, tls, peer);
                head.set_known(NAME, joined.as_slice());
            }
            ForwardMode::SanitizeSet => {
                let element = if self.json {
                    format!("[{}]", self.json_element(tls, peer))
                } else {
                    self.text_element(tls, peer)
                };
                head.set_known(NAME, element.as_bytes());
            }
            ForwardMode::ForwardOnly | ForwardMode::Sanitize | ForwardMode::AlwaysForwardOnly => {}
        }
    }

    /// Adds our element to a header, in the form that the header has.
    fn append(&self, present: &[u8], tls: &TlsInfo, peer: &CertificateFacts) -> Vec<u8> {
        let trimmed = present.trim_ascii();
        if trimmed.is_empty() {
            return match self.json {
                true => format!("[{}]", self.json_element(tls, peer)),
                false => self.text_element(tls, peer),
            }
            .into_bytes();
        }
        match trimmed.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]")) {
            Some(elements) => {
                let comma: &[u8] = if elements.trim_ascii().is_empty() { b"" } else { b"," };
                [b"[", elements, comma, self.json_element(tls, peer).as_bytes(), b"]"].concat()
            }
            None => [present, b",", self.text_element(tls, peer).as_bytes()].concat(),
        }
    }

    /// `By=...;Hash=...;Cert="..."` and so on. As in Envoy, a wanted subject or URI is named even when it is empty.
    fn text_element(&self, tls: &TlsInfo, peer: &CertificateFacts) -> String {
        let mut parts: Vec<String> = own_uris(tls).iter().map(|uri| format!("By={uri}")).collect();
        parts.push(format!("Hash={}", peer.fingerprint));
        if self.cert {
            parts.push(format!("Cert=\"{}\"", url_encoded(&peer.to_pem())));
        }
        if self.chain {
            parts.push(format!("Chain=\"{}\"", url_encoded(&chain_pem(tls))));
        }
        if self.subject {
            parts.push(format!("Subject=\"{}\"", peer.subject));
        }
        if self.uri {
            match &peer.uris[..] {
                [] => parts.push("URI=".to_owned()),
                uris => parts.extend(uris.iter().map(|uri| format!("URI={uri}"))),
            }
        }
        if self.dns {
            parts.extend(peer.dns_names.iter().map(|name| format!("DNS={name}")));
        }
        if self.issuer {
            parts.push(format!("Issuer=\"{}\"", peer.issuer));
        }
        parts.join(";")
    }

    /// The same as a JSON object, in which what is empty is left out.
    fn json_element(&self, tls: &TlsInfo, peer: &CertificateFacts) -> String {
        let list = |names: &[String]| {
            let names: Vec<String> = names.iter().map(|name| json_string(name)).collect();
            (!names.is_empty()).then(|| format!("[{}]", names.join(",")))
        };
        let text = |wanted: bool, text: &str| (wanted && !text.is_empty()).then(|| json_string(text));
        let fields = [
            ("by", list(own_uris(tls))),
            ("hash", text(true, &peer.fingerprint)),
            ("cert", self.cert.then(|| json_string(&peer.to_pem()))),
            ("chain", self.chain.then(|| json_string(&chain_pem(tls)))),
            ("subject", text(self.subject, &peer.subject)),
            ("uri", list(&peer.uris).filter(|_| self.uri)),
            ("dns", list(&peer.dns_names).filter(|_| self.dns)),
            ("issuer", text(self.issuer, &peer.issuer)),
        ];
        let fields: Vec<String> =
            fields.into_iter().filter_map(|(name, value)| Some(format!("\"{name}\":{}", value?))).collect();
        format!("{{{}}}", fields.join(","))
    }
}

fn own_uris(tls: &TlsInfo) -> &[String] {
    tls.local.as_deref().map_or(&[], |local| &local.uris)
}

fn chain_pem(tls: &TlsInfo) -> String {
    tls.peer_chain.iter().map(|der| dhow_tls::pem_of(der)).collect()
}

fn json_string(text: &str) -> String {
    use std::fmt::Write as _;
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                write!(quoted, "\\u{:04x}", u32::from(c)).expect("a string takes any text")
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
