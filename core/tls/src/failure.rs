//! Why a handshake failed, in the form that Envoy's logs have.

use std::{fmt, io};

use rustls::{AlertDescription, Error, InvalidMessage};

/// A TLS error. Its text is `%UPSTREAM_TRANSPORT_FAILURE_REASON%` or `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`: numbers and
/// names are BoringSSL's where the cause has a counterpart there, else rustls' own words in the same frame.
#[derive(Clone, Debug, PartialEq)]
pub struct TlsFailure(Cause);

/// What went wrong.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cause {
    /// An error of the protocol.
    Protocol(Error),
    /// The client speaks HTTP in clear text.
    HttpRequest,
    /// The client asks a proxy for a tunnel, in clear text.
    HttpsProxyRequest,
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

    /// The failure of a context that lacks a secret.
    pub(crate) const fn secrets_not_ready() -> Self {
        Self(Cause::SecretsNotReady)
    }

    pub(crate) fn cause(&self) -> &Cause {
        &self.0
    }

    /// The failure of a client whose first bytes are HTTP in clear text.
    pub(crate) fn of_clear_text(first: &[u8]) -> Option<Self> {
        match first.get(..5)? {
            b"CONNE" => Some(Self(Cause::HttpsProxyRequest)),
            head if [&b"GET "[..], b"POST", b"HEAD", b"PUT "].contains(&&head[..4]) => {
                Some(Self(Cause::HttpRequest))
            }
            _ => None,
        }
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
            Cause::HttpRequest => {
                return f.write_str(
                    "TLS_error:|268435612:SSL_routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end",
                );
            }
            Cause::HttpsProxyRequest => {
                return f.write_str(
                    "TLS_error:|268435611:SSL_routines:OPENSSL_internal:HTTPS_PROXY_REQUEST:TLS_error_end",
                );
            }
        };
        let known = match error {
            Error::InvalidCertificate(_) => Some((268_435_581, "CERTIFICATE_VERIFY_FAILED")),
            Error::NoCertificatesPresented => Some((268_435_655, "PEER_DID_NOT_RETURN_A_CERTIFICATE")),
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Some((268_435_703, "WRONG_VERSION_NUMBER")),
            Error::PeerIncompatible(_) => Some((268_435_632, "NO_SHARED_CIPHER")),
            Error::AlertReceived(AlertDescription::UnknownCA) => {
                Some((268_436_504, "TLSV1_ALERT_UNKNOWN_CA"))
            }
            Error::AlertReceived(AlertDescription::CertificateRequired) => {
                Some((268_436_572, "TLSV1_ALERT_CERTIFICATE_REQUIRED"))
            }
            Error::AlertReceived(AlertDescription::HandshakeFailure) => {
                Some((268_436_496, "SSLV3_ALERT_HANDSHAKE_FAILURE"))
            }
            Error::AlertReceived(AlertDescription::ProtocolVersion) => {
                Some((268_436_526, "TLSV1_ALERT_PROTOCOL_VERSION"))
            }
            _ => None,
        };
        match (error, known) {
            (Error::InvalidCertificate(cause), Some((number, name))) => write!(
                f,
                "TLS_error:|{number}:SSL_routines:OPENSSL_internal:{name}:verify_cert_failed:_{}:TLS_error_end",
                underscored(&cause.to_string())
            ),
            (_, Some((number, name))) => {
                write!(f, "TLS_error:|{number}:SSL_routines:OPENSSL_internal:{name}:TLS_error_end")
            }
            (error, None) => write!(f, "TLS_error:|{}:TLS_error_end", underscored(&error.to_string())),
        }
    }
}

impl std::error::Error for TlsFailure {}

/// Log fields hold no spaces.
fn underscored(text: &str) -> String {
    text.replace(' ', "_")
}
