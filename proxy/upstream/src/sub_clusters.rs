//! The clusters of a dynamic forward proxy that makes one for each host that requests name (`sub_clusters_config`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CustomClusterType, DiscoveryType, LbPolicy,
};
use dhow_proto::envoy::config::core::v3::{
    Address, SocketAddress, UpstreamHttpProtocolOptions, address::Address as AddressKind,
    socket_address::PortSpecifier,
};
use dhow_proto::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use dhow_proto::envoy::extensions::clusters::dns::v3::DnsCluster;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::dns_cache::split_port;
use crate::host::uptime_millis;

/// `SubClustersConfig`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SubClusterSettings {
    /// The number of an [`LbPolicy`].
    pub(crate) lb_policy: i32,
    /// `max_sub_clusters`.
    pub(crate) max: usize,
    /// `sub_cluster_ttl`: how long a cluster stays that no request is for.
    pub(crate) ttl: Duration,
    /// `dns_cluster_config`: how names are resolved, if not as the cluster itself says.
    pub(crate) dns: Option<DnsCluster>,
}

impl SubClusterSettings {
    /// Whether these clusters choose hosts by the hash of a request.
    pub(crate) fn reads_hash(&self) -> bool {
        [LbPolicy::RingHash as i32, LbPolicy::Maglev as i32].contains(&self.lb_policy)
    }

    /// The cluster for one host: what `parent` says, with this host alone.
    pub(crate) fn message(&self, parent: &Cluster, host: &RequestedHost) -> Cluster {
        let name = host.cluster_name();
        let address = SocketAddress {
            address: host.host.to_string(),
            port_specifier: Some(PortSpecifier::PortValue(host.port.into())),
            ..Default::default()
        };
        let endpoint = Endpoint {
            address: Some(Address { address: Some(AddressKind::SocketAddress(address)) }),
            ..Default::default()
        };
        let endpoint =
            LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..Default::default() };
        let group = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() };
        let discovery = match &self.dns {
            None => ClusterDiscoveryType::Type(DiscoveryType::StrictDns as i32),
            Some(dns) => ClusterDiscoveryType::ClusterType(CustomClusterType {
                name: "envoy.cluster.dns".to_owned(),
                typed_config: Some(dhow_proto::any::pack(dns)),
            }),
        };
        let mut cluster = parent.clone();
        #[allow(deprecated, reason = "Envoy puts the default of these clusters there")]
        cluster.upstream_http_protocol_options.get_or_insert_with(|| UpstreamHttpProtocolOptions {
            auto_sni: true,
            auto_san_validation: true,
            ..Default::default()
        });
        let assignment = cluster.load_assignment.get_or_insert_default();
        *assignment = ClusterLoadAssignment {
            cluster_name: name.clone(),
            endpoints: vec![group],
            ..std::mem::take(assignment)
        };
        Cluster { name, lb_policy: self.lb_policy, cluster_discovery_type: Some(discovery), ..cluster }
    }
}

/// A host that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestedHost {
    host: Box<str>,
    port: u16,
}

impl RequestedHost {
    /// The host of an authority, at this port unless it says otherwise.
    pub(crate) fn new(authority: &str, usual_port: u16) -> Self {
        let (host, port) = split_port(authority);
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        Self { host: bare.into(), port: port.unwrap_or(usual_port) }
    }

    /// The name that Envoy gives the cluster of this host.
    pub(crate) fn cluster_name(&self) -> String {
        format!("DFPCluster:{}:{}", self.host, self.port)
    }
}

/// The clusters that one dynamic forward proxy made, shared by all workers.
#[derive(Debug)]
pub(crate) struct SubClusters {
    pub(crate) settings: SubClusterSettings,
    state: Mutex<State>,
    requests: Mutex<Option<mpsc::UnboundedReceiver<RequestedHost>>>,
}

#[derive(Debug)]
struct State {
    /// When somebody last waited for a cluster, on the clock of [`uptime_millis`], by its name.
    known: HashMap<String, u64>,
    /// Hosts that need a cluster, to the main thread; nothing once the cluster itself is gone.
    wanted: Option<mpsc::UnboundedSender<RequestedHost>>,
}

impl SubClusters {
    pub(crate) fn new(settings: SubClusterSettings) -> Arc<Self> {
        let (wanted, requests) = mpsc::unbounded_channel();
        Arc::new(Self {
            settings,
            state: Mutex::new(State { known: HashMap::new(), wanted: Some(wanted) }),
            requests: Mutex::new(Some(requests)),
        })
    }

    /// Where hosts arrive that need a cluster; can be taken once. It ends with [`SubClusters::close`].
    pub(crate) fn take_requests(&self) -> Option<mpsc::UnboundedReceiver<RequestedHost>> {
        self.requests.lock().take()
    }

    /// Asks for the cluster of a host that has none yet. False when there are as many as there may be.
    pub(crate) fn want(&self, host: RequestedHost) -> bool {
        let mut state = self.state.lock();
        let State { known, wanted } = &mut *state;
        let name = host.cluster_name();
        if let Some(last) = known.get_mut(&name) {
            *last = uptime_millis();
            return true;
        }
        if known.len() >= self.settings.max {
            return false;
        }
        known.insert(name, uptime_millis());
        if let Some(wanted) = wanted {
            // The receiver goes when the main thread does; nobody waits for clusters then.
            let _ = wanted.send(host);
        }
        true
    }

    /// Forgets the clusters that nobody asked for in time and gives their names; `last_used` knows more about some of them.
    pub(crate) fn forget_unused(&self, last_used: impl Fn(&str) -> Option<u64>) -> Vec<String> {
        let now = uptime_millis();
        let is_unused = |name: &str, waited: u64| {
            let last = last_used(name).unwrap_or(0).max(waited);
            u128::from(now.saturating_sub(last)) > self.settings.ttl.as_millis()
        };
        let mut state = self.state.lock();
        state.known.extract_if(|name, last| is_unused(name, *last)).map(|(name, _)| name).collect()
    }

    /// The cluster itself goes: no more are made.
    pub(crate) fn close(&self) {
        self.state.lock().wanted = None;
    }

    /// Forgets all clusters and gives their names.
    pub(crate) fn forget_all(&self) -> Vec<String> {
        self.state.lock().known.drain().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dhow_proto::envoy::config::cluster::v3::{Cluster, cluster::ClusterDiscoveryType};

    use super::{RequestedHost, SubClusterSettings, SubClusters};

    fn settings() -> SubClusterSettings {
        SubClusterSettings { lb_policy: 1, max: 2, ttl: Duration::from_secs(3600), dns: None }
    }

    #[test]
    fn clusters_are_named_by_host_and_port() {
        let name = |authority| RequestedHost::new(authority, 80).cluster_name();
        assert_eq!(name("a.test"), "DFPCluster:a.test:80");
        assert_eq!(name("a.test:81"), "DFPCluster:a.test:81");
        assert_eq!(name("[::1]:81"), "DFPCluster:::1:81");
        assert_eq!(name("[::1]"), "DFPCluster:::1:80");
    }

    #[test]
    fn a_cluster_is_its_parent_with_one_host() {
        let parent = Cluster { name: "dfp".into(), alt_stat_name: "alt".into(), ..Cluster::default() };
        let cluster = settings().message(&parent, &RequestedHost::new("a.test", 80));
        assert_eq!(
            (&*cluster.name, &*cluster.alt_stat_name, cluster.lb_policy),
            ("DFPCluster:a.test:80", "alt", 1)
        );
        assert_eq!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(1)));
        assert_eq!(cluster.load_assignment.map(|all| all.endpoints.len()), Some(1));
    }

    #[test]
    fn there_are_no_more_than_may_be_and_each_is_asked_for_once() {
        let clusters = SubClusters::new(settings());
        let mut requests = clusters.take_requests().expect("not taken yet");
        let host = |authority| RequestedHost::new(authority, 80);
        assert!(clusters.want(host("a")) && clusters.want(host("b")) && clusters.want(host("a")));
        assert!(!clusters.want(host("c")));
        assert_eq!(requests.try_recv(), Ok(host("a")));
        assert_eq!(requests.try_recv(), Ok(host("b")));
        assert!(requests.try_recv().is_err());
        assert!(clusters.forget_unused(|_| None).is_empty());
        clusters.close();
        assert!(requests.blocking_recv().is_none());
        assert_eq!(clusters.forget_all().len(), 2);
    }
}
