//! A compiled format string.

use dhow_base::{ConfigError, FieldPath};

use crate::command::Command;
use crate::context::FormatContext;
use crate::log_format::FormatExtensions;
use crate::parse;

/// Envoy's default access-log line, with its newline.
pub const DEFAULT_ACCESS_LOG_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQUEST_HEADER(:METHOD)% %REQUEST_HEADER(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESPONSE_HEADER(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQUEST_HEADER(X-FORWARDED-FOR)%\" ",
    "\"%REQUEST_HEADER(USER-AGENT)%\" \"%REQUEST_HEADER(X-REQUEST-ID)%\" \"%REQUEST_HEADER(:AUTHORITY)%\" ",
    "\"%UPSTREAM_HOST%\"\n",
);

/// A format string, compiled: literal text and commands.
#[derive(Clone, Debug)]
pub struct Format {
    parts: Box<[Part]>,
    /// What a missing value prints.
    missing: &'static [u8],
}

#[derive(Clone, Debug)]
pub(crate) enum Part {
    Literal(Box<[u8]>),
    Command(Command),
}

impl Format {
    /// Compiles a format string; a missing value prints `-`.
    ///
    /// # Errors
    /// In Envoy's words, when a `%` does not begin a command or the command or its arguments are not known.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        Self::parse_extended(text, FormatExtensions::default())
    }

    /// Compiles a format string in which commands do what the `formatters` that the format lists say.
    pub(crate) fn parse_extended(text: &str, extensions: FormatExtensions) -> Result<Self, ConfigError> {
        let refused = |reason| ConfigError::new(FieldPath::root(), reason);
        let parts = parse::parts(text, extensions.cel).map_err(refused)?;
        let is_of_extension =
            |part: &Part| matches!(part, Part::Command(command) if command.is_of_extension());
        if !extensions.without_query && parts.iter().any(is_of_extension) {
            return Err(refused("Not supported field in StreamInfo: REQ_WITHOUT_QUERY".to_owned()));
        }
        Ok(Self { parts: parts.into(), missing: b"-" })
    }

    /// Text without commands.
    pub fn literal(text: &str) -> Self {
        let parts = if text.is_empty() { vec![] } else { vec![Part::Literal(text.as_bytes().into())] };
        Self { parts: parts.into(), missing: b"-" }
    }

    /// The same format with missing values printed as nothing (`omit_empty_values`).
    #[must_use]
    pub fn omitting_empty(mut self, omit: bool) -> Self {
        self.missing = if omit { b"" } else { b"-" };
        self
    }

    /// The text, when there is no command in it.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &*self.parts {
            [] => Some(b""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the formatted text.
    pub fn append(&self, context: &dyn FormatContext, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Command(command) => {
                    if !command.append(context, out) {
                        out.extend_from_slice(self.missing);
                    }
                }
            }
        }
    }

    /// The formatted text, for places where an allocation does not matter.
    pub fn to_bytes(&self, context: &dyn FormatContext) -> Vec<u8> {
        let mut out = Vec::new();
        self.append(context, &mut out);
        out
    }

    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts
    }
}
