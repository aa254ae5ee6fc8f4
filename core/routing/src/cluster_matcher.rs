//! Clusters chosen by a matching tree: `envoy.router.cluster_specifier_plugin.matcher`.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderMap;
use dhow_matching::generic::{InputFamily, MatchOptions, MatchTree};
use dhow_proto::any;
use dhow_proto::envoy::extensions::router::cluster_specifiers::matcher::v3::{
    ClusterAction, MatcherClusterSpecifier,
};
use dhow_proto::xds::core::v3::TypedExtensionConfig;

use crate::cluster::ClusterSource;
use crate::pb::route::ClusterSpecifierPlugin;

/// A `ClusterSpecifierPlugin`. Its clusters need not exist: as in Envoy it is nobody's but the plugin's matter what they are.
#[derive(Clone, Debug)]
pub struct MatchedClusters {
    /// `None` for an optional plugin that is not known, which chooses no cluster.
    tree: Option<MatchTree<u32>>,
    clusters: Box<[ClusterSource]>,
}

impl MatchedClusters {
    /// Compiles the message, with the name that routes use.
    pub(crate) fn compile(
        message: &ClusterSpecifierPlugin,
        path: &FieldPath,
    ) -> Result<(Box<str>, Self), ConfigError> {
        let ClusterSpecifierPlugin { extension, is_optional } = message;
        let path = path.field("extension");
        let extension =
            extension.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let name: Box<str> = extension.name.as_str().into();
        let path = path.field("typed_config");
        let config = extension
            .typed_config
            .as_ref()
            .ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        if !any::is::<MatcherClusterSpecifier>(config) {
            if *is_optional {
                return Ok((name, Self { tree: None, clusters: Box::default() }));
            }
            let type_name = any::type_name(&config.type_url);
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
            return Err(ConfigError::new(path, reason));
        }
        let MatcherClusterSpecifier { cluster_matcher } =
            any::unpack(config).map_err(|error| error.under(&path))?;
        let path = path.field("cluster_matcher");
        let matcher = cluster_matcher.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let mut clusters = Vec::new();
        let mut action = |message: &TypedExtensionConfig, path: &FieldPath| {
            clusters.push(compile_action(message, path)?);
            Ok(clusters.len() as u32 - 1)
        };
        let mut options = MatchOptions {
            inputs: InputFamily::Http,
            admit: &admit,
            keep_matching: false,
            expressions: None,
            action: &mut action,
        };
        let tree = MatchTree::compile(&matcher, &path, &mut options)?;
        Ok((name, Self { tree: Some(tree), clusters: clusters.into() }))
    }

    /// The number of a request's cluster, if there is one for it.
    pub(crate) fn choose(&self, headers: &HeaderMap) -> Option<u32> {
        self.tree.as_ref()?.evaluate(headers).action().copied()
    }

    /// The cluster of a number.
    pub(crate) fn get(&self, number: u32) -> Option<&ClusterSource> {
        self.clusters.get(number as usize)
    }
}

/// Envoy 1.40 takes other inputs too, and ends at the first request that they are asked for.
fn admit(input: &str) -> Result<(), String> {
    match input {
        "envoy.type.matcher.v3.HttpRequestHeaderMatchInput" => Ok(()),
        _ => Err(format!("clusters are chosen by request headers only, not by {input}")),
    }
}

fn compile_action(message: &TypedExtensionConfig, path: &FieldPath) -> Result<ClusterSource, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    if !any::is::<ClusterAction>(config) {
        let type_name = any::type_name(&config.type_url);
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
        return Err(ConfigError::new(path, reason));
    }
    let ClusterAction { cluster } = any::unpack(config).map_err(|error| error.under(&path))?;
    Ok(ClusterSource::Name(cluster.into()))
}
