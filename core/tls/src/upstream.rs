//! `UpstreamTlsContext`: TLS to upstream hosts.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_net::Transport;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ClientConnection, Connection};

use crate::context::Context;
use crate::failure::TlsFailure;
use crate::identity::Identity;
use crate::info::TlsInfo;
use crate::listed::{Listed, ListedContext};
use crate::parameters::{Parameters, Side};
use crate::pb::{CommonTlsContext, UpstreamTlsContext};
use crate::renewed::Renewed;
use crate::secrets::Secrets;
use crate::stats::TlsStats;
use crate::stream::TlsStream;
use crate::validation::{OtherNames, Validation};
use crate::verifier::UpstreamVerifier;

/// Variants of a context that are kept; beyond it a variant is made anew for each connection.
const MAX_VARIANTS: usize = 256;

/// What one connection asks for over the context's configuration (transport socket options of Envoy).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectOptions {
    /// Server name instead of the configured one (`auto_sni`).
    pub server_name: Option<String>,
    /// Names that the certificate must be for one of (`auto_san_validation`).
    pub verify_names: Vec<String>,
    /// Protocols to offer by ALPN instead of the configured ones; empty keeps those.
    pub alpn_override: Vec<Vec<u8>>,
    /// Protocols to offer when the context configures none.
    pub alpn_fallback: Vec<Vec<u8>>,
}

/// TLS to upstream hosts as configured by an `UpstreamTlsContext`.
#[derive(Debug)]
pub struct UpstreamTls {
    material: Arc<Renewed<Material>>,
    alpn: Vec<Vec<u8>>,
    server_name: Option<String>,
    verify_server_name: bool,
    /// `auto_host_sni`: the host's own name is the server name unless a request says otherwise.
    auto_host_sni: bool,
}

/// What the message comes to with the secrets that are there.
#[derive(Debug)]
struct Material {
    parameters: Parameters,
    validation: Arc<Validation>,
    identity: Option<Identity>,
    session_keys: usize,
    variants: Mutex<HashMap<Variant, Arc<ClientConfig>>>,
}

/// What makes configurations of rustls differ.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Variant {
    alpn: Vec<Vec<u8>>,
    names: OtherNames,
}

impl UpstreamTls {
    /// Lowers the message, whose place in the configuration is `path`, and reads the files that it or the secrets that it
    /// refers to name.
    ///
    /// # Errors
    /// Fields that are not supported, files that cannot be read, and certificates, keys or names that do not fit.
    pub fn from_message(
        message: &UpstreamTlsContext,
        secrets: &Arc<Secrets>,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        #[allow(deprecated, reason = "the deprecated switch has no effect here")]
        let UpstreamTlsContext {
            common_tls_context,
            sni,
            auto_host_sni,
            auto_sni_san_validation,
            allow_renegotiation,
            max_session_keys: _, // part of what follows the secrets
            // Key usage is always enforced, as in Envoy since 1.39.
            enforce_rsa_key_usage: _,
        } = message;
        ConfigError::refuse_if(*allow_renegotiation, path, "allow_renegotiation")?;
        let common_path = path.field("common_tls_context");
        if sni.contains('\0') {
            return Err(ConfigError::new(
                path.field("sni"),
                "SNI names containing NULL-byte are not allowed",
            ));
        }
        if !sni.is_empty() && ServerName::try_from(sni.as_str()).is_err() {
            // Envoy sends whatever is configured.
            let reason = format!("'{sni}' is not the name of a server: connections are made without one");
            warnings.push(ConfigWarning::new(path.field("sni"), reason));
        }
        let material = Renewed::new(
            secrets,
            common_tls_context.as_ref(),
            &common_path,
            None,
            || Material::lower(message, secrets, &common_path, warnings),
            || {
                let (message, secrets, path) = (message.clone(), secrets.clone(), common_path.clone());
                Box::new(move || Material::lower(&message, &secrets, &path, &mut Vec::new()))
            },
        )?;
        let without_roots = material.get().is_some_and(|material| material.validation.roots.is_none());
        if *auto_sni_san_validation && without_roots {
            let reason = "'auto_sni_san_validation' was configured without configuring a trusted CA";
            return Err(ConfigError::new(path.field("auto_sni_san_validation"), reason));
        }
        Ok(Self {
            material,
            alpn: common_tls_context.as_ref().map_or_else(Vec::new, alpn_of),
            server_name: Some(sni.clone()).filter(|name| !name.is_empty()),
            verify_server_name: *auto_sni_san_validation,
            auto_host_sni: *auto_host_sni,
        })
    }

    /// Counts what happens to the context beside handshakes.
    pub fn count_in(&self, stats: &TlsStats) {
        self.material.count_in(stats);
    }

    /// Whether a host's own name becomes the server name (`auto_host_sni`): the caller then gives it with
    /// [`ConnectOptions::server_name`].
    pub fn uses_host_name(&self) -> bool {
        self.auto_host_sni
    }

    /// Protocols offered by ALPN unless a connection asks for others.
    pub fn alpn_protocols(&self) -> &[Vec<u8>] {
        &self.alpn
    }

    /// Makes the client's side of a handshake.
    ///
    /// # Errors
    /// What the handshake failed with; [`TlsFailure::of`] finds the cause if it is one of TLS.
    pub async fn connect(
        &self,
        transport: Transport,
        options: &ConnectOptions,
    ) -> io::Result<(Transport, TlsInfo)> {
        let server_name = options.server_name.as_ref().or(self.server_name.as_ref());
        let names = OtherNames {
            one_of: options.verify_names.clone(),
            server: server_name
                .filter(|_| self.verify_server_name && options.verify_names.is_empty())
                .cloned(),
        };
        let Some(material) = self.material.get() else {
            return Err(TlsFailure::secrets_not_ready().into());
        };
        let config = material.config(Variant { alpn: self.offered(options), names });
        let config = config.map_err(io::Error::other)?;
        // An address is no server name on the wire: rustls sends none for it.
        let nameless = || ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let name = server_name.and_then(|name| ServerName::try_from(name.clone()).ok());
        let name = name.unwrap_or_else(nameless);
        let connection = ClientConnection::new(config, name).map_err(TlsFailure::from)?;
        let mut stream = TlsStream::new(transport, Connection::Client(connection));
        if let Err(error) = stream.handshake().await {
            // The version is agreed with the server's hello: before it, a refusal is one of the client's hello.
            let at_hello = stream.connection().protocol_version().is_none();
            return Err(if at_hello { TlsFailure::at_client_hello(error) } else { error });
        }
        let mut info = TlsInfo::of(stream.connection());
        info.server_name = server_name.cloned();
        info.local = material.identity.as_ref().map(|identity| identity.facts.clone());
        info.overlooked = material.validation.faults.take();
        info.peer_verified = material.validation.is_active() && info.peer.is_some();
        Ok((Transport::Secure(Box::new(stream)), info))
    }

    fn offered(&self, options: &ConnectOptions) -> Vec<Vec<u8>> {
        let offered = if !options.alpn_override.is_empty() {
            &options.alpn_override
        } else if !self.alpn.is_empty() {
            &self.alpn
        } else {
            &options.alpn_fallback
        };
        offered.clone()
    }
}

impl Listed for Material {
    fn listed(&self) -> ListedContext {
        let chain = self.identity.iter().map(Identity::listed).collect();
        ListedContext { authority: self.validation.listed(), chain }
    }

    fn expiries(&self) -> Vec<(String, i64)> {
        self.identity.iter().map(Identity::expiry).chain(self.validation.expiry()).collect()
    }
}

impl Material {
    /// Lowers the message, whose common context has this path; `None` while a secret that it names is missing.
    fn lower(
        message: &UpstreamTlsContext,
        secrets: &Secrets,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<Self>, ConfigError> {
        let common = message.common_tls_context.as_ref();
        let context = Context::lower(common, Side::Client, secrets, path, warnings)?;
        let Some(Context { parameters, identities, validation, alpn }) = context else { return Ok(None) };
        if identities.len() > 1 {
            let reason = "Multiple TLS certificates are not supported for client contexts";
            return Err(ConfigError::new(path.field("tls_certificates"), reason));
        }
        let material = Self {
            parameters,
            validation: Arc::new(validation),
            identity: identities.into_iter().next(),
            session_keys: message.max_session_keys.as_ref().map_or(1, |keys| keys.value as usize),
            variants: Mutex::default(),
        };
        // The plain variant is used by most connections and shows what does not fit while it can still be refused.
        let plain = material.config(Variant { alpn, names: OtherNames::default() });
        plain.map_err(|error| ConfigError::new(path.clone(), error))?;
        Ok(Some(material))
    }

    fn config(&self, variant: Variant) -> Result<Arc<ClientConfig>, String> {
        let mut variants = self.variants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = variants.get(&variant) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(&variant)?);
        if variants.len() < MAX_VARIANTS {
            variants.insert(variant, config.clone());
        }
        Ok(config)
    }

    fn build(&self, variant: &Variant) -> Result<ClientConfig, String> {
        let provider = self.parameters.provider.clone();
        let verifier =
            UpstreamVerifier::new(self.validation.clone(), variant.names.clone(), provider.clone())?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.parameters.versions)
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.identity {
            Some(Identity { key, .. }) => {
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = variant.alpn.clone();
        config.resumption = match self.session_keys {
            0 => Resumption::disabled(),
            keys => Resumption::in_memory_sessions(keys),
        };
        // A server that chooses a protocol which was not offered is taken at its word, as in Envoy.
        config.check_selected_alpn = false;
        Ok(config)
    }
}

fn alpn_of(common: &CommonTlsContext) -> Vec<Vec<u8>> {
    common.alpn_protocols.iter().map(|protocol| protocol.clone().into_bytes()).collect()
}
