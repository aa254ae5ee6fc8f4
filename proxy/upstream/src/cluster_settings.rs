//! The settings of a cluster that do not name it. A mesh has thousands of clusters and few ways of setting them up, so those
//! that are equal are held once.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::circuit_breakers::Thresholds;
use crate::cluster_info::{HttpOptions, TcpKeepalive, UpstreamBind};
use crate::config::{LoadBalancing, TransportSockets};
use crate::connection_options::ConnectionOptions;
use crate::host::Host;
use crate::outlier::OutlierConfig;
use crate::tracked_stats::Tracking;
use crate::transport_socket::{ChosenSocket, TransportSocket};

/// What a cluster message says beside its names, its hosts and how they are found and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSettings {
    /// `connect_timeout`, TLS included; 5 s by default.
    pub connect_timeout: Duration,
    /// `per_connection_buffer_limit_bytes`; 1 MiB by default.
    pub per_connection_buffer_limit: u32,
    /// How hosts are chosen.
    pub(crate) balancing: LoadBalancing,
    /// HTTP options.
    pub http: HttpOptions,
    /// `upstream_bind_config`.
    pub bind: Option<UpstreamBind>,
    /// `upstream_connection_options.tcp_keepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// How connections are made and shared.
    pub connections: ConnectionOptions,
    /// `transport_socket` and `transport_socket_matches`.
    pub(crate) sockets: TransportSockets,
    /// `circuit_breakers`.
    pub(crate) thresholds: Arc<[Thresholds; 2]>,
    /// `track_cluster_stats` and `track_timeout_budgets`.
    pub(crate) tracking: Tracking,
    /// `outlier_detection`.
    pub(crate) outlier_detection: Option<OutlierConfig>,
    /// Hosts that discovery no longer lists go at once, even when checks find them healthy.
    pub(crate) ignore_health_on_host_removal: bool,
    pub(crate) wait_for_warm_on_init: bool,
}

impl ClusterSettings {
    /// `transport_socket`, for hosts that no entry of `transport_socket_matches` claims.
    pub fn transport_socket(&self) -> &TransportSocket {
        &self.sockets.default
    }

    /// Whether [`ClusterSettings::socket_by_state`] ever has an answer.
    pub fn sockets_by_state(&self) -> bool {
        self.sockets.matcher.as_ref().is_some_and(|matcher| matcher.reads_filter_state())
    }

    /// The transport socket of a connection to `host`, where `transport_socket_matcher` reads filter state: `state` gives, as
    /// text, the objects that are shared with the connection.
    pub fn socket_by_state(
        &self,
        host: &Host,
        state: &dyn Fn(&str) -> Option<Vec<u8>>,
    ) -> Option<ChosenSocket> {
        self.sockets.select_for_connection(host.metadata(), state)
    }

    /// `track_cluster_stats.per_endpoint_stats`: whether the counters of hosts are among the stats.
    pub fn per_endpoint_stats(&self) -> bool {
        self.tracking.per_endpoint
    }

    /// `common_lb_config.close_connections_on_host_set_change`.
    pub fn close_connections_on_host_set_change(&self) -> bool {
        self.balancing.close_connections_on_host_set_change
    }
}

/// As many as are remembered: one for each way in which a control plane sets up clusters, and some to spare.
const KNOWN: usize = 32;

/// The settings that clusters added lately have.
#[derive(Debug, Default)]
pub(crate) struct KnownSettings {
    latest_last: VecDeque<Weak<ClusterSettings>>,
}

impl KnownSettings {
    /// Replaces settings by equal ones that some cluster has already.
    pub(crate) fn share(&mut self, settings: &mut Arc<ClusterSettings>) {
        let mut known = self.latest_last.iter().rev().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|known| known == settings) {
            *settings = known;
            return;
        }
        if self.latest_last.len() == KNOWN {
            self.latest_last.pop_front();
        }
        self.latest_last.push_back(Arc::downgrade(settings));
    }
}
