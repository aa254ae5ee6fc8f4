//! A worker's view of the clusters: cached snapshots and its own load-balancing cursors, without locks.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use dhow_base::Rng;
use dhow_matching::MetadataCriteria;
use dhow_runtime_config::{Current, RuntimeValues};

use crate::aggregate::{Aggregate, Share};
use crate::cluster_info::{ClusterInfo, DiscoveryType};
use crate::dns_cache::{Resolution, default_port_appended};
use crate::host::{HealthFlag, Host, uptime_millis};
use crate::lb::{Cursors, Outcome, Pick, PreviousPriorities, PrioritySet};
use crate::outlier::{Finding, HostResult};
use crate::override_host::{LbRequest, text};
use crate::snapshot::{ActiveCluster, ClustersSnapshot, PublishedClusters};
use crate::sub_clusters::{RequestedHost, SubClusters};

/// What the choice of a host takes into account. [`LbContext::default`] takes nothing.
#[derive(Clone, Copy, Default)]
pub struct LbContext<'a> {
    /// Hash of the request by the route's hash policy, for ring hash and Maglev.
    pub hash: Option<u64>,
    /// True for a host that should not be chosen (retry host predicates such as `previous_hosts`).
    pub avoid: Option<&'a dyn Fn(&Host) -> bool>,
    /// `host_selection_retry_max_attempts`: how often to choose again when `avoid` said so. The last choice stands.
    pub reselections: u32,
    /// Original destination of the downstream connection.
    pub original_destination: Option<SocketAddr>,
    /// `metadata_match`: the subset of hosts to choose from.
    pub criteria: Option<&'a MetadataCriteria>,
    /// The host that a filter asks for by its address, and whether no other will do.
    pub override_host: Option<(&'a str, bool)>,
    /// The request, for policies that read it.
    pub request: Option<&'a dyn LbRequest>,
    /// Attempts of the same request before this one.
    pub attempts: u32,
    /// The priority levels that they went to, where retries leave them.
    pub previous_priorities: Option<&'a RefCell<PreviousPriorities>>,
}

impl fmt::Debug for LbContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LbContext")
            .field("hash", &self.hash)
            .field("avoids", &self.avoid.is_some())
            .field("reselections", &self.reselections)
            .field("original_destination", &self.original_destination)
            .field("criteria", &self.criteria)
            .field("override_host", &self.override_host)
            .field("attempts", &self.attempts)
            .field("previous_priorities", &self.previous_priorities)
            .finish_non_exhaustive()
    }
}

/// A host, and the cluster that it belongs to.
#[derive(Debug)]
pub struct ChosenHost {
    /// The host.
    pub host: Arc<Host>,
    /// The cluster that connections to the host count for, when it is not the one that was asked: that was an aggregate, or a
    /// dynamic forward proxy with a cluster for each host.
    pub member: Option<Rc<WorkerCluster>>,
}

impl ChosenHost {
    fn own(host: Arc<Host>) -> Self {
        Self { host, member: None }
    }

    /// The cluster whose settings, limits and counters apply to the host, given the one that was asked.
    pub fn cluster<'a>(&'a self, asked: &'a Rc<WorkerCluster>) -> &'a Rc<WorkerCluster> {
        self.member.as_ref().unwrap_or(asked)
    }
}

impl std::ops::Deref for ChosenHost {
    type Target = Arc<Host>;

    fn deref(&self) -> &Arc<Host> {
        &self.host
    }
}

/// Told on a worker when clusters and hosts go, so that pools of connections to them can be drained.
pub trait ClusterObserver {
    /// The cluster was removed or replaced by one with other settings.
    fn cluster_removed(&self, cluster: &Rc<WorkerCluster>);

    /// These hosts left the cluster, or are no longer well: no further request uses the connections that there are. Requests
    /// under way may finish.
    fn hosts_removed(&self, cluster: &Rc<WorkerCluster>, hosts: &[Arc<Host>]);
}

/// The clusters as one worker sees them.
pub struct WorkerClusters {
    this: Weak<Self>,
    published: RefCell<PublishedClusters>,
    seen: Cell<u64>,
    snapshot: RefCell<Arc<ClustersSnapshot>>,
    used: RefCell<HashMap<Arc<str>, Rc<WorkerCluster>, foldhash::fast::RandomState>>,
    rng: Rc<RefCell<Rng>>,
    observers: RefCell<Vec<Rc<dyn ClusterObserver>>>,
    /// Clusters replaced since observers were last told.
    retired: RefCell<Vec<Rc<WorkerCluster>>>,
}

impl WorkerClusters {
    /// A view for one worker with random numbers of its own.
    pub fn new(published: PublishedClusters, rng: Rng) -> Rc<Self> {
        let snapshot = published.snapshot();
        let seen = published.generation();
        Rc::new_cyclic(|this| Self {
            this: this.clone(),
            published: RefCell::new(published),
            // A change between the two reads above is noticed at the next look.
            seen: Cell::new(seen.min(1)),
            snapshot: RefCell::new(snapshot),
            used: RefCell::default(),
            rng: Rc::new(RefCell::new(rng)),
            observers: RefCell::default(),
            retired: RefCell::default(),
        })
    }

    /// Adds someone to be told of removals, from [`WorkerClusters::refresh`].
    pub fn add_observer(&self, observer: Rc<dyn ClusterObserver>) {
        self.observers.borrow_mut().push(observer);
    }

    /// The cluster of this name, if it is active (warmed and not removed).
    pub fn get(&self, name: &str) -> Option<Rc<WorkerCluster>> {
        self.take_published();
        if let Some(cluster) = self.used.borrow().get(name) {
            return Some(cluster.clone());
        }
        let (name, active) =
            self.snapshot.borrow().get_key_value(name).map(|(k, v)| (k.clone(), v.clone()))?;
        let cluster = WorkerCluster::new(active, self.rng.clone(), self.this.clone());
        self.used.borrow_mut().insert(name, cluster.clone());
        Some(cluster)
    }

    /// Whether a cluster of this name is active; does not set up anything for it.
    pub fn contains(&self, name: &str) -> bool {
        self.take_published();
        self.snapshot.borrow().contains_key(name)
    }

    /// Takes what was published since the last look and tells observers what is gone. Called by
    /// [`WorkerClusters::follow`]; never from within a request.
    pub fn refresh(&self) {
        self.take_published();
        let retired = self.retired.take();
        let observers = self.observers.borrow().clone();
        for cluster in &retired {
            observers.iter().for_each(|observer| observer.cluster_removed(cluster));
        }
        let used: Vec<Rc<WorkerCluster>> = self.used.borrow().values().cloned().collect();
        for cluster in used {
            let removed = cluster.take_removed();
            if !removed.is_empty() {
                observers.iter().for_each(|observer| observer.hosts_removed(&cluster, &removed));
            }
        }
    }

    /// Grows whenever clusters come, go or are replaced; one atomic load.
    pub(crate) fn generation(&self) -> u64 {
        self.published.borrow().generation()
    }

    /// Runs [`WorkerClusters::refresh`] at every change until the cluster manager is gone; a local task of the worker.
    pub async fn follow(self: Rc<Self>) {
        let mut published = self.published.borrow().clone();
        self.refresh();
        while published.changed().await {
            self.refresh();
        }
    }

    /// Ends when there is a cluster of this name, or no more will come.
    fn appearance(&self, name: String) -> impl Future<Output = ()> + use<> {
        let mut published = self.published.borrow().clone();
        async move { while !published.snapshot().contains_key(&*name) && published.changed().await {} }
    }

    fn take_published(&self) {
        let published = self.published.borrow();
        let generation = published.generation();
        if generation == self.seen.get() {
            return;
        }
        self.seen.set(generation);
        let snapshot = published.snapshot();
        let mut retired = self.retired.borrow_mut();
        self.used.borrow_mut().retain(|name, cluster| {
            let stays = snapshot.get(name).is_some_and(|active| Arc::ptr_eq(active, &cluster.active));
            if !stays {
                retired.push(cluster.clone());
            }
            stays
        });
        *self.snapshot.borrow_mut() = snapshot;
    }
}

impl fmt::Debug for WorkerClusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerClusters").field("used", &self.used.borrow().len()).finish_non_exhaustive()
    }
}

/// One cluster on one worker. A request that holds it keeps it working after the cluster is removed.
#[derive(Debug)]
pub struct WorkerCluster {
    active: Arc<ActiveCluster>,
    rng: Rc<RefCell<Rng>>,
    state: RefCell<HostState>,
    siblings: Weak<WorkerClusters>,
    /// Of an aggregate cluster.
    aggregate: RefCell<Aggregate>,
}

#[derive(Debug)]
struct HostState {
    generation: u64,
    hosts: Arc<PrioritySet>,
    cursors: Cursors,
    /// Hosts gone since observers were last told.
    removed: Vec<Arc<Host>>,
    /// Hosts of an `ORIGINAL_DST` cluster that this worker has used, by address.
    original: HashMap<SocketAddr, Arc<Host>>,
    /// Hosts of a dynamic forward proxy that this worker has used, by name.
    dynamic: HashMap<String, Arc<Host>>,
}

/// Hosts that stay and whose connections do not: those that are no longer well, as another connection may fare better; all of
/// them when the cluster says that connections end with every change of membership.
fn worn_out(info: &ClusterInfo, before: &PrioritySet, now: &PrioritySet, some_left: bool) -> Vec<Arc<Host>> {
    let all = |hosts: &PrioritySet| -> HashSet<*const Host> { hosts.hosts().map(Arc::as_ptr).collect() };
    if info.close_connections_on_host_set_change() {
        let (old, new) = (all(before), all(now));
        if some_left || new.iter().any(|host| !old.contains(host)) {
            return before.hosts().filter(|host| new.contains(&Arc::as_ptr(host))).cloned().collect();
        }
    }
    let well = |hosts: &PrioritySet| -> Vec<Arc<Host>> {
        let levels = hosts.levels().iter();
        levels.flat_map(|level| level.healthy.iter().chain(&*level.degraded)).cloned().collect()
    };
    let was_well = well(before);
    if was_well.is_empty() {
        return Vec::new();
    }
    let is_well: HashSet<*const Host> = well(now).iter().map(Arc::as_ptr).collect();
    let present = all(now);
    let lost =
        |host: &Arc<Host>| present.contains(&Arc::as_ptr(host)) && !is_well.contains(&Arc::as_ptr(host));
    was_well.into_iter().filter(lost).collect()
}

/// The present on the clock of slow start, where it is read at all.
fn slow_start_clock(info: &ClusterInfo) -> u64 {
    if info.balancing.lb.slow_start.is_some() { uptime_millis() } else { 0 }
}

impl WorkerCluster {
    fn new(active: Arc<ActiveCluster>, rng: Rc<RefCell<Rng>>, siblings: Weak<WorkerClusters>) -> Rc<Self> {
        let generation = active.generation();
        let hosts = active.hosts();
        let now = slow_start_clock(active.info());
        let cursors = Cursors::new(&active.info().balancing.lb, &hosts, rng.borrow_mut().next_u64(), now);
        let state = HostState {
            generation,
            hosts,
            cursors,
            removed: Vec::new(),
            original: HashMap::new(),
            dynamic: HashMap::new(),
        };
        Rc::new(Self { active, rng, state: RefCell::new(state), siblings, aggregate: RefCell::default() })
    }

    /// Settings, limits and stats.
    pub fn info(&self) -> &Arc<ClusterInfo> {
        self.active.info()
    }

    /// The hosts of the moment.
    pub fn hosts(&self) -> Arc<PrioritySet> {
        self.take_hosts();
        self.state.borrow().hosts.clone()
    }

    /// `drop_overloads`: requests of a million to turn away before a host is chosen.
    pub fn drop_overload(&self) -> u32 {
        self.take_hosts();
        self.state.borrow().hosts.drop_overload()
    }

    /// Chooses a host; `None` when there is none (`no_healthy_upstream`, flag `UH`; the caller counts
    /// `upstream_cx_none_healthy`).
    pub fn choose_host(&self, context: &LbContext<'_>) -> Option<ChosenHost> {
        self.take_hosts();
        match &self.info().discovery {
            DiscoveryType::OriginalDst => self.original_destination(context).map(ChosenHost::own),
            DiscoveryType::Aggregate => self.choose_from_members(context),
            DiscoveryType::DynamicForwardProxy if self.active.sub_clusters().is_some() => {
                self.choose_from_sub_cluster(context)
            }
            DiscoveryType::DynamicForwardProxy => {
                self.dynamic_host(&self.requested_name(context.request?)?).map(ChosenHost::own)
            }
            _ => self.choose_own(context, None).map(ChosenHost::own),
        }
    }

    /// Whether the choice of a host reads the request's hash: by ring hash and Maglev, of an aggregate's members too.
    pub fn reads_hash(&self) -> bool {
        let info = self.info();
        if info.balancing.lb.is_consistent() {
            return true;
        }
        if let Some(clusters) = self.active.sub_clusters() {
            return clusters.settings.reads_hash();
        }
        let Some((names, clusters)) = info.aggregate.as_deref().zip(self.siblings.upgrade()) else {
            return false;
        };
        names
            .iter()
            .filter_map(|name| clusters.get(name))
            .any(|cluster| cluster.info().balancing.lb.is_consistent())
    }

    /// Chooses the cluster and the level by the health of all of them, and lets that cluster choose the host.
    fn choose_from_members(&self, context: &LbContext<'_>) -> Option<ChosenHost> {
        let info = self.info();
        let clusters = self.siblings.upgrade()?;
        let draw = self.rng.borrow_mut().next_u64();
        let names = info.aggregate.as_deref()?;
        let Share { cluster, level, degraded } = self
            .aggregate
            .borrow_mut()
            .up_to_date(names, &clusters, info.balancing.panic_threshold)
            .choose(context.previous_priorities, draw)?;
        let host = cluster.choose_own(context, Some((level, degraded)))?;
        Some(ChosenHost { host, member: Some(cluster) })
    }

    /// Chooses among the hosts of this very cluster; `level` is set when the level, and whether its degraded hosts are
    /// meant, is decided already.
    fn choose_own(&self, context: &LbContext<'_>, level: Option<(usize, bool)>) -> Option<Arc<Host>> {
        self.take_hosts();
        let info = self.info();
        let mut state = self.state.borrow_mut();
        let HostState { hosts, cursors, .. } = &mut *state;
        if let Some((address, strict)) = context.override_host {
            let wanted =
                hosts.at_address(address).filter(|host| info.balancing.lb.override_statuses.accept(host));
            if wanted.is_some() || strict {
                return wanted.cloned();
            }
        }
        if let (Some(policy), Some(request)) = (&info.balancing.override_host, context.request)
            && let Some(host) = policy.choose(hosts, request, context.attempts as usize)
        {
            return Some(host);
        }
        let pick = Pick {
            hash: context.hash,
            attempt: 0,
            criteria: context.criteria,
            now: slow_start_clock(info),
            zone_routing: hosts.zone().and_then(|_| Current.fraction("upstream.zone_routing.enabled")),
            level,
            previous: context.previous_priorities,
        };
        let mut rng = self.rng.borrow_mut();
        let mut chosen = None;
        for attempt in 0..=context.reselections {
            let (host, outcome) =
                cursors.choose(&info.balancing.lb, hosts, &mut rng, Pick { attempt, ..pick });
            if outcome != Outcome::default() {
                info.stats.count_choice(outcome);
            }
            chosen = host;
            match (&chosen, context.avoid) {
                (Some(host), Some(avoid)) if avoid(host) => {}
                _ => break,
            }
        }
        chosen
    }

    /// The host that a request after the next one will go to, for who makes connections ahead; `None` where nobody can tell.
    /// Of `context` only what leads to a certain host or level counts.
    pub fn peek_host(&self, context: &LbContext<'_>) -> Option<Arc<Host>> {
        let info = self.info();
        if matches!(
            info.discovery,
            DiscoveryType::OriginalDst | DiscoveryType::Aggregate | DiscoveryType::DynamicForwardProxy
        ) {
            return None;
        }
        self.take_hosts();
        let mut state = self.state.borrow_mut();
        let HostState { hosts, cursors, .. } = &mut *state;
        let asked_for = context.override_host.and_then(|(address, _)| hosts.at_address(address));
        if let Some(host) = asked_for.filter(|host| info.balancing.lb.override_statuses.accept(host)) {
            return Some(host.clone());
        }
        let pick = Pick {
            now: slow_start_clock(info),
            zone_routing: hosts.zone().and_then(|_| Current.fraction("upstream.zone_routing.enabled")),
            previous: context.previous_priorities,
            ..Pick::default()
        };
        let (host, outcome) = cursors.peek(&info.balancing.lb, hosts, &mut self.rng.borrow_mut(), pick);
        if outcome != Outcome::default() {
            info.stats.count_choice(outcome);
        }
        host
    }

    /// Notes how a request or a connection to `host` went, for outlier detection. Every HTTP response, failed connection,
    /// reset before a response and time-out is to be noted.
    #[inline]
    pub fn note_result(&self, host: &Arc<Host>, result: HostResult) {
        if let Some(outlier) = &self.info().outlier {
            outlier.note(host, result);
        }
    }

    /// The host answered with `x-envoy-degraded`.
    pub fn note_degraded(&self, host: &Arc<Host>) {
        if let Some(outlier) = &self.info().outlier {
            outlier.note_degraded(host);
        }
    }

    /// Whether hosts are ejected because of what [`note_result`](Self::note_result) tells.
    pub fn detects_outliers(&self) -> bool {
        self.info().outlier.is_some()
    }

    /// The host answered with `x-envoy-immediate-health-check-fail`: where hosts are actively checked, it is taken out.
    pub fn note_unwilling(&self, host: &Arc<Host>) {
        if let Some(reports) = &self.info().unwilling {
            host.set_health_flag(HealthFlag::ExcludedViaImmediateHcFail, true);
            reports.send(host, Finding::WantsNoTraffic);
        }
    }

    /// Grows whenever the hosts or their health change.
    pub(crate) fn generation(&self) -> u64 {
        self.active.generation()
    }

    fn take_hosts(&self) {
        let generation = self.active.generation();
        let mut state = self.state.borrow_mut();
        if state.generation == generation {
            return;
        }
        let hosts = self.active.hosts();
        let present: HashSet<*const Host> = hosts.hosts().map(Arc::as_ptr).collect();
        let gone: Vec<Arc<Host>> =
            state.hosts.hosts().filter(|host| !present.contains(&Arc::as_ptr(host))).cloned().collect();
        for host in gone.iter().filter_map(|host| host.address().as_ip()) {
            state.original.remove(&host);
        }
        if !state.dynamic.is_empty() {
            state.dynamic.retain(|_, host| !gone.iter().any(|gone| Arc::ptr_eq(gone, host)));
        }
        let worn_out = worn_out(self.info(), &state.hosts, &hosts, !gone.is_empty());
        state.removed.extend(worn_out);
        state.removed.extend(gone);
        state.cursors =
            state.cursors.renewed(&self.info().balancing.lb, &hosts, slow_start_clock(self.info()));
        state.hosts = hosts;
        state.generation = generation;
    }

    fn take_removed(&self) -> Vec<Arc<Host>> {
        self.take_hosts();
        std::mem::take(&mut self.state.borrow_mut().removed)
    }

    /// What a dynamic forward proxy knows of the host that a request names, with this port unless it says otherwise; `None` for
    /// other clusters.
    pub fn resolve(&self, authority: &str, port: Option<u16>) -> Option<Resolution> {
        let cache = self.active.dns_cache()?;
        if let Some(clusters) = self.active.sub_clusters() {
            return Some(self.resolve_sub_cluster(clusters, authority, port));
        }
        if authority.is_empty() {
            return Some(Resolution::Unnamed);
        }
        self.take_hosts();
        let name = self.dynamic_name(authority, port);
        if let Some(host) = self.state.borrow().dynamic.get(&name) {
            return Some(Resolution::Ready(host.clone()));
        }
        Some(cache.resolve(&name))
    }

    /// What a dynamic forward proxy knows of the host for a request, where no filter has asked for it; `None` for other
    /// clusters.
    pub fn resolve_requested(&self, request: &dyn LbRequest) -> Option<Resolution> {
        // Only the filter has clusters made.
        if self.active.sub_clusters().is_some() {
            return None;
        }
        Some(self.active.dns_cache()?.resolve(&self.requested_name(request)?))
    }

    /// The name of the host that the filter state of a request names, or else its head.
    fn requested_name(&self, request: &dyn LbRequest) -> Option<String> {
        let authority = request.wanted_host().or_else(|| request.header(":authority"))?;
        Some(self.dynamic_name(authority, request.wanted_port()))
    }

    /// The name of a host with the port that it has unless it says otherwise.
    fn dynamic_name(&self, authority: &str, port: Option<u16>) -> String {
        default_port_appended(authority, port.unwrap_or_else(|| self.usual_port()))
    }

    fn usual_port(&self) -> u16 {
        if self.info().transport_socket().is_secure() { 443 } else { 80 }
    }

    /// Asks for the cluster of a host where each has its own.
    fn resolve_sub_cluster(&self, clusters: &SubClusters, authority: &str, port: Option<u16>) -> Resolution {
        let host = RequestedHost::new(authority, port.unwrap_or_else(|| self.usual_port()));
        let name = host.cluster_name();
        let Some(siblings) = self.siblings.upgrade() else {
            return Resolution::TooManyClusters;
        };
        if let Some(cluster) = siblings.get(&name) {
            cluster.active.touch();
            return Resolution::HasCluster;
        }
        match clusters.want(host) {
            true => Resolution::ClusterWarms(Box::pin(siblings.appearance(name))),
            false => Resolution::TooManyClusters,
        }
    }

    /// Lets the cluster of the host that a request names choose, where each has its own.
    fn choose_from_sub_cluster(&self, context: &LbContext<'_>) -> Option<ChosenHost> {
        let name = self.requested_name(context.request?)?;
        let name = RequestedHost::new(&name, self.usual_port()).cluster_name();
        let cluster = self.siblings.upgrade()?.get(&name)?;
        let host = cluster.choose_own(context, None)?;
        Some(ChosenHost { host, member: Some(cluster) })
    }

    fn dynamic_host(&self, name: &str) -> Option<Arc<Host>> {
        let mut state = self.state.borrow_mut();
        if let Some(host) = state.dynamic.get(name) {
            host.touch();
            return Some(host.clone());
        }
        let host = self.active.dns_cache()?.host(name)?;
        host.touch();
        state.dynamic.insert(name.to_owned(), host.clone());
        Some(host)
    }

    /// The host at the address that the filter state, metadata, a header or the connection asks for, made on first use.
    fn original_destination(&self, context: &LbContext<'_>) -> Option<Arc<Host>> {
        let options = &self.info().balancing.original_dst;
        let parse = |text: &str| {
            let address = text.parse::<SocketAddr>().ok();
            if address.is_none() {
                self.info().stats.original_dst_host_invalid().inc();
            }
            address
        };
        let from_metadata = || {
            let path = options.metadata_key.as_ref()?;
            parse(text(path.find(context.request?.metadata(&path.namespace)?)?)?)
        };
        let from_header = || parse(context.request?.header(options.header.as_ref()?)?);
        let from_state = || context.request?.wanted_address();
        let mut address =
            from_state().or_else(from_metadata).or_else(from_header).or(context.original_destination)?;
        if let Some(port) = options.port_override {
            address.set_port(port);
        }
        let mut state = self.state.borrow_mut();
        let shared = self.active.original_hosts()?;
        let host = state.original.entry(address).or_insert_with(|| shared.at(address, self.info()));
        host.touch();
        Some(host.clone())
    }
}
