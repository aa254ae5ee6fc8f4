use std::sync::Arc;
use std::time::Duration;

use dhow_base::ConfigError;
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::{LoadOptions, load_yaml};

use super::{ClusterConfig, Discovery, EndpointTarget, lower_cluster};
use crate::cluster_info::{HeaderKeyFormat, UpstreamProtocol};
use crate::cluster_settings::KnownSettings;
use crate::dns::LookupFamily;
use crate::host::HealthFlag;
use crate::lb::{HashFunction, LbPolicy, TableConfig};

fn message(yaml: &str) -> Cluster {
    load_yaml(yaml, &LoadOptions::default()).unwrap_or_else(|error| panic!("{yaml}: {error}")).message
}

fn lower(yaml: &str) -> Result<(ClusterConfig, Vec<String>), ConfigError> {
    let (config, warnings) =
        lower_cluster(message(yaml), &Default::default(), &Default::default(), &Default::default())?;
    Ok((config, warnings.iter().map(|warning| warning.path.to_string()).collect()))
}

fn accepted(yaml: &str) -> ClusterConfig {
    let (config, warnings) = lower(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    assert_eq!(warnings, Vec::<String>::new(), "{yaml}");
    config
}

fn refused(yaml: &str) -> String {
    match lower(yaml) {
        Ok(_) => panic!("accepted: {yaml}"),
        Err(error) => error.to_string(),
    }
}

const ENDPOINT: &str = "load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}}]}]}";

#[test]
fn defaults_are_envoy_s() {
    let config = accepted(&format!("{{name: a, {ENDPOINT}}}"));
    assert_eq!(config.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.per_connection_buffer_limit, 1 << 20);
    assert_eq!(config.balancing.lb.policy, LbPolicy::RoundRobin);
    assert_eq!(config.balancing.panic_threshold, 50);
    assert_eq!(config.http.idle_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(config.http.max_requests_per_connection, None);
    assert_eq!(config.thresholds[0].max_retries, 3);
    assert!(matches!(config.http.protocol, UpstreamProtocol::Http1(_)));
    let Discovery::Static(assignment) = config.discovery else { panic!("not static") };
    let endpoint = &assignment.groups[0].endpoints[0];
    assert_eq!(endpoint.target, EndpointTarget::Address(StreamAddress::Ip(([127, 0, 0, 1], 80).into())));
    assert_eq!((endpoint.weight, assignment.policy.overprovisioning), (1, 140));
}

/// Texts as the real Envoy 1.40 prints them for the same input.
#[test]
fn refusals_use_envoy_s_words() {
    let two = "load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: x, port_value: 1}}}}, {endpoint: {address: {socket_address: {address: z, port_value: 1}}}}]}]}";
    let named = "load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: simple, port_value: 1}}}}]}]}";
    for (yaml, text) in [
        (
            "{name: a, type: EDS}".to_owned(),
            "eds_cluster_config: cannot create an EDS cluster without an EDS config",
        ),
        (
            "{name: a, eds_cluster_config: {eds_config: {ads: {}}}}".to_owned(),
            "eds_cluster_config: eds_cluster_config set in a non-EDS cluster",
        ),
        (
            format!("{{name: a, {named}}}"),
            "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address: malformed IP address: simple. Consider setting resolver_name or setting cluster type to 'STRICT_DNS' or 'LOGICAL_DNS'",
        ),
        (
            format!("{{name: a, type: LOGICAL_DNS, {two}}}"),
            "load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
        ),
        (
            "{name: a, type: LOGICAL_DNS}".to_owned(),
            "load_assignment: LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint",
        ),
        (
            "{name: a, type: ORIGINAL_DST}".to_owned(),
            "lb_policy: cluster: LB policy ROUND_ROBIN is not valid for Cluster type ORIGINAL_DST. Only 'CLUSTER_PROVIDED' is allowed with cluster type 'ORIGINAL_DST'",
        ),
        (
            format!("{{name: a, type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, {ENDPOINT}}}"),
            "load_assignment: ORIGINAL_DST clusters must have no load assignment configured",
        ),
        (
            format!("{{name: a, lb_policy: CLUSTER_PROVIDED, {ENDPOINT}}}"),
            "lb_policy: cluster manager: cluster provided LB specified but cluster 'a' did not provide one. Check cluster documentation.",
        ),
        (
            format!("{{name: a, lb_policy: LOAD_BALANCING_POLICY_CONFIG, {ENDPOINT}}}"),
            "load_balancing_policy: cluster: field load_balancing_policy need to be set",
        ),
        (
            format!("{{name: a, lb_policy: MAGLEV, maglev_lb_config: {{table_size: 100}}, {ENDPOINT}}}"),
            "maglev_lb_config.table_size: The table size of maglev must be prime number",
        ),
        (
            format!(
                "{{name: a, lb_policy: RING_HASH, ring_hash_lb_config: {{minimum_ring_size: 2048, maximum_ring_size: 1024}}, {ENDPOINT}}}"
            ),
            "ring_hash_lb_config: ring hash: minimum_ring_size (2048) > maximum_ring_size (1024)",
        ),
        (
            "{name: a, cluster_type: {name: foo}}".to_owned(),
            "cluster_type: Didn't find a registered cluster factory implementation for name: 'foo'",
        ),
        (
            format!("{{name: a, transport_socket: {{name: foo}}, {ENDPOINT}}}"),
            "transport_socket.typed_config: Didn't find a registered implementation for 'foo' with type URL: ''",
        ),
        (
            format!(
                "{{name: a, upstream_bind_config: {{source_address: {{address: foo, port_value: 0}}}}, {ENDPOINT}}}"
            ),
            "upstream_bind_config.source_address.address: malformed IP address: foo",
        ),
        (
            format!(
                "{{name: a, lb_subset_config: {{subset_selectors: [{{keys: [x], fallback_policy: KEYS_SUBSET}}]}}, {ENDPOINT}}}"
            ),
            "lb_subset_config.subset_selectors[0].fallback_keys_subset: fallback_keys_subset cannot be empty",
        ),
    ] {
        assert_eq!(refused(&yaml), text, "{yaml}");
    }
}

#[test]
fn an_unknown_policy_extension_is_skipped_for_a_known_one() {
    let policies = |first: &str| {
        format!(
            "{{name: a, {ENDPOINT}, load_balancing_policy: {{policies: [{first}, {{typed_extension_config: {{name: r, typed_config: \
             {{'@type': type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest, choice_count: 3}}}}}}]}}}}"
        )
    };
    let unknown = "{typed_extension_config: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}";
    assert_eq!(
        accepted(&policies(unknown)).balancing.lb.policy,
        LbPolicy::LeastRequest { choices: 3, bias: 1.0 }
    );
    let only_unknown = format!("{{name: a, {ENDPOINT}, load_balancing_policy: {{policies: [{unknown}]}}}}");
    assert_eq!(
        refused(&only_unknown),
        "load_balancing_policy: cluster: didn't find a registered load balancer factory implementation for cluster: 'a' with names from [x]"
    );
}

#[test]
fn load_balancing_settings_are_read() {
    let config = accepted(&format!(
        "{{name: a, type: STRICT_DNS, lb_policy: RING_HASH, \
         ring_hash_lb_config: {{minimum_ring_size: 64, hash_function: MURMUR_HASH_2}}, \
         common_lb_config: {{healthy_panic_threshold: {{value: 30.5}}, locality_weighted_lb_config: {{}}, \
         consistent_hashing_lb_config: {{use_hostname_for_hashing: true}}}}, {ENDPOINT}}}"
    ));
    let table = TableConfig::Ring {
        minimum: 64,
        maximum: 8 << 20,
        function: HashFunction::MurmurHash2,
        by_hostname: true,
    };
    assert_eq!(config.balancing.lb.policy, LbPolicy::Consistent(table));
    assert_eq!((config.balancing.panic_threshold, config.balancing.lb.is_locality_weighted()), (30, true));
}

#[test]
fn http_options_come_from_the_typed_extension() {
    let config = accepted(&format!(
        "{{name: a, {ENDPOINT}, typed_extension_protocol_options: {{\
         envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
         common_http_protocol_options: {{idle_timeout: 0s, max_requests_per_connection: 7}}, \
         upstream_http_protocol_options: {{auto_sni: true}}, \
         explicit_http_config: {{http2_protocol_options: {{max_concurrent_streams: 9, connection_keepalive: {{interval: 30s, timeout: 5s}}}}}}}}}}}}"
    ));
    assert_eq!((config.http.idle_timeout, config.http.max_requests_per_connection), (None, Some(7)));
    assert!(config.http.auto_sni);
    let UpstreamProtocol::Http2(http2) = &config.http.protocol else { panic!("not HTTP/2") };
    assert_eq!(http2.max_concurrent_streams, Some(9));
    assert_eq!(http2.keepalive.map(|keepalive| keepalive.timeout), Some(Duration::from_secs(5)));
}

#[test]
fn idle_connections_of_tcp_pools_are_warned_about() {
    let tcp = "envoy.extensions.upstreams.tcp.v3.TcpProtocolOptions";
    let options = format!("{{{tcp}: {{'@type': type.googleapis.com/{tcp}, idle_timeout: 3s}}}}");
    let (_, warnings) =
        lower(&format!("{{name: a, {ENDPOINT}, typed_extension_protocol_options: {options}}}")).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].ends_with("idle_timeout"), "{warnings:?}");
}

#[test]
fn the_deprecated_protocol_fields_still_work() {
    let config = accepted(&format!("{{name: a, http2_protocol_options: {{}}, {ENDPOINT}}}"));
    assert!(matches!(config.http.protocol, UpstreamProtocol::Http2(_)));
    let config = accepted(&format!(
        "{{name: a, protocol_selection: USE_DOWNSTREAM_PROTOCOL, http_protocol_options: {{header_key_format: {{proper_case_words: {{}}}}}}, \
         http2_protocol_options: {{}}, {ENDPOINT}}}"
    ));
    let UpstreamProtocol::Downstream(http1, _) = &config.http.protocol else {
        panic!("not the downstream's")
    };
    assert_eq!(http1.header_key_format, HeaderKeyFormat::ProperCaseWords);
}

#[test]
fn assignments_carry_priority_locality_weight_health_and_metadata() {
    let config = accepted(
        "{name: a, load_assignment: {cluster_name: a, policy: {overprovisioning_factor: 100, weighted_priority_health: true}, endpoints: [\
         {priority: 1, load_balancing_weight: 5, locality: {region: r, zone: z}, lb_endpoints: [\
         {health_status: DRAINING, load_balancing_weight: 3, metadata: {filter_metadata: {envoy.lb: {canary: true}}}, \
          endpoint: {hostname: h, address: {pipe: {path: /tmp/s}}}}]}]}}",
    );
    let Discovery::Static(assignment) = config.discovery else { panic!("not static") };
    assert_eq!((assignment.policy.overprovisioning, assignment.policy.weighted_priority_health), (100, true));
    let group = &assignment.groups[0];
    assert_eq!((group.priority, group.weight, &*group.locality.zone), (1, 5, "z"));
    let endpoint = &group.endpoints[0];
    assert_eq!((endpoint.weight, &*endpoint.hostname), (3, "h"));
    assert!(endpoint.health.contains(HealthFlag::EdsStatusDraining) && endpoint.metadata.is_canary());
    assert_eq!(endpoint.target, EndpointTarget::Address(StreamAddress::Pipe("/tmp/s".into())));
}

#[test]
fn dns_settings_are_read_from_either_place() {
    let named = "load_assignment: {cluster_name: a, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: simple, port_value: 81}}}}]}]}";
    let config = accepted(&format!(
        "{{name: a, type: STRICT_DNS, dns_refresh_rate: 2s, dns_lookup_family: V4_ONLY, respect_dns_ttl: true, \
         dns_failure_refresh_rate: {{base_interval: 1s}}, {named}}}"
    ));
    let Discovery::Dns(dns) = config.discovery else { panic!("not DNS") };
    assert_eq!(
        (dns.logical, dns.refresh_rate, dns.family, dns.respect_ttl),
        (false, Duration::from_secs(2), LookupFamily::V4Only, true)
    );
    assert_eq!(dns.failure_refresh, Some((Duration::from_secs(1), Duration::from_secs(10))));
    let config = accepted(&format!(
        "{{name: a, cluster_type: {{name: envoy.cluster.dns, typed_config: {{'@type': type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster, \
         all_addresses_in_single_endpoint: true, dns_lookup_family: V4_PREFERRED}}}}, {named}}}"
    ));
    let Discovery::Dns(dns) = config.discovery else { panic!("not DNS") };
    assert_eq!((dns.logical, dns.family), (true, LookupFamily::V4Preferred));
}

#[test]
fn what_istio_sends_for_a_destination_rule_is_accepted_with_its_gaps_named() {
    let (config, warnings) = lower(
        "{name: 'outbound|9080||reviews', type: EDS, eds_cluster_config: {eds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}, \
         service_name: 'outbound|9080||reviews'}, connect_timeout: 10s, lb_policy: LEAST_REQUEST, \
         circuit_breakers: {thresholds: [{max_connections: 4294967295, max_pending_requests: 1, max_requests: 4294967295, max_retries: 4294967295, track_remaining: true}]}, \
         common_lb_config: {healthy_panic_threshold: {}}, \
         outlier_detection: {consecutive_5xx: 1, interval: 1s, base_ejection_time: 180s, max_ejection_percent: 100, enforcing_consecutive_5xx: 100, enforcing_success_rate: 0}, \
         filters: [{name: istio.metadata_exchange}], metadata: {filter_metadata: {istio: {config: x}}}}",
    )
    .unwrap();
    assert_eq!(warnings, ["filters[0]"]);
    let outlier = config.outlier_detection.unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.max_ejection_percent), (1, 100));
    assert_eq!(config.balancing.panic_threshold, 0);
    assert_eq!(config.thresholds[0].max_pending_requests, 1);
    assert_eq!(config.thresholds[1].max_pending_requests, 1024);
    let Discovery::Eds(eds) = config.discovery else { panic!("not EDS") };
    assert_eq!((&*eds.service_name, eds.initial_fetch_timeout), ("outbound|9080||reviews", None));
}

#[test]
fn endpoint_metadata_selects_the_transport_socket() {
    let config = accepted(&format!(
        "{{name: a, transport_socket_matches: [\
         {{name: secured, match: {{tlsMode: istio}}, transport_socket: {{name: envoy.transport_sockets.raw_buffer, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}, \
         {{name: open, match: {{}}, transport_socket: {{name: envoy.transport_sockets.raw_buffer, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}], {ENDPOINT}}}"
    ));
    let metadata = |yaml: &str| crate::metadata::HostMetadata {
        endpoint: Arc::new(load_yaml(yaml, &LoadOptions::default()).unwrap().message),
        ..Default::default()
    };
    let select = |yaml: &str| config.sockets.select(&metadata(yaml)).0.to_owned();
    assert_eq!(select("{filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}}}"), "secured");
    assert_eq!(select("{filter_metadata: {envoy.transport_socket_match: {tlsMode: disabled}}}"), "open");
    assert_eq!(select("{}"), "open");
}

#[test]
fn clusters_with_equal_settings_hold_them_once() {
    let mut known = KnownSettings::default();
    let mut shared = |settings: &str| {
        let mut config = accepted(&format!("{{name: a, {ENDPOINT}, {settings}}}"));
        known.share(&mut config.settings);
        config.settings
    };
    let first = shared("connect_timeout: 1s, alt_stat_name: x");
    let same = shared("connect_timeout: 1s, alt_stat_name: other");
    let other = shared("connect_timeout: 2s");
    assert!(Arc::ptr_eq(&first, &same));
    assert!(!Arc::ptr_eq(&first, &other));
    assert!(Arc::ptr_eq(&first, &shared("connect_timeout: 1s")));
}
