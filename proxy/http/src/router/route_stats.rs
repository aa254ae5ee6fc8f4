//! What is counted under virtual clusters and routes: `vhost.<name>.vcluster.<name>.*`, `vhost.<name>.route.<prefix>.*`.

use std::sync::Arc;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_routing::{RouteEntry, RouteTable, SelectedRoute, VirtualHost};
use dhow_stats::{Histogram, ResponseCodeStats, Scope, Store, Unit, stat_group};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

stat_group! {
    /// What is counted of the requests of a virtual cluster or route, by Envoy's names.
    pub struct RequestGroupStats {
        counters {
            upstream_rq_retry, upstream_rq_retry_limit_exceeded, upstream_rq_retry_overflow,
            upstream_rq_retry_success, upstream_rq_timeout, upstream_rq_total,
        }
    }
}

/// The stats of one virtual cluster or route.
#[derive(Debug)]
pub(crate) struct RequestGroup {
    counters: RequestGroupStats,
    codes: ResponseCodeStats,
    time: Histogram,
    _scope: Scope,
}

impl RequestGroup {
    fn new(store: &Store, prefix: &str) -> Arc<Self> {
        let scope = store.scope_verbatim(prefix);
        Arc::new(Self {
            counters: scope.group(),
            codes: scope.response_codes("upstream_rq"),
            time: scope.histogram("upstream_rq_time", Unit::Milliseconds),
            _scope: scope,
        })
    }
}

/// The stats of all virtual clusters and routes of a table that have some.
#[derive(Debug, Default)]
pub(crate) struct RouteStats {
    /// By virtual host: those of its virtual clusters in order, then of requests in none of them.
    hosts: HashMap<usize, Box<[Arc<RequestGroup>]>, FixedState>,
    routes: HashMap<usize, Arc<RequestGroup>, FixedState>,
}

fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value) as usize
}

impl RouteStats {
    /// The stats of a table; `None` when nothing in it is counted.
    pub(crate) fn of(table: &RouteTable, store: &Store) -> Option<Self> {
        let mut stats = Self::default();
        // Names of users are kept as they are but for dots at their ends.
        let name = |name: &str| name.trim_end_matches('.').to_owned();
        for host in table.virtual_hosts() {
            let prefix = format!("vhost.{}.", name(host.name()));
            let names: Vec<&str> = host.virtual_cluster_names().collect();
            if !names.is_empty() {
                let groups = names.iter().copied().chain(["other"]);
                let groups =
                    groups.map(|of| RequestGroup::new(store, &format!("{prefix}vcluster.{}", name(of))));
                stats.hosts.insert(address::<VirtualHost>(host), groups.collect());
            }
            for route in host.routes().iter().filter(|route| !route.stat_prefix().is_empty()) {
                let group = RequestGroup::new(store, &format!("{prefix}route.{}", name(route.stat_prefix())));
                stats.routes.insert(address::<RouteEntry>(route), group);
            }
        }
        (!stats.hosts.is_empty() || !stats.routes.is_empty()).then_some(stats)
    }

    /// Where the requests of a route are counted.
    pub(crate) fn groups(&self, route: &SelectedRoute, request: &HeaderMap) -> RequestGroups {
        let host = route.virtual_host();
        let mut virtual_cluster = None;
        let of_host = self.hosts.get(&address::<VirtualHost>(host)).and_then(|groups| {
            virtual_cluster = host.virtual_cluster(request);
            groups.get(virtual_cluster.unwrap_or(groups.len() - 1)).cloned()
        });
        let groups = [of_host, self.routes.get(&address(route.entry())).cloned()];
        let virtual_cluster = virtual_cluster.and_then(|at| u16::try_from(at).ok());
        RequestGroups { groups, virtual_cluster, alternative: None }
    }
}

/// Where one request is counted beside its cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestGroups {
    groups: [Option<Arc<RequestGroup>>; 2],
    /// The virtual cluster that the request is in.
    virtual_cluster: Option<u16>,
    /// `x-envoy-upstream-alt-stat-name`: a name under the cluster's.
    alternative: Option<Box<str>>,
}

impl RequestGroups {
    /// Takes the name that the request itself chose.
    pub(crate) fn take_alternative(&mut self, request: &mut HeaderMap) {
        let Some(name) = request.get_known(KnownHeader::XEnvoyUpstreamAltStatName) else { return };
        self.alternative = Some(String::from_utf8_lossy(name).into());
        request.remove_known(KnownHeader::XEnvoyUpstreamAltStatName);
    }

    /// The name under the cluster's that the request chose.
    pub(crate) fn alternative(&self) -> Option<&str> {
        self.alternative.as_deref().filter(|name| !name.is_empty())
    }

    /// The virtual cluster that the request is in, by its place in the virtual host.
    pub(crate) fn virtual_cluster(&self) -> Option<u16> {
        self.virtual_cluster
    }

    /// Calls `count` for each.
    pub(crate) fn each(&self, count: impl Fn(&RequestGroupStats)) {
        self.groups.iter().flatten().for_each(|group| count(&group.counters));
    }

    /// Counts a response.
    pub(crate) fn charge(&self, status: u16) {
        self.groups.iter().flatten().for_each(|group| group.codes.charge(status));
    }

    /// Records the time of a response that is complete.
    pub(crate) fn record_time(&self, millis: u64) {
        self.groups.iter().flatten().for_each(|group| group.time.record(millis));
    }
}
