//! Secrets: certificates, validation contexts and keys of tickets that contexts name instead of holding them, from the bootstrap or delivered later.

mod delivered;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::Message;

use crate::pb::secret::Type;
use crate::pb::{
    CertificateValidationContext, SdsSecretConfig, Secret, TlsCertificate, TlsSessionTicketKeys,
};

use delivered::Delivered;
pub(crate) use delivered::Renew;
pub use delivered::SecretPlace;

/// The secrets that contexts may name: those of the bootstrap (`static_resources.secrets`), and those that are delivered (`sds_config`).
#[derive(Default)]
pub struct Secrets {
    certificates: HashMap<String, TlsCertificate>,
    validations: HashMap<String, CertificateValidationContext>,
    ticket_keys: HashMap<String, TlsSessionTicketKeys>,
    delivered: Delivered,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Private keys are not for logs.
        f.debug_struct("Secrets").field("certificates", &self.certificates.len()).finish_non_exhaustive()
    }
}

impl Secrets {
    /// Takes the secrets of the bootstrap by name. What they hold is read where it is used.
    ///
    /// # Errors
    /// Two secrets of one kind with the same name, or one of no kind.
    pub fn from_messages(secrets: Vec<Secret>, path: &FieldPath) -> Result<Self, ConfigError> {
        let mut known = Self::default();
        for (index, Secret { name, r#type }) in secrets.into_iter().enumerate() {
            let (what, repeated) = match r#type {
                Some(Type::TlsCertificate(certificate)) => {
                    ("secret", known.certificates.insert(name.clone(), certificate).is_some())
                }
                Some(Type::ValidationContext(context)) => {
                    let repeated = known.validations.insert(name.clone(), context).is_some();
                    ("certificate validation context", repeated)
                }
                Some(Type::SessionTicketKeys(keys)) => {
                    let repeated = known.ticket_keys.insert(name.clone(), keys).is_some();
                    ("TlsSessionTicketKeys secret", repeated)
                }
                // Nothing that could use one of these is accepted.
                Some(Type::GenericSecret(_)) => continue,
                None => return Err(ConfigError::new(path.index(index), "Secret type not implemented")),
            };
            if repeated {
                let reason = format!("Duplicate static {what} name {name}");
                return Err(ConfigError::new(path.index(index), reason));
            }
        }
        Ok(known)
    }

    /// The certificate that `config` names; `None` when it was not delivered yet.
    pub(crate) fn certificate(
        &self,
        config: &SdsSecretConfig,
        path: &FieldPath,
    ) -> Result<Option<Cow<'_, TlsCertificate>>, ConfigError> {
        let SdsSecretConfig { name, sds_config: _ } = config;
        if let Some(place) = SecretPlace::of(config, path)? {
            return Ok(match self.delivered.get(&place) {
                Some(Secret { r#type: Some(Type::TlsCertificate(certificate)), .. }) => {
                    Some(Cow::Owned(certificate))
                }
                _ => None,
            });
        }
        let unknown = || ConfigError::new(path.field("name"), format!("Unknown static secret: {name}"));
        self.certificates.get(name).map(|known| Some(Cow::Borrowed(known))).ok_or_else(unknown)
    }

    /// The keys of tickets that `config` names; `None` when they were not delivered yet.
    pub(crate) fn ticket_keys(
        &self,
        config: &SdsSecretConfig,
        path: &FieldPath,
    ) -> Result<Option<Cow<'_, TlsSessionTicketKeys>>, ConfigError> {
        let SdsSecretConfig { name, sds_config: _ } = config;
        if let Some(place) = SecretPlace::of(config, path)? {
            return Ok(match self.delivered.get(&place) {
                Some(Secret { r#type: Some(Type::SessionTicketKeys(keys)), .. }) => Some(Cow::Owned(keys)),
                _ => None,
            });
        }
        let unknown =
            || ConfigError::new(path.field("name"), format!("Unknown tls session ticket keys: {name}"));
        self.ticket_keys.get(name).map(|known| Some(Cow::Borrowed(known))).ok_or_else(unknown)
    }

    /// The validation context that `config` names, over `default` where it says something itself; `None` when it was not delivered
    /// yet.
    pub(crate) fn validation(
        &self,
        config: &SdsSecretConfig,
        default: Option<&CertificateValidationContext>,
        path: &FieldPath,
    ) -> Result<Option<CertificateValidationContext>, ConfigError> {
        let SdsSecretConfig { name, sds_config: _ } = config;
        let context = match SecretPlace::of(config, path)? {
            Some(place) => match self.delivered.get(&place) {
                Some(Secret { r#type: Some(Type::ValidationContext(context)), .. }) => context,
                _ => return Ok(None),
            },
            None => {
                let unknown = || format!("Unknown static certificate validation context: {name}");
                let known = self.validations.get(name);
                known.ok_or_else(|| ConfigError::new(path.field("name"), unknown()))?.clone()
            }
        };
        let Some(default) = default else { return Ok(Some(context)) };
        let mut merged = default.clone();
        merged.merge(&*context.encode_to_vec()).expect("what was encoded a moment ago can be decoded");
        Ok(Some(merged))
    }
}
