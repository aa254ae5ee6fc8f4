//! Which HTTP version a cluster's hosts are spoken to in.

use std::collections::HashMap;

use dhow_control_model::Protocol;
use dhow_control_model::istio::{H2UpgradePolicy, HttpConnectionPool};
use dhow_control_model::push::EffectivePolicy;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonOptions, KeepaliveSettings,
    UpstreamHttpProtocolOptions,
};
use dhow_proto::envoy::extensions::upstreams::http::v3::HttpProtocolOptions;
use dhow_proto::envoy::extensions::upstreams::http::v3::http_protocol_options::{
    ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig,
    explicit_http_config::ProtocolConfig,
};
use dhow_proto::google::protobuf::Any;

use super::tls;
use crate::ProxyContext;
use crate::messages::{any, go_duration, number};

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn apply(
    context: &ProxyContext<'_>,
    cluster: &mut Cluster,
    protocol: Protocol,
    policy: &EffectivePolicy,
) {
    let http = policy.connection_pool.as_ref().and_then(|pool| pool.http.as_ref());
    let tcp = policy.connection_pool.as_ref().and_then(|pool| pool.tcp.as_ref());
    let max_connection_duration = tcp.and_then(|tcp| tcp.max_connection_duration);
    let idle_timeout = http.and_then(|http| http.idle_timeout);
    let max_requests = http.map_or(0, |http| http.max_requests_per_connection);
    let common =
        (max_connection_duration.is_some() || idle_timeout.is_some() || max_requests > 0).then(|| {
            CommonOptions {
                idle_timeout: idle_timeout.map(go_duration),
                max_connection_duration: max_connection_duration.map(go_duration),
                max_requests_per_connection: (max_requests > 0)
                    .then(|| number(max_requests as u32))
                    .flatten(),
                ..CommonOptions::default()
            }
        });
    let version = version(context, protocol, http);
    let upstream = tls::needs_server_name(policy).then(|| UpstreamHttpProtocolOptions {
        auto_sni: true,
        auto_san_validation: tls::verifies_server_name(policy),
        ..UpstreamHttpProtocolOptions::default()
    });
    if version.is_none() && common.is_none() && upstream.is_none() {
        return;
    }
    let version = version.unwrap_or_else(explicit_http1);
    set(
        cluster,
        HttpProtocolOptions {
            common_http_protocol_options: common,
            upstream_http_protocol_options: upstream,
            upstream_protocol_options: Some(version),
            ..HttpProtocolOptions::default()
        },
    );
}

/// `None` stands for Envoy's default, HTTP/1.1.
fn version(
    context: &ProxyContext<'_>,
    protocol: Protocol,
    http: Option<&HttpConnectionPool>,
) -> Option<UpstreamProtocolOptions> {
    let upgrade = match http.and_then(|http| http.h2_upgrade_policy) {
        Some(H2UpgradePolicy::Upgrade) => true,
        Some(H2UpgradePolicy::DoNotUpgrade) => false,
        Some(H2UpgradePolicy::Default) | None => {
            context.push.mesh.h2_upgrade_policy == Some(H2UpgradePolicy::Upgrade)
        }
    };
    if http.is_some_and(|http| http.use_client_protocol) || protocol == Protocol::Auto {
        return Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
            http_protocol_options: Some(Http1ProtocolOptions::default()),
            http2_protocol_options: Some(http2(http)),
            ..UseDownstreamHttpConfig::default()
        }));
    }
    let is_http2 = protocol.is_http2() || (upgrade && protocol == Protocol::Http);
    is_http2.then(|| explicit(ProtocolConfig::Http2ProtocolOptions(http2(http))))
}

fn http2(http: Option<&HttpConnectionPool>) -> Http2ProtocolOptions {
    let streams = http.map_or(0, |http| http.max_concurrent_streams);
    let keep_alive = http.and_then(|http| http.http2_keep_alive.as_ref());
    Http2ProtocolOptions {
        max_concurrent_streams: (streams > 0).then(|| number(streams as u32)).flatten(),
        connection_keepalive: keep_alive.map(|keep_alive| KeepaliveSettings {
            interval: keep_alive.interval.map(go_duration),
            timeout: keep_alive.timeout.map(go_duration),
            ..KeepaliveSettings::default()
        }),
        ..Http2ProtocolOptions::default()
    }
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

fn explicit_http1() -> UpstreamProtocolOptions {
    explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default()))
}

/// The application is spoken to as its port says; an undeclared port in whatever the caller speaks.
pub(super) fn apply_inbound(cluster: &mut Cluster, protocol: Protocol) {
    if protocol.is_http2() {
        let version = explicit(ProtocolConfig::Http2ProtocolOptions(http2(None)));
        set(
            cluster,
            HttpProtocolOptions {
                upstream_protocol_options: Some(version),
                ..HttpProtocolOptions::default()
            },
        );
    } else if protocol == Protocol::Auto {
        cluster.typed_extension_protocol_options = follow_client();
    }
}

/// Options of a cluster that speaks the client's version.
pub(super) fn follow_client() -> HashMap<String, Any> {
    let follow = UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(Http1ProtocolOptions::default()),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..UseDownstreamHttpConfig::default()
    });
    let options =
        HttpProtocolOptions { upstream_protocol_options: Some(follow), ..HttpProtocolOptions::default() };
    HashMap::from([(OPTIONS.to_owned(), any(&options))])
}

fn set(cluster: &mut Cluster, options: HttpProtocolOptions) {
    cluster.typed_extension_protocol_options.insert(OPTIONS.to_owned(), any(&options));
}

/// Whether the cluster's hosts may be spoken to in HTTP/2, which decides what TLS offers.
pub(super) fn speaks_http2(context: &ProxyContext<'_>, protocol: Protocol, policy: &EffectivePolicy) -> bool {
    let http = policy.connection_pool.as_ref().and_then(|pool| pool.http.as_ref());
    version(context, protocol, http).is_some()
}
