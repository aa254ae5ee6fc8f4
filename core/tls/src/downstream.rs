//! `DownstreamTlsContext`: termination of TLS.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use aws_lc_rs::digest;
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_net::Transport;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{Accepted, Acceptor};
use rustls::{Connection, Error};

use crate::context::Context;
use crate::failure::TlsFailure;
use crate::first_record::{HEADER, REMEMBERED, Refusal};
use crate::identity::{Identity, Selection};
use crate::info::TlsInfo;
use crate::listed::{Listed, ListedContext};
use crate::parameters::Side;
use crate::pb::DownstreamTlsContext;
use crate::pb::downstream_tls_context::{OcspStaplePolicy, SessionTicketKeysType};
use crate::renewed::Renewed;
use crate::resumption::{Sessions, TLS12_LIFETIME, TicketKeys, Tickets};
use crate::secrets::Secrets;
use crate::server_configs::{Recipe, ServerConfigs};
use crate::stats::TlsStats;
use crate::stream::{Blocking, TlsStream, or_pending};
use crate::validation::Validation;
use crate::verifier::DownstreamVerifier;

/// The field that names a secret with keys of tickets.
const KEYS_SECRET: &str = "session_ticket_keys_sds_secret_config";

/// TLS termination as configured by a `DownstreamTlsContext`.
#[derive(Debug)]
pub struct DownstreamTls {
    terminator: Arc<Renewed<Terminator>>,
}

/// What the message comes to with the secrets that are there.
#[derive(Debug)]
struct Terminator {
    configs: ServerConfigs,
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
        let keys = match &message.session_ticket_keys_type {
            Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(config)) => {
                Some((config, path.field(KEYS_SECRET)))
            }
            _ => None,
        };
        let terminator = Renewed::new(
            secrets,
            message.common_tls_context.as_ref(),
            &path.field("common_tls_context"),
            keys,
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

    fn expiries(&self) -> Vec<(String, i64)> {
        self.selection.expiries().chain(self.validation.expiry()).collect()
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
        let lenient = *ocsp_staple_policy == OcspStaplePolicy::LenientStapling as i32;
        ConfigError::refuse_if(!lenient, path, "ocsp_staple_policy")?;
        let common_path = path.field("common_tls_context");
        let context =
            Context::lower(common_tls_context.as_ref(), Side::Server, secrets, &common_path, warnings)?;
        let Some(context) = context else { return Ok(None) };
        if context.identities.is_empty() {
            let reason = "No TLS certificates found for server context";
            return Err(ConfigError::new(common_path, reason));
        }
        let keys = ticket_keys(session_ticket_keys_type.as_ref(), secrets, path, warnings)?;
        let Some(keys) = keys else { return Ok(None) };
        let verifies = context.validation.is_active();
        let wanted = require_client_certificate.as_ref().is_some_and(|required| required.value);
        if wanted && !verifies {
            let why = "without effect, as in Envoy: there is nothing to verify certificates by";
            warnings.push(ConfigWarning::new(path.field("require_client_certificate"), why));
        }
        let required = wanted && verifies || context.validation.demands_certificate();
        let failed = |error: String| ConfigError::new(common_path.clone(), error);
        let Context { parameters, identities, validation, alpn } = context;
        let validation = Arc::new(validation);
        let asks = required || verifies || validation.accept_untrusted;
        let verifier: Option<Arc<dyn ClientCertVerifier>> = if asks {
            let provider = parameters.provider.clone();
            let verifier = DownstreamVerifier::new(validation.clone(), required, provider);
            Some(Arc::new(verifier.map_err(failed)?))
        } else {
            None
        };
        let lifetime = session_timeout.as_ref().map_or(0, |timeout| timeout.seconds);
        let lifetime = u32::try_from(lifetime).ok().filter(|seconds| *seconds > 0).unwrap_or(TLS12_LIFETIME);
        let tickets = match keys {
            Keys::None => None,
            Keys::Own => Some(Tickets::under_own_keys(lifetime).map_err(|error| failed(error.to_string()))?),
            Keys::Configured(keys) => {
                let demands = demands(&identities, &validation, required);
                Some(Tickets::under(keys, demands, lifetime))
            }
        };
        let selection = Arc::new(Selection::new(identities));
        let configs = ServerConfigs::new(Recipe {
            parameters,
            verifier,
            selection: selection.clone(),
            alpn,
            client_order: *prefer_client_ciphers,
            tickets,
            sessions: (!disable_stateful_session_resumption).then(|| Arc::new(Sessions::new(lifetime))),
        });
        Ok(Some(Self {
            configs: configs.map_err(failed)?,
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
        let config = self.configs.for_hello(&hello);
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
        info.overlooked = self.validation.faults.take();
        info.peer_verified = self.verifies && info.peer.is_some();
        Ok((Transport::Secure(Box::new(stream)), info))
    }
}

/// Under which keys tickets are.
enum Keys {
    /// There are none.
    None,
    /// Keys that this process makes up.
    Own,
    /// Keys that other servers may have as well.
    Configured(TicketKeys),
}

/// The keys of the configuration; `None` while the secret that has them is missing.
fn ticket_keys(
    message: Option<&SessionTicketKeysType>,
    secrets: &Secrets,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<Keys>, ConfigError> {
    let keys = match message {
        None | Some(SessionTicketKeysType::DisableStatelessSessionResumption(false)) => Keys::Own,
        Some(SessionTicketKeysType::DisableStatelessSessionResumption(true)) => Keys::None,
        Some(SessionTicketKeysType::SessionTicketKeys(keys)) => {
            Keys::Configured(TicketKeys::lower(keys, &path.field("session_ticket_keys"), warnings)?)
        }
        Some(SessionTicketKeysType::SessionTicketKeysSdsSecretConfig(config)) => {
            let path = path.field(KEYS_SECRET);
            let Some(keys) = secrets.ticket_keys(config, &path)? else { return Ok(None) };
            Keys::Configured(TicketKeys::lower(&keys, &path, warnings)?)
        }
    };
    Ok(Some(keys))
}

/// What a context shows to clients and demands of them. A session that began elsewhere is not resumed where this differs, for it may
/// have been begun by a client that would not be welcome here.
fn demands(identities: &[Identity], validation: &Validation, required: bool) -> [u8; 32] {
    let mut digest = digest::Context::new(&digest::SHA256);
    let mut update = |part: &[u8]| {
        digest.update(&part.len().to_be_bytes());
        digest.update(part);
    };
    for identity in identities {
        update(identity.facts.subject.as_bytes());
        update(identity.facts.issuer.as_bytes());
        identity.names().iter().for_each(|name| update(name.as_bytes()));
    }
    update(&validation.digest);
    update(&[u8::from(required)]);
    let digest = digest.finish();
    let mut demands = [0; 32];
    demands.copy_from_slice(digest.as_ref());
    demands
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
        if let Some(refusal) = Refusal::of(first.bytes(), first.is_complete()) {
            return Err(refuse(transport, refusal).await);
        }
        // What is less than a header may still become anything.
        if first.bytes().len() < HEADER {
            continue;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((Error::InvalidMessage(_), _)) => {
                let refusal = Refusal::of(first.bytes(), true).unwrap_or_else(Refusal::unparsable);
                return Err(refuse(transport, refusal).await);
            }
            Err((error, mut alert)) => {
                send_alert(transport, |io| alert.write_all(io)).await;
                return Err(TlsFailure::from(error).into());
            }
        }
    }
}

/// Tells a client that it is not understood, if it may know what an alert is.
async fn refuse(transport: &mut Transport, refusal: Refusal) -> io::Error {
    if let Some(alert) = refusal.alert() {
        send_alert(transport, |io| io.write_all(&alert)).await;
    }
    refusal.failure.into()
}

/// The beginning of a connection: the header of a record, and as much of what is behind as tells what it is.
#[derive(Default)]
struct FirstBytes {
    bytes: [u8; REMEMBERED],
    /// All bytes that came, remembered or not.
    count: usize,
}

impl FirstBytes {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.count.min(self.bytes.len())]
    }

    /// Whether the whole record is there.
    fn is_complete(&self) -> bool {
        let length = u16::from_be_bytes([self.bytes[3], self.bytes[4]]);
        self.count >= HEADER + usize::from(length)
    }
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
        let left = &mut bytes[(*known).min(REMEMBERED)..];
        let more = count.min(left.len());
        left[..more].copy_from_slice(&buffer[..more]);
        *known += count;
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
