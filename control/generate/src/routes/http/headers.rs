//! Header operations.

use dhow_control_model::istio::{HeaderOperations, Headers};
use dhow_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use dhow_proto::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use dhow_proto::envoy::config::route::v3::Route;
use dhow_proto::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use dhow_proto::envoy::config::route::v3::weighted_cluster::cluster_weight;

pub(super) fn apply_to_route(route: &mut Route, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    if let Some(request) = &headers.request {
        route.request_headers_to_add = added(request);
        route.request_headers_to_remove = removed(request);
    }
    if let Some(response) = &headers.response {
        route.response_headers_to_add = added(response);
        route.response_headers_to_remove = removed(response);
    }
}

pub(super) fn apply_to_destination(destination: &mut ClusterWeight, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    if let Some(request) = &headers.request {
        destination.request_headers_to_add = added(request);
        destination.request_headers_to_remove = removed(request);
    }
    if let Some(response) = &headers.response {
        destination.response_headers_to_add = added(response);
        destination.response_headers_to_remove = removed(response);
    }
    destination.host_rewrite_specifier =
        authority(Some(headers)).map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral);
}

/// The authority that the request operations set. Envoy changes it by rewriting the host, not by setting a header.
pub(super) fn authority(headers: Option<&Headers>) -> Option<String> {
    let request = headers?.request.as_ref()?;
    let both = request.set.iter().chain(&request.add);
    both.into_iter().find(|(name, _)| is_authority(name)).map(|(_, value)| value.clone())
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

/// Envoy lets nobody set or remove the headers that start with a colon.
fn is_plain(name: &str) -> bool {
    !name.starts_with(':') && !is_authority(name)
}

fn added(operations: &HeaderOperations) -> Vec<HeaderValueOption> {
    let option = |(name, value): (&String, &String), action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value: value.clone(), raw_value: Vec::new() }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    };
    let appended = operations.add.iter().map(|pair| option(pair, HeaderAppendAction::AppendIfExistsOrAdd));
    let set = operations.set.iter().map(|pair| option(pair, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let is_plain =
        |option: &HeaderValueOption| option.header.as_ref().is_some_and(|header| is_plain(&header.key));
    appended.chain(set).filter(is_plain).collect()
}

fn removed(operations: &HeaderOperations) -> Vec<String> {
    operations.remove.iter().filter(|name| is_plain(name)).cloned().collect()
}
