//! `SubstitutionFormatString`: text or JSON, with its content type.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::any;
use dhow_proto::envoy::extensions::formatter::cel::v3::Cel;

use crate::cel::CelOptions;
use crate::context::FormatContext;
use crate::format::Format;
use crate::json::{JsonFormat, Leaves};
use crate::pb::core::{
    DataSource, JsonFormatOptions, SubstitutionFormatString, TypedExtensionConfig, data_source::Specifier,
    substitution_format_string::Format as Choice,
};

/// A compiled `envoy.config.core.v3.SubstitutionFormatString`.
#[derive(Clone, Debug)]
pub enum LogFormat {
    /// `text_format`, `text_format_source`: written as it is.
    Text(Format),
    /// `json_format`: one object and a newline.
    Json(JsonFormat),
}

/// The formatter extension whose command is known only where it is listed.
const REQ_WITHOUT_QUERY: &str =
    "type.googleapis.com/envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery";

/// The formatter extension that says what expressions may do.
const CEL: &str = "type.googleapis.com/envoy.extensions.formatter.cel.v3.Cel";

/// The formatter extensions that are there. The commands of the others are part of every [`Format`].
const BUILT_IN: [&str; 3] =
    [CEL, "type.googleapis.com/envoy.extensions.formatter.metadata.v3.Metadata", REQ_WITHOUT_QUERY];

/// What the formatter extensions that a format lists change about its commands. Most commands are known everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct FormatExtensions {
    /// `%REQ_WITHOUT_QUERY%` may occur.
    pub(crate) without_query: bool,
    /// What the expressions of `%CEL(...)%` may do (`cel_config`).
    pub(crate) cel: CelOptions,
}

/// Checks a list of formatter extensions.
///
/// # Errors
/// The first that is not known.
pub fn check_formatters(
    formatters: &[TypedExtensionConfig],
    path: &FieldPath,
) -> Result<FormatExtensions, ConfigError> {
    let mut extensions = FormatExtensions::default();
    let mut has_cel = false;
    for (at, formatter) in formatters.iter().enumerate() {
        let url = formatter.typed_config.as_ref().map_or("", |any| any.type_url.as_str());
        if !BUILT_IN.contains(&url) {
            return Err(ConfigError::new(
                path.index(at),
                format!("Formatter not found: {} with type URL: '{url}'", formatter.name),
            ));
        }
        extensions.without_query |= url == REQ_WITHOUT_QUERY;
        if url == CEL
            && let Some(any) = &formatter.typed_config
        {
            let Cel { cel_config } =
                any::unpack(any).map_err(|error| error.under(&path.index(at).field("typed_config")))?;
            // The first that knows a command compiles it.
            if !std::mem::replace(&mut has_cel, true) {
                extensions.cel = CelOptions::of(cel_config);
            }
        }
    }
    Ok(extensions)
}

impl LogFormat {
    /// Compiles the message; the second value is the content type that its output has as a body.
    ///
    /// `read` resolves a data source that is a file or an environment variable.
    ///
    /// # Errors
    /// When the format does not parse, none is given, or a formatter extension is not known.
    pub fn compile(
        message: &SubstitutionFormatString,
        path: &FieldPath,
        read: &dyn Fn(&DataSource, &FieldPath) -> Result<String, ConfigError>,
    ) -> Result<(Self, String), ConfigError> {
        let SubstitutionFormatString {
            omit_empty_values,
            content_type,
            formatters,
            json_format_options,
            format,
        } = message;
        let extensions = check_formatters(formatters, &path.field("formatters"))?;
        // Properties are always sorted here, as in Envoy since the option became a no-op.
        #[allow(deprecated, reason = "named so that a new option is noticed")]
        if let Some(JsonFormatOptions { sort_properties: _ }) = json_format_options {}
        let text = |text: &str, field: &str| {
            let format = Format::parse_extended(text, extensions);
            let format = format.map_err(|e| e.under(&path.field(field)))?;
            Ok(Self::Text(format.omitting_empty(*omit_empty_values)))
        };
        let (format, default_type) = match format {
            #[allow(deprecated, reason = "the field is deprecated and still in use")]
            Some(Choice::TextFormat(format)) => (text(format, "text_format")?, "text/plain"),
            Some(Choice::TextFormatSource(source)) => {
                let field = path.field("text_format_source");
                let inline = match &source.specifier {
                    Some(Specifier::InlineString(inline)) => inline.clone(),
                    _ => read(source, &field)?,
                };
                (text(&inline, "text_format_source")?, "text/plain")
            }
            Some(Choice::JsonFormat(fields)) => {
                let field = path.field("json_format");
                let leaves = Leaves { omit_empty: *omit_empty_values, extensions };
                (Self::Json(JsonFormat::compile_extended(fields, leaves, &field)?), "application/json")
            }
            None => return Err(ConfigError::new(path.clone(), "format is required")),
        };
        let content_type =
            if content_type.is_empty() { default_type.to_owned() } else { content_type.clone() };
        Ok((format, content_type))
    }

    /// Envoy's default access log.
    pub fn default_access_log() -> Self {
        let format = Format::parse(crate::DEFAULT_ACCESS_LOG_FORMAT);
        Self::Text(format.expect("the default format is a valid format string"))
    }

    /// Appends one record: text as formatted, JSON with a newline. `scratch` is overwritten.
    pub fn append(&self, context: &dyn FormatContext, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        match self {
            Self::Text(format) => format.append(context, out),
            Self::Json(format) => {
                format.append(context, scratch, out);
                out.push(b'\n');
            }
        }
    }
}
