//! Reading the files and inline data that a context names.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::SourceData;

use crate::pb::{DataSource, data_source};

/// Reads a data source.
pub(crate) fn read(
    source: &DataSource,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<SourceData, ConfigError> {
    if source.watched_directory.is_some() {
        warnings.push(unwatched(path.field("watched_directory")));
    }
    SourceData::read(source, path)
}

/// Reads a data source that has to hold something.
pub(crate) fn read_filled(
    source: &DataSource,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<SourceData, ConfigError> {
    if source.watched_directory.is_some() {
        warnings.push(unwatched(path.field("watched_directory")));
    }
    SourceData::read_filled(source, path)
}

/// Reads a part of a certificate, which is missing for Envoy where there is nothing to read: `None` then, with the name of its file
/// and with what the system says of it.
pub(crate) fn read_part(
    source: Option<&DataSource>,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<SourceData, Missing> {
    let Some(source) = source else { return Err(Missing::default()) };
    let name = match &source.specifier {
        Some(data_source::Specifier::Filename(name)) => name.clone(),
        _ => String::new(),
    };
    match read(source, path, warnings) {
        Ok(data) if !data.bytes.is_empty() => Ok(data),
        Ok(_) => Err(Missing { name, cause: None }),
        Err(error) => Err(Missing { name, cause: error.hint.or(Some(error.reason)) }),
    }
}

/// A part of a certificate that is not there.
#[derive(Default)]
pub(crate) struct Missing {
    /// The file that it should be in, if it should be in one.
    pub name: String,
    /// Why it could not be read.
    pub cause: Option<String>,
}

impl Missing {
    /// The error with these words of Envoy's.
    pub(crate) fn error(self, path: &FieldPath, reason: String) -> ConfigError {
        let error = ConfigError::new(path.clone(), reason);
        match self.cause {
            Some(cause) => error.with_hint(cause),
            None => error,
        }
    }
}

/// Files are read when the configuration is; a directory to watch has no effect yet.
pub(crate) fn unwatched(path: FieldPath) -> ConfigWarning {
    ConfigWarning::new(
        path,
        "the directory is not watched: files are read once, when the configuration is loaded",
    )
}
