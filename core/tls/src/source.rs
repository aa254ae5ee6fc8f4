//! Reading the files and inline data that a context names.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::SourceData;

use crate::pb::DataSource;

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

/// Files are read when the configuration is; a directory to watch has no effect yet.
pub(crate) fn unwatched(path: FieldPath) -> ConfigWarning {
    ConfigWarning::new(
        path,
        "the directory is not watched: files are read once, when the configuration is loaded",
    )
}
