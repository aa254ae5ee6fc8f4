//! `ExtensionWithMatcher` and `ExtensionWithMatcherPerRoute` validated.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::CelExpression;
use dhow_matching::generic::{InputFamily, MatchOptions, MatchTree, from_older};
use dhow_proto::any;
use dhow_proto::envoy::config::core::v3::TypedExtensionConfig;
use dhow_proto::envoy::extensions::common::matching::v3::{
    ExtensionWithMatcher, ExtensionWithMatcherPerRoute,
};
use dhow_proto::google::protobuf::Any;
use dhow_proto::xds::core::v3::TypedExtensionConfig as ActionConfig;
use dhow_proto::xds::r#type::matcher::v3::Matcher;
use dhow_proxy_api::{FilterContext, RouteFilterContext};
use dhow_routing::FilterConfigObject;

use super::filter::Factory;

/// What a tree decides: there is nothing but to skip the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Skip;

/// The tree that says when a filter is skipped.
pub(super) type SkipTree = MatchTree<Skip>;

/// Reads the filter's message.
pub(super) fn read(
    config: &Any,
    context: &mut FilterContext<'_>,
    path: &FieldPath,
) -> Result<Factory, ConfigError> {
    #[allow(deprecated, reason = "the older field is still accepted, as in Envoy")]
    let ExtensionWithMatcher { matcher, xds_matcher, extension_config } =
        any::unpack(config).map_err(|error| error.under(path))?;
    let tree = match (xds_matcher, matcher) {
        (Some(matcher), _) => Some(compile(&matcher, &path.field("xds_matcher"))?),
        (None, Some(older)) => {
            let path = path.field("matcher");
            Some(compile(&from_older(&older, &path)?, &path)?)
        }
        (None, None) => None,
    };
    let path = path.field("extension_config");
    let TypedExtensionConfig { name, typed_config } =
        extension_config.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let path = path.field("typed_config");
    let inner = typed_config.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let type_name = any::type_name(&inner.type_url);
    let Some(descriptor) = crate::all().iter().find(|filter| filter.type_name == type_name) else {
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
        return Err(ConfigError::new(path, reason));
    };
    Ok(Factory { inner: (descriptor.configure)(&inner, context, &path)?, tree: tree.map(Arc::new) })
}

/// Reads a route's message: a tree, or what the filter inside reads.
pub(super) fn read_route(
    config: &Any,
    context: &RouteFilterContext<'_>,
    path: &FieldPath,
) -> Result<FilterConfigObject, ConfigError> {
    let type_name = any::type_name(&config.type_url);
    if type_name == "envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute" {
        let ExtensionWithMatcherPerRoute { xds_matcher } =
            any::unpack(config).map_err(|error| error.under(path))?;
        let path = path.field("xds_matcher");
        let matcher = xds_matcher.ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        return Ok(Arc::new(compile(&matcher, &path)?));
    }
    match crate::all().iter().find(|filter| filter.route_type_name == Some(type_name)) {
        Some(descriptor) => (descriptor.configure_route)(config, context, path),
        None => Err(ConfigError::new(
            path.clone(),
            format!("Didn't find a registered implementation with type URL: '{type_name}'"),
        )),
    }
}

fn compile(message: &Matcher, path: &FieldPath) -> Result<SkipTree, ConfigError> {
    MatchTree::compile(
        message,
        path,
        &mut MatchOptions {
            inputs: InputFamily::Http,
            admit: &|_| Ok(()),
            keep_matching: false,
            expressions: Some(CelExpression::for_matcher),
            action: &mut read_action,
        },
    )
}

fn read_action(config: &ActionConfig, path: &FieldPath) -> Result<Skip, ConfigError> {
    let ActionConfig { name: _, typed_config } = config;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    match any::type_name(&config.type_url) {
        "envoy.extensions.filters.common.matcher.action.v3.SkipFilter" => Ok(Skip),
        _ => Err(ConfigError::unsupported(path)),
    }
}
