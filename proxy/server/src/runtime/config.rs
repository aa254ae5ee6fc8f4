//! The `LayeredRuntime` message.

use std::path::{Path, PathBuf};

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::check_watched_path;
use dhow_proto::envoy::config::bootstrap::v3::{LayeredRuntime, RuntimeLayer, runtime_layer};
use dhow_runtime_config::Layer;

/// Where the values of a layer come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum LayerSource {
    /// The bootstrap.
    Static(Layer),
    /// A directory.
    Disk {
        /// Name of the layer.
        name: String,
        /// The symbolic link that is moved to swap the directory.
        symlink_root: PathBuf,
        /// The directory whose files are values.
        directory: PathBuf,
    },
    /// What an operator sets through the admin interface.
    Admin {
        /// Name of the layer.
        name: String,
    },
}

/// Lowers the message; `service_cluster` is the flag of that name: the node's own cluster does not count here.
pub(crate) fn lower(
    message: Option<LayeredRuntime>,
    service_cluster: &str,
    path: &FieldPath,
) -> Result<Vec<LayerSource>, ConfigError> {
    let Some(LayeredRuntime { layers }) = message else { return Ok(Vec::new()) };
    let path = path.field("layers");
    let mut sources = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        if layers[..i].iter().any(|other| other.name == layer.name) {
            let reason = format!("Duplicate layer name: {}", layer.name);
            return Err(ConfigError::new(path.index(i), reason));
        }
    }
    for (i, layer) in layers.into_iter().enumerate() {
        let source = lower_layer(layer, service_cluster, &path.index(i))?;
        let is_admin = |source: &LayerSource| matches!(source, LayerSource::Admin { .. });
        if is_admin(&source) && sources.iter().any(is_admin) {
            let reason = "Too many admin layers specified in LayeredRuntime, at most one may be specified";
            return Err(ConfigError::new(path.index(i), reason));
        }
        sources.push(source);
    }
    Ok(sources)
}

fn lower_layer(
    layer: RuntimeLayer,
    service_cluster: &str,
    path: &FieldPath,
) -> Result<LayerSource, ConfigError> {
    use runtime_layer::LayerSpecifier;
    let RuntimeLayer { name, layer_specifier } = layer;
    match layer_specifier {
        Some(LayerSpecifier::StaticLayer(values)) => Layer::from_struct(&name, &values)
            .map(LayerSource::Static)
            .map_err(|reason| ConfigError::new(path.field("static_layer"), reason)),
        Some(LayerSpecifier::DiskLayer(runtime_layer::DiskLayer {
            symlink_root,
            subdirectory,
            append_service_cluster,
        })) => {
            check_watched_path(&symlink_root, &path.field("disk_layer").field("symlink_root"))?;
            let mut directory = Path::new(&symlink_root).join(subdirectory);
            if append_service_cluster {
                directory.push(service_cluster);
            }
            Ok(LayerSource::Disk { name, symlink_root: PathBuf::from(symlink_root), directory })
        }
        Some(LayerSpecifier::AdminLayer(runtime_layer::AdminLayer {})) => Ok(LayerSource::Admin { name }),
        Some(LayerSpecifier::RtdsLayer(_)) => Err(ConfigError::unsupported(path.field("rtds_layer"))),
        None => Err(ConfigError::new(path.clone(), "layer_specifier: is required")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(yaml: &str) -> Result<Vec<LayerSource>, String> {
        let loaded = dhow_proto::load_yaml(yaml, &dhow_proto::LoadOptions::default()).unwrap();
        lower(Some(loaded.message), "shop", &FieldPath::root()).map_err(|error| error.to_string())
    }

    #[test]
    fn layers_keep_their_order() {
        let yaml = "layers:
- {name: a, static_layer: {k: 5}}
- {name: b, disk_layer: {symlink_root: /etc/run, subdirectory: envoy, append_service_cluster: true}}
- {name: c, admin_layer: {}}";
        let sources = lowered(yaml).unwrap();
        assert!(
            matches!(&sources[0], LayerSource::Static(layer) if layer.name() == "a" && layer.get("k").is_some())
        );
        let directory = PathBuf::from("/etc/run/envoy/shop");
        let disk = LayerSource::Disk { name: "b".into(), symlink_root: "/etc/run".into(), directory };
        assert_eq!(sources[1], disk);
        assert_eq!(sources[2], LayerSource::Admin { name: "c".into() });
    }

    #[test]
    fn mistakes_are_worded_as_envoy_words_them() {
        let twice = "layers: [{name: a, admin_layer: {}}, {name: a, static_layer: {}}]";
        assert!(lowered(twice).unwrap_err().contains("Duplicate layer name: a"));
        let admins = "layers: [{name: a, admin_layer: {}}, {name: b, admin_layer: {}}]";
        assert!(lowered(admins).unwrap_err().contains("Too many admin layers specified in LayeredRuntime"));
        let list = "layers: [{name: a, static_layer: {x: {z: [1]}}}]";
        assert!(lowered(list).unwrap_err().contains("Invalid runtime entry value for x.z"));
        let rtds = "layers: [{name: a, rtds_layer: {name: r, rtds_config: {ads: {}}}}]";
        assert!(lowered(rtds).unwrap_err().contains("rtds_layer"));
    }
}
