//! Loading the bootstrap from its file and from the command line.

use std::ops::Add;

use bytes::Bytes;
use dhow_base::{ConfigWarning, FieldPath, WarningTopic};
use dhow_proto::envoy::config::bootstrap::v3::{Bootstrap as BootstrapMessage, LayeredRuntime};
use dhow_proto::{Format, LoadOptions, Message};
use dhow_stats::Store;

use crate::bootstrap::{self, Bootstrap};
use crate::cli::Options;
use crate::configuration::warn_all;
use crate::deprecation;
use crate::runtime::RuntimeLoader;

/// The bootstrap, and what there was to say about it.
pub(crate) struct LoadedBootstrap {
    /// As it was written, encoded: that takes a tenth of the memory.
    pub(crate) message: Bytes,
    /// What the process needs of it.
    pub(crate) bootstrap: Bootstrap,
    /// What is counted about it.
    pub(crate) topics: Topics,
}

/// How many warnings of each counted topic there were.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Topics {
    pub(crate) deprecated: u64,
    pub(crate) unknown: u64,
    pub(crate) work_in_progress: u64,
}

impl Topics {
    /// Counts the warnings.
    pub(crate) fn of(warnings: &[ConfigWarning]) -> Self {
        let count = |topic| warnings.iter().filter(|warning| warning.topic == topic).count() as u64;
        Self {
            deprecated: warnings
                .iter()
                .filter(|warning| warning.topic == WarningTopic::Deprecated)
                .map(|warning| times_seen(warning.path.as_str()))
                .sum(),
            unknown: count(WarningTopic::Unknown),
            work_in_progress: count(WarningTopic::WorkInProgress),
        }
    }
}

/// How often Envoy counts the deprecated field at `path`: never in the bootstrap itself, which is read before there is anything to
/// count in; twice in the message of a network or HTTP filter, which is looked at once as it is unpacked and once by its factory;
/// once in any other message inside of another.
fn times_seen(path: &str) -> u64 {
    let starts = ["typed_config", "typed_per_filter_config", "typed_extension_protocol_options"];
    let nearest = starts.iter().filter_map(|start| path.rfind(start).map(|at| (at, *start))).max();
    match nearest {
        None => u64::from(!path.starts_with("static_resources")),
        Some((at, "typed_config")) => {
            let owner = path[..at].trim_end_matches('.').rsplit('.').next().unwrap_or_default();
            if ["filters[", "http_filters["].iter().any(|list| owner.starts_with(list)) { 2 } else { 1 }
        }
        Some(_) => 1,
    }
}

impl Add for Topics {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            deprecated: self.deprecated + other.deprecated,
            unknown: self.unknown + other.unknown,
            work_in_progress: self.work_in_progress + other.work_in_progress,
        }
    }
}

/// Loads the bootstrap from the file and the inline text.
pub(crate) fn load(options: &Options) -> Result<LoadedBootstrap, String> {
    let file;
    let mut sources: Vec<(Format, &[u8])> = Vec::new();
    let path = options.config_path.as_str();
    if !path.is_empty() {
        file = std::fs::read(path).map_err(|_| format!("Invalid path: {path}"))?;
        sources.push((Format::of_file_name(path).unwrap_or(Format::Json), &file));
    }
    if !options.config_yaml.is_empty() {
        sources.push((Format::Yaml, options.config_yaml.as_bytes()));
    }
    if sources.is_empty() {
        return Err("At least one of --config-path or --config-yaml or Options::configProto() should be \
                    non-empty"
            .into());
    }
    let load_options = LoadOptions {
        allow_unknown_fields: options.allow_unknown_static_fields,
        deprecated: dhow_proto::Deprecated::Decided(deprecation::may_use),
    };
    if deprecation::depends_on_runtime(&sources.iter().map(|(_, text)| *text).collect::<Vec<_>>()) {
        publish_runtime_of(&sources, &load_options, options);
    }
    let loaded = dhow_proto::load::<BootstrapMessage>(&sources, &load_options).map_err(|e| e.to_string())?;
    let mut warnings = Vec::new();
    let message = Bytes::from(loaded.message.encode_to_vec());
    let lowered = bootstrap::lower(loaded.message, options, &mut warnings);
    if let Ok(Bootstrap { log_pattern: Some(pattern), .. }) = &lowered {
        crate::logging::set_pattern(pattern.clone());
    }
    // Envoy stops looking for unknown fields at the first one of a file, and counts it.
    let mut topics = Topics::of(&loaded.warnings);
    topics.unknown = topics.unknown.min(1);
    let mut said = loaded.warnings;
    if options.skip_deprecated_logs {
        said.retain(|warning| warning.topic != WarningTopic::Deprecated);
    }
    warn_all("", &said);
    warn_all("", &warnings);
    let bootstrap = lowered.map_err(|error| error.to_string())?;
    Ok(LoadedBootstrap { message, bootstrap, topics })
}

/// Puts the runtime of a bootstrap in force before that bootstrap is read, as far as it can be read at all.
fn publish_runtime_of(sources: &[(Format, &[u8])], load_options: &LoadOptions, options: &Options) {
    let mut layers = Vec::new();
    for &(format, text) in sources {
        // What is wrong with the text is said when it is loaded in earnest.
        if let Ok(parsed) = dhow_proto::parse::<BootstrapMessage>(format, text, load_options)
            && let Some(runtime) = parsed.message.layered_runtime
        {
            layers.extend(runtime.layers);
        }
    }
    let runtime = LayeredRuntime { layers };
    if let Ok(sources) = crate::runtime::lower(Some(runtime), &options.service_cluster, &FieldPath::root()) {
        RuntimeLoader::new(sources, &Store::new());
    }
}

#[cfg(test)]
mod tests {
    use super::times_seen;

    #[test]
    fn deprecated_fields_are_counted_as_often_as_envoy_looks_at_them() {
        let listener = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
        for (path, times) in [
            ("static_resources.clusters[0].track_timeout_budgets".to_owned(), 0),
            ("admin.access_log_path".to_owned(), 1),
            (format!("{listener}.access_log_flush_interval"), 2),
            (format!("{listener}.http_filters[0].typed_config.rules"), 2),
            (format!("{listener}.access_log[0].typed_config.format"), 1),
            (
                format!("{listener}.route_config.virtual_hosts[0].routes[0].typed_per_filter_config[0].rbac"),
                1,
            ),
            ("static_resources.clusters[0].transport_socket.typed_config.x".to_owned(), 1),
        ] {
            assert_eq!(times_seen(&path), times, "{path}");
        }
    }
}
