//! How names are resolved: the fields for it that clusters, DNS caches and the bootstrap share.

use std::net::SocketAddr;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::config::core::v3::{
    Address, DnsResolutionConfig, DnsResolverOptions, TypedExtensionConfig,
};
use dhow_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use dhow_proto::envoy::extensions::network::dns_resolver::getaddrinfo::v3::GetAddrInfoDnsResolverConfig;

use super::assignment::source_address;
use super::fields::{Notes, unpack};
use crate::dns::ResolverOptions;

impl ResolverOptions {
    /// Reads the fields of the bootstrap, which say how names are resolved where clusters do not: `use_tcp_for_dns_lookups`,
    /// `dns_resolution_config`, `typed_dns_resolver_config`. `path` is that of the bootstrap.
    ///
    /// # Errors
    /// When a server is no IP address, or the extension is not known.
    pub fn of_bootstrap(
        use_tcp: bool,
        resolution: Option<&DnsResolutionConfig>,
        typed: Option<&TypedExtensionConfig>,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let mut notes = Notes::default();
        let options = resolver_of(&[], use_tcp, resolution, typed, path, &mut notes);
        warnings.append(&mut notes.warnings);
        options
    }
}

/// How to resolve, from the fields of the message at `path` that say it; the last of them counts.
pub(super) fn resolver_of(
    dns_resolvers: &[Address],
    use_tcp: bool,
    resolution: Option<&DnsResolutionConfig>,
    typed: Option<&TypedExtensionConfig>,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<ResolverOptions, ConfigError> {
    let mut options = ResolverOptions { use_tcp, ..ResolverOptions::default() };
    options.servers = servers(dns_resolvers, &path.field("dns_resolvers"))?;
    if let Some(DnsResolutionConfig { resolvers, dns_resolver_options }) = resolution {
        let path = path.field("dns_resolution_config");
        options.servers = servers(resolvers, &path.field("resolvers"))?;
        apply_options(dns_resolver_options.as_ref(), &mut options);
    }
    if let Some(config) = typed {
        typed_resolver(config.clone(), &mut options, &path.field("typed_dns_resolver_config"), notes)?;
    }
    Ok(options)
}

fn apply_options(message: Option<&DnsResolverOptions>, into: &mut ResolverOptions) {
    if let Some(DnsResolverOptions { use_tcp_for_dns_lookups, no_default_search_domain }) = message {
        into.use_tcp = *use_tcp_for_dns_lookups;
        into.no_search_domain = *no_default_search_domain;
    }
}

/// A resolver by its extension; `path` is that of the extension.
pub(super) fn typed_resolver(
    config: TypedExtensionConfig,
    into: &mut ResolverOptions,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(), ConfigError> {
    let TypedExtensionConfig { name, typed_config } = config;
    let path = path.field("typed_config");
    let any = typed_config.unwrap_or_default();
    if unpack::<GetAddrInfoDnsResolverConfig>(&any, || path.clone())?.is_some() {
        return Ok(());
    }
    let Some(config) = unpack::<CaresDnsResolverConfig>(&any, || path.clone())? else {
        let type_url = any.type_url.trim_start_matches("type.googleapis.com/");
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_url}'");
        return Err(ConfigError::new(path, reason));
    };
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families,
        dns_resolver_options,
        udp_max_queries,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        // How the library keeps its sockets and its cache.
        max_udp_channel_duration: _,
        reinit_channel_on_timeout: _,
        qcache_max_ttl: _,
    } = config;
    for (field, is_set) in [
        ("use_resolvers_as_fallback", use_resolvers_as_fallback),
        ("filter_unroutable_families", filter_unroutable_families),
        ("udp_max_queries", udp_max_queries.is_some()),
        ("rotate_nameservers", rotate_nameservers),
        ("edns0_max_payload_size", edns0_max_payload_size.is_some()),
    ] {
        if is_set {
            notes.without_effect(path.field(field));
        }
    }
    into.servers = servers(&resolvers, &path.field("resolvers"))?;
    apply_options(dns_resolver_options.as_ref(), into);
    into.timeout = query_timeout_seconds.map(|seconds| Duration::from_secs(seconds.value));
    into.attempts = query_tries.map(|tries| tries.value);
    Ok(())
}

fn servers(addresses: &[Address], path: &FieldPath) -> Result<Vec<SocketAddr>, ConfigError> {
    let server = |(index, address): (usize, &Address)| match &address.address {
        Some(dhow_proto::envoy::config::core::v3::address::Address::SocketAddress(address)) => {
            let mut address = source_address(address.clone(), &path.index(index).field("socket_address"))?;
            if address.port() == 0 {
                address.set_port(53);
            }
            Ok(address)
        }
        _ => Err(ConfigError::new(path.index(index), "must be a socket address")),
    };
    addresses.iter().enumerate().map(server).collect()
}
