//! `TcpProxy` messages lowered: every field is honoured, refused or warned about.

use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_matching::MetadataCriteria;
use dhow_proto::envoy::config::core::v3::Metadata;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3 as pb;
use dhow_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use dhow_proto::envoy::r#type::v3::{HashPolicy, hash_policy::PolicySpecifier};
use dhow_proto::google::protobuf::Duration as ProtoDuration;
use dhow_proxy_access_log::{AccessLog, LogWriter};
use dhow_proxy_upstream::LB_FILTER;

/// Default of `idle_timeout`.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

/// A TCP proxy as configured.
#[derive(Debug)]
pub struct TcpProxyConfig {
    /// `stat_prefix`.
    pub(crate) stat_prefix: String,
    /// Where connections may go; never empty.
    pub(crate) clusters: Vec<Target>,
    /// `hash_policy.source_ip`: the client's address decides among the hosts of clusters that hash.
    pub(crate) hash_source: bool,
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
        proxy_protocol_tlv_merge_policy: _, // without meaning when there are no TLVs
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = message;
    let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, path, field);
    refuse(on_demand.is_some(), "on_demand")?;
    refuse(downstream_idle_timeout.is_some(), "downstream_idle_timeout")?;
    refuse(upstream_idle_timeout.is_some(), "upstream_idle_timeout")?;
    refuse(backoff_options.is_some(), "backoff_options")?;
    refuse(tunneling_config.is_some(), "tunneling_config")?;
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
        clusters: lower_clusters(cluster_specifier, metadata_match.as_ref(), path)?,
        hash_source: lower_hash_policy(&hash_policy, &path.field("hash_policy"))?,
        idle_timeout: match idle_timeout {
            None => Some(IDLE_TIMEOUT),
            Some(timeout) => Some(duration(&timeout)).filter(|t| !t.is_zero()),
        },
        max_connect_attempts: max_connect_attempts.map_or(1, |max| max.value),
        max_duration: max_downstream_connection_duration.map(|d| duration(&d)),
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

/// Whether the client's address is hashed; there can be one policy at most.
fn lower_hash_policy(policies: &[HashPolicy], path: &FieldPath) -> Result<bool, ConfigError> {
    match policies {
        [] => Ok(false),
        [HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(_)) }] => Ok(true),
        [HashPolicy { policy_specifier: Some(PolicySpecifier::FilterState(_)) }] => {
            Err(ConfigError::unsupported(path.index(0).field("filter_state")))
        }
        _ => Err(ConfigError::new(path.clone(), "value must contain no more than 1 item(s)")),
    }
}

fn duration(message: &ProtoDuration) -> Duration {
    Duration::new(message.seconds.max(0) as u64, message.nanos.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(weights: &[(&str, u32)]) -> TcpProxyConfig {
        let target = |&(name, weight): &(&str, u32)| Target { cluster: name.into(), weight, criteria: None };
        TcpProxyConfig {
            stat_prefix: String::new(),
            clusters: weights.iter().map(target).collect(),
            hash_source: false,
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
}
