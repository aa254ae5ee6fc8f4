//! What handshakes count: `listener.<address>.ssl.*` and `cluster.<name>.ssl.*`.

use std::io;

use dhow_stats::{Scope, stat_group};
use rustls::{CertificateError, Error};

use crate::failure::{Cause, NameMismatch, TlsFailure};
use crate::info::TlsInfo;
use crate::overlooked::Overlooked;

stat_group! {
    /// The figures that are there from the start. Stapling is not done, so those of OCSP stay 0.
    pub(crate) struct HandshakeStats {
        counters {
            connection_error, fail_verify_cert_hash, fail_verify_error, fail_verify_no_cert, fail_verify_san, handshake,
            no_certificate, ocsp_staple_failed, ocsp_staple_omitted, ocsp_staple_requests, ocsp_staple_responses,
            session_reused,
        }
    }
}

stat_group! {
    /// What happens to contexts whose secrets someone delivers.
    pub(crate) struct SocketFactoryStats {
        counters {
            downstream_context_secrets_not_ready, ssl_context_update_by_sds, upstream_context_secrets_not_ready,
        }
    }
}

/// Counts the handshakes of a listener or of a cluster.
#[derive(Clone, Debug)]
pub struct TlsStats {
    handshakes: HandshakeStats,
    contexts: SocketFactoryStats,
    /// Whether it is clients that connect.
    downstream: bool,
}

impl TlsStats {
    /// Of a cluster: `<scope>.ssl.*` and `<scope>.client_ssl_socket_factory.*`.
    pub fn of_cluster(scope: &Scope) -> Self {
        Self::new(scope, "client_ssl_socket_factory", false)
    }

    /// Of a listener: `<scope>.ssl.*` and `<scope>.server_ssl_socket_factory.*`.
    pub fn of_listener(scope: &Scope) -> Self {
        Self::new(scope, "server_ssl_socket_factory", true)
    }

    fn new(scope: &Scope, factory: &str, downstream: bool) -> Self {
        Self { handshakes: scope.scope("ssl").group(), contexts: scope.scope(factory).group(), downstream }
    }

    /// Counts contexts that were made anew of delivered secrets.
    pub(crate) fn count_updates(&self, count: u64) {
        self.contexts.ssl_context_update_by_sds().add(count);
    }

    /// Tells when certificates expire: names, and seconds since 1970.
    pub(crate) fn set_expiries(&self, expiries: Vec<(String, i64)>) {
        for (name, end) in expiries {
            let name = format!("certificate.{name}.expiration_unix_time_seconds");
            self.handshakes.scope().gauge_verbatim(name).set(u64::try_from(end).unwrap_or(0));
        }
    }

    /// Counts a handshake by how it ended.
    pub fn count(&self, outcome: Result<&TlsInfo, &io::Error>) {
        match outcome {
            Ok(info) => self.finished(info),
            Err(error) => {
                // What is no error of TLS is the transport's, which others count.
                if let Some(failure) = TlsFailure::of(error) {
                    self.failed(failure);
                }
            }
        }
    }

    fn finished(&self, info: &TlsInfo) {
        let stats = &self.handshakes;
        stats.handshake().inc();
        let Overlooked { chains, names, pins } = info.overlooked;
        stats.fail_verify_error().add(chains.into());
        stats.fail_verify_san().add(names.into());
        stats.fail_verify_cert_hash().add(pins.into());
        if info.resumed {
            stats.session_reused().inc();
        }
        if info.peer_chain.is_empty() {
            stats.no_certificate().inc();
        }
        // These names exist from their first use on.
        for (kind, name) in [("ciphers", info.cipher), ("versions", info.version), ("curves", info.group)] {
            if !name.is_empty() {
                stats.scope().counter(format!("{kind}.{name}")).inc();
            }
        }
    }

    fn failed(&self, failure: &TlsFailure) {
        let stats = &self.handshakes;
        match failure.cause() {
            Cause::SecretsNotReady if self.downstream => {
                self.contexts.downstream_context_secrets_not_ready().inc();
            }
            Cause::SecretsNotReady => self.contexts.upstream_context_secrets_not_ready().inc(),
            Cause::Protocol(Error::NoCertificatesPresented) => stats.fail_verify_no_cert().inc(),
            Cause::Protocol(Error::InvalidCertificate(why)) => match why {
                why if NameMismatch::is(why) => stats.fail_verify_san().inc(),
                CertificateError::ApplicationVerificationFailure => stats.fail_verify_cert_hash().inc(),
                _ => stats.fail_verify_error().inc(),
            },
            _ => stats.connection_error().inc(),
        }
    }
}

#[cfg(test)]
mod tests {
    use dhow_stats::{Query, SnapshotValue, Store};

    use super::*;
    use crate::certificate::CertificateFacts;

    fn figures(count: impl FnOnce(&TlsStats)) -> Vec<(String, u64)> {
        let store = Store::new();
        let scope = store.scope("listener.a");
        let stats = TlsStats::of_listener(&scope);
        count(&stats);
        let snapshot = store.snapshot(&Query::default());
        let counted = snapshot.stats.into_iter().filter_map(|(name, value)| match value {
            SnapshotValue::Counter(value) if value > 0 => {
                Some((name.strip_prefix("listener.a.ssl.")?.to_owned(), value))
            }
            _ => None,
        });
        counted.collect()
    }

    fn failure(error: Error) -> io::Error {
        TlsFailure::from(error).into()
    }

    #[test]
    fn failures_are_counted_by_their_cause() {
        let mismatch = NameMismatch::unmatched(&CertificateFacts::default());
        let table = [
            (failure(Error::NoCertificatesPresented), Some("fail_verify_no_cert")),
            (failure(Error::from(CertificateError::from(mismatch))), Some("fail_verify_san")),
            (failure(CertificateError::ApplicationVerificationFailure.into()), Some("fail_verify_cert_hash")),
            (failure(CertificateError::UnknownIssuer.into()), Some("fail_verify_error")),
            (failure(CertificateError::Expired.into()), Some("fail_verify_error")),
            (failure(Error::DecryptError), Some("connection_error")),
            (io::ErrorKind::UnexpectedEof.into(), None),
        ];
        for (error, expected) in table {
            let counted = figures(|stats| stats.count(Err(&error)));
            let expected: Vec<_> = expected.into_iter().map(|name| (name.to_owned(), 1)).collect();
            assert_eq!(counted, expected, "{error}");
        }
    }

    #[test]
    fn a_resumed_session_without_certificate_is_both() {
        let info = TlsInfo { resumed: true, version: "TLSv1.3", ..TlsInfo::default() };
        let counted = figures(|stats| stats.count(Ok(&info)));
        let mut names: Vec<String> = counted.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["handshake", "no_certificate", "session_reused", "versions.TLSv1.3"]);
    }
}
