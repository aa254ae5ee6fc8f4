//! Conditions of HTTP rules.

use dhow_control_model::istio::{HttpMatchRequest, StringMatch};
use dhow_proto::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use dhow_proto::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use dhow_proto::envoy::config::route::v3::route_match::PathSpecifier;
use dhow_proto::envoy::config::route::v3::{HeaderMatcher, QueryParameterMatcher, RouteMatch};

use crate::messages::{regex, string_matcher, truth};

/// The condition as Envoy writes it; `None` matches everything.
pub(super) fn condition(entry: Option<&HttpMatchRequest>) -> RouteMatch {
    let everything =
        RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    let Some(entry) = entry else { return everything };
    let mut headers: Vec<HeaderMatcher> =
        entry.headers.iter().map(|(name, value)| header(name, value, false)).collect();
    headers.extend(entry.without_headers.iter().map(|(name, value)| header(name, value, true)));
    for (name, value) in
        [(":method", &entry.method), (":authority", &entry.authority), (":scheme", &entry.scheme)]
    {
        headers.extend(value.as_ref().map(|value| header(name, value, false)));
    }
    RouteMatch {
        path_specifier: path(entry.uri.as_ref()).or(everything.path_specifier),
        case_sensitive: if entry.ignore_uri_case { truth(false) } else { None },
        headers,
        query_parameters: entry
            .query_params
            .iter()
            .map(|(name, value)| query_parameter(name, value))
            .collect(),
        ..RouteMatch::default()
    }
}

fn path(uri: Option<&StringMatch>) -> Option<PathSpecifier> {
    Some(match uri? {
        StringMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        StringMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        StringMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
        StringMatch::Present => return None,
    })
}

fn header(name: &str, value: &StringMatch, invert_match: bool) -> HeaderMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
        None => HeaderMatchSpecifier::PresentMatch(true),
    };
    HeaderMatcher {
        name: name.to_owned(),
        invert_match,
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

fn query_parameter(name: &str, value: &StringMatch) -> QueryParameterMatcher {
    let specifier = match string_matcher(value) {
        Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
        None => QueryParameterMatchSpecifier::PresentMatch(true),
    };
    QueryParameterMatcher { name: name.to_owned(), query_parameter_match_specifier: Some(specifier) }
}

/// Whether a request of any kind fulfils the condition.
pub(super) fn is_catch_all(entry: &HttpMatchRequest) -> bool {
    let any_path = match &entry.uri {
        None => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/",
        Some(StringMatch::Regex(pattern)) => pattern == "*",
        Some(_) => false,
    };
    any_path
        && entry.headers.is_empty()
        && entry.without_headers.is_empty()
        && entry.query_params.is_empty()
        && entry.method.is_none()
        && entry.authority.is_none()
        && entry.scheme.is_none()
}
