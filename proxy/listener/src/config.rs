//! `Listener` messages lowered: every field is honoured, refused or warned about.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_net::socket_option::{SocketOption, SocketState};
use dhow_proto::envoy::config::core::v3::{
    Address, Metadata, SocketOptionsOverride, TcpKeepalive, TransportSocket, address,
};
use dhow_proto::envoy::config::listener::v3 as pb;
use dhow_proto::envoy::config::listener::v3::listener::connection_balance_config::BalanceType;
use dhow_proto::whole_millis;
use dhow_proto::{Excerpts, any, open_typed_structs};
use dhow_proxy_access_log::{AccessLog, LogWriter};
use dhow_proxy_api::{NetworkFilter, ReadFilterFactory};
use dhow_stats::Store;
use dhow_tls::DownstreamTls;

use crate::address::ListenAddress;
use crate::filter_chain::{ChainBuilder, FilterChains};
use crate::filter_disabled::FilterScope;
use crate::inspect::TlsInspection;
use crate::listener_filters::lower_listener_filters;
use crate::proxy_protocol::ProxyProtocolConfig;

/// Default of `listener_filters_timeout`.
const INSPECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// What building a network filter may need to know of its surroundings.
#[derive(Clone, Debug)]
pub struct FilterContext {
    /// Stat prefix of the listener (`127.0.0.1_80`).
    pub listener_stat_prefix: Arc<str>,
    /// Name of the listener.
    pub listener_name: Arc<str>,
    /// Whether `traffic_direction` is INBOUND.
    pub inbound: bool,
    /// Whether the listener came by LDS.
    pub dynamic: bool,
    /// The message of the filter chain, encoded.
    pub encoded: Bytes,
}

/// Builds the network filters that exist: implemented where all of them are known.
pub trait NetworkFilters {
    /// Builds a filter from its configuration.
    ///
    /// # Errors
    /// When the type is not known (in Envoy's words) or its configuration is not acceptable.
    fn build(
        &self,
        filter: pb::Filter,
        context: &FilterContext,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn NetworkFilter>, ConfigError>;

    /// Builds a filter in front of the terminal one.
    ///
    /// # Errors
    /// As for terminal filters.
    fn build_read_filter(
        &self,
        filter: pb::Filter,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Arc<dyn ReadFilterFactory>, ConfigError>;

    /// The same filters, whose stats are in another store.
    fn counting_in(&self, store: &Store) -> Box<dyn NetworkFilters>;

    /// Writes access logs.
    fn log_writer(&self) -> &Arc<LogWriter>;

    /// Builds the TLS termination of a filter chain.
    ///
    /// # Errors
    /// As for filters.
    fn build_tls(
        &self,
        socket: TransportSocket,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Option<Arc<DownstreamTls>>, ConfigError>;
}

/// What a listener does about connections that were redirected to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OriginalDestination {
    /// What the listener filter `original_dst` does, if it is there: their local address is the one that the peer wanted.
    Restored(FilterScope),
    /// `use_original_dst`: as before, and the listener of that address serves them if there is one.
    HandedOff,
}

/// A listener as configured.
#[derive(Debug)]
pub struct ListenerConfig {
    /// Name; generated when the message has none.
    pub name: Arc<str>,
    /// Addresses: the main one, then the additional ones.
    pub addresses: Vec<ListenAddress>,
    /// `stat_prefix`, else the address with `_` for `:`.
    pub stat_prefix: Arc<str>,
    /// `bind_to_port`.
    pub bind_to_port: bool,
    /// What becomes of redirected connections.
    pub(crate) original_destination: OriginalDestination,
    /// `socket_options` and what amounts to one, for each of the addresses.
    pub(crate) socket_options: Vec<Vec<SocketOption>>,
    /// `tcp_backlog_size`.
    pub backlog: u32,
    /// `enable_reuse_port`.
    pub reuse_port: bool,
    /// `freebind`.
    pub freebind: bool,
    /// `transparent`.
    pub transparent: bool,
    /// `max_connections_to_accept_per_socket_event`; as many as wait when it is not set.
    pub max_accepts: u32,
    /// `per_connection_buffer_limit_bytes`, 1 MiB by default: what may be held back of a message, for filters that need it whole.
    pub buffer_limit: u32,
    /// `metadata`.
    pub metadata: Option<Arc<Metadata>>,
    /// `traffic_direction` is INBOUND.
    pub inbound: bool,
    /// `drain_type` is MODIFY_ONLY.
    pub drain_on_modify_only: bool,
    /// `ignore_global_conn_limit`: its connections have no part in the limit of the process.
    pub ignore_global_conn_limit: bool,
    /// `bypass_overload_manager`: overload of the process is none of the business of its connections.
    pub bypass_overload_manager: bool,
    /// Of which connections to look for a TLS hello.
    pub(crate) inspect_tls: FilterScope,
    /// How it is looked for.
    pub(crate) tls_inspection: TlsInspection,
    /// Of which connections to look for HTTP.
    pub(crate) inspect_http: FilterScope,
    /// The listener filter `proxy_protocol`.
    pub(crate) proxy_protocol: Option<(ProxyProtocolConfig, FilterScope)>,
    /// `listener_filters_timeout`; none is for ever.
    pub inspection_timeout: Option<Duration>,
    /// `continue_on_listener_filters_timeout`.
    pub continue_on_timeout: bool,
    /// `access_log`: of every connection, when it ends.
    pub(crate) access_logs: Vec<AccessLog>,
    /// Filter chains.
    pub chains: FilterChains,
}

fn refuse_datagrams(address: Option<&Address>, path: &FieldPath) -> Result<(), ConfigError> {
    match address {
        Some(Address { address: Some(address::Address::SocketAddress(socket)) }) => {
            ConfigError::refuse_if(socket.protocol != 0, &path.field("socket_address"), "protocol")
        }
        _ => Ok(()),
    }
}

/// Lowers a listener, of which `encoded` is the message too. Chains whose message is among `previous` are taken over from there, so that their connections and
/// state live on.
///
/// # Errors
/// The first field that is not acceptable.
pub fn lower(
    listener: pb::Listener,
    encoded: &Bytes,
    previous: Option<&FilterChains>,
    filters: &dyn NetworkFilters,
    dynamic: bool,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<ListenerConfig, ConfigError> {
    let listener = open_typed_structs(listener).map_err(|error| error.under(path))?;
    if listener.address.is_none() {
        let reason = format!("error adding listener named '{}': address is necessary", listener.name);
        return Err(ConfigError::new(path.field("address"), reason));
    }
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let pb::Listener {
        name,
        address,
        additional_addresses,
        stat_prefix,
        stats_matcher: _, // which of its stats exist is up to the store that the manager gives it
        filter_chains,
        fcds_config,
        filter_chain_matcher,
        use_original_dst,
        default_filter_chain,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        metadata,
        deprecated_v1,
        drain_type,
        listener_filters,
        listener_filters_timeout,
        continue_on_listener_filters_timeout,
        transparent,
        freebind,
        socket_options,
        tcp_fast_open_queue_length,
        traffic_direction,
        udp_listener_config,
        api_listener,
        connection_balance_config,
        reuse_port,
        enable_reuse_port,
        access_log,
        tcp_backlog_size,
        max_connections_to_accept_per_socket_event,
        bind_to_port,
        enable_mptcp,
        ignore_global_conn_limit,
        bypass_overload_manager,
        tcp_keepalive,
        listener_specifier,
    } = listener;
    let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
    refuse(fcds_config.is_some(), "fcds_config")?;
    refuse(
        per_connection_buffer_high_watermark_timeout.is_some(),
        "per_connection_buffer_high_watermark_timeout",
    )?;
    let options = SocketOption::from_messages(socket_options, &path.field("socket_options"))?;
    // TCP_FASTOPEN of IPPROTO_TCP, which Envoy sets once the socket listens.
    let fast_open = tcp_fast_open_queue_length.map(|length| {
        let length = i32::try_from(length.value).unwrap_or(i32::MAX);
        SocketOption::of_int(6, 23, length, SocketState::Listening)
    });
    let all_options = |own: &[SocketOption], keepalive: Option<&TcpKeepalive>| {
        let keepalive = keepalive.map(SocketOption::of_keepalive).unwrap_or_default();
        own.iter().chain(&fast_open).chain(&keepalive).cloned().collect::<Vec<_>>()
    };
    refuse(udp_listener_config.is_some(), "udp_listener_config")?;
    refuse(api_listener.is_some(), "api_listener")?;
    refuse(enable_mptcp, "enable_mptcp")?;
    refuse(listener_specifier.is_some(), "internal_listener")?;
    if let Some(pb::listener::ConnectionBalanceConfig { balance_type }) = connection_balance_config {
        if let Some(BalanceType::ExtendBalance(extension)) = balance_type {
            let type_name =
                extension.typed_config.as_ref().map_or("", |config| any::type_name(&config.type_url));
            let reason = format!("Didn't find a registered implementation for type: '{type_name}'");
            return Err(ConfigError::new(path.field("connection_balance_config"), reason));
        }
        warn(warnings, path, "connection_balance_config", "connections are balanced by the kernel");
    }
    if reuse_port {
        warn(warnings, path, "reuse_port", "deprecated: use enable_reuse_port");
    }

    let address_path = path.field("address");
    refuse_datagrams(address.as_ref(), &address_path)?;
    let main = ListenAddress::lower(address.as_ref(), None, &address_path)?;
    let mut addresses = vec![main.clone()];
    let mut socket_options = vec![all_options(&options, tcp_keepalive.as_ref())];
    for (i, additional) in additional_addresses.into_iter().enumerate() {
        let path = path.field("additional_addresses").index(i);
        let pb::AdditionalAddress { address, socket_options: own, tcp_keepalive: own_keepalive } = additional;
        let own = match own {
            None => options.clone(),
            Some(SocketOptionsOverride { socket_options }) => {
                let path = path.field("socket_options").field("socket_options");
                SocketOption::from_messages(socket_options, &path)?
            }
        };
        socket_options.push(all_options(&own, keepalive_of_additional(&own_keepalive, &tcp_keepalive)));
        refuse_datagrams(address.as_ref(), &path.field("address"))?;
        addresses.push(ListenAddress::lower(address.as_ref(), Some(&main), &path.field("address"))?);
    }
    let name: Arc<str> =
        if name.is_empty() { format!("listener-{}", main.address).into() } else { name.into() };
    let stat_prefix: Arc<str> = match stat_prefix.as_str() {
        "" => main.address.to_string().replace(':', "_").into(),
        // Names do not end in dots, nor do parts of them that users choose.
        prefix => prefix.trim_end_matches('.').into(),
    };
    let inbound = traffic_direction == 1;
    let context = FilterContext {
        listener_stat_prefix: stat_prefix.clone(),
        listener_name: name.clone(),
        inbound,
        dynamic,
        encoded: Bytes::new(),
    };
    let excerpts = Excerpts::of(encoded.clone());
    let mut builder = ChainBuilder { previous, filters, context, address: main.address, excerpts };
    let chains = builder.build(filter_chains, default_filter_chain, filter_chain_matcher, path, warnings)?;
    let inspections = lower_listener_filters(listener_filters, path, warnings)?;
    Ok(ListenerConfig {
        name,
        addresses,
        stat_prefix,
        bind_to_port: bind_to_port.is_none_or(|b| b.value)
            && deprecated_v1.and_then(|v1| v1.bind_to_port).is_none_or(|b| b.value),
        original_destination: match use_original_dst.is_some_and(|b| b.value) {
            true => OriginalDestination::HandedOff,
            false => OriginalDestination::Restored(inspections.original_dst),
        },
        socket_options,
        backlog: tcp_backlog_size.map_or(4096, |size| size.value),
        reuse_port: enable_reuse_port.is_none_or(|b| b.value),
        freebind: freebind.is_some_and(|b| b.value),
        transparent: transparent.is_some_and(|b| b.value),
        max_accepts: max_connections_to_accept_per_socket_event.map_or(u32::MAX, |max| max.value),
        buffer_limit: per_connection_buffer_limit_bytes.map_or(1 << 20, |limit| limit.value.max(1)),
        metadata: metadata.map(Arc::new),
        inbound,
        ignore_global_conn_limit,
        drain_on_modify_only: drain_type == 1,
        bypass_overload_manager,
        inspect_tls: inspections.tls,
        tls_inspection: inspections.tls_inspection,
        inspect_http: inspections.http,
        proxy_protocol: inspections.proxy_protocol,
        inspection_timeout: match listener_filters_timeout {
            None => Some(INSPECTION_TIMEOUT),
            Some(timeout) => Some(whole_millis(&timeout)).filter(|t| !t.is_zero()),
        },
        continue_on_timeout: continue_on_listener_filters_timeout,
        access_logs: dhow_proxy_access_log::lower(
            access_log,
            filters.log_writer(),
            &path.field("access_log"),
        )?,
        chains,
    })
}

/// How connections to an additional address are kept alive: in its own way, or else in the listener's. Nothing is kept alive by
/// settings of which one is 0.
fn keepalive_of_additional<'a>(
    own: &'a Option<TcpKeepalive>,
    listeners: &'a Option<TcpKeepalive>,
) -> Option<&'a TcpKeepalive> {
    let chosen = own.as_ref().or(listeners.as_ref())?;
    let TcpKeepalive { keepalive_probes, keepalive_time, keepalive_interval } = chosen;
    let settings = [keepalive_probes, keepalive_time, keepalive_interval];
    settings.into_iter().flatten().all(|setting| setting.value > 0).then_some(chosen)
}

/// Says what a field does not do.
pub(crate) fn warn(warnings: &mut Vec<ConfigWarning>, path: &FieldPath, field: &str, why: &str) {
    warnings.push(ConfigWarning::new(path.field(field), why));
}

#[cfg(test)]
mod tests {
    use dhow_proto::google::protobuf::UInt32Value;

    use super::*;

    #[test]
    fn further_addresses_keep_connections_alive_in_their_own_way_or_not_at_all() {
        let every = |seconds| {
            let keepalive_time = Some(UInt32Value { value: seconds });
            Some(TcpKeepalive { keepalive_time, ..TcpKeepalive::default() })
        };
        let (listeners, own, never) = (every(30), every(5), every(0));
        assert_eq!(keepalive_of_additional(&None, &listeners), listeners.as_ref());
        assert_eq!(keepalive_of_additional(&own, &listeners), own.as_ref());
        assert_eq!(keepalive_of_additional(&never, &listeners), None);
        assert_eq!(keepalive_of_additional(&None, &None), None);
    }
}
