//! HTTP connection managers.

use dhow_control_model::PathNormalization;
use dhow_proto::envoy::config::listener::v3::{Filter, filter};
use dhow_proto::envoy::config::route::v3::RouteConfiguration;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3 as envoy;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, SetCurrentClientCertDetails,
    UpgradeConfig,
};

use super::{access_log, http_filters};
use crate::ProxyContext;
use crate::messages::{ZERO, ads, any, truth};

const NAME: &str = "envoy.filters.network.http_connection_manager";
/// The `server` header of gateways and of workloads; on the caller's side it stays Envoy's own.
const SERVER_NAME: &str = "istio-envoy";

/// Where the routes are.
pub(super) enum Routes {
    /// Sent by name.
    Rds(String),
    /// Part of the listener.
    Inline(Box<RouteConfiguration>),
}

/// On which side of the workload the listener is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Inbound,
    Outbound,
    /// A gateway; client certificates are told to the workload where the server asks for them. Elsewhere nobody has one,
    /// and Envoy's default removes the header that would carry it, as Istio's setting does.
    Gateway {
        asks_for_certificate: bool,
    },
}

pub(super) fn filter(context: &ProxyContext<'_>, side: Side, stat_prefix: String, routes: Routes) -> Filter {
    let mut manager = HttpConnectionManager {
        stat_prefix,
        http_filters: http_filters::filters(),
        stream_idle_timeout: Some(ZERO),
        access_log: access_log::loggers(context),
        upgrade_configs: vec![UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..UpgradeConfig::default()
        }],
        use_remote_address: truth(matches!(side, Side::Gateway { .. })),
        route_specifier: Some(match routes {
            Routes::Rds(name) => {
                RouteSpecifier::Rds(envoy::Rds { config_source: Some(ads()), route_config_name: name })
            }
            Routes::Inline(configuration) => RouteSpecifier::RouteConfig(*configuration),
        }),
        path_with_escaped_slashes_action: PathWithEscapedSlashesAction::KeepUnchanged.into(),
        ..HttpConnectionManager::default()
    };
    if side != Side::Outbound {
        manager.server_name = SERVER_NAME.to_owned();
    }
    if side == (Side::Gateway { asks_for_certificate: true }) {
        manager.forward_client_cert_details = ForwardClientCertDetails::SanitizeSet.into();
        manager.set_current_client_cert_details = Some(client_certificate());
    }
    normalize_path(context, &mut manager);
    Filter { name: NAME.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(any(&manager))) }
}

fn client_certificate() -> SetCurrentClientCertDetails {
    SetCurrentClientCertDetails {
        subject: truth(true),
        dns: true,
        uri: true,
        ..SetCurrentClientCertDetails::default()
    }
}

fn normalize_path(context: &ProxyContext<'_>, manager: &mut HttpConnectionManager) {
    let kind = context.push.mesh.path_normalization.normalization;
    manager.normalize_path = truth(kind != PathNormalization::None);
    manager.merge_slashes =
        matches!(kind, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    if kind == PathNormalization::DecodeAndMergeSlashes {
        manager.path_with_escaped_slashes_action = PathWithEscapedSlashesAction::UnescapeAndForward.into();
    }
}
