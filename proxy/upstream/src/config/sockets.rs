//! `upstream_bind_config`, `upstream_connection_options` and the transport sockets.

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_net::proxy_protocol::{ProxyVersion, Tlv};
use dhow_net::socket_option::SocketOption;
use dhow_proto::any;
use dhow_proto::envoy::config::cluster::v3::{UpstreamConnectionOptions, cluster::TransportSocketMatch};
use dhow_proto::envoy::config::core::v3::{
    BindConfig, ExtraSourceAddress, Metadata, ProxyProtocolConfig, ProxyProtocolPassThroughTlVs,
    SocketAddress, SocketOptionsOverride, TcpKeepalive as KeepaliveMessage, TlvEntry,
    TransportSocket as SocketMessage, TypedExtensionConfig, proxy_protocol_config::Version,
    proxy_protocol_pass_through_tl_vs::PassTlVsMatchType, transport_socket::ConfigType,
};
use dhow_proto::envoy::config::upstream::local_address_selector::v3::DefaultLocalAddressSelector;
use dhow_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use dhow_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use dhow_proto::google::protobuf::Struct;
use dhow_proto::xds::r#type::matcher::v3::Matcher;
use dhow_tls::{TlsStats, UpstreamTls};

use super::assignment::source_address;
use super::connections;
use super::fields::{Notes, number, refuse, unpack};
use super::socket_matcher::SocketMatcher;
use crate::cluster_info::{BindSource, TcpKeepalive, UpstreamBind};
use crate::happy_eyeballs::FamilyOrder;
use crate::metadata::{HostMetadata, TRANSPORT_SOCKET_MATCH_FILTER};
use crate::proxy_protocol::{PassedTlvs, ProxyProtocolSocket};
use crate::transport_socket::{ChosenSocket, TransportSocket};

/// The sockets of a cluster and what selects them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TransportSockets {
    pub(crate) default: TransportSocket,
    pub(crate) matches: Vec<SocketMatch>,
    /// `transport_socket_matcher`, which chooses instead of the criteria of `matches`.
    pub(crate) matcher: Option<Arc<SocketMatcher>>,
}

/// One entry of `transport_socket_matches`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SocketMatch {
    pub(crate) name: String,
    pub(crate) criteria: Struct,
    pub(crate) socket: TransportSocket,
}

impl TransportSockets {
    /// Whether connections to some hosts may be encrypted.
    pub(crate) fn any_secure(&self) -> bool {
        self.default.is_secure() || self.matches.iter().any(|entry| entry.socket.is_secure())
    }

    /// Counts what happens to TLS contexts beside handshakes.
    pub(crate) fn count_in(&self, stats: &TlsStats) {
        self.default.count_in(stats);
        self.matches.iter().for_each(|entry| entry.socket.count_in(stats));
    }

    /// The socket for an endpoint and the name of the entry, `default` when none matches: what the matcher says, or else the
    /// first entry all of whose criteria are in the metadata of the endpoint, and then of its locality.
    pub(crate) fn select(&self, metadata: &HostMetadata) -> (&str, &TransportSocket) {
        if let Some(matcher) = &self.matcher {
            return self.named(matcher.name(metadata, &|_| None));
        }
        let by = |metadata: &Metadata| {
            let own = metadata.filter_metadata.get(TRANSPORT_SOCKET_MATCH_FILTER);
            let has = |(key, wanted)| own.and_then(|own| own.fields.get(key)) == Some(wanted);
            self.matches.iter().find(|entry| entry.criteria.fields.iter().all(has))
        };
        let found = by(&metadata.endpoint).or_else(|| by(&metadata.locality));
        found.map_or(("default", &self.default), |entry| (&*entry.name, &entry.socket))
    }

    /// The socket for a connection whose request shares `state` with it; `None` where the one of the host is meant.
    pub(crate) fn select_for_connection(
        &self,
        metadata: &HostMetadata,
        state: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Option<ChosenSocket> {
        let matcher = self.matcher.as_ref().filter(|matcher| matcher.reads_filter_state())?;
        let (name, socket) = self.named(matcher.name(metadata, state));
        Some(ChosenSocket { name: name.into(), socket: socket.clone() })
    }

    fn named(&self, name: Option<&str>) -> (&str, &TransportSocket) {
        let found = name.and_then(|name| self.matches.iter().find(|entry| entry.name == name));
        found.map_or(("default", &self.default), |entry| (&*entry.name, &entry.socket))
    }

    /// The socket that `criteria` select instead of an endpoint's metadata (`transport_socket_match_criteria`).
    pub(crate) fn select_by(&self, criteria: &Struct) -> &TransportSocket {
        let mut metadata = HostMetadata::default();
        let fields = [(TRANSPORT_SOCKET_MATCH_FILTER.to_owned(), criteria.clone())];
        Arc::make_mut(&mut metadata.endpoint).filter_metadata.extend(fields);
        self.select(&metadata).1
    }
}

pub(crate) fn lower_transport_sockets(
    socket: Option<SocketMessage>,
    matches: Vec<TransportSocketMatch>,
    matcher: Option<Matcher>,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<TransportSockets, ConfigError> {
    let default = match socket {
        Some(socket) => transport_socket(socket, &path.field("transport_socket"), notes)?,
        None => TransportSocket::RawBuffer,
    };
    let mut lowered = TransportSockets { default, matches: Vec::with_capacity(matches.len()), matcher: None };
    for (index, entry) in matches.into_iter().enumerate() {
        let path = path.field("transport_socket_matches").index(index);
        let TransportSocketMatch { name, r#match: criteria, transport_socket: socket } = entry;
        if matcher.is_some() && lowered.matches.iter().any(|other| other.name == name) {
            let reason =
                format!("Duplicate transport socket name '{name}' found in transport_socket_matches");
            return Err(ConfigError::new(path.field("name"), reason));
        }
        let socket = transport_socket(socket.unwrap_or_default(), &path.field("transport_socket"), notes)?;
        lowered.matches.push(SocketMatch { name, criteria: criteria.unwrap_or_default(), socket });
    }
    let matcher_path = path.field("transport_socket_matcher");
    lowered.matcher =
        matcher.map(|message| SocketMatcher::compile(message, &matcher_path)).transpose()?.map(Arc::new);
    Ok(lowered)
}

fn transport_socket(
    message: SocketMessage,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<TransportSocket, ConfigError> {
    let SocketMessage { name, config_type } = message;
    let typed_path = path.field("typed_config");
    if let Some(ConfigType::TypedConfig(any)) = &config_type {
        if let Some(RawBuffer {}) = unpack(any, || typed_path.clone())? {
            return Ok(TransportSocket::RawBuffer);
        }
        if let Some(context) = unpack::<UpstreamTlsContext>(any, || typed_path.clone())? {
            let tls = UpstreamTls::from_message(
                &context,
                &notes.secrets.clone(),
                &typed_path,
                &mut notes.warnings,
            )?;
            return Ok(TransportSocket::Tls(Arc::new(tls)));
        }
        if let Some(outer) = unpack::<ProxyProtocolUpstreamTransport>(any, || typed_path.clone())? {
            let socket = proxy_protocol(outer, &typed_path, notes)?;
            return Ok(TransportSocket::ProxyProtocol(Arc::new(socket)));
        }
    }
    let type_url = match &config_type {
        Some(ConfigType::TypedConfig(any)) => any.type_url.trim_start_matches("type.googleapis.com/"),
        None => "",
    };
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_url}'");
    Err(ConfigError::new(typed_path, reason))
}

fn proxy_protocol(
    message: ProxyProtocolUpstreamTransport,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<ProxyProtocolSocket, ConfigError> {
    let ProxyProtocolUpstreamTransport {
        config,
        transport_socket: inner,
        allow_unspecified_address,
        tlv_as_pool_key,
    } = message;
    for (is_set, field) in
        [(allow_unspecified_address, "allow_unspecified_address"), (tlv_as_pool_key, "tlv_as_pool_key")]
    {
        if is_set {
            notes.warn(path.field(field), "it has no effect, as in Envoy");
        }
    }
    let ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = config.unwrap_or_default();
    let path_of_config = path.field("config");
    let passed = match pass_through_tlvs {
        None => PassedTlvs::None,
        Some(ProxyProtocolPassThroughTlVs { match_type, tlv_type }) => {
            if match_type == PassTlVsMatchType::IncludeAll as i32 {
                PassedTlvs::All
            } else {
                PassedTlvs::Of(tlv_type.into_iter().filter_map(|kind| u8::try_from(kind).ok()).collect())
            }
        }
    };
    let mut added = Vec::with_capacity(added_tlvs.len());
    for (index, TlvEntry { r#type: kind, value, format_string }) in added_tlvs.into_iter().enumerate() {
        let path = path_of_config.field("added_tlvs").index(index);
        refuse(&format_string, || path.field("format_string"))?;
        if value.is_empty() {
            let reason = "Invalid TLV configuration: one of 'value' or 'format_string' must be set.";
            return Err(ConfigError::new(path, reason));
        }
        let kind = u8::try_from(kind)
            .map_err(|_| ConfigError::new(path.field("type"), "value must be less than 256"))?;
        added.push(Tlv { kind, value });
    }
    let Some(inner) = inner else {
        return Err(ConfigError::new(path.field("transport_socket"), "value is required"));
    };
    Ok(ProxyProtocolSocket {
        version: if version == Version::V1 as i32 { ProxyVersion::V1 } else { ProxyVersion::V2 },
        passed,
        added,
        inner: transport_socket(inner, &path.field("transport_socket"), notes)?,
    })
}

pub(crate) fn lower_bind(
    message: Option<BindConfig>,
    owner: &str,
    path: &FieldPath,
    notes: &mut Notes,
) -> Result<(Option<UpstreamBind>, Vec<SocketOption>), ConfigError> {
    let Some(message) = message else {
        return Ok((None, Vec::new()));
    };
    #[allow(deprecated, reason = "still accepted by Envoy")]
    let BindConfig {
        source_address: source,
        freebind,
        socket_options: options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces,
    } = message;
    let options = SocketOption::from_messages(options, &path.field("socket_options"))?;
    if let Some(selector) = local_address_selector {
        check_address_selector(&selector, &path.field("local_address_selector"))?;
    }
    if validate_network_namespaces {
        notes.without_effect(path.field("validate_network_namespaces"));
    }
    check_sources(source.as_ref(), &extra_source_addresses, &additional_source_addresses, owner)
        .map_err(|reason| ConfigError::new(path.clone(), reason))?;
    let mut bind = UpstreamBind { sources: Vec::new(), freebind: freebind.is_some_and(|value| value.value) };
    if let Some(source) = source {
        let address = source_address(source, &path.field("source_address"))?;
        bind.sources.push(BindSource { address, socket_options: None });
    }
    for (index, extra) in extra_source_addresses.into_iter().enumerate() {
        let path = path.field("extra_source_addresses").index(index);
        let ExtraSourceAddress { address, socket_options } = extra;
        let socket_options = match socket_options {
            None => None,
            Some(SocketOptionsOverride { socket_options }) => {
                let path = path.field("socket_options").field("socket_options");
                Some(SocketOption::from_messages(socket_options, &path)?.into())
            }
        };
        if let Some(address) = address {
            let address = source_address(address, &path.field("address"))?;
            bind.sources.push(BindSource { address, socket_options });
        }
    }
    for (index, address) in additional_source_addresses.into_iter().enumerate() {
        let address = source_address(address, &path.field("additional_source_addresses").index(index))?;
        bind.sources.push(BindSource { address, socket_options: None });
    }
    Ok(((!bind.sources.is_empty()).then_some(bind), options))
}

/// The rules for addresses to connect from: one, and at most one more of the other family.
fn check_sources(
    source: Option<&SocketAddress>,
    extra: &[ExtraSourceAddress],
    additional: &[SocketAddress],
    owner: &str,
) -> Result<(), String> {
    if !extra.is_empty() && !additional.is_empty() {
        return Err(format!(
            "Can't specify both `extra_source_addresses` and `additional_source_addresses` in the {owner}'s upstream \
             binding config"
        ));
    }
    let others = extra.iter().filter_map(|extra| extra.address.as_ref()).chain(additional);
    let others: Vec<&SocketAddress> = others.collect();
    let other = match others[..] {
        [] => return Ok(()),
        [other] => other,
        _ => {
            return Err(format!(
                "{owner}'s upstream binding config has more than one extra/additional source addresses. Only one \
                 extra/additional source can be supported in BindConfig's \
                 extra_source_addresses/additional_source_addresses field"
            ));
        }
    };
    let is_v6 = |address: &SocketAddress| address.address.contains(':');
    if source.is_none() {
        return Err(format!(
            "{owner}'s upstream binding config has extra/additional source addresses but no source_address. \
             Extra/additional addresses cannot be specified if source_address is not set."
        ));
    }
    if source.is_some_and(|source| is_v6(source) == is_v6(other)) {
        return Err(format!(
            "{owner}'s upstream binding config has two same IP version source addresses. Only two different IP version \
             source addresses can be supported in BindConfig's source_address and \
             extra_source_addresses/additional_source_addresses fields"
        ));
    }
    Ok(())
}

/// Checks that the source address is chosen in the usual way, which is the only one there is.
fn check_address_selector(message: &TypedExtensionConfig, path: &FieldPath) -> Result<(), ConfigError> {
    let TypedExtensionConfig { name, typed_config } = message;
    let path = path.field("typed_config");
    let known = match typed_config {
        Some(any) => unpack::<DefaultLocalAddressSelector>(any, || path.clone())?.is_some(),
        None => false,
    };
    if known {
        return Ok(());
    }
    let url = typed_config.as_ref().map_or("", |any| any::type_name(&any.type_url));
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{url}'");
    Err(ConfigError::new(path, reason))
}

pub(crate) fn lower_connection_options(
    message: Option<UpstreamConnectionOptions>,
) -> (Option<TcpKeepalive>, FamilyOrder) {
    let UpstreamConnectionOptions {
        tcp_keepalive,
        // Envoy keeps the name for its own debug log; nothing else reads it.
        set_local_interface_name_on_upstream_connections: _,
        happy_eyeballs_config,
    } = message.unwrap_or_default();
    let keepalive =
        tcp_keepalive.map(|KeepaliveMessage { keepalive_probes, keepalive_time, keepalive_interval }| {
            let seconds = |value| number(value).map(|seconds| Duration::from_secs(seconds.into()));
            TcpKeepalive {
                probes: number(keepalive_probes),
                time: seconds(keepalive_time),
                interval: seconds(keepalive_interval),
            }
        });
    (keepalive, connections::families(happy_eyeballs_config))
}
