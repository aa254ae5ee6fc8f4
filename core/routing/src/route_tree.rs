//! `VirtualHost.matcher`: routes behind a generic matching tree.

use std::ops::Range;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderMap;
use dhow_matching::generic::{InputFamily, MatchData, MatchOptions, MatchTree};
use dhow_proto::Message;
use dhow_proto::any;
use dhow_proto::xds::core::v3::TypedExtensionConfig;
use dhow_proto::xds::r#type::matcher::v3::Matcher;
use dhow_runtime_config::RuntimeValues;

use crate::entry::RouteEntry;
use crate::pb::route;
use crate::table::RouteInput;

/// The tree. Its actions are ranges in the virtual host's list of routes.
#[derive(Clone, Debug)]
pub(crate) struct RouteTree {
    tree: MatchTree<Range<u32>>,
}

/// Compiles a route at its place.
pub(crate) type CompileRoute<'a> =
    dyn FnMut(&route::Route, &FieldPath) -> Result<RouteEntry, ConfigError> + 'a;

impl RouteTree {
    /// Compiles the tree, and the routes in it.
    pub(crate) fn compile(
        message: &Matcher,
        path: &FieldPath,
        compile_route: &mut CompileRoute<'_>,
    ) -> Result<(Self, Vec<RouteEntry>), ConfigError> {
        let mut routes = Vec::new();
        let mut action = |message: &TypedExtensionConfig, path: &FieldPath| {
            let start = routes.len() as u32;
            compile_action(message, path, &mut |message, path| {
                routes.push(compile_route(message, path)?);
                Ok(())
            })?;
            Ok(start..routes.len() as u32)
        };
        let mut options = MatchOptions {
            inputs: InputFamily::Http,
            admit: &admit,
            keep_matching: false,
            expressions: None,
            action: &mut action,
        };
        let tree = MatchTree::compile(message, path, &mut options)?;
        Ok((Self { tree }, routes))
    }

    /// Where in the list of routes those are that the request leads to.
    pub(crate) fn candidates(&self, headers: &HeaderMap, input: &RouteInput<'_>) -> Range<usize> {
        let data = RouteData { headers, input };
        self.tree.evaluate(&data).action().map_or(0..0, |range| range.start as usize..range.end as usize)
    }
}

/// Routes are chosen before anything but the request's head is there, and only by it.
fn admit(input: &str) -> Result<(), String> {
    match input {
        "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
        | "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput" => Ok(()),
        _ => Err(format!("Route table can only match on request headers, saw type.googleapis.com/{input}")),
    }
}

fn compile_action(
    message: &TypedExtensionConfig,
    path: &FieldPath,
    compile_route: &mut dyn FnMut(&route::Route, &FieldPath) -> Result<(), ConfigError>,
) -> Result<(), ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let resolved = any::resolve(config).map_err(|error| error.under(&path))?;
    let malformed = |error: dhow_proto::prost::DecodeError| ConfigError::new(path.clone(), error.to_string());
    match resolved.type_name.as_str() {
        "envoy.config.route.v3.Route" => {
            let message = route::Route::decode(&*resolved.value).map_err(malformed)?;
            compile_route(&message, &path)
        }
        "envoy.config.route.v3.RouteList" => {
            let route::RouteList { routes } =
                route::RouteList::decode(&*resolved.value).map_err(malformed)?;
            let path = path.field("routes");
            routes.iter().enumerate().try_for_each(|(at, message)| compile_route(message, &path.index(at)))
        }
        url => {
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{url}'");
            Err(ConfigError::new(path, reason))
        }
    }
}

struct RouteData<'a> {
    headers: &'a HeaderMap,
    input: &'a RouteInput<'a>,
}

impl MatchData for RouteData<'_> {
    fn request_headers(&self) -> Option<&HeaderMap> {
        Some(self.headers)
    }

    fn filter_state(&self, key: &str, field: &str, out: &mut Vec<u8>) -> bool {
        match self.input.context.filter_state(false, key) {
            Some(object) if field.is_empty() => object.append_text(out),
            Some(object) => object.append_field(field, out),
            None => false,
        }
    }

    fn runtime(&self) -> &dyn RuntimeValues {
        self.input.runtime
    }
}
