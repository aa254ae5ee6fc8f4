//! One cluster on the main thread: its configuration, its hosts and what has to happen before routes may use it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use dhow_proto::google::protobuf::Any;
use dhow_stats::Store;
use tokio::task::AbortHandle;

use crate::circuit_breakers::CircuitBreakers;
use crate::cluster_info::{ClusterInfo, DiscoveryType};
use crate::config::{AssignedEndpoint, Assignment, ClusterConfig, Discovery, EndpointTarget};
use crate::ejection::Ejections;
use crate::host::{HealthFlag, Host, HostAddress, HostSpec, Locality};
use crate::lb::{HostSetOptions, LbPolicy, LocalityGroup, PrioritySet};
use crate::outlier::OutlierReports;
use crate::snapshot::ActiveCluster;
use crate::stats::ClusterStats;

/// Where a cluster's configuration came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The bootstrap.
    Static,
    /// CDS.
    Dynamic,
}

/// What warming still waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Warming {
    /// Nothing.
    Done,
    /// The first assignment.
    Assignment,
    /// The first answer for each of these endpoints, by position.
    Names(HashSet<usize>),
}

#[derive(Debug)]
pub(crate) struct ManagedCluster {
    /// Tells one cluster from the next of the same name.
    pub(crate) id: u64,
    pub(crate) config: ClusterConfig,
    pub(crate) message: Any,
    pub(crate) version: String,
    pub(crate) last_updated: SystemTime,
    pub(crate) origin: Origin,
    pub(crate) active: Arc<ActiveCluster>,
    pub(crate) warming: Warming,
    pub(crate) tasks: Vec<AbortHandle>,
    pub(crate) ejections: Ejections,
    groups: Vec<LocalityGroup>,
    options: HostSetOptions,
    /// Addresses of the names of a DNS cluster, by the position of the endpoint.
    pub(crate) answers: HashMap<usize, Vec<IpAddr>>,
}

impl Drop for ManagedCluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// What identifies a version of a cluster.
pub(crate) struct Provenance {
    pub(crate) id: u64,
    pub(crate) message: Any,
    pub(crate) version: String,
    pub(crate) origin: Origin,
}

impl ManagedCluster {
    pub(crate) fn new(
        config: ClusterConfig,
        from: Provenance,
        store: &Store,
        reports: &OutlierReports,
    ) -> Self {
        let info = Arc::new(cluster_info(&config, from.origin, from.id, store, reports));
        let options = HostSetOptions {
            panic_threshold: config.balancing.panic_threshold,
            ignore_new_hosts: config.balancing.ignore_new_hosts,
            locality_weighted: config.balancing.lb.locality_weighted,
            ..HostSetOptions::default()
        };
        let warming = match &config.discovery {
            Discovery::Static(_) | Discovery::OriginalDst => Warming::Done,
            Discovery::Eds(_) => Warming::Assignment,
            Discovery::Dns(dns) => {
                let names: HashSet<usize> = names(&dns.assignment).map(|(at, ..)| at).collect();
                if names.is_empty() { Warming::Done } else { Warming::Names(names) }
            }
        };
        let mut cluster = Self {
            id: from.id,
            active: ActiveCluster::new(info, PrioritySet::new(&[], options, None)),
            ejections: Ejections::new(&config, store),
            config,
            message: from.message,
            version: from.version,
            last_updated: SystemTime::now(),
            origin: from.origin,
            warming,
            tasks: Vec::new(),
            groups: Vec::new(),
            options,
            answers: HashMap::new(),
        };
        if let Discovery::Static(assignment) = &cluster.config.discovery {
            let assignment = assignment.clone();
            cluster.assign(&assignment);
        } else {
            cluster.resolve_assignment();
        }
        cluster
    }

    pub(crate) fn info(&self) -> &Arc<ClusterInfo> {
        self.active.info()
    }

    /// The names that have to be resolved: position of the endpoint and name.
    pub(crate) fn names(&self) -> Vec<(usize, String)> {
        match &self.config.discovery {
            Discovery::Dns(dns) => {
                names(&dns.assignment).map(|(at, name, _)| (at, name.to_owned())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Takes an answer for the name at `at`; `None` is a failure, which keeps the hosts. True when the hosts changed.
    pub(crate) fn answer(&mut self, at: usize, addresses: Option<Vec<IpAddr>>) -> bool {
        if let Warming::Names(missing) = &mut self.warming {
            missing.remove(&at);
            if missing.is_empty() {
                self.warming = Warming::Done;
            }
        }
        let Some(addresses) = addresses else {
            return false;
        };
        self.answers.insert(at, addresses);
        self.resolve_assignment()
    }

    /// Hosts of a DNS cluster from the answers so far.
    fn resolve_assignment(&mut self) -> bool {
        let Discovery::Dns(dns) = &self.config.discovery else {
            return false;
        };
        let logical = dns.logical;
        let mut assignment = dns.assignment.clone();
        let mut at = 0;
        for group in &mut assignment.groups {
            let endpoints = std::mem::take(&mut group.endpoints);
            for endpoint in endpoints {
                let position = at;
                at += 1;
                let EndpointTarget::Name(name, port) = &endpoint.target else {
                    group.endpoints.push(endpoint);
                    continue;
                };
                let addresses = self.answers.get(&position).map_or(&[][..], Vec::as_slice);
                let used = if logical { addresses.len().min(1) } else { addresses.len() };
                group.endpoints.extend(addresses[..used].iter().map(|ip| AssignedEndpoint {
                    target: EndpointTarget::Address(HostAddress::Ip((*ip, *port).into())),
                    hostname: if endpoint.hostname.is_empty() {
                        name.clone()
                    } else {
                        endpoint.hostname.clone()
                    },
                    ..endpoint.clone()
                }));
            }
        }
        self.assign(&assignment)
    }

    /// Makes the hosts those of `assignment`, keeping the ones that stay. False when nothing changed.
    pub(crate) fn assign(&mut self, assignment: &Assignment) -> bool {
        let mut before: HashMap<HostAddress, Arc<Host>> = self
            .groups
            .iter()
            .flat_map(|group| &group.hosts)
            .map(|host| (host.address().clone(), host.clone()))
            .collect();
        let mut seen = HashSet::new();
        let (mut added, mut changed) = (0, false);
        let mut groups = Vec::with_capacity(assignment.groups.len());
        for group in &assignment.groups {
            let mut hosts = Vec::with_capacity(group.endpoints.len());
            for endpoint in &group.endpoints {
                let EndpointTarget::Address(address) = &endpoint.target else {
                    continue;
                };
                // Discovery may list an address twice; the first entry counts. A static list is taken as it is written.
                if !seen.insert(address.clone()) && !matches!(self.config.discovery, Discovery::Static(_)) {
                    continue;
                }
                let spec = self.host_spec(endpoint, address, &group.locality, group.priority);
                match before.remove(address) {
                    Some(host) if is_same_host(&host, &spec) => {
                        changed |= refresh(&host, &spec);
                        hosts.push(host);
                    }
                    Some(host) => {
                        changed = true;
                        hosts.push(Arc::new(host.succeeded_by(spec)));
                    }
                    None => {
                        added += 1;
                        hosts.push(Arc::new(Host::new(spec)));
                    }
                }
            }
            groups.push(LocalityGroup { priority: group.priority, weight: group.weight, hosts });
        }
        let options = HostSetOptions {
            overprovisioning: assignment.overprovisioning,
            weighted_priority_health: assignment.weighted_priority_health,
            ..self.options
        };
        let membership_changed = added > 0 || !before.is_empty();
        if !membership_changed && !changed && options == self.options && same_shape(&groups, &self.groups) {
            return false;
        }
        self.groups = groups;
        self.options = options;
        if membership_changed {
            self.info().stats.membership_change().inc();
        }
        self.ejections.retain(&self.groups);
        self.rebuild();
        true
    }

    fn host_spec(
        &self,
        endpoint: &AssignedEndpoint,
        address: &HostAddress,
        locality: &Arc<Locality>,
        priority: u32,
    ) -> HostSpec {
        let (entry, socket) = self.config.sockets.select(&endpoint.metadata);
        self.info().stats.count_socket_match(entry);
        HostSpec {
            address: address.clone(),
            hostname: endpoint.hostname.as_str().into(),
            locality: locality.clone(),
            weight: endpoint.weight,
            priority,
            metadata: endpoint.metadata.clone(),
            health: endpoint.health,
            transport_socket: socket.clone(),
            health_check_address: endpoint.health_check_address.clone(),
            health_check_hostname: endpoint.health_check_hostname.as_str().into(),
            health_check_disabled: endpoint.health_check_disabled,
        }
    }

    /// Sorts the hosts anew after health or membership changed, and publishes them.
    pub(crate) fn rebuild(&mut self) {
        let table = match &self.config.balancing.lb.policy {
            LbPolicy::Consistent(table) => Some(table),
            _ => None,
        };
        let hosts = PrioritySet::new(&self.groups, self.options, table);
        let sum = |of: fn(&crate::lb::HostSet) -> usize| hosts.levels().iter().map(of).sum::<usize>() as u64;
        let stats = &self.active.info().stats;
        stats.membership_total().set(sum(|set| set.all.len()));
        stats.membership_healthy().set(sum(|set| set.healthy.len()));
        stats.membership_degraded().set(sum(|set| set.degraded.len()));
        stats.membership_excluded().set(sum(|set| set.excluded));
        stats.max_host_weight().set(hosts.hosts().map(|host| u64::from(host.weight())).max().unwrap_or(1));
        if let Some(table) = hosts.levels().first().and_then(|level| level.table.as_ref()) {
            stats.describe_table(table);
        }
        self.active.replace_hosts(hosts);
    }

    /// Every host, in the order of configuration.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.groups.iter().flat_map(|group| &group.hosts)
    }
}

fn names(assignment: &Assignment) -> impl Iterator<Item = (usize, &str, u16)> {
    let endpoints = assignment.groups.iter().flat_map(|group| &group.endpoints);
    endpoints.enumerate().filter_map(|(at, endpoint)| match &endpoint.target {
        EndpointTarget::Name(name, port) => Some((at, name.as_str(), *port)),
        EndpointTarget::Address(_) => None,
    })
}

/// Whether an update leaves everything about the host that connections depend on.
fn is_same_host(host: &Host, spec: &HostSpec) -> bool {
    host.hostname() == &*spec.hostname
        && *host.locality() == *spec.locality
        && host.priority() == spec.priority
        && *host.metadata() == spec.metadata
        && host.health_check_hostname() == &*spec.health_check_hostname
        && host.health_check_disabled() == spec.health_check_disabled
        && host.health_check_address() == spec.health_check_address.as_ref().unwrap_or(&spec.address)
}

/// Takes over weight and the health that discovery reports; true when either changed.
fn refresh(host: &Host, spec: &HostSpec) -> bool {
    let mut changed = host.weight() != spec.weight;
    host.set_weight(spec.weight);
    for flag in [HealthFlag::FailedEdsHealth, HealthFlag::DegradedEdsHealth, HealthFlag::EdsStatusDraining] {
        let wanted = spec.health.contains(flag);
        if host.health_flags().contains(flag) != wanted {
            host.set_health_flag(flag, wanted);
            changed = true;
        }
    }
    changed
}

fn same_shape(a: &[LocalityGroup], b: &[LocalityGroup]) -> bool {
    let same_hosts = |a: &[Arc<Host>], b: &[Arc<Host>]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.priority == b.priority && a.weight == b.weight && same_hosts(&a.hosts, &b.hosts))
}

fn cluster_info(
    config: &ClusterConfig,
    origin: Origin,
    id: u64,
    store: &Store,
    reports: &OutlierReports,
) -> ClusterInfo {
    let scope = store.scope(&format!("cluster.{}", config.observability_name.replace(':', "_")));
    let stats =
        ClusterStats::new(&scope, matches!(config.discovery, Discovery::Eds(_)), config.sockets.any_secure());
    let name: Arc<str> = config.name.as_str().into();
    ClusterInfo {
        observability_name: config.observability_name.as_str().into(),
        added_via_api: origin == Origin::Dynamic,
        discovery: match &config.discovery {
            Discovery::Static(_) => DiscoveryType::Static,
            Discovery::Dns(dns) if dns.logical => DiscoveryType::LogicalDns,
            Discovery::Dns(_) => DiscoveryType::StrictDns,
            Discovery::Eds(_) => DiscoveryType::Eds,
            Discovery::OriginalDst => DiscoveryType::OriginalDst,
        },
        connect_timeout: config.connect_timeout,
        per_connection_buffer_limit: config.per_connection_buffer_limit,
        lb: config.balancing.lb,
        http: config.http.clone(),
        tcp_idle_timeout: config.tcp_idle_timeout,
        bind: config.bind.clone(),
        tcp_keepalive: config.tcp_keepalive,
        original_dst: config.balancing.original_dst.clone(),
        close_connections_on_host_health_failure: config.close_connections_on_host_health_failure,
        close_connections_on_host_set_change: config.balancing.close_connections_on_host_set_change,
        transport_socket: config.sockets.default.clone(),
        metadata: config.metadata.clone(),
        circuit_breakers: CircuitBreakers::new(config.thresholds, &scope, |counter| stats.overflow(counter)),
        outlier: config.outlier.map(|outlier| reports.detector(outlier, name.clone(), id)),
        stats,
        name,
    }
}
