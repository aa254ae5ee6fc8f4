//! `header_key_format`: how header names are written on HTTP/1 connections.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::SpellingRules;
use dhow_proto::envoy::config::core::v3::http1_protocol_options::{
    HeaderKeyFormat as Message, header_key_format::HeaderFormat,
};
use dhow_proto::envoy::extensions::http::header_formatters::preserve_case::v3::{
    PreserveCaseFormatterConfig, preserve_case_formatter_config::FormatterTypeOnEnvoyHeaders,
};

use super::fields::unpack;
use crate::cluster_info::HeaderKeyFormat;

impl HeaderKeyFormat {
    /// Lowers `http_protocol_options.header_key_format`, of a cluster or of a connection manager.
    ///
    /// # Errors
    /// No format is chosen, or the formatter is not one that exists.
    pub fn lower(format: Option<Message>, path: &FieldPath) -> Result<Self, ConfigError> {
        let Some(Message { header_format }) = format else { return Ok(Self::Lower) };
        let extension = match header_format {
            Some(HeaderFormat::ProperCaseWords(_)) => return Ok(Self::ProperCaseWords),
            Some(HeaderFormat::StatefulFormatter(extension)) => extension,
            None => return Err(ConfigError::new(path.field("header_format"), "is required")),
        };
        let path = path.field("stateful_formatter");
        let any = extension.typed_config.unwrap_or_default();
        let Some(config) = unpack::<PreserveCaseFormatterConfig>(&any, || path.field("typed_config"))? else {
            let reason = format!(
                "Didn't find a registered implementation for '{}' with type URL: '{}'",
                extension.name,
                any.type_url.trim_start_matches("type.googleapis.com/")
            );
            return Err(ConfigError::new(path, reason));
        };
        let PreserveCaseFormatterConfig { forward_reason_phrase, formatter_type_on_envoy_headers } = config;
        let proper_case_others =
            formatter_type_on_envoy_headers == FormatterTypeOnEnvoyHeaders::ProperCase as i32;
        Ok(Self::PreserveCase(SpellingRules { proper_case_others, reason_phrase: forward_reason_phrase }))
    }
}
