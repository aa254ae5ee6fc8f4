//! The fields of Envoy's configuration that are refused, and why.
//!
//! One table instead of a text at each place that refuses, so that what is not supported can be read in one go. The page
//! `docs/compatibility/envoy.md` shows the reasons beside the fields; its test fails for a refused field without one.

/// How every refusal of a field begins.
pub const UNSUPPORTED: &str = "this field is not supported";

const CERTIFICATE_PROVIDERS: &str =
    "certificates come from files, inline data and SDS, not from provider extensions";
const HTTP3: &str = "HTTP/3 is not spoken yet";
const OWN_STREAMS: &str =
    "a management server is reached through ads with ads_config, not by a subscription of its own";
const REGISTRY_ONLY: &str = "only extensions that implement it could take it, and there are none here";
const XDSTP: &str = "resources are asked for by plain names, not by xdstp:// addresses";

/// Why a field with this name is refused; in the order of names.
const REASONS: &[(&str, &str)] = &[
    ("added_tlvs", "health checks send the header without extensions"),
    ("ads", "secrets are read from files; over gRPC they are not asked for yet"),
    (
        "allow_coalesced_connections",
        "a connection is used for the host that it was made for, and for no other",
    ),
    ("allow_renegotiation", "TLS 1.2 renegotiation is not implemented by rustls, on purpose"),
    ("alternate_protocols_cache_options", HTTP3),
    ("api_config_source", OWN_STREAMS),
    ("api_listener", "the proxy is a process of its own and is not linked into an application"),
    ("api_type", "management servers are spoken to by gRPC: GRPC, DELTA_GRPC or their aggregated forms"),
    ("authorities", XDSTP),
    ("bootstrap_extensions", REGISTRY_ONLY),
    ("ca_certificate_provider_instance", CERTIFICATE_PROVIDERS),
    ("cds_resources_locator", XDSTP),
    ("certificate_provider_instances", CERTIFICATE_PROVIDERS),
    ("cluster_names", "gRPC services are named by grpc_services"),
    ("codec_client_type", HTTP3),
    ("compliance_policies", "rustls has no set of parameters with that name; set tls_params one by one"),
    ("config_discovery", "the configuration of filters comes with their listener, not by ECDS"),
    ("config_sources", XDSTP),
    ("config_validators", REGISTRY_ONLY),
    ("custom", REGISTRY_ONLY),
    ("custom_handshaker", "handshakes are made by rustls alone"),
    ("custom_health_check", "health checks of Redis, Thrift and UDP speak protocols that the proxy does not"),
    (
        "custom_tls_certificate_selector",
        "certificates are chosen by server name and by what the client accepts",
    ),
    ("custom_validator_config", "certificates are verified by rustls alone; SPIFFE bundles are not read yet"),
    ("default_config_source", XDSTP),
    ("default_socket_interface", "sockets are those of the operating system"),
    ("enable_mptcp", "sockets speak TCP on one path"),
    ("envoy_internal_address", "there are no listeners inside of the process"),
    ("event_service", "events of health are written to a file and not sent to a service"),
    ("fatal_actions", "a crash of the process is left to its supervisor"),
    ("fcds_config", "filter chains come with their listener, not one by one"),
    ("filter_action", "Envoy does not implement it either"),
    ("flags_path", "it is the deprecated form; Envoy does not read it either"),
    ("google_grpc", "there is one gRPC client; use envoy_grpc"),
    ("hds_config", "health is not reported to a management server"),
    (
        "header_validation_config",
        "headers are validated by the codecs; Envoy's own builds know no such extension",
    ),
    ("http3_protocol_options", HTTP3),
    ("internal_listener", "there are no listeners inside of the process"),
    ("ipv4_compat", "datagrams of statistics are sent to the address as it is written"),
    ("key_log", "secrets of TLS connections are never written"),
    ("key_value_config", "resolved names are not kept over a restart"),
    ("lds_resources_locator", XDSTP),
    ("leds_cluster_locality_config", "endpoints come with their cluster or by EDS, not one by one"),
    ("listener_manager", "there is one manager of listeners, and it serves all of them"),
    ("load_stats_config", "loads are not reported to a management server"),
    ("max_heap_size_bytes_runtime", "the limit is max_heap_size_bytes"),
    ("max_receive_message_length", "the limit of the management server's messages is fixed"),
    ("monitors", REGISTRY_ONLY),
    ("named_port", "a port is a number, as in Envoy"),
    ("network_namespace_filepath", "sockets are opened in the network namespace of the process"),
    ("node_context_params", XDSTP),
    (
        "ocsp_staple_policy",
        "a response is stapled where there is one (LENIENT_STAPLING), and none is demanded",
    ),
    ("oid", "names of other kinds than those in san_type are not looked at"),
    ("on_demand", "clusters come with the configuration, not when a connection asks for them"),
    ("pass_through_tlvs", "health checks pass nothing of clients on"),
    ("password", "private keys are read without encryption"),
    (
        "per_connection_buffer_high_watermark_timeout",
        "what is buffered for a slow reader has no time limit of its own",
    ),
    ("pipe", "datagrams of statistics are sent to IP addresses"),
    ("pkcs12", "certificates and keys are read from PEM"),
    ("poll_interval", "files are watched for moves, not read at intervals"),
    ("private_key_provider", "private keys are in memory, not in hardware or with a service"),
    ("protocol", "listeners are of TCP; UDP is not supported yet"),
    ("queuing_policies", REGISTRY_ONLY),
    ("rds_config_source", OWN_STREAMS),
    ("remove_on_match", "Envoy does not implement it for these edits either"),
    ("require_signed_certificate_timestamp", "Envoy does not implement it either"),
    ("resolver_name", "an address of a socket is an IP address; names belong to clusters that use DNS"),
    (
        "retry_policy",
        "streams to a management server are opened again by the rules of xDS, with their own back-off",
    ),
    ("route_specifiers", REGISTRY_ONLY),
    ("rtds_layer", "the runtime's layers are static, of a disk, and of the admin interface"),
    ("san_type", "names of other kinds than DNS, URI, EMAIL and IP_ADDRESS are not looked at"),
    ("scoped_rds", "scopes are written in scoped_route_configurations_list"),
    ("selected_host_key", "the chosen host is passed on in metadata or in a header"),
    ("self", OWN_STREAMS),
    ("signature_algorithms", "rustls chooses them; they cannot be limited"),
    ("signed_certificate_timestamp", "Envoy does not implement it either"),
    ("source", "metadata of the request, of the route and of the cluster can be read"),
    ("system_root_certs", "Envoy does not implement it and would verify nothing; name them in trusted_ca"),
    ("tls_certificate_certificate_provider", CERTIFICATE_PROVIDERS),
    ("tls_certificate_certificate_provider_instance", CERTIFICATE_PROVIDERS),
    ("tls_certificate_provider_instance", CERTIFICATE_PROVIDERS),
    ("tls_params", "parameters belong to the context, not to one certificate"),
    ("tracing", "spans are not reported yet"),
    ("udp_listener_config", "listeners are of TCP; UDP is not supported yet"),
    ("upgrade_type", "datagrams are not proxied over HTTP"),
    ("upstream_config", REGISTRY_ONLY),
    ("use_proxy_proto", "it is the deprecated form; use envoy.filters.listener.proxy_protocol"),
    ("validation_context_certificate_provider", CERTIFICATE_PROVIDERS),
    ("validation_context_certificate_provider_instance", CERTIFICATE_PROVIDERS),
    ("vhds", "virtual hosts come with their route configuration, not one by one"),
    ("watch_modify", "files are noticed when they are moved into place, not while they are written"),
    ("watched_directory", "the file is read once, when the configuration is loaded"),
    ("xds_config_tracker_extension", REGISTRY_ONLY),
    ("xds_delegate_extension", REGISTRY_ONLY),
];

/// Why the field `name` is refused.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    REASONS.binary_search_by_key(&name, |(field, _)| field).ok().map(|at| REASONS[at].1)
}

#[cfg(test)]
mod tests {
    use super::{REASONS, reason};

    #[test]
    fn names_are_in_order_so_that_each_is_found() {
        assert!(REASONS.is_sorted_by_key(|(name, _)| name));
        for (name, why) in REASONS {
            assert_eq!(reason(name), Some(*why));
        }
        assert_eq!(reason("no_such_field"), None);
    }
}
