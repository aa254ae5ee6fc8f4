//! The deprecated field `cors` of virtual hosts and routes: what it says to the CORS filter, whatever the filter is called.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::any;
use dhow_proto::envoy::config::route::v3::{CorsPolicy, cors_policy::EnabledSpecifier};
use dhow_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy as FilterPolicy;

use crate::compile::CompileOptions;
use crate::filter_config::FilterOverride;

/// The name under which [`FilterConfigs`](crate::FilterConfigs) holds what the field says. No filter has it.
pub const CORS_FIELD: &str = "the field cors";

/// What one level's field says to the filter.
pub(crate) fn compile(
    message: &CorsPolicy,
    path: &FieldPath,
    options: &CompileOptions<'_>,
) -> Result<FilterOverride, ConfigError> {
    let CorsPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
        enabled_specifier,
    } = message.clone();
    let message = any::pack(&FilterPolicy {
        allow_origin_string_match,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        filter_enabled: enabled_specifier.map(|EnabledSpecifier::FilterEnabled(share)| share),
        shadow_enabled,
        allow_private_network_access,
        forward_not_matching_preflights,
    });
    let config = (options.compile_filter_config)("envoy.filters.http.cors", &message, path)?;
    Ok(FilterOverride { message: Some(Arc::new(message)), config, disabled: false })
}
