//! Files that configuration comes from.

use std::path::Path;

use dhow_base::{ConfigError, FieldPath};

/// Checks that the file of a configuration source is there, as Envoy does before it accepts the source: a file that comes
/// into being later would not be noticed.
///
/// # Errors
/// When there is no such file; `path` is the field that names it.
pub fn check_source_file(file: &str, path: &FieldPath) -> Result<(), ConfigError> {
    if Path::new(file).exists() {
        return Ok(());
    }
    let reason = format!("paths must refer to an existing path in the system: '{file}' does not exist");
    Err(ConfigError::new(path.clone(), reason))
}
