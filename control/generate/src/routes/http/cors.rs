//! Cross-origin policies.

use dhow_control_model::istio::{CorsPolicy, StringMatch, UnmatchedPreflights};
use dhow_proto::envoy::config::core::v3::RuntimeFractionalPercent;
use dhow_proto::envoy::extensions::filters::http::cors::v3 as envoy;
use dhow_proto::google::protobuf::{Any, BoolValue};

use crate::messages::{any, fraction, string_matcher};

pub(crate) const FILTER: &str = "envoy.filters.http.cors";

/// The route's part of the filter's configuration.
pub(super) fn policy(cors: &CorsPolicy) -> Any {
    let CorsPolicy {
        allow_origin,
        allow_origins,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
        allow_credentials,
        unmatched_preflights,
    } = cors;
    let deprecated = allow_origin.iter().map(|origin| match origin.as_str() {
        "*" => StringMatch::Regex(".*".to_owned()),
        origin => StringMatch::Exact(origin.to_owned()),
    });
    let origins = deprecated.chain(allow_origins.iter().cloned());
    let forwards = match unmatched_preflights {
        None | Some(UnmatchedPreflights::Unspecified) => None,
        Some(UnmatchedPreflights::Forward) => Some(true),
        Some(UnmatchedPreflights::Ignore) => Some(false),
    };
    any(&envoy::CorsPolicy {
        allow_origin_string_match: origins.filter_map(|origin| string_matcher(&origin)).collect(),
        allow_methods: allow_methods.join(","),
        allow_headers: allow_headers.join(","),
        expose_headers: expose_headers.join(","),
        max_age: max_age.map(|age| age.0.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: allow_credentials.map(|value| BoolValue { value }),
        filter_enabled: Some(RuntimeFractionalPercent {
            default_value: Some(fraction(100.0)),
            runtime_key: String::new(),
        }),
        forward_not_matching_preflights: forwards.map(|value| BoolValue { value }),
        ..envoy::CorsPolicy::default()
    })
}
