//! `static_resources.secrets`: certificates and validation contexts that contexts name instead of holding them.

use std::collections::HashMap;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::Message;

use crate::pb::secret::Type;
use crate::pb::{CertificateValidationContext, SdsSecretConfig, Secret, TlsCertificate};

/// The secrets of the bootstrap, by name.
#[derive(Clone, Debug, Default)]
pub struct StaticSecrets {
    certificates: HashMap<String, TlsCertificate>,
    validations: HashMap<String, CertificateValidationContext>,
}

impl StaticSecrets {
    /// Takes the secrets by name. What they hold is read where it is used.
    ///
    /// # Errors
    /// Two secrets of one kind with the same name.
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
                // Nothing that could use one of these is accepted.
                Some(Type::SessionTicketKeys(_) | Type::GenericSecret(_)) | None => continue,
            };
            if repeated {
                let reason = format!("Duplicate static {what} name {name}");
                return Err(ConfigError::new(path.index(index), reason));
            }
        }
        Ok(known)
    }

    /// The certificate that `config` names.
    pub(crate) fn certificate(
        &self,
        config: &SdsSecretConfig,
        path: &FieldPath,
    ) -> Result<&TlsCertificate, ConfigError> {
        let name = static_name(config, path)?;
        let unknown = || ConfigError::new(path.field("name"), format!("Unknown static secret: {name}"));
        self.certificates.get(name).ok_or_else(unknown)
    }

    /// The validation context that `config` names, over `default` where it says something itself.
    pub(crate) fn validation(
        &self,
        config: &SdsSecretConfig,
        default: Option<&CertificateValidationContext>,
        path: &FieldPath,
    ) -> Result<CertificateValidationContext, ConfigError> {
        let name = static_name(config, path)?;
        let Some(context) = self.validations.get(name) else {
            let reason = format!("Unknown static certificate validation context: {name}");
            return Err(ConfigError::new(path.field("name"), reason));
        };
        let Some(default) = default else { return Ok(context.clone()) };
        let mut merged = default.clone();
        merged.merge(&*context.encode_to_vec()).expect("what was encoded a moment ago can be decoded");
        Ok(merged)
    }
}

/// The name of a secret that is in the bootstrap; secrets that someone delivers are not supported.
fn static_name<'a>(config: &'a SdsSecretConfig, path: &FieldPath) -> Result<&'a str, ConfigError> {
    let SdsSecretConfig { name, sds_config } = config;
    ConfigError::refuse_if(sds_config.is_some(), path, "sds_config")?;
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn validation(name: &str, context: CertificateValidationContext) -> Secret {
        Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) }
    }

    fn named(name: &str) -> SdsSecretConfig {
        SdsSecretConfig { name: name.to_owned(), sds_config: None }
    }

    fn pinned(hash: &str) -> CertificateValidationContext {
        CertificateValidationContext { verify_certificate_hash: vec![hash.to_owned()], ..Default::default() }
    }

    #[test]
    fn a_context_is_found_by_name_and_merged_over_the_default() {
        let path = FieldPath::root();
        let secrets = StaticSecrets::from_messages(vec![validation("a", pinned("1"))], &path).unwrap();
        assert_eq!(secrets.validation(&named("a"), None, &path).unwrap(), pinned("1"));
        let merged = secrets.validation(&named("a"), Some(&pinned("2")), &path).unwrap();
        assert_eq!(merged.verify_certificate_hash, ["2", "1"]);
        let error = secrets.validation(&named("b"), None, &path).unwrap_err().to_string();
        assert!(error.contains("Unknown static certificate validation context: b"), "{error}");
        let error = secrets.certificate(&named("a"), &path).unwrap_err().to_string();
        assert!(error.contains("Unknown static secret: a"), "{error}");
    }

    #[test]
    fn names_are_unique_and_delivered_secrets_refused() {
        let twice = vec![validation("a", pinned("1")), validation("a", pinned("2"))];
        let error = StaticSecrets::from_messages(twice, &FieldPath::root()).unwrap_err().to_string();
        assert!(error.contains("Duplicate static certificate validation context name a"), "{error}");
        let delivered = SdsSecretConfig { sds_config: Some(Default::default()), ..named("a") };
        let error = StaticSecrets::default().certificate(&delivered, &FieldPath::root()).unwrap_err();
        assert!(error.to_string().contains("sds_config"), "{error}");
    }
}
