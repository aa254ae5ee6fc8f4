//! The verification of peers as rustls calls it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::lenient::{accept_as_openssl, verify_tls12, verify_tls13};
use crate::validation::{OtherNames, Validation};

/// Verifies certificates of upstream hosts. As in Envoy the chain and the configured names count; the host name does
/// only where it is asked for.
#[derive(Debug)]
pub(crate) struct UpstreamVerifier {
    chain: Option<Arc<WebPkiServerVerifier>>,
    validation: Arc<Validation>,
    also_for: OtherNames,
    provider: Arc<CryptoProvider>,
}

impl UpstreamVerifier {
    pub(crate) fn new(
        validation: Arc<Validation>,
        also_for: OtherNames,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let chain = match &validation.roots {
            None => None,
            Some(roots) => {
                let mut builder =
                    WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
                        .with_crls(validation.revocation_lists.iter().cloned());
                if validation.only_leaf_revocation {
                    builder = builder.only_check_end_entity_revocation();
                }
                Some(builder.build().map_err(|error| error.to_string())?)
            }
        };
        Ok(Self { chain, validation, also_for, provider })
    }
}

/// How a chain passes that webpki refused.
#[derive(Debug, PartialEq, Eq)]
enum Chain {
    /// OpenSSL accepts it.
    Accepted,
    /// The context accepts what is untrusted; nothing else of it is looked at.
    Overlooked,
}

/// What becomes of a chain that webpki refused.
fn judge_chain(
    error: Error,
    leaf: &CertificateDer<'_>,
    validation: &Validation,
    provider: &CryptoProvider,
    now: UnixTime,
) -> Result<Chain, Error> {
    if accept_as_openssl(leaf, validation, provider, now).is_some() {
        return Ok(Chain::Accepted);
    }
    if validation.accept_untrusted {
        validation.faults.chain();
        return Ok(Chain::Overlooked);
    }
    Err(error)
}

impl ServerCertVerifier for UpstreamVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let now = self.validation.time_of(leaf, intermediates, now);
        let intermediates = &*self.validation.within_depth(leaf, intermediates);
        if let Some(chain) = &self.chain {
            match chain.verify_server_cert(leaf, intermediates, server_name, ocsp, now) {
                // The name is looked at only once the chain is found good.
                Ok(_)
                | Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => {}
                Err(error) => {
                    if judge_chain(error, leaf, &self.validation, &self.provider, now)? == Chain::Overlooked {
                        return Ok(ServerCertVerified::assertion());
                    }
                }
            }
        }
        self.validation.check(leaf, &self.also_for)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(message, certificate, signed, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, certificate, signed, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies certificates of downstream clients.
#[derive(Debug)]
pub(crate) struct DownstreamVerifier {
    chain: Option<Arc<dyn ClientCertVerifier>>,
    validation: Arc<Validation>,
    required: bool,
    provider: Arc<CryptoProvider>,
}

impl DownstreamVerifier {
    pub(crate) fn new(
        validation: Arc<Validation>,
        required: bool,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, String> {
        let chain = match &validation.roots {
            None => None,
            Some(roots) => {
                let mut builder =
                    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                        .with_crls(validation.revocation_lists.iter().cloned());
                if validation.only_leaf_revocation {
                    builder = builder.only_check_end_entity_revocation();
                }
                if validation.hide_authorities {
                    builder = builder.clear_root_hint_subjects();
                }
                Some(builder.build().map_err(|error| error.to_string())?)
            }
        };
        Ok(Self { chain, validation, required, provider })
    }
}

impl ClientCertVerifier for DownstreamVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.as_ref().map_or(&[], |chain| chain.root_hint_subjects())
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now = self.validation.time_of(leaf, intermediates, now);
        let intermediates = &*self.validation.within_depth(leaf, intermediates);
        if let Some(chain) = &self.chain
            && let Err(error) = chain.verify_client_cert(leaf, intermediates, now)
            && judge_chain(error, leaf, &self.validation, &self.provider, now)? == Chain::Overlooked
        {
            return Ok(ClientCertVerified::assertion());
        }
        self.validation.check(leaf, &OtherNames::default())?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12(message, certificate, signed, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, certificate, signed, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
