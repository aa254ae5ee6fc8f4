//! Why a handshake failed, in the form that Envoy's logs have.

use std::sync::Arc;
use std::{fmt, io};

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, OtherError, PeerIncompatible};

use crate::certificate::CertificateFacts;

/// A TLS error. Its text is `%UPSTREAM_TRANSPORT_FAILURE_REASON%` or `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`: numbers and
/// names are BoringSSL's where the cause has a counterpart there, else rustls' own words in the same frame.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFailure(Cause);

/// What went wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    /// An error of the protocol.
    Protocol(Error),
    /// An error that is known by its number and name in BoringSSL.
    Named(u32, &'static str),
    /// The server refused the client's hello with the alert `handshake_failure`.
    ClientHelloRefused,
    /// A secret of the context was not delivered yet.
    SecretsNotReady,
}

impl TlsFailure {
    /// Whether the certificate of the peer was not accepted.
    pub fn is_verification(&self) -> bool {
        matches!(self.0, Cause::Protocol(Error::InvalidCertificate(_)))
    }

    /// Whether the peer presented no certificate although one was required.
    pub fn is_missing_certificate(&self) -> bool {
        matches!(self.0, Cause::Protocol(Error::NoCertificatesPresented))
    }

    /// The failure inside of an I/O error, if it is one.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// A failure by its number and name in BoringSSL.
    pub(crate) const fn named(number: u32, name: &'static str) -> Self {
        Self(Cause::Named(number, name))
    }

    /// The failure of a context that lacks a secret.
    pub(crate) const fn secrets_not_ready() -> Self {
        Self(Cause::SecretsNotReady)
    }

    /// What failed before the server answered the client's hello.
    pub(crate) fn at_client_hello(error: io::Error) -> io::Error {
        let refused = Cause::Protocol(Error::AlertReceived(AlertDescription::HandshakeFailure));
        match Self::of(&error) {
            Some(Self(cause)) if *cause == refused => Self(Cause::ClientHelloRefused).into(),
            _ => error,
        }
    }

    pub(crate) fn cause(&self) -> &Cause {
        &self.0
    }

    /// The failure of a client whose first bytes are HTTP in clear text.
    pub(crate) fn of_clear_text(first: &[u8]) -> Option<Self> {
        match first.get(..5)? {
            b"CONNE" => Some(Self::named(268_435_611, "HTTPS_PROXY_REQUEST")),
            head if [&b"GET "[..], b"POST", b"HEAD", b"PUT "].contains(&&head[..4]) => {
                Some(Self::named(268_435_612, "HTTP_REQUEST"))
            }
            _ => None,
        }
    }
}

/// A certificate whose names are not those that are wanted. Its text is Envoy's.
#[derive(Debug)]
pub(crate) struct NameMismatch(String);

impl fmt::Display for NameMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NameMismatch {}

impl NameMismatch {
    /// No name is one of `expected`.
    pub(crate) fn expected(expected: &[String], facts: &CertificateFacts) -> Self {
        let names = facts.alternative_names().join(", ");
        Self(format!(
            "verify SAN list, expected SANs: [{}], certificate SANs: [{names}]",
            expected.join(", ")
        ))
    }

    /// No name fits a matcher.
    pub(crate) fn unmatched(facts: &CertificateFacts) -> Self {
        Self(format!("SAN matcher, certificate SANs are [{}]", facts.alternative_names().join(", ")))
    }

    /// Whether `error` is one.
    pub(crate) fn is(error: &CertificateError) -> bool {
        matches!(error, CertificateError::Other(OtherError(cause)) if cause.is::<Self>())
    }
}

impl From<NameMismatch> for CertificateError {
    fn from(mismatch: NameMismatch) -> Self {
        Self::Other(OtherError(Arc::new(mismatch)))
    }
}

impl From<Error> for TlsFailure {
    fn from(error: Error) -> Self {
        Self(Cause::Protocol(error))
    }
}

impl From<TlsFailure> for io::Error {
    fn from(failure: TlsFailure) -> Self {
        Self::new(io::ErrorKind::InvalidData, failure)
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match &self.0 {
            Cause::Protocol(error) => error,
            Cause::SecretsNotReady => return f.write_str("TLS error: Secret is not supplied by SDS"),
            Cause::ClientHelloRefused => {
                return f.write_str(
                    "TLS_error:|268436496:SSL_routines:OPENSSL_internal:SSLV3_ALERT_HANDSHAKE_FAILURE|268435610:SSL_routines:\
                     OPENSSL_internal:HANDSHAKE_FAILURE_ON_CLIENT_HELLO:TLS_error_end",
                );
            }
            Cause::Named(number, name) => return write_named(f, *number, name),
        };
        let known = match error {
            Error::InvalidCertificate(_) => Some((268_435_581, "CERTIFICATE_VERIFY_FAILED")),
            Error::NoCertificatesPresented => Some((
                268_435_648,
                "PEER_DID_NOT_RETURN_A_CERTIFICATE:peer_did_not_provide_required_client_certificate",
            )),
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Some((268_435_703, "WRONG_VERSION_NUMBER")),
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Some((268_435_696, "UNSUPPORTED_PROTOCOL")),
            Error::PeerIncompatible(_) => Some((268_435_640, "NO_SHARED_CIPHER")),
            Error::AlertReceived(alert) => alert_name(*alert),
            _ => None,
        };
        match (error, known) {
            (Error::InvalidCertificate(cause), Some((number, name))) => write!(
                f,
                "TLS_error:|{number}:SSL_routines:OPENSSL_internal:{name}:verify_cert_failed:_{}:TLS_error_end",
                underscored(&verification_text(cause))
            ),
            (_, Some((number, name))) => write_named(f, number, name),
            (error, None) => write!(f, "TLS_error:|{}:TLS_error_end", underscored(&error.to_string())),
        }
    }
}

impl std::error::Error for TlsFailure {}

fn write_named(f: &mut fmt::Formatter<'_>, number: u32, name: &str) -> fmt::Result {
    write!(f, "TLS_error:|{number}:SSL_routines:OPENSSL_internal:{name}:TLS_error_end")
}

/// Log fields hold no spaces.
fn underscored(text: &str) -> String {
    text.replace(' ', "_")
}

/// What BoringSSL calls an alert that the peer sent, and its number.
fn alert_name(alert: AlertDescription) -> Option<(u32, &'static str)> {
    let name = match alert {
        AlertDescription::UnexpectedMessage => "SSLV3_ALERT_UNEXPECTED_MESSAGE",
        AlertDescription::BadRecordMac => "SSLV3_ALERT_BAD_RECORD_MAC",
        AlertDescription::HandshakeFailure => "SSLV3_ALERT_HANDSHAKE_FAILURE",
        AlertDescription::BadCertificate => "SSLV3_ALERT_BAD_CERTIFICATE",
        AlertDescription::UnsupportedCertificate => "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        AlertDescription::CertificateRevoked => "SSLV3_ALERT_CERTIFICATE_REVOKED",
        AlertDescription::CertificateExpired => "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        AlertDescription::CertificateUnknown => "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
        AlertDescription::IllegalParameter => "SSLV3_ALERT_ILLEGAL_PARAMETER",
        AlertDescription::UnknownCA => "TLSV1_ALERT_UNKNOWN_CA",
        AlertDescription::AccessDenied => "TLSV1_ALERT_ACCESS_DENIED",
        AlertDescription::DecodeError => "TLSV1_ALERT_DECODE_ERROR",
        AlertDescription::DecryptError => "TLSV1_ALERT_DECRYPT_ERROR",
        AlertDescription::ProtocolVersion => "TLSV1_ALERT_PROTOCOL_VERSION",
        AlertDescription::InsufficientSecurity => "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        AlertDescription::InternalError => "TLSV1_ALERT_INTERNAL_ERROR",
        AlertDescription::CertificateRequired => "TLSV1_ALERT_CERTIFICATE_REQUIRED",
        AlertDescription::NoApplicationProtocol => "TLSV1_ALERT_NO_APPLICATION_PROTOCOL",
        _ => return None,
    };
    Some((268_436_456 + u32::from(u8::from(alert)), name))
}

/// What Envoy says of a certificate that was not accepted; where it names more than is known here, the words are rustls'.
fn verification_text(error: &CertificateError) -> String {
    let reason = match error {
        CertificateError::ApplicationVerificationFailure => return "cert hash and spki".to_owned(),
        CertificateError::Other(OtherError(cause)) => return cause.to_string(),
        CertificateError::UnknownIssuer => "unable to get local issuer certificate",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "certificate has expired",
        CertificateError::Revoked => "certificate revoked",
        other => return other.to_string(),
    };
    format!("X509_verify_cert: certificate verification error at depth 0: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_numbers_and_words_of_boringssl() {
        let text = |error: Error| TlsFailure::from(error).to_string();
        assert_eq!(
            text(Error::AlertReceived(AlertDescription::NoApplicationProtocol)),
            "TLS_error:|268436576:SSL_routines:OPENSSL_internal:TLSV1_ALERT_NO_APPLICATION_PROTOCOL:TLS_error_end"
        );
        assert_eq!(
            text(Error::AlertReceived(AlertDescription::CertificateRequired)),
            "TLS_error:|268436572:SSL_routines:OPENSSL_internal:TLSV1_ALERT_CERTIFICATE_REQUIRED:TLS_error_end"
        );
        assert_eq!(
            text(CertificateError::UnknownIssuer.into()),
            "TLS_error:|268435581:SSL_routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED:verify_cert_failed:_X509_verify_cert:_\
             certificate_verification_error_at_depth_0:_unable_to_get_local_issuer_certificate:TLS_error_end"
        );
    }
}
