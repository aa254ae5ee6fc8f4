//! What is wrong with a configuration, and where.

use std::fmt;

use crate::FieldPath;
use crate::unsupported::{self, UNSUPPORTED};

/// A configuration that cannot be accepted.
///
/// Its text is what the operator reads: the line that `--mode validate` prints, and the `error_detail.message` of the
/// NACK for a resource that came from a management server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the offending value is; the root when the whole document is meant.
    pub path: FieldPath,
    /// What is wrong with it, in Envoy's words where operators may search for them.
    pub reason: String,
    /// What would be right, when that can be told (`did you mean 'listeners'?`).
    pub hint: Option<String>,
}

impl ConfigError {
    /// An error at `path`.
    pub fn new(path: FieldPath, reason: impl Into<String>) -> Self {
        Self { path, reason: reason.into(), hint: None }
    }

    /// An error about the document as a whole.
    pub fn at_root(reason: impl Into<String>) -> Self {
        Self::new(FieldPath::root(), reason)
    }

    /// The refusal of a field that is set and not supported: the rule is that nothing is dropped silently. The reason
    /// goes by the field's name; all of them stand in one table ([`UNSUPPORTED`] begins each).
    pub fn unsupported(path: FieldPath) -> Self {
        let text = match unsupported::reason(path.last_field()) {
            Some(reason) => format!("{UNSUPPORTED}: {reason}"),
            None => UNSUPPORTED.to_owned(),
        };
        Self::new(path, text)
    }

    /// Refuses the field `name` of the message at `path` when it is set; for fields that are not supported.
    ///
    /// # Errors
    /// When `is_set`.
    pub fn refuse_if(is_set: bool, path: &FieldPath, name: &str) -> Result<(), Self> {
        if is_set { Err(Self::unsupported(path.field(name))) } else { Ok(()) }
    }

    /// The same error with a suggestion added.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error seen from the message that holds this one at `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &FieldPath) -> Self {
        self.path = prefix.join(&self.path);
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Something in an accepted configuration that its author should know: a deprecated or an unknown field, a field that
/// has no effect here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// Where the value is; the root when the whole document is meant.
    pub path: FieldPath,
    /// What there is to know about it.
    pub message: String,
    /// What it is about, for those who count.
    pub topic: WarningTopic,
}

/// What a [`ConfigWarning`] is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WarningTopic {
    /// A field or value that is deprecated.
    Deprecated,
    /// A field that the type does not have.
    Unknown,
    /// A message or field that is not finished in Envoy.
    WorkInProgress,
    /// Anything else.
    #[default]
    Other,
}

impl ConfigWarning {
    /// A warning at `path`.
    pub fn new(path: FieldPath, message: impl Into<String>) -> Self {
        Self { path, message: message.into(), topic: WarningTopic::Other }
    }

    /// The same warning under a topic.
    #[must_use]
    pub fn about(mut self, topic: WarningTopic) -> Self {
        self.topic = topic;
        self
    }

    /// The same warning seen from the message that holds this one at `prefix`.
    #[must_use]
    pub fn under(mut self, prefix: &FieldPath) -> Self {
        self.path = prefix.join(&self.path);
        self
    }
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_root() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::{ConfigError, ConfigWarning};
    use crate::FieldPath;

    #[test]
    fn an_error_names_path_reason_and_hint() {
        let error = ConfigError::new(FieldPath::from("clusters[0].nmae"), "no such field: 'nmae'")
            .with_hint("did you mean 'name'?")
            .under(&FieldPath::from("static_resources"));
        assert_eq!(
            error.to_string(),
            "static_resources.clusters[0].nmae: no such field: 'nmae' (did you mean 'name'?)"
        );
    }

    #[test]
    fn an_error_about_the_document_has_no_prefix() {
        assert_eq!(ConfigError::at_root("empty").to_string(), "empty");
        let warning = ConfigWarning::new(FieldPath::from("a"), "deprecated").under(&FieldPath::from("m"));
        assert_eq!(warning.to_string(), "m.a: deprecated");
    }
}
