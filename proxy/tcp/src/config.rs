//! `TcpProxy` messages lowered: every field is honoured, refused or warned about.

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster,
};
use dhow_proto::google::protobuf::Duration as ProtoDuration;
use dhow_proxy_access_log::{AccessLog, LogWriter};

/// Default of `idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A TCP proxy as configured.
#[derive(Debug)]
pub struct TcpProxyConfig {
    /// `stat_prefix`.
    pub(crate) stat_prefix: String,
    /// Clusters with their weights; a single cluster has weight 1.
    pub(crate) clusters: Vec<(Arc<str>, u32)>,
    /// `idle_timeout`; none is for ever.
    pub(crate) idle_timeout: Option<Duration>,
    /// `max_connect_attempts`.
    pub(crate) max_connect_attempts: u32,
    /// `max_downstream_connection_duration`.
    pub(crate) max_duration: Option<Duration>,
    /// `access_log`.
    pub(crate) access_logs: Vec<AccessLog>,
}

impl TcpProxyConfig {
    /// The cluster for a connection, by a random number.
    pub(crate) fn cluster(&self, random: u64) -> &Arc<str> {
        let total: u64 = self.clusters.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut left = random % total.max(1);
        for (name, weight) in &self.clusters {
            match left.checked_sub((*weight).into()) {
                None => return name,
                Some(rest) => left = rest,
            }
        }
        &self.clusters[self.clusters.len() - 1].0
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
        proxy_protocol_tlv_merge_policy: _, // without meaning when there are no TLVs
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = message;
    let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
    refuse(on_demand.is_some(), "on_demand")?;
    refuse(metadata_match.is_some(), "metadata_match")?;
    refuse(downstream_idle_timeout.is_some(), "downstream_idle_timeout")?;
    refuse(upstream_idle_timeout.is_some(), "upstream_idle_timeout")?;
    refuse(backoff_options.is_some(), "backoff_options")?;
    refuse(!hash_policy.is_empty(), "hash_policy")?;
    refuse(tunneling_config.is_some(), "tunneling_config")?;
    refuse(
        max_downstream_connection_duration_jitter_percentage.is_some(),
        "max_downstream_connection_duration_jitter_percentage",
    )?;
    refuse(access_log_flush_interval.is_some(), "access_log_flush_interval")?;
    refuse(flush_access_log_on_connected, "flush_access_log_on_connected")?;
    refuse(access_log_options.is_some(), "access_log_options")?;
    refuse(!proxy_protocol_tlvs.is_empty(), "proxy_protocol_tlvs")?;
    refuse(upstream_connect_mode != 0, "upstream_connect_mode")?;
    refuse(max_early_data_bytes.is_some(), "max_early_data_bytes")?;
    if check_drain_close.is_some() {
        let why = "connections are closed when the drain time is over, not before";
        warnings.push(ConfigWarning::new(path.field("check_drain_close"), why));
    }
    Ok(TcpProxyConfig {
        stat_prefix,
        clusters: lower_clusters(cluster_specifier, path)?,
        idle_timeout: match idle_timeout {
            None => Some(IDLE_TIMEOUT),
            Some(timeout) => Some(duration(&timeout)).filter(|t| !t.is_zero()),
        },
        max_connect_attempts: max_connect_attempts.map_or(1, |max| max.value),
        max_duration: max_downstream_connection_duration.map(|d| duration(&d)),
        access_logs: dhow_proxy_access_log::lower(access_log, log_writer, &path.field("access_log"))?,
    })
}

fn lower_clusters(
    specifier: Option<ClusterSpecifier>,
    path: &FieldPath,
) -> Result<Vec<(Arc<str>, u32)>, ConfigError> {
    match specifier {
        None => Err(ConfigError::new(path.clone(), "ClusterSpecifier: value is required")),
        Some(ClusterSpecifier::Cluster(name)) => Ok(vec![(name.into(), 1)]),
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters })) => {
            let path = path.field("weighted_clusters").field("clusters");
            clusters
                .into_iter()
                .enumerate()
                .map(|(i, cluster)| {
                    let pb::tcp_proxy::weighted_cluster::ClusterWeight { name, weight, metadata_match } =
                        cluster;
                    ConfigError::refuse_if(metadata_match.is_some(), &path.index(i), "metadata_match")?;
                    Ok((name.into(), weight))
                })
                .collect()
        }
    }
}

fn duration(message: &ProtoDuration) -> Duration {
    Duration::new(message.seconds.max(0) as u64, message.nanos.max(0) as u32)
}
