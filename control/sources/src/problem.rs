//! What is wrong with a document, and where.

use std::fmt;
use std::sync::Arc;

use dhow_control_model::ObjectKey;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The document has another effect than its author may expect.
    Warning,
    /// The document has no effect; the last good version of the object, if any, stays live.
    Error,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as the directory names it.
    pub file: Arc<str>,
    /// Line from 1, of the field or of the nearest thing there is.
    pub line: u32,
    /// The object, when the document says so much.
    pub object: Option<String>,
    /// Path of the field; empty when the finding is about the document.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.file, self.line)?;
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

impl Problem {
    pub(crate) fn duplicate(file: Arc<str>, line: u32, key: &ObjectKey, live: &str) -> Self {
        Self {
            severity: Severity::Warning,
            file,
            line,
            object: Some(key.to_string()),
            path: String::new(),
            reason: format!("is also defined in {live}, which was written later and is live"),
        }
    }
}
