//! `DownstreamTlsContext`: termination of TLS.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_net::Transport;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{Accepted, Acceptor, ClientHello, NoServerSessionStorage};
use rustls::{Connection, Error, ServerConfig};

use crate::context::Context;
use crate::failure::TlsFailure;
use crate::identity::Selection;
use crate::info::TlsInfo;
use crate::listed::{Listed, ListedContext};
use crate::parameters::Side;
use crate::pb::DownstreamTlsContext;
use crate::pb::downstream_tls_context::{OcspStaplePolicy, SessionTicketKeysType};
use crate::renewed::Renewed;
use crate::secrets::Secrets;
use crate::stats::TlsStats;
use crate::stream::{Blocking, TlsStream, or_pending};
use crate::validation::Validation;
use crate::verifier::DownstreamVerifier;

/// TLS termination as configured by a `DownstreamTlsContext`.
#[derive(Debug)]
pub struct DownstreamTls {
    terminator: Arc<Renewed<Terminator>>,
}

/// What the message comes to with the secrets that are there.
#[derive(Debug)]
struct Terminator {
    /// Without ALPN: for clients that offer nothing that is configured, which Envoy serves without a protocol.
    plain: Arc<ServerConfig>,
    with_alpn: Arc<ServerConfig>,
    selection: Arc<Selection>,
    validation: Arc<Validation>,
    require_sni: bool,
    verifies: bool,
}

impl DownstreamTls {
    /// Lowers the message, whose place in the configuration is `path`, and reads the files that it or the secrets that it
    /// refers to name.
    ///
    /// # Errors
    /// Fields that are not supported, files that cannot be read, and certificates, keys or names that do not fit.
    pub fn from_message(
        message: &DownstreamTlsContext,
        secrets: &Arc<Secrets>,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let terminator = Renewed::new(
            secrets,
            message.common_tls_context.as_ref(),
            &path.field("common_tls_context"),
            || Terminator::lower(message, secrets, path, warnings),
            || {
                let (message, secrets, path) = (message.clone(), secrets.clone(), path.clone());
                Box::new(move || Terminator::lower(&message, &secrets, &path, &mut Vec::new()))
            },
        )?;
        Ok(Self { terminator })
    }

    /// Counts what happens to the context beside handshakes.
    pub fn count_in(&self, stats: &TlsStats) {
        self.terminator.count_in(stats);
    }

    /// Makes the server's side of a handshake.
    ///
    /// # Errors
    /// What the handshake failed with; [`TlsFailure::of`] finds the cause if it is one of TLS.
    pub async fn accept(&self, transport: Transport) -> io::Result<(Transport, TlsInfo)> {
        match self.terminator.get() {
            Some(terminator) => terminator.accept(transport).await,
            None => Err(TlsFailure::secrets_not_ready().into()),
        }
    }
}

impl Listed for Terminator {
    fn listed(&self) -> ListedContext {
        ListedContext { authority: self.validation.listed(), chain: self.selection.listed() }
    }

    fn expires(&self) -> Option<i64> {
        self.selection.expires().into_iter().chain(self.validation.roots_expire).min()
    }
}

impl Terminator {
    /// Lowers the message; `None` while a secret that it names is missing.
    fn lower(
        message: &DownstreamTlsContext,
        secrets: &Secrets,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<Self>, ConfigError> {
        let DownstreamTlsContext {
            common_tls_context,
            require_client_certificate,
            require_sni,
            disable_stateful_session_resumption,
            session_timeout,
            ocsp_staple_policy,
            // The certificate is always looked for among all of them.
            full_scan_certs_on_sni_mismatch: _,
            prefer_client_ciphers,
            session_ticket_keys_type,
        } = message;
        ConfigError::refuse_if(session_timeout.is_some(), path, "session_timeout")?;
        let lenient = *ocsp_staple_policy == OcspStaplePolicy::LenientStapling as i32;
        ConfigError::refuse_if(!lenient, path, "ocsp_staple_policy")?;
        let tickets = match session_ticket_keys_type {
            None => true,
            Some(SessionTicketKeysType::DisableStatelessSessionResumption(disabled)) => !disabled,
            Some(SessionTicketKeysType::SessionTicketKeys(_)) => {
                return Err(ConfigError::unsupported(path.field("session_ticket_keys")));
            }
            Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(_)) => {
                return Err(ConfigError::unsupported(path.field("session_ticket_keys_sds_secret_config")));
            }
        };
        let common_path = path.field("common_tls_context");
        let context =
            Context::lower(common_tls_context.as_ref(), Side::Server, secrets, &common_path, warnings)?;
        let Some(context) = context else { return Ok(None) };
        if context.identities.is_empty() {
            let reason = "No TLS certificates found for server context";
            return Err(ConfigError::new(common_path, reason));
        }
        let required = require_client_certificate.as_ref().is_some_and(|required| required.value);
        let failed = |error: String| ConfigError::new(common_path.clone(), error);
        let Context { parameters, identities, validation, alpn } = context;
        let validation = Arc::new(validation);
        let verifies = validation.is_active();
        let builder = ServerConfig::builder_with_provider(parameters.provider.clone())
            .with_protocol_versions(&parameters.versions)
            .map_err(|error| failed(error.to_string()))?;
        let builder = if required || verifies {
            let verifier = DownstreamVerifier::new(validation.clone(), required, parameters.provider);
            builder.with_client_cert_verifier(Arc::new(verifier.map_err(failed)?))
        } else {
            builder.with_no_client_auth()
        };
        let selection = Arc::new(Selection::new(identities));
        let mut plain = builder.with_cert_resolver(selection.clone());
        plain.ignore_client_order = !prefer_client_ciphers;
        if tickets {
            plain.ticketer = Ticketer::new().map_err(|error| failed(error.to_string()))?;
        }
        if *disable_stateful_session_resumption {
            plain.session_storage = Arc::new(NoServerSessionStorage {});
        }
        let mut with_alpn = plain.clone();
        with_alpn.alpn_protocols = alpn;
        Ok(Some(Self {
            plain: Arc::new(plain),
            with_alpn: Arc::new(with_alpn),
            selection,
            validation,
            require_sni: require_sni.as_ref().is_some_and(|required| required.value),
            verifies,
        }))
    }

    async fn accept(&self, mut transport: Transport) -> io::Result<(Transport, TlsInfo)> {
        let accepted = read_hello(&mut transport).await?;
        let hello = accepted.client_hello();
        if self.require_sni && hello.server_name().is_none() {
            return Err(
                TlsFailure::from(Error::General("no server name in the client's hello".into())).into()
            );
        }
        let config = self.config_for(&hello);
        let connection = match accepted.into_connection(config) {
            Ok(connection) => connection,
            Err((error, mut alert)) => {
                send_alert(&mut transport, |io| alert.write_all(io)).await;
                return Err(TlsFailure::from(error).into());
            }
        };
        let mut stream = TlsStream::new(transport, Connection::Server(connection));
        stream.handshake().await?;
        let mut info = TlsInfo::of(stream.connection());
        info.local = self.selection.facts(info.server_name.as_deref());
        info.peer_verified = self.verifies && info.peer.is_some();
        Ok((Transport::Secure(Box::new(stream)), info))
    }

    fn config_for(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let ours = &self.with_alpn.alpn_protocols;
        let common =
            hello.alpn().is_some_and(|mut offered| offered.any(|p| ours.iter().any(|ours| ours == p)));
        if common { self.with_alpn.clone() } else { self.plain.clone() }
    }
}

async fn read_hello(transport: &mut Transport) -> io::Result<Accepted> {
    let mut acceptor = Acceptor::default();
    let mut first = FirstBytes::default();
    loop {
        let count = poll_fn(|cx| {
            let mut io = Blocking { transport: &mut *transport, cx };
            or_pending(acceptor.read_tls(&mut Remembering { io: &mut io, first: &mut first }))
        })
        .await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                // An alert means nothing to a client that does not speak TLS.
                if let Some(failure) = TlsFailure::of_clear_text(&first.bytes[..first.count]) {
                    return Err(failure.into());
                }
                send_alert(transport, |io| alert.write_all(io)).await;
                return Err(TlsFailure::from(error).into());
            }
        }
    }
}

/// The beginning of a connection, as long as the header of a record.
#[derive(Default)]
struct FirstBytes {
    bytes: [u8; 5],
    count: usize,
}

/// A reader that remembers the first bytes.
struct Remembering<'a, R> {
    io: &'a mut R,
    first: &'a mut FirstBytes,
}

impl<R: io::Read> io::Read for Remembering<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.io.read(buffer)?;
        let FirstBytes { bytes, count: known } = &mut *self.first;
        let more = count.min(bytes.len() - *known);
        bytes[*known..*known + more].copy_from_slice(&buffer[..more]);
        *known += more;
        Ok(count)
    }
}

/// Sends an alert if the socket takes it at once; the connection is over in any case.
async fn send_alert(transport: &mut Transport, mut write: impl FnMut(&mut dyn io::Write) -> io::Result<()>) {
    poll_fn(|cx| {
        let _ = write(&mut Blocking { transport: &mut *transport, cx });
        Poll::Ready(())
    })
    .await;
}
