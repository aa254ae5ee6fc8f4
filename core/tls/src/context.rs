//! `CommonTlsContext`: what both sides configure.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};

use crate::identity::Identity;
use crate::parameters::{Parameters, Side};
use crate::pb::common_tls_context::{CombinedCertificateValidationContext, ValidationContextType};
use crate::pb::{CertificateValidationContext, CommonTlsContext, SdsSecretConfig, TlsCertificate};
use crate::secrets::Secrets;
use crate::validation::Validation;

/// What the message comes to.
#[derive(Debug)]
pub(crate) struct Context {
    pub parameters: Parameters,
    pub identities: Vec<Identity>,
    pub validation: Validation,
    pub alpn: Vec<Vec<u8>>,
}

impl Context {
    /// Lowers the message; `None` while a secret that it names is missing.
    pub(crate) fn lower(
        message: Option<&CommonTlsContext>,
        side: Side,
        secrets: &Secrets,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<Self>, ConfigError> {
        let default = CommonTlsContext::default();
        #[allow(deprecated, reason = "deprecated fields are refused by name like other unsupported ones")]
        let CommonTlsContext {
            tls_params,
            tls_certificates,
            tls_certificate_sds_secret_configs,
            tls_certificate_provider_instance,
            custom_tls_certificate_selector,
            tls_certificate_certificate_provider,
            tls_certificate_certificate_provider_instance,
            alpn_protocols,
            custom_handshaker,
            key_log,
            validation_context_type,
        } = message.unwrap_or(&default);
        let refuse = |is_set: bool, name: &str| ConfigError::refuse_if(is_set, path, name);
        refuse(tls_certificate_provider_instance.is_some(), "tls_certificate_provider_instance")?;
        refuse(custom_tls_certificate_selector.is_some(), "custom_tls_certificate_selector")?;
        refuse(tls_certificate_certificate_provider.is_some(), "tls_certificate_certificate_provider")?;
        refuse(
            tls_certificate_certificate_provider_instance.is_some(),
            "tls_certificate_certificate_provider_instance",
        )?;
        refuse(custom_handshaker.is_some(), "custom_handshaker")?;
        refuse(key_log.is_some(), "key_log")?;
        let parameters = Parameters::lower(tls_params.as_ref(), side, &path.field("tls_params"), warnings)?;
        let mut identities = Vec::with_capacity(tls_certificates.len());
        for (index, certificate) in tls_certificates.iter().enumerate() {
            let path = path.field("tls_certificates").index(index);
            if *certificate == TlsCertificate::default() {
                match side {
                    Side::Client => continue,
                    Side::Server => {
                        let reason = "Server TlsCertificates must have a certificate specified";
                        return Err(ConfigError::new(path, reason));
                    }
                }
            }
            identities.push(Identity::lower(certificate, &parameters.provider, &path, warnings)?);
        }
        for (index, config) in tls_certificate_sds_secret_configs.iter().enumerate() {
            let path = path.field("tls_certificate_sds_secret_configs").index(index);
            let Some(certificate) = secrets.certificate(config, &path)? else { return Ok(None) };
            let mut identity = Identity::lower(&certificate, &parameters.provider, &path, warnings)?;
            identity.secret = Some(config.name.clone());
            identities.push(identity);
        }
        let validation = lower_validation(validation_context_type.as_ref(), secrets, path, warnings)?;
        let Some(validation) = validation else { return Ok(None) };
        Ok(Some(Self {
            validation,
            parameters,
            identities,
            alpn: alpn_protocols.iter().map(|protocol| protocol.clone().into_bytes()).collect(),
        }))
    }
}

fn lower_validation(
    message: Option<&ValidationContextType>,
    secrets: &Secrets,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<Validation>, ConfigError> {
    #[allow(deprecated, reason = "deprecated variants are refused by name like other unsupported ones")]
    let unsupported = match message {
        None => return Ok(Some(Validation::default())),
        Some(ValidationContextType::ValidationContext(context)) => {
            return Validation::lower(context, &path.field("validation_context"), warnings).map(Some);
        }
        Some(ValidationContextType::CombinedValidationContext(combined)) => {
            return lower_combined(combined, secrets, &path.field("combined_validation_context"), warnings);
        }
        Some(ValidationContextType::ValidationContextSdsSecretConfig(config)) => {
            let path = path.field("validation_context_sds_secret_config");
            let context = secrets.validation(config, None, &path)?;
            return lower_secret(context.as_ref(), config, &path, warnings);
        }
        Some(ValidationContextType::ValidationContextCertificateProvider(_)) => {
            "validation_context_certificate_provider"
        }
        Some(ValidationContextType::ValidationContextCertificateProviderInstance(_)) => {
            "validation_context_certificate_provider_instance"
        }
    };
    Err(ConfigError::unsupported(path.field(unsupported)))
}

fn lower_secret(
    context: Option<&CertificateValidationContext>,
    config: &SdsSecretConfig,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<Validation>, ConfigError> {
    let Some(context) = context else { return Ok(None) };
    let mut validation = Validation::lower(context, path, warnings)?;
    validation.secret = Some(config.name.clone());
    Ok(Some(validation))
}

fn lower_combined(
    message: &CombinedCertificateValidationContext,
    secrets: &Secrets,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Option<Validation>, ConfigError> {
    #[allow(deprecated, reason = "deprecated fields are refused by name like other unsupported ones")]
    let CombinedCertificateValidationContext {
        default_validation_context,
        validation_context_sds_secret_config,
        validation_context_certificate_provider,
        validation_context_certificate_provider_instance,
    } = message;
    let refuse = |is_set: bool, name: &str| ConfigError::refuse_if(is_set, path, name);
    refuse(validation_context_certificate_provider.is_some(), "validation_context_certificate_provider")?;
    refuse(
        validation_context_certificate_provider_instance.is_some(),
        "validation_context_certificate_provider_instance",
    )?;
    if let Some(config) = validation_context_sds_secret_config {
        let path = path.field("validation_context_sds_secret_config");
        let context = secrets.validation(config, default_validation_context.as_ref(), &path)?;
        return lower_secret(context.as_ref(), config, &path, warnings);
    }
    match default_validation_context {
        Some(context) => {
            Validation::lower(context, &path.field("default_validation_context"), warnings).map(Some)
        }
        None => Ok(Some(Validation::default())),
    }
}
