//! Pieces that listeners have in common.

use dhow_proto::envoy::config::core::v3::TrafficDirection;
use dhow_proto::envoy::config::listener::v3::{
    Filter, FilterChain, FilterChainMatch, Listener, ListenerFilter, listener_filter,
};
use dhow_proto::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use dhow_proto::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use dhow_proto::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use dhow_proto::google::protobuf::Any;

use crate::ProxyContext;
use crate::messages::{address, any, go_duration};

/// What the HTTP inspector calls cleartext HTTP.
const PLAINTEXT_HTTP: [&str; 2] = ["http/1.1", "h2c"];
const RAW_BUFFER: &str = "raw_buffer";

pub(super) fn listener(name: String, bind: &str, port: u32, direction: TrafficDirection) -> Listener {
    Listener {
        name,
        address: Some(address(bind, port)),
        traffic_direction: direction.into(),
        ..Listener::default()
    }
}

/// The address that stands for all addresses of the proxy's family.
pub(super) fn wildcard(context: &ProxyContext<'_>) -> &'static str {
    if context.proxy.ip().is_ipv4() { "0.0.0.0" } else { "::" }
}

pub(super) fn chain(filters: Vec<Filter>) -> FilterChain {
    FilterChain { filters, ..FilterChain::default() }
}

pub(super) fn matching(condition: FilterChainMatch, chain: FilterChain) -> FilterChain {
    FilterChain { filter_chain_match: Some(condition), ..chain }
}

/// Connections on which cleartext HTTP was seen.
pub(super) fn sniffed_http() -> FilterChainMatch {
    FilterChainMatch {
        transport_protocol: RAW_BUFFER.to_owned(),
        application_protocols: PLAINTEXT_HTTP.map(str::to_owned).to_vec(),
        ..FilterChainMatch::default()
    }
}

fn filter(name: &str, config: Any) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(config)),
        ..ListenerFilter::default()
    }
}

pub(super) fn original_destination() -> ListenerFilter {
    filter("envoy.filters.listener.original_dst", any(&OriginalDst::default()))
}

pub(super) fn tls_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.tls_inspector", any(&TlsInspector::default()))
}

fn http_inspector() -> ListenerFilter {
    filter("envoy.filters.listener.http_inspector", any(&HttpInspector::default()))
}

/// Looks into connections before a filter chain is chosen. A client that waits for the server's greeting must not be held
/// up, so running out of time is no error.
pub(super) fn inspect(context: &ProxyContext<'_>, listener: &mut Listener, http: bool) {
    listener.listener_filters.push(tls_inspector());
    if http {
        listener.listener_filters.push(http_inspector());
    }
    listener.listener_filters_timeout = Some(go_duration(context.push.mesh.protocol_detection_timeout));
    listener.continue_on_listener_filters_timeout = true;
}
