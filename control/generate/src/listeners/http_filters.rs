//! The HTTP filters of every listener, in Istio's order. The one place to add one that the proxy has learnt.

use dhow_proto::envoy::extensions::filters::http::cors::v3::Cors;
use dhow_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use dhow_proto::envoy::extensions::filters::http::router::v3::Router;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use dhow_proto::google::protobuf::Any;

use crate::messages::any;
use crate::routes::{cors_filter_name, fault_filter_name};

pub(super) fn filters() -> Vec<HttpFilter> {
    vec![
        filter(fault_filter_name, any(&HttpFault::default())),
        filter(cors_filter_name, any(&Cors {})),
        filter("envoy.filters.http.router", any(&Router::default())),
    ]
}

fn filter(name: &str, config: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(config)),
        ..HttpFilter::default()
    }
}
