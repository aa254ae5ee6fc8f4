//! Reading the files and inline data that a context names.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};

use crate::pb::{DataSource, data_source::Specifier};

/// Contents of a data source, and the name by which messages speak of it: its path, or `<inline>`.
#[derive(Debug)]
pub(crate) struct Source {
    pub bytes: Vec<u8>,
    pub name: String,
}

/// Reads a data source.
pub(crate) fn read(
    source: &DataSource,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Source, ConfigError> {
    let DataSource { watched_directory, specifier } = source;
    if watched_directory.is_some() {
        warnings.push(unwatched(path.field("watched_directory")));
    }
    let inline = |bytes: Vec<u8>| Source { bytes, name: "<inline>".to_owned() };
    match specifier {
        Some(Specifier::Filename(name)) => match std::fs::read(name) {
            Ok(bytes) => Ok(Source { bytes, name: name.clone() }),
            Err(error) => {
                let reason = format!("Invalid path: {name}: {error}");
                Err(ConfigError::new(path.field("filename"), reason))
            }
        },
        Some(Specifier::InlineBytes(bytes)) => Ok(inline(bytes.to_vec())),
        Some(Specifier::InlineString(text)) => Ok(inline(text.clone().into_bytes())),
        Some(Specifier::EnvironmentVariable(name)) => match std::env::var(name) {
            Ok(text) => Ok(Source { bytes: text.into_bytes(), name: format!("${name}") }),
            Err(_) => {
                let reason = format!("Environment variable doesn't exist: {name}");
                Err(ConfigError::new(path.field("environment_variable"), reason))
            }
        },
        None => Err(ConfigError::new(path.field("specifier"), "is required")),
    }
}

/// Files are read when the configuration is; a directory to watch has no effect yet.
pub(crate) fn unwatched(path: FieldPath) -> ConfigWarning {
    ConfigWarning::new(
        path,
        "the directory is not watched: files are read once, when the configuration is loaded",
    )
}
