//! Files, variables and inline data that a configuration names (`envoy.config.core.v3.DataSource`), and names of files.

use std::path::Path;

use dhow_base::{ConfigError, FieldPath};

use crate::envoy::config::core::v3::{DataSource, data_source::Specifier};

/// What a data source holds, and the name by which messages speak of it: its path, or `<inline>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceData {
    /// The contents.
    pub bytes: Vec<u8>,
    /// For messages.
    pub name: String,
}

impl SourceData {
    /// Reads `source`; `path` is the field that holds it. `watched_directory` is left to the caller.
    ///
    /// # Errors
    /// In Envoy's words: a file that cannot be read or is none (`/dev`, `/proc` and `/sys` are refused, apart from the
    /// descriptors in `/dev/fd`), a variable that is not set, nothing specified.
    pub fn read(source: &DataSource, path: &FieldPath) -> Result<Self, ConfigError> {
        let DataSource { watched_directory: _, specifier } = source;
        let inline = |bytes: Vec<u8>| Self { bytes, name: "<inline>".to_owned() };
        match specifier {
            Some(Specifier::Filename(name)) => match read_file(name) {
                Ok(bytes) => Ok(Self { bytes, name: name.clone() }),
                Err((reason, cause)) => {
                    let error = ConfigError::new(path.field("filename"), reason);
                    Err(match cause {
                        Some(cause) => error.with_hint(cause.to_string()),
                        None => error,
                    })
                }
            },
            Some(Specifier::InlineBytes(bytes)) => Ok(inline(bytes.clone())),
            Some(Specifier::InlineString(text)) => Ok(inline(text.clone().into_bytes())),
            Some(Specifier::EnvironmentVariable(name)) => match std::env::var(name) {
                Ok(text) => Ok(Self { bytes: text.into_bytes(), name: format!("${name}") }),
                Err(_) => {
                    let reason = format!("Environment variable doesn't exist: {name}");
                    Err(ConfigError::new(path.field("environment_variable"), reason))
                }
            },
            None => Err(ConfigError::new(path.field("specifier"), "is required")),
        }
    }

    /// As [`SourceData::read`], of a source that has to hold something.
    ///
    /// # Errors
    /// The same, and one that is empty.
    pub fn read_filled(source: &DataSource, path: &FieldPath) -> Result<Self, ConfigError> {
        let data = Self::read(source, path)?;
        if !data.bytes.is_empty() {
            return Ok(data);
        }
        let reason = match &source.specifier {
            Some(Specifier::Filename(name)) => format!("file {name} is empty"),
            _ => "DataSource cannot be empty".to_owned(),
        };
        Err(ConfigError::new(path.clone(), reason))
    }
}

/// Checks that `file` is named with its directory, without which Envoy does not watch it.
///
/// # Errors
/// When it is not; `path` is the field that names it.
pub fn check_watched_path(file: &str, path: &FieldPath) -> Result<(), ConfigError> {
    if file.contains('/') {
        return Ok(());
    }
    Err(ConfigError::new(path.clone(), format!("invalid file path {file}")))
}

/// A file's contents, or Envoy's words for why there are none, with what the system says.
fn read_file(name: &str) -> Result<Vec<u8>, (String, Option<std::io::Error>)> {
    let illegal = || format!("Invalid path: {name}");
    let real = Path::new(name).canonicalize().map_err(|error| (illegal(), Some(error)))?;
    let is_device = ["/dev", "/proc", "/sys"].iter().any(|folder| real.starts_with(folder));
    if is_device && !name.starts_with("/dev/fd/") {
        return Err((illegal(), None));
    }
    match std::fs::read(real) {
        // As in Envoy, nothing can be read from a directory, and that is all.
        Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => Ok(Vec::new()),
        read => read.map_err(|error| (format!("unable to read file: {name}"), Some(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_file(name: &str) -> Result<SourceData, String> {
        let source =
            DataSource { specifier: Some(Specifier::Filename(name.into())), watched_directory: None };
        SourceData::read(&source, &FieldPath::root()).map_err(|error| error.to_string())
    }

    #[test]
    fn files_of_the_system_are_not_read() {
        for name in ["/dev/null", "/proc/self/status", "/tmp/../dev/null", "/proc"] {
            assert_eq!(of_file(name).unwrap_err(), format!("filename: Invalid path: {name}"));
        }
    }

    #[test]
    fn a_directory_holds_nothing_which_is_not_always_enough() {
        let name = env!("CARGO_MANIFEST_DIR");
        let source =
            DataSource { specifier: Some(Specifier::Filename(name.into())), watched_directory: None };
        let path = FieldPath::root().field("trusted_ca");
        assert_eq!(SourceData::read(&source, &path).unwrap().bytes, b"");
        let error = SourceData::read_filled(&source, &path).unwrap_err();
        assert_eq!(error.to_string(), format!("trusted_ca: file {name} is empty"));
        let inline =
            DataSource { specifier: Some(Specifier::InlineString(String::new())), watched_directory: None };
        let error = SourceData::read_filled(&inline, &path).unwrap_err();
        assert_eq!(error.reason, "DataSource cannot be empty");
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_the_cause() {
        let error = of_file("/no/such/file").unwrap_err();
        assert!(error.starts_with("filename: Invalid path: /no/such/file (No such file"), "{error}");
    }

    #[test]
    fn a_file_is_known_by_its_path() {
        let name = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let read = of_file(name).unwrap();
        assert_eq!(read.name, name);
        assert!(read.bytes.starts_with(b"[package]"));
    }
}
