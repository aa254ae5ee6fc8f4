//! `DirectResponseAction`.

use std::path::Path;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::LogFormat;

use crate::compile::CompileOptions;
use crate::pb::core::{DataSource, data_source::Specifier};
use crate::pb::route::DirectResponseAction;

/// An answer that the route gives itself.
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// Status, 200 to 599.
    pub status: u16,
    /// The body; empty when there is none.
    pub body: Box<[u8]>,
    /// Formats the body (`%LOCAL_REPLY_BODY%` is the body above), with its content type.
    pub body_format: Option<(LogFormat, Option<String>)>,
}

impl DirectResponse {
    /// Compiles the message; a body beyond `limit` bytes is refused.
    ///
    /// # Errors
    /// When the status is out of range or the body cannot be read or is too long.
    pub(crate) fn compile(
        message: &DirectResponseAction,
        limit: usize,
        path: &FieldPath,
        options: &CompileOptions<'_>,
    ) -> Result<Self, ConfigError> {
        let DirectResponseAction { status, body, body_format } = message;
        let status = match u16::try_from(*status) {
            Ok(status @ 200..=599) => status,
            _ => return Err(ConfigError::new(path.field("status"), "value must be inside range [200, 600)")),
        };
        let body = match body {
            Some(source) => {
                let path = path.field("body");
                if let Some(Specifier::Filename(file)) = &source.specifier
                    && !Path::new(file).exists()
                {
                    let reason = format!("file {file} does not exist");
                    return Err(ConfigError::new(path.field("filename"), reason));
                }
                read(source, &path, options)?
            }
            None => Vec::new(),
        };
        if body.len() > limit {
            let reason = format!("response body size is {} bytes; maximum is {limit}", body.len());
            return Err(ConfigError::new(path.field("body"), reason));
        }
        let read_text = |source: &DataSource, path: &FieldPath| {
            String::from_utf8(read(source, path, options)?)
                .map_err(|_| ConfigError::new(path.clone(), "a format must be UTF-8"))
        };
        let body_format = match body_format {
            Some(message) => {
                let (format, kind) = LogFormat::compile(message, &path.field("body_format"), &read_text)?;
                let is_usual = message.content_type.is_empty() && kind == "text/plain";
                Some((format, (!is_usual).then_some(kind)))
            }
            None => None,
        };
        Ok(Self { status, body: body.into(), body_format })
    }
}

fn read(source: &DataSource, path: &FieldPath, options: &CompileOptions<'_>) -> Result<Vec<u8>, ConfigError> {
    match &source.specifier {
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        _ => (options.read_source)(source, path),
    }
}
