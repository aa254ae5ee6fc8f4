//! Aggregate clusters on a worker: the priority levels of several clusters one after the other.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use dhow_runtime_config::Current;

use crate::host::Host;
use crate::lb::{PreviousPriorities, PriorityHealth, PriorityLoad, panic_threshold};
use crate::worker::{WorkerCluster, WorkerClusters};

/// A priority level of one of the clusters, and whether its degraded hosts are meant.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    pub(crate) cluster: Rc<WorkerCluster>,
    /// Position among the levels of its own cluster.
    pub(crate) level: usize,
    pub(crate) degraded: bool,
}

/// The levels of an aggregate at one moment, and what they were computed from.
#[derive(Debug, Default)]
pub(crate) struct Aggregate {
    /// The generation of the map of clusters.
    published: u64,
    /// The clusters that exist, with the generation of their hosts.
    members: Vec<(Rc<WorkerCluster>, u64)>,
    /// Member and level within it, by the level of the aggregate.
    levels: Vec<(usize, usize)>,
    /// Their figures.
    healths: Vec<PriorityHealth>,
    load: PriorityLoad,
}

impl Aggregate {
    /// Follows the clusters and their hosts.
    pub(crate) fn up_to_date(
        &mut self,
        names: &[String],
        clusters: &WorkerClusters,
        threshold: u32,
    ) -> &Self {
        let published = clusters.generation();
        if published != self.published {
            self.published = published;
            self.members = members(names, clusters);
            self.line_up(threshold);
        } else if self.members.iter().any(|(cluster, seen)| cluster.generation() != *seen) {
            for (cluster, seen) in &mut self.members {
                *seen = cluster.generation();
            }
            self.line_up(threshold);
        }
        self
    }

    /// The level for one request; `draw` is any number. `None` when no cluster of the list has a host.
    pub(crate) fn choose(&self, previous: Option<&RefCell<PreviousPriorities>>, draw: u64) -> Option<Share> {
        let (at, degraded) = match previous {
            None => self.load.choose(draw),
            Some(previous) => {
                let mut previous = previous.borrow_mut();
                previous.choose(&self.load, &self.healths, |host| self.level_of(host), draw)
            }
        };
        let &(member, level) = self.levels.get(at)?;
        Some(Share { cluster: self.members[member].0.clone(), level, degraded })
    }

    /// The level that a host is on.
    fn level_of(&self, host: &Arc<Host>) -> Option<usize> {
        self.levels
            .iter()
            .position(|&(member, level)| self.members[member].0.hosts().level_of(host) == Some(level))
    }

    /// Puts the levels that have hosts one after the other and shares the traffic out among them.
    fn line_up(&mut self, threshold: u32) {
        self.levels.clear();
        self.healths.clear();
        for (member, (cluster, _)) in self.members.iter().enumerate() {
            let hosts = cluster.hosts();
            for (level, health) in hosts.healths().iter().enumerate().filter(|(_, health)| health.total > 0) {
                self.levels.push((member, level));
                self.healths.push(*health);
            }
        }
        self.load = PriorityLoad::compute(&self.healths, panic_threshold(threshold, &Current));
    }
}

/// The clusters that exist. An aggregate among them has no hosts of its own and takes no part.
fn members(names: &[String], clusters: &WorkerClusters) -> Vec<(Rc<WorkerCluster>, u64)> {
    let found = names.iter().filter_map(|name| clusters.get(name));
    found
        .filter(|cluster| cluster.info().aggregate.is_none())
        .map(|cluster| {
            let generation = cluster.generation();
            (cluster, generation)
        })
        .collect()
}
