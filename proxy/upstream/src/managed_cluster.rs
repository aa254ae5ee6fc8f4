//! One cluster on the main thread: its configuration, its hosts and what has to happen before routes may use it.

mod delivery;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use dhow_net::StreamAddress;
use dhow_stats::Store;
use tokio::task::AbortHandle;

use crate::circuit_breakers::CircuitBreakers;
use crate::cluster_info::{ClusterInfo, DiscoveryType};
use crate::cluster_manager::ClusterManagerStats;
use crate::config::{
    AssignedEndpoint, Assignment, AssignmentPolicy, ClusterConfig, Discovery, EndpointTarget, LoadBalancing,
};
use crate::dns::LookupError;
use crate::dns_cache::DnsCache;
use crate::event_log::EventFile;
use crate::health_check::{HealthCheckConfig, HealthChecks, OnChecked};
use crate::host::{HealthFlag, Host, HostSpec, Locality};
use crate::lb::{HostSetOptions, LbPolicy, LocalCluster, LocalityGroup, PrioritySet};
use crate::original_hosts::OriginalHosts;
use crate::outlier::{Ejections, HostReports, OutlierDetector, ReportSender};
use crate::snapshot::ActiveCluster;
use crate::stats::ClusterStats;
use crate::sub_clusters::SubClusters;
pub(crate) use delivery::{DeliverLater, Delivery};

/// Where a cluster's configuration came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The bootstrap.
    Static,
    /// CDS.
    Dynamic,
    /// A request, to a dynamic forward proxy with a cluster for each host.
    Requested,
}

/// What warming still waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Warming {
    /// Nothing.
    Done,
    /// The first assignment.
    Assignment,
    /// The first answer for each of these endpoints, by position.
    Names(BTreeSet<usize>),
}

/// There are thousands of them: what few clusters have is in boxes, and settings are read through [`ManagedCluster::info`].
#[derive(Debug)]
pub(crate) struct ManagedCluster {
    /// Tells one cluster from the next of the same name.
    pub(crate) id: u64,
    /// How hosts are found; those of a static list are in `groups` only.
    pub(crate) discovery: Discovery,
    /// The message, encoded.
    pub(crate) message: Bytes,
    pub(crate) version: String,
    pub(crate) last_updated: SystemTime,
    pub(crate) origin: Origin,
    pub(crate) active: Arc<ActiveCluster>,
    pub(crate) warming: Warming,
    pub(crate) tasks: Vec<AbortHandle>,
    /// How changes of the hosts reach the workers.
    pub(crate) delivery: Delivery,
    /// `outlier_detection`.
    pub(crate) ejections: Option<Box<Ejections>>,
    /// `health_checks`.
    health_check: Option<Arc<HealthCheckConfig>>,
    /// Active checks, once they run.
    pub(crate) health: Option<Box<HealthChecks>>,
    groups: Vec<LocalityGroup>,
    policy: AssignmentPolicy,
    site: Site,
    /// Addresses of the names of a DNS cluster, by the position of the endpoint.
    pub(crate) answers: BTreeMap<usize, Vec<IpAddr>>,
}

impl Drop for ManagedCluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        if let Some(sub_clusters) = self.active.sub_clusters() {
            sub_clusters.close();
        }
    }
}

/// What clusters know of the proxy that they are in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    /// `node.locality`.
    pub(crate) locality: Arc<Locality>,
    /// How the local cluster looks, when one is configured.
    pub(crate) local_cluster: Option<Arc<LocalCluster>>,
    /// The number of load balancers that Envoy would have for a cluster.
    pub(crate) balancers: u64,
}

/// What identifies a version of a cluster.
pub(crate) struct Provenance {
    pub(crate) id: u64,
    pub(crate) message: Bytes,
    pub(crate) version: String,
    pub(crate) origin: Origin,
}

/// What a cluster gets from the manager.
pub(crate) struct Supplies<'a> {
    pub(crate) site: &'a Site,
    pub(crate) store: &'a Store,
    pub(crate) reports: &'a ReportSender,
    /// Where ejections are logged.
    pub(crate) outlier_events: Option<Arc<EventFile>>,
    /// What the manager counts.
    pub(crate) counters: &'a Arc<ClusterManagerStats>,
}

impl ManagedCluster {
    pub(crate) fn new(
        config: ClusterConfig,
        from: Provenance,
        Supplies { site, store, reports, outlier_events, counters }: &Supplies<'_>,
    ) -> Self {
        let delivery = Delivery::new(config.balancing.update_merge_window, (*counters).clone());
        let info = cluster_info(&config, from.id, store, reports);
        info.stats.set_own_zone(&site.locality.zone);
        let ejections = config.outlier_detection.map(|outlier| {
            let scope = info.stats.scope();
            Box::new(Ejections::new(outlier, scope, info.name.clone(), outlier_events.clone()))
        });
        let ClusterConfig { discovery, health_check, metadata, .. } = config;
        let info = Arc::new(ClusterInfo { metadata, ..info });
        let warming = match &discovery {
            Discovery::Static(_)
            | Discovery::OriginalDst(_)
            | Discovery::Aggregate(_)
            | Discovery::DynamicForwardProxy(_) => Warming::Done,
            Discovery::Eds(_) => Warming::Assignment,
            Discovery::Dns(dns) => {
                let names: BTreeSet<usize> = names(&dns.assignment).map(|(at, ..)| at).collect();
                if names.is_empty() { Warming::Done } else { Warming::Names(names) }
            }
        };
        let (dns_cache, sub_clusters) = match &discovery {
            Discovery::DynamicForwardProxy(hosts) => (
                Some(DnsCache::new(hosts.cache.clone(), store)),
                hosts.sub_clusters.clone().map(SubClusters::new),
            ),
            _ => (None, None),
        };
        let policy = AssignmentPolicy::default();
        let hosts = PrioritySet::new(&[], &host_set_options(&info, policy, site));
        let mut cluster = Self {
            id: from.id,
            active: ActiveCluster::new(info, hosts, dns_cache, sub_clusters),
            ejections,
            health_check,
            health: None,
            discovery,
            message: from.message,
            version: from.version,
            last_updated: SystemTime::now(),
            origin: from.origin,
            warming,
            tasks: Vec::new(),
            delivery,
            groups: Vec::new(),
            policy,
            site: (*site).clone(),
            answers: BTreeMap::new(),
        };
        if let Discovery::Static(assignment) = &mut cluster.discovery {
            let assignment = std::mem::take(assignment);
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
        match &self.discovery {
            Discovery::Dns(dns) => {
                names(&dns.assignment).map(|(at, name, _)| (at, name.to_owned())).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether the hosts stay what they are after this error.
    pub(crate) fn is_dns_failure(&self, error: &LookupError) -> bool {
        matches!(&self.discovery, Discovery::Dns(dns) if dns.is_failure(error))
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
        let Discovery::Dns(dns) = &self.discovery else {
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
                let others = addresses[used..].iter().map(|ip| (*ip, *port).into());
                let others: Vec<SocketAddr> = others.collect();
                group.endpoints.extend(addresses[..used].iter().map(|ip| AssignedEndpoint {
                    additional: others.clone(),
                    target: EndpointTarget::Address(StreamAddress::Ip((*ip, *port).into())),
                    health_check_address: match endpoint.health_check_port {
                        port @ 1.. if endpoint.health_check_address.is_none() => {
                            Some(StreamAddress::Ip((*ip, port).into()))
                        }
                        _ => endpoint.health_check_address.clone(),
                    },
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
        let mut before: HashMap<StreamAddress, Arc<Host>> = self
            .groups
            .iter()
            .flat_map(|group| &group.hosts)
            .map(|host| (host.address().clone(), host.clone()))
            .collect();
        let mut seen = HashSet::new();
        let (mut changed, mut moved) = (false, BTreeSet::new());
        let mut groups = Vec::with_capacity(assignment.groups.len());
        for group in &assignment.groups {
            let mut hosts = Vec::with_capacity(group.endpoints.len());
            for endpoint in &group.endpoints {
                let EndpointTarget::Address(address) = &endpoint.target else {
                    continue;
                };
                // Discovery may list an address twice; the first entry counts. A static list is taken as it is written.
                if !seen.insert(address.clone()) && !matches!(self.discovery, Discovery::Static(_)) {
                    continue;
                }
                let spec = self.host_spec(endpoint, address, &group.locality, group.priority);
                match before.remove(address) {
                    Some(host) if is_same_host(&host, &spec) => {
                        changed |= refresh(&host, &spec);
                        changed |= host.take_health_flag(HealthFlag::PendingDynamicRemoval);
                        hosts.push(host);
                    }
                    Some(host) => {
                        changed = true;
                        if host.priority() != group.priority {
                            moved.extend([host.priority(), group.priority]);
                        }
                        hosts.push(Arc::new(host.succeeded_by(spec)));
                    }
                    None => {
                        moved.insert(group.priority);
                        hosts.push(Arc::new(self.unchecked(Host::new(spec))));
                    }
                }
            }
            groups.push(LocalityGroup {
                priority: group.priority,
                locality: group.locality.clone(),
                weight: group.weight,
                hosts,
            });
        }
        let policy = assignment.policy;
        self.keep_healthy(&mut before, &mut groups);
        moved.extend(before.values().map(|host| host.priority()));
        self.note_weights(&groups);
        let membership_changed = !moved.is_empty();
        if !membership_changed && !changed && policy == self.policy && same_shape(&groups, &self.groups) {
            return false;
        }
        self.groups = groups;
        self.policy = policy;
        // Envoy looks at each priority for itself.
        self.info().stats.discovery.membership_change().add(moved.len() as u64);
        self.forget_ejections();
        self.follow_checks();
        self.rebuild(!membership_changed);
        true
    }

    /// The gauge of weights, which Envoy has for hosts that come and go, and sets priority by priority.
    fn note_weights(&self, groups: &[LocalityGroup]) {
        let comes_and_goes = match &self.discovery {
            Discovery::Eds(_) => true,
            Discovery::Dns(dns) => !dns.logical && !self.answers.is_empty(),
            _ => false,
        };
        if !comes_and_goes {
            return;
        }
        let last = groups.iter().map(|group| group.priority).max();
        let hosts = groups.iter().filter(|group| Some(group.priority) == last).flat_map(|group| &group.hosts);
        let heaviest = hosts.map(|host| u64::from(host.weight())).max();
        self.info().stats.discovery.max_host_weight().set(heaviest.unwrap_or(1));
    }

    /// A new host as it is before its first check: unhealthy, where hosts are checked.
    fn unchecked(&self, host: Host) -> Host {
        if self.health_check.is_some() && !host.health_check_disabled() {
            host.set_health_flag(HealthFlag::FailedActiveHc, true);
            let pending =
                self.info().balancing.ignore_new_hosts && !matches!(self.discovery, Discovery::Static(_));
            host.set_health_flag(HealthFlag::PendingActiveHc, pending);
        }
        host
    }

    /// Moves hosts that left discovery, and that checks find healthy, from `gone` back into `groups`.
    fn keep_healthy(&self, gone: &mut HashMap<StreamAddress, Arc<Host>>, groups: &mut Vec<LocalityGroup>) {
        let checked = self.health_check.is_some() && !self.info().ignore_health_on_host_removal;
        if !checked || matches!(self.discovery, Discovery::Static(_)) {
            return;
        }
        let failed = |host: &Host| {
            host.has_health_flag(HealthFlag::FailedActiveHc)
                || host.has_health_flag(HealthFlag::FailedEdsHealth)
        };
        for (_, host) in gone.extract_if(|_, host| !failed(host)) {
            host.set_health_flag(HealthFlag::PendingDynamicRemoval, true);
            let same = |group: &&mut LocalityGroup| {
                group.priority == host.priority() && group.locality == *host.locality()
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.hosts.push(host),
                None => groups.push(LocalityGroup {
                    priority: host.priority(),
                    locality: host.locality().clone(),
                    weight: 0,
                    hosts: vec![host],
                }),
            }
        }
    }

    /// Starts checking the hosts, where that is configured; `on_checked` is told when something changed.
    pub(crate) fn check_health(&mut self, events: Vec<Arc<EventFile>>, on_checked: OnChecked) {
        let Some(config) = self.health_check.clone() else {
            return;
        };
        let socket =
            config.socket_criteria.as_ref().map(|criteria| self.info().sockets.select_by(criteria).clone());
        let checks = HealthChecks::new(
            config,
            self.info().clone(),
            self.info().stats.scope(),
            events,
            socket,
            on_checked,
        );
        self.health = Some(Box::new(checks));
        self.follow_checks();
    }

    fn forget_ejections(&mut self) {
        if let Some(ejections) = &mut self.ejections {
            ejections.retain(self.groups.iter().flat_map(|group| &group.hosts));
        }
    }

    fn follow_checks(&mut self) {
        if let Some(health) = &mut self.health {
            health.follow(self.groups.iter().flat_map(|group| &group.hosts));
        }
    }

    /// Takes over what checks found: hosts that were kept only for their health go with it.
    pub(crate) fn apply_checks(&mut self) {
        let leaves = |host: &Host| {
            host.has_health_flag(HealthFlag::PendingDynamicRemoval)
                && host.has_health_flag(HealthFlag::FailedActiveHc)
        };
        let before = self.hosts().count();
        self.groups.iter_mut().for_each(|group| group.hosts.retain(|host| !leaves(host)));
        let some_left = self.hosts().count() < before;
        if some_left {
            self.groups.retain(|group| !group.hosts.is_empty());
            self.info().stats.discovery.membership_change().inc();
            self.forget_ejections();
            self.follow_checks();
        }
        self.rebuild(!some_left);
    }

    /// Whether routes may use the cluster: its hosts are known and have had their first check.
    pub(crate) fn is_warm(&self) -> bool {
        let checked = self.health.as_ref().is_none_or(|health| health.first_round_is_over());
        self.warming == Warming::Done && checked
    }

    fn host_spec(
        &self,
        endpoint: &AssignedEndpoint,
        address: &StreamAddress,
        locality: &Arc<Locality>,
        priority: u32,
    ) -> HostSpec {
        let (entry, socket) = self.info().sockets.select(&endpoint.metadata);
        self.info().stats.count_socket_match(entry);
        HostSpec {
            address: address.clone(),
            hostname: shared(&endpoint.hostname),
            locality: locality.clone(),
            weight: endpoint.weight,
            priority,
            metadata: endpoint.metadata.clone(),
            health: endpoint.health,
            transport_socket: socket.clone(),
            health_check_address: endpoint.health_check_address.clone(),
            health_check_hostname: shared(&endpoint.health_check_hostname),
            health_check_disabled: endpoint.health_check_disabled,
            additional: match &*endpoint.additional {
                [] => Arc::default(),
                addresses => addresses.into(),
            },
        }
    }

    /// Takes over how the local cluster looks now; true when that matters here.
    pub(crate) fn follow_local_cluster(&mut self, local: &Arc<LocalCluster>) -> bool {
        if self.info().balancing.lb.zone_aware().is_none() {
            return false;
        }
        self.site.local_cluster = Some(local.clone());
        let hosts = self.sort_hosts();
        self.active.replace_hosts(hosts);
        true
    }

    /// Makes the hosts of an `ORIGINAL_DST` cluster or a dynamic forward proxy those that requests asked for.
    pub(crate) fn follow_requested_hosts(&mut self) {
        let original = self.active.original_hosts().map(OriginalHosts::all);
        let Some(hosts) = original.or_else(|| self.active.dns_cache().map(|cache| cache.hosts())) else {
            return;
        };
        self.groups = vec![LocalityGroup { priority: 0, locality: Locality::none(), weight: 0, hosts }];
        self.info().stats.discovery.membership_change().inc();
        self.rebuild(false);
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
        && *host.locality() == spec.locality
        && host.priority() == spec.priority
        && *host.metadata() == spec.metadata
        && host.health_check_hostname() == &*spec.health_check_hostname
        && host.health_check_disabled() == spec.health_check_disabled
        && host.additional_addresses() == &*spec.additional
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

/// The scope of a cluster's statistics, by its `alt_stat_name` or name.
pub(crate) fn cluster_scope(observability_name: &str) -> String {
    format!("cluster.{}", observability_name.replace(':', "_"))
}

/// A text to be shared; the empty one is held once.
fn shared(text: &str) -> Arc<str> {
    if text.is_empty() { Arc::default() } else { text.into() }
}

/// What shapes the host sets of a cluster.
fn host_set_options(info: &ClusterInfo, policy: AssignmentPolicy, site: &Site) -> HostSetOptions {
    let LoadBalancing { lb, panic_threshold, ignore_new_hosts, .. } = &info.balancing;
    let AssignmentPolicy { overprovisioning, weighted_priority_health, drop_overload } = policy;
    HostSetOptions {
        overprovisioning,
        weighted_priority_health,
        drop_overload,
        panic_threshold: *panic_threshold,
        ignore_new_hosts: *ignore_new_hosts,
        locality_weighted: lb.is_locality_weighted(),
        table: match lb.policy {
            LbPolicy::Consistent(table) => Some(table),
            _ => None,
        },
        zone: lb.zone_aware().copied().zip(site.local_cluster.clone()),
        own_locality: site.locality.clone(),
    }
}

fn cluster_info(config: &ClusterConfig, id: u64, store: &Store, reports: &ReportSender) -> ClusterInfo {
    let prefix = cluster_scope(&config.observability_name);
    let matcher = config.stats_matcher.clone();
    store.set_matcher_below(&prefix, matcher.map(|matcher| move |name: &str| matcher.accepts(name)));
    let scope = store.scope(&prefix);
    let eds = matches!(config.discovery, Discovery::Eds(_));
    let stats = ClusterStats::new(&scope, eds, config.sockets.any_secure(), config.tracking);
    if let Some(tls) = stats.tls() {
        config.sockets.count_in(tls);
    }
    for entry in &config.sockets.matches {
        stats.declare_socket_match(&entry.name);
    }
    if config.sockets.default.names_client() {
        stats.long_tlvs();
    }
    let name: Arc<str> = config.name.as_str().into();
    let is_named_alike = config.observability_name == config.name;
    let reports = || HostReports::new(name.clone(), id, reports.clone());
    ClusterInfo {
        observability_name: match is_named_alike {
            true => name.clone(),
            false => config.observability_name.as_str().into(),
        },
        discovery: match &config.discovery {
            Discovery::Static(_) => DiscoveryType::Static,
            Discovery::Dns(dns) if dns.logical => DiscoveryType::LogicalDns,
            Discovery::Dns(_) => DiscoveryType::StrictDns,
            Discovery::Eds(_) => DiscoveryType::Eds,
            Discovery::OriginalDst(_) => DiscoveryType::OriginalDst,
            Discovery::Aggregate(_) => DiscoveryType::Aggregate,
            Discovery::DynamicForwardProxy(_) => DiscoveryType::DynamicForwardProxy,
        },
        settings: config.settings.clone(),
        aggregate: match &config.discovery {
            Discovery::Aggregate(clusters) => Some(clusters.as_slice().into()),
            _ => None,
        },
        metadata: None,
        circuit_breakers: CircuitBreakers::new(&name, config.thresholds.clone(), stats.traffic()),
        outlier: config.outlier_detection.map(|outlier| Box::new(OutlierDetector::new(outlier, reports()))),
        unwilling: config.health_check.is_some().then(|| Box::new(reports())),
        stats,
        name: name.clone(),
    }
}
