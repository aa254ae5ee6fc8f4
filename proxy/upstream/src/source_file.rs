//! Files that configuration comes from.

use std::path::Path;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::check_watched_path;

/// Checks that the file of a configuration source is there, as Envoy does before it accepts the source: a file that comes
/// into being later would not be noticed. A file that is watched itself, because no directory is (`watched`), has to be
/// named with its directory.
///
/// # Errors
/// When there is no such file or it cannot be watched; `path` is the field that names it.
pub fn check_source_file(file: &str, watched: bool, path: &FieldPath) -> Result<(), ConfigError> {
    if !Path::new(file).exists() {
        let reason = format!("paths must refer to an existing path in the system: '{file}' does not exist");
        return Err(ConfigError::new(path.clone(), reason));
    }
    if watched { check_watched_path(file, path) } else { Ok(()) }
}
