//! `TcpProxy` messages lowered: every field is honoured, refused or warned about.

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_expr::{FormatContext, LogFormat};
use dhow_matching::MetadataCriteria;
use dhow_net::proxy_protocol::Tlv;
use dhow_proto::envoy::config::core::v3::{BackoffStrategy, DataSource, Metadata, TlvEntry};
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TcpAccessLogOptions, WeightedCluster, weighted_cluster::ClusterWeight,
};
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::{
    ProxyProtocolTlvMergePolicy, UpstreamConnectMode,
};
use dhow_proto::envoy::r#type::v3::HashPolicy;
use dhow_proto::envoy::r#type::v3::hash_policy::{FilterState, PolicySpecifier, SourceIp};
use dhow_proto::whole_millis;
use dhow_proxy_access_log::{AccessLog, LogWriter};
use dhow_proxy_upstream::LB_FILTER;

use crate::tunneling::Tunneling;

/// Default of `idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A TCP proxy as configured.
#[derive(Debug)]
pub struct TcpProxyConfig {
    /// `stat_prefix`.
    pub(crate) stat_prefix: String,
    /// Where connections may go; never empty.
    pub(crate) clusters: Vec<Target>,
    /// `hash_policy`: what decides among the hosts of clusters that hash.
    pub(crate) hash: Option<HashSource>,
    /// `idle_timeout`; none is for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// `max_connect_attempts`.
    pub(crate) max_connect_attempts: u32,
    /// `max_downstream_connection_duration`.
    pub(crate) max_duration: Option<Duration>,
    /// `max_downstream_connection_duration_jitter_percentage`: by how much of itself the time may be longer, in percent.
    pub(crate) max_duration_jitter: f64,
    /// `access_log`.
    pub(crate) access_logs: Vec<AccessLog>,
    /// `access_log_options.flush_access_log_on_connected`.
    pub(crate) logs_connected: bool,
    /// `access_log_options.flush_access_log_on_start`.
    pub(crate) logs_start: bool,
    /// `access_log_options.access_log_flush_interval`.
    pub(crate) log_interval: Option<Duration>,
    /// `backoff_options`: the shortest and the longest wait before another attempt to connect.
    pub(crate) backoff: Option<(Duration, Duration)>,
    /// `tunneling_config`: connections go inside of requests.
    pub(crate) tunneling: Option<Tunneling>,
    /// `upstream_connect_mode`: when the host is connected to.
    pub(crate) connect_mode: UpstreamConnectMode,
    /// `check_drain_close`: connections end with the bytes that pass once the listener drains.
    pub(crate) ends_when_draining: bool,
    /// `proxy_protocol_tlvs`: for hosts that are sent a PROXY protocol header.
    pub(crate) extensions: Vec<Extension>,
    /// `proxy_protocol_tlv_merge_policy`: what becomes of those beside the ones of the client.
    pub(crate) extension_merge: ExtensionMerge,
}

/// What a client is hashed by.
#[derive(Debug)]
pub(crate) enum HashSource {
    /// `source_ip`.
    Address,
    /// `filter_state`: an object of the connection's filter state.
    Object(Box<str>),
}

/// How configured extensions of a PROXY protocol header go with those of the client's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExtensionMerge {
    /// Only where the client had no PROXY protocol header.
    IfAbsent,
    /// They replace those of the same type.
    Overwrite,
    /// They come behind.
    Append,
}

/// An extension of a PROXY protocol header as configured.
#[derive(Debug)]
pub(crate) struct Extension {
    /// `type`.
    kind: u8,
    value: ExtensionValue,
}

/// Where the value of an extension comes from.
#[derive(Debug)]
enum ExtensionValue {
    /// `value`.
    Bytes(Vec<u8>),
    /// `format_string`: formatted for each connection.
    Format(LogFormat),
}

impl Extension {
    fn tlv(&self, context: &dyn FormatContext) -> Tlv {
        let value = match &self.value {
            ExtensionValue::Bytes(value) => value.clone(),
            ExtensionValue::Format(format) => {
                let mut value = Vec::new();
                format.append(context, &mut Vec::new(), &mut value);
                value
            }
        };
        Tlv { kind: self.kind, value }
    }
}

impl TcpProxyConfig {
    /// The extensions of a connection whose client had a PROXY protocol header with `own`, or none.
    pub(crate) fn extensions(&self, own: Option<Vec<Tlv>>, context: &dyn FormatContext) -> Vec<Tlv> {
        let had_header = own.is_some();
        let mut own = own.unwrap_or_default();
        match self.extension_merge {
            _ if self.extensions.is_empty() => return own,
            ExtensionMerge::IfAbsent if had_header => return own,
            ExtensionMerge::Overwrite => {
                own.retain(|own| !self.extensions.iter().any(|configured| configured.kind == own.kind));
            }
            ExtensionMerge::IfAbsent | ExtensionMerge::Append => {}
        }
        own.extend(self.extensions.iter().map(|extension| extension.tlv(context)));
        own
    }
}

/// A cluster that connections may go to.
#[derive(Debug)]
pub(crate) struct Target {
    /// The cluster's name.
    pub(crate) cluster: Arc<str>,
    /// Its share of connections; a single cluster has weight 1.
    weight: u32,
    /// `metadata_match`: the subset of hosts to choose from.
    pub(crate) criteria: Option<MetadataCriteria>,
}

impl TcpProxyConfig {
    /// The target of a connection, by a random number.
    pub(crate) fn target(&self, random: u64) -> &Target {
        let total: u64 = self.clusters.iter().map(|target| u64::from(target.weight)).sum();
        let mut left = random % total.max(1);
        for target in &self.clusters {
            match left.checked_sub(target.weight.into()) {
                None => return target,
                Some(rest) => left = rest,
            }
        }
        &self.clusters[self.clusters.len() - 1]
    }

    /// How long a connection may last, by a random number.
    pub(crate) fn max_duration(&self, random: u64) -> Option<Duration> {
        let share = self.max_duration_jitter / 100.0 * (random as f64 / u64::MAX as f64);
        Some(self.max_duration?.mul_f64(1.0 + share))
    }
}

/// Lowers the message.
///
/// # Errors
/// The first field that is not acceptable.
pub fn lower(
    message: pb::TcpProxy,
    log_writer: &Arc<LogWriter>,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<TcpProxyConfig, ConfigError> {
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let pb::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = message;
    let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
    refuse(on_demand.is_some(), "on_demand")?;
    for (field, is_set) in [
        ("downstream_idle_timeout", downstream_idle_timeout.is_some()),
        ("upstream_idle_timeout", upstream_idle_timeout.is_some()),
    ] {
        if is_set {
            warnings.push(ConfigWarning::new(path.field(field), "without effect, as in Envoy 1.40"));
        }
    }
    let mode = UpstreamConnectMode::try_from(upstream_connect_mode).unwrap_or_default();
    if mode != UpstreamConnectMode::Immediate && max_early_data_bytes.is_none() {
        let reason = "max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE";
        return Err(ConfigError::new(path.field("max_early_data_bytes"), reason));
    }
    if mode == UpstreamConnectMode::Immediate && max_early_data_bytes.is_some() {
        let why = "without effect: what a client sends early waits in the socket until the host is connected";
        warnings.push(ConfigWarning::new(path.field("max_early_data_bytes"), why));
    }
    let options = access_log_options.unwrap_or(TcpAccessLogOptions {
        access_log_flush_interval,
        flush_access_log_on_connected,
        flush_access_log_on_start: false,
    });
    let TcpAccessLogOptions {
        access_log_flush_interval: log_interval,
        flush_access_log_on_connected: logs_connected,
        flush_access_log_on_start: logs_start,
    } = options;
    Ok(TcpProxyConfig {
        stat_prefix,
        clusters: lower_clusters(cluster_specifier, metadata_match.as_ref(), path)?,
        hash: lower_hash_policy(hash_policy, &path.field("hash_policy"))?,
        logs_connected,
        logs_start,
        log_interval: log_interval.map(|interval| whole_millis(&interval)),
        backoff: backoff_options
            .map(|options| lower_backoff(options, &path.field("backoff_options")))
            .transpose()?,
        tunneling: tunneling_config
            .map(|message| Tunneling::from_message(message, &path.field("tunneling_config")))
            .transpose()?,
        connect_mode: mode,
        ends_when_draining: check_drain_close.is_some_and(|wanted| wanted.value),
        extensions: lower_extensions(proxy_protocol_tlvs, &path.field("proxy_protocol_tlvs"))?,
        extension_merge: match ProxyProtocolTlvMergePolicy::try_from(proxy_protocol_tlv_merge_policy) {
            Ok(ProxyProtocolTlvMergePolicy::OverwriteByTypeIfExistsOrAdd) => ExtensionMerge::Overwrite,
            Ok(ProxyProtocolTlvMergePolicy::AppendIfExistsOrAdd) => ExtensionMerge::Append,
            Ok(ProxyProtocolTlvMergePolicy::AddIfAbsent) | Err(_) => ExtensionMerge::IfAbsent,
        },
        idle_timeout: match idle_timeout {
            None => Some(IDLE_TIMEOUT),
            Some(timeout) => Some(whole_millis(&timeout)).filter(|t| !t.is_zero()),
        },
        max_connect_attempts: max_connect_attempts.map_or(1, |max| max.value),
        max_duration: max_downstream_connection_duration.map(|d| whole_millis(&d)),
        max_duration_jitter: max_downstream_connection_duration_jitter_percentage
            .map_or(0.0, |percent| percent.value),
        access_logs: dhow_proxy_access_log::lower(access_log, log_writer, &path.field("access_log"))?,
    })
}

fn lower_clusters(
    specifier: Option<ClusterSpecifier>,
    metadata_match: Option<&Metadata>,
    path: &FieldPath,
) -> Result<Vec<Target>, ConfigError> {
    let of_all = metadata_match.and_then(|metadata| metadata.filter_metadata.get(LB_FILTER));
    match specifier {
        None => Err(ConfigError::new(path.clone(), "ClusterSpecifier: value is required")),
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![Target {
            cluster: name.into(),
            weight: 1,
            criteria: of_all.map(MetadataCriteria::of_struct),
        }]),
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters })) => {
            let target = |cluster| {
                let ClusterWeight { name, weight, metadata_match } = cluster;
                let own = metadata_match.as_ref().and_then(|own| own.filter_metadata.get(LB_FILTER));
                let criteria = match (of_all.map(MetadataCriteria::of_struct), own) {
                    (Some(of_all), Some(own)) => Some(of_all.merged(own)),
                    (of_all, None) => of_all,
                    (None, Some(own)) => Some(MetadataCriteria::of_struct(own)),
                };
                Target { cluster: name.into(), weight, criteria }
            };
            Ok(clusters.into_iter().map(target).collect())
        }
    }
}

/// What the client is hashed by; there can be one policy at most.
fn lower_hash_policy(policies: Vec<HashPolicy>, path: &FieldPath) -> Result<Option<HashSource>, ConfigError> {
    let mut policies = policies.into_iter();
    let (policy, None) = (policies.next(), policies.next()) else {
        return Err(ConfigError::new(path.clone(), "value must contain no more than 1 item(s)"));
    };
    let Some(HashPolicy { policy_specifier }) = policy else { return Ok(None) };
    Ok(match policy_specifier {
        Some(PolicySpecifier::SourceIp(SourceIp {})) => Some(HashSource::Address),
        Some(PolicySpecifier::FilterState(FilterState { key })) => Some(HashSource::Object(key.into())),
        None => return Err(ConfigError::new(path.index(0).field("policy_specifier"), "is required")),
    })
}

fn lower_backoff(message: BackoffStrategy, path: &FieldPath) -> Result<(Duration, Duration), ConfigError> {
    let BackoffStrategy { base_interval, max_interval } = message;
    let base = base_interval.as_ref().map_or(Duration::ZERO, whole_millis);
    let max = max_interval.as_ref().map_or(base * 10, whole_millis);
    if max < base {
        let reason = "max_backoff_interval must be greater or equal to base_backoff_interval";
        return Err(ConfigError::new(path.clone(), reason));
    }
    Ok((base, max))
}

fn lower_extensions(messages: Vec<TlvEntry>, path: &FieldPath) -> Result<Vec<Extension>, ConfigError> {
    let unread = |_: &DataSource, path: &FieldPath| {
        Err(ConfigError::new(path.clone(), "only inline_string is supported here"))
    };
    let mut extensions = Vec::with_capacity(messages.len());
    for (at, TlvEntry { r#type: kind, value, format_string }) in messages.into_iter().enumerate() {
        let path = path.index(at);
        let wrong = |what: &str| ConfigError::new(path.clone(), format!("Invalid TLV configuration: {what}"));
        let value = match (value.is_empty(), format_string) {
            (true, None) => return Err(wrong("one of 'value' or 'format_string' must be set.")),
            (false, Some(_)) => return Err(wrong("only one of 'value' or 'format_string' may be set.")),
            (true, Some(format)) => {
                ExtensionValue::Format(LogFormat::compile(&format, &path.field("format_string"), &unread)?.0)
            }
            (false, None) => ExtensionValue::Bytes(value.to_vec()),
        };
        // Larger numbers do not pass the rules of the message.
        extensions.extend(u8::try_from(kind).map(|kind| Extension { kind, value }));
    }
    Ok(extensions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(weights: &[(&str, u32)]) -> TcpProxyConfig {
        let target = |&(name, weight): &(&str, u32)| Target { cluster: name.into(), weight, criteria: None };
        TcpProxyConfig {
            stat_prefix: String::new(),
            clusters: weights.iter().map(target).collect(),
            hash: None,
            logs_connected: false,
            logs_start: false,
            log_interval: None,
            backoff: None,
            tunneling: None,
            connect_mode: UpstreamConnectMode::Immediate,
            ends_when_draining: false,
            extensions: Vec::new(),
            extension_merge: ExtensionMerge::IfAbsent,
            idle_timeout: None,
            max_connect_attempts: 1,
            max_duration: Some(Duration::from_secs(10)),
            max_duration_jitter: 50.0,
            access_logs: Vec::new(),
        }
    }

    #[test]
    fn weights_share_random_numbers_out() {
        let config = config(&[("a", 1), ("none", 0), ("b", 3)]);
        let chosen: Vec<&str> = (0..5).map(|random| &*config.target(random).cluster).collect();
        assert_eq!(chosen, ["a", "b", "b", "b", "a"]);
    }

    #[test]
    fn jitter_makes_the_longest_time_longer_and_never_shorter() {
        let config = config(&[("a", 1)]);
        assert_eq!(config.max_duration(0), Some(Duration::from_secs(10)));
        assert_eq!(config.max_duration(u64::MAX), Some(Duration::from_secs(15)));
    }

    #[test]
    fn extensions_go_with_those_of_the_client_as_the_policy_says() {
        struct Nothing;
        impl FormatContext for Nothing {}
        let tlv = |kind, value: &[u8]| Tlv { kind, value: value.to_vec() };
        let own = || Some(vec![tlv(1, b"own"), tlv(2, b"own")]);
        let new = Extension { kind: 2, value: ExtensionValue::Bytes(b"new".to_vec()) };
        let mut config = TcpProxyConfig { extensions: vec![new], ..config(&[]) };
        assert_eq!(config.extensions(own(), &Nothing), own().unwrap());
        assert!(config.extensions(Some(Vec::new()), &Nothing).is_empty());
        assert_eq!(config.extensions(None, &Nothing), [tlv(2, b"new")]);
        config.extension_merge = ExtensionMerge::Overwrite;
        assert_eq!(config.extensions(own(), &Nothing), [tlv(1, b"own"), tlv(2, b"new")]);
        config.extension_merge = ExtensionMerge::Append;
        assert_eq!(config.extensions(own(), &Nothing), [tlv(1, b"own"), tlv(2, b"own"), tlv(2, b"new")]);
    }

    #[test]
    fn the_longest_wait_is_not_shorter_than_the_shortest() {
        let seconds = |seconds| Some(dhow_proto::google::protobuf::Duration { seconds, nanos: 0 });
        let path = FieldPath::root();
        let backoff =
            |base, max| lower_backoff(BackoffStrategy { base_interval: base, max_interval: max }, &path);
        let expected = (Duration::from_secs(1), Duration::from_secs(10));
        assert_eq!(backoff(seconds(1), None), Ok(expected));
        assert!(backoff(seconds(2), seconds(1)).unwrap_err().to_string().contains("max_backoff_interval"));
    }

    #[test]
    fn an_extension_has_a_value() {
        let entry = |value: &[u8]| TlvEntry { r#type: 5, value: value.to_vec(), format_string: None };
        let path = FieldPath::root();
        let lowered = lower_extensions(vec![entry(b"x")], &path).unwrap();
        assert!(
            matches!(&lowered[..], [Extension { kind: 5, value: ExtensionValue::Bytes(value) }] if value == b"x")
        );
        assert!(lower_extensions(vec![entry(b"")], &path).unwrap_err().to_string().contains("must be set"));
        let both = TlvEntry { format_string: Some(Default::default()), ..entry(b"x") };
        let error = lower_extensions(vec![both], &path).unwrap_err().to_string();
        assert!(error.contains("only one of"), "{error}");
    }
}
