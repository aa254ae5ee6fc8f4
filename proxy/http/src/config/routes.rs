//! Where a connection manager's routes come from, and how a table is compiled for its filters.

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::SourceData;
use dhow_proto::envoy::config::core::v3::{ConfigSource, DataSource, PathConfigSource, config_source};
use dhow_proto::envoy::config::route::v3::RouteConfiguration;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::Rds;
use dhow_proto::google::protobuf::Any;
use dhow_proxy_api::RouteFilterContext;
use dhow_proxy_upstream::check_source_file;
use dhow_routing::{CompileOptions, RouteTable};

use super::filters::ROUTER_TYPE;
use super::{FilterRegistry, RouteFile, RouteSource};

/// Default of `initial_fetch_timeout`.
const INITIAL_FETCH_TIMEOUT: Duration = Duration::from_secs(15);

/// Compiles a route configuration. What it says to filters is read by its type, whatever filter has the name it is under.
///
/// # Errors
/// The first part of the configuration that is not acceptable.
pub fn compile_routes(
    message: &RouteConfiguration,
    registry: FilterRegistry,
    filter_context: &RouteFilterContext<'_>,
    cluster_exists: &dyn Fn(&str) -> bool,
    validate_clusters: bool,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<RouteTable>, ConfigError> {
    let options = CompileOptions {
        validate_clusters_by_default: validate_clusters,
        cluster_exists,
        compile_filter_config: &|name, config, path| {
            let type_name = dhow_proto::any::type_name(&config.type_url);
            let filter = registry.of_route_type(type_name);
            let Some((filter, wanted)) = filter.and_then(|filter| Some((filter, filter.route_type_name?)))
            else {
                let reason = if filter.is_some() || type_name == ROUTER_TYPE {
                    format!("The filter {name} doesn't support virtual host or route specific configurations")
                } else {
                    format!(
                        "Didn't find a registered implementation for '{name}' with type URL: '{type_name}'"
                    )
                };
                return Err(ConfigError::new(path.clone(), reason));
            };
            // A message without fields is never looked at, of whichever of the filter's types it is.
            let empty = (config.value.is_empty() && type_name != wanted)
                .then(|| Any { type_url: format!("type.googleapis.com/{wanted}"), value: Vec::new() });
            (filter.configure_route)(empty.as_ref().unwrap_or(config), filter_context, path).map(Some)
        },
        read_source: &read_source,
    };
    RouteTable::compile(message, path, &options, warnings).map(Arc::new)
}

/// Reads the subscription of `rds`.
pub(super) fn lower_rds(rds: Rds, path: &FieldPath) -> Result<RouteSource, ConfigError> {
    let Rds { config_source, route_config_name } = rds;
    let path = path.field("config_source");
    let Some(source) = config_source else {
        return Err(ConfigError::new(path, "value is required"));
    };
    let ConfigSource { authorities, initial_fetch_timeout, resource_api_version: _, config_source_specifier } =
        source;
    ConfigError::refuse_if(!authorities.is_empty(), &path, "authorities")?;
    let file = match config_source_specifier {
        Some(config_source::ConfigSourceSpecifier::Ads(_)) => None,
        Some(config_source::ConfigSourceSpecifier::PathConfigSource(source)) => {
            let path = path.field("path_config_source");
            let PathConfigSource { path: file, watched_directory, poll_interval } = source;
            ConfigError::refuse_if(poll_interval.is_some(), &path, "poll_interval")?;
            check_source_file(&file, watched_directory.is_none(), &path.field("path"))?;
            let watched_directory = watched_directory.map(|directory| directory.path.into());
            Some(RouteFile { path: file.into(), watched_directory })
        }
        #[allow(deprecated, reason = "the field is deprecated and still in use")]
        Some(config_source::ConfigSourceSpecifier::Path(file)) => {
            check_source_file(&file, true, &path.field("path"))?;
            Some(RouteFile { path: file.into(), watched_directory: None })
        }
        Some(config_source::ConfigSourceSpecifier::ApiConfigSource(_)) => {
            return Err(ConfigError::unsupported(path.field("api_config_source")));
        }
        Some(config_source::ConfigSourceSpecifier::Self_(_)) => {
            return Err(ConfigError::unsupported(path.field("self")));
        }
        None => return Err(ConfigError::new(path, "config_source_specifier: is required")),
    };
    let initial_fetch_timeout =
        initial_fetch_timeout.map_or(INITIAL_FETCH_TIMEOUT, |timeout| dhow_proto::whole_millis(&timeout));
    Ok(RouteSource::Rds { name: route_config_name.into(), file, initial_fetch_timeout })
}

/// The contents of a data source.
pub(crate) fn read_source(source: &DataSource, path: &FieldPath) -> Result<Vec<u8>, ConfigError> {
    SourceData::read(source, path).map(|data| data.bytes)
}
