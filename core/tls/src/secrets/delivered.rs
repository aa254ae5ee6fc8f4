//! Secrets that are delivered while contexts wait for them, and again when they change (SDS).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::check_watched_path;
use dhow_proto::envoy::config::core::v3::{
    ConfigSource, PathConfigSource, config_source::ConfigSourceSpecifier,
};
use rustls::crypto::aws_lc_rs::default_provider;

use super::Secrets;
use crate::identity::Identity;
use crate::listed::ListedContext;
use crate::pb::common_tls_context::ValidationContextType;
use crate::pb::secret::Type;
use crate::pb::{CommonTlsContext, SdsSecretConfig, Secret};
use crate::resumption::TicketKeys;
use crate::validation::Validation;

/// Where a secret comes from: `sds_config.path_config_source`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretPlace {
    /// Name of the secret.
    pub name: String,
    /// The file that holds a discovery response with it.
    pub path: PathBuf,
    /// The directory in which a move means that the file changed; without it the file itself is moved into place.
    pub watched_directory: Option<PathBuf>,
}

impl SecretPlace {
    /// The place that `config` names; `None` for a secret of the bootstrap.
    pub(super) fn of(config: &SdsSecretConfig, path: &FieldPath) -> Result<Option<Self>, ConfigError> {
        let SdsSecretConfig { name, sds_config } = config;
        let Some(source) = sds_config else { return Ok(None) };
        let path = path.field("sds_config");
        let ConfigSource {
            authorities,
            initial_fetch_timeout: _, // a file is there or it is not
            resource_api_version: _,  // there is one
            config_source_specifier,
        } = source;
        ConfigError::refuse_if(!authorities.is_empty(), &path, "authorities")?;
        let (file, directory) = match config_source_specifier {
            #[allow(deprecated, reason = "the field is deprecated and still in use")]
            Some(ConfigSourceSpecifier::Path(file)) => (file, None),
            Some(ConfigSourceSpecifier::PathConfigSource(source)) => {
                let PathConfigSource { path: file, watched_directory, poll_interval } = source;
                let path = path.field("path_config_source");
                ConfigError::refuse_if(poll_interval.is_some(), &path, "poll_interval")?;
                let modified = watched_directory.as_ref().is_some_and(|directory| directory.watch_modify);
                ConfigError::refuse_if(modified, &path.field("watched_directory"), "watch_modify")?;
                (file, watched_directory.as_ref().map(|directory| PathBuf::from(&directory.path)))
            }
            Some(ConfigSourceSpecifier::ApiConfigSource(_)) => {
                return Err(ConfigError::unsupported(path.field("api_config_source")));
            }
            Some(ConfigSourceSpecifier::Ads(_)) => return Err(ConfigError::unsupported(path.field("ads"))),
            Some(ConfigSourceSpecifier::Self_(_)) => {
                return Err(ConfigError::unsupported(path.field("self")));
            }
            None => return Err(ConfigError::new(path, "config_source_specifier: is required")),
        };
        if directory.is_none() {
            check_watched_path(file, &path)?;
        }
        Ok(Some(Self { name: name.clone(), path: file.into(), watched_directory: directory }))
    }
}

/// A context in use, which may depend on delivered secrets.
pub(crate) trait Renew: Send + Sync {
    /// The certificates in use, once they are there.
    fn listed(&self) -> Option<ListedContext>;

    /// When the first of them expires, in seconds since 1970.
    fn expires(&self) -> Option<i64>;

    /// The secret of a place changed. An error says why it does not go with what else is configured, and what was stays.
    fn renew(&self, place: &SecretPlace) -> Result<(), ConfigError>;
}

/// Begins to follow a place: called once for each, on the main thread.
type Follow = Box<dyn Fn(&SecretPlace) -> Result<(), String> + Send + Sync>;

/// What was delivered, and who wants to know.
#[derive(Default)]
pub(super) struct Delivered {
    /// The places that are followed, with what is there.
    known: Mutex<HashMap<SecretPlace, Option<Secret>>>,
    users: Mutex<Vec<Weak<dyn Renew>>>,
    follow: OnceLock<Follow>,
}

impl Delivered {
    pub(super) fn get(&self, place: &SecretPlace) -> Option<Secret> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(place).cloned().flatten()
    }
}

impl Secrets {
    /// Says how places are followed from now on. What is called delivers what it finds by [`deliver`](Self::deliver).
    pub fn set_follower(&self, follow: impl Fn(&SecretPlace) -> Result<(), String> + Send + Sync + 'static) {
        // The process has one way to follow files, and says so once.
        let _ = self.delivered.follow.set(Box::new(follow));
    }

    /// Takes a secret that was delivered, and renews what depends on it.
    ///
    /// # Errors
    /// Why it is not acceptable; the last good one stays.
    pub fn deliver(&self, place: &SecretPlace, secret: Secret) -> Result<(), String> {
        check(&secret)?;
        let known = &self.delivered.known;
        let previous =
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), Some(secret.clone()));
        if previous.as_ref() == Some(&Some(secret)) {
            return Ok(());
        }
        self.renew(place).inspect_err(|_| {
            let previous = previous.flatten();
            known.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone(), previous);
        })
    }

    /// Reads the files again that a delivered secret names.
    ///
    /// # Errors
    /// Why what they hold is not acceptable; what they held before stays in use.
    pub fn reload(&self, place: &SecretPlace) -> Result<(), String> {
        if let Some(secret) = self.delivered.get(place) {
            check(&secret)?;
            self.renew(place)?;
        }
        Ok(())
    }

    fn renew(&self, place: &SecretPlace) -> Result<(), String> {
        let users = self.delivered.users.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut outcome = Ok(());
        for user in users.iter().filter_map(Weak::upgrade) {
            outcome = outcome.and(user.renew(place).map_err(|error| error.to_string()));
        }
        outcome
    }

    /// The places that a context names, beside that of keys for tickets, which are followed from now on.
    pub(crate) fn follow(
        &self,
        context: Option<&CommonTlsContext>,
        path: &FieldPath,
        keys: Option<(&SdsSecretConfig, FieldPath)>,
    ) -> Result<Vec<SecretPlace>, ConfigError> {
        let none = CommonTlsContext::default();
        let context = context.unwrap_or(&none);
        let certificates = context.tls_certificate_sds_secret_configs.iter().enumerate();
        let certificates = certificates
            .map(|(index, config)| (config, path.field("tls_certificate_sds_secret_configs").index(index)));
        const VALIDATION: &str = "validation_context_sds_secret_config";
        let validation = match &context.validation_context_type {
            Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
                Some((config, path.field(VALIDATION)))
            }
            Some(ValidationContextType::CombinedValidationContext(combined)) => {
                let config = combined.validation_context_sds_secret_config.as_ref();
                config.map(|config| (config, path.field("combined_validation_context").field(VALIDATION)))
            }
            _ => None,
        };
        let mut places = Vec::new();
        for (config, path) in certificates.chain(validation).chain(keys) {
            let Some(place) = SecretPlace::of(config, &path)? else { continue };
            let known = &self.delivered.known;
            let is_new = match known.lock().unwrap_or_else(PoisonError::into_inner).entry(place.clone()) {
                std::collections::hash_map::Entry::Occupied(_) => false,
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(None);
                    true
                }
            };
            if let Some(follow) = self.delivered.follow.get().filter(|_| is_new)
                && let Err(reason) = follow(&place)
            {
                known.lock().unwrap_or_else(PoisonError::into_inner).remove(&place);
                return Err(ConfigError::new(path.field("sds_config"), reason));
            }
            places.push(place);
        }
        Ok(places)
    }

    /// The contexts in use that may name these secrets, with their certificates.
    pub fn contexts(&self) -> Vec<ListedContext> {
        let users = self.delivered.users.lock().unwrap_or_else(PoisonError::into_inner).clone();
        users.iter().filter_map(|user| user.upgrade()?.listed()).collect()
    }

    /// When the first certificate in use expires, in seconds since 1970.
    pub fn first_expiry(&self) -> Option<i64> {
        let users = self.delivered.users.lock().unwrap_or_else(PoisonError::into_inner).clone();
        users.iter().filter_map(|user| user.upgrade()?.expires()).min()
    }

    /// Has `user` listed, and told of changes, for as long as it lives.
    pub(crate) fn tell(&self, user: &Arc<dyn Renew>) {
        let mut users = self.delivered.users.lock().unwrap_or_else(PoisonError::into_inner);
        // Now and then is enough: looking at all of them for each would take long with many.
        if users.len() == users.capacity() {
            users.retain(|user| user.strong_count() > 0);
        }
        users.push(Arc::downgrade(user));
    }
}

/// Whether what a secret holds, or names, can be used.
fn check(secret: &Secret) -> Result<(), String> {
    let Secret { name: _, r#type } = secret;
    let (path, mut unsaid) = (FieldPath::root(), Vec::new());
    let outcome = match r#type {
        Some(Type::TlsCertificate(certificate)) => {
            Identity::lower(certificate, &default_provider(), &path, &mut unsaid).map(drop)
        }
        Some(Type::ValidationContext(context)) => Validation::lower(context, &path, &mut unsaid).map(drop),
        Some(Type::SessionTicketKeys(keys)) => TicketKeys::lower(keys, &path, &mut unsaid).map(drop),
        Some(Type::GenericSecret(_)) | None => Ok(()),
    };
    outcome.map_err(|error| error.to_string())
}
