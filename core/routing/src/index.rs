//! An index over the routes of a large virtual host that keeps their order.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use dhow_matching::PathMatcher;

use crate::entry::RouteEntry;
use crate::route_match::PathRule;
use std::sync::Arc;

/// From how many routes on an index pays.
const WORTH_IT: usize = 16;
/// Distinct lengths that prefixes are looked up by. With more of them, a prefix is filed under as much of it as fits the next
/// shorter length, so that a few of its neighbours are candidates too.
const LENGTHS: usize = 30;

type Positions = HashMap<Box<[u8]>, Box<[u32]>, FixedState>;

/// Positions of routes by what their path must be. The candidates for a path are the union of a few ascending lists, which are
/// walked together so that the first match in configuration order wins.
#[derive(Clone, Debug)]
pub(crate) struct RouteIndex {
    exact: Positions,
    prefixes: Box<[(usize, Positions)]>,
    /// Regular expressions, CONNECT, comparisons without case: always candidates.
    others: Box<[u32]>,
}

impl RouteIndex {
    /// An index, when there are enough routes.
    pub(crate) fn build(routes: &[Arc<RouteEntry>]) -> Option<Self> {
        if routes.len() < WORTH_IT {
            return None;
        }
        let lengths = filing_lengths(routes);
        let mut exact: HashMap<&[u8], Vec<u32>> = HashMap::new();
        let mut prefixes: Vec<HashMap<&[u8], Vec<u32>>> = vec![HashMap::new(); lengths.len()];
        let mut others = Vec::new();
        for (at, route) in routes.iter().enumerate() {
            let at = at as u32;
            let filed = prefix_of(route).map(|prefix| {
                // The shortest prefix has a length of its own, so that there is one that fits.
                let group = lengths.partition_point(|&length| length <= prefix.len()) - 1;
                (group, &prefix[..lengths[group]])
            });
            match (route.matched.path(), filed) {
                (_, Some((group, key))) => prefixes[group].entry(key).or_default().push(at),
                (PathRule::Path(PathMatcher::Exact { path, ignore_case: false }), None) => {
                    exact.entry(path).or_default().push(at);
                }
                _ => others.push(at),
            }
        }
        let finish = |map: HashMap<&[u8], Vec<u32>>| -> Positions {
            map.into_iter().map(|(key, list)| (key.into(), list.into())).collect()
        };
        Some(Self {
            exact: finish(exact),
            prefixes: lengths.into_iter().zip(prefixes.into_iter().map(finish)).collect(),
            others: others.into(),
        })
    }

    /// The first position, in ascending order, among the candidates for a path for which `matches` holds.
    pub(crate) fn first(&self, path: &[u8], matches: impl Fn(usize) -> bool) -> Option<usize> {
        let mut lists: [&[u32]; LENGTHS + 2] = [&[]; LENGTHS + 2];
        let mut used = 0;
        let found = self.prefixes.iter().filter_map(|(length, map)| map.get(path.get(..*length)?));
        for list in self.exact.get(path).into_iter().chain(found).map(|list| &**list).chain([&*self.others]) {
            if !list.is_empty() {
                lists[used] = list;
                used += 1;
            }
        }
        loop {
            let next = lists[..used].iter().filter_map(|list| list.first().copied()).min()?;
            if matches(next as usize) {
                return Some(next as usize);
            }
            for list in &mut lists[..used] {
                if list.first() == Some(&next) {
                    *list = &list[1..];
                }
            }
        }
    }
}

/// The lengths of the prefixes, or as many of them as there may be, evenly chosen from the shortest on.
fn filing_lengths(routes: &[Arc<RouteEntry>]) -> Vec<usize> {
    let mut lengths: Vec<usize> =
        routes.iter().filter_map(|route| prefix_of(route)).map(<[u8]>::len).collect();
    lengths.sort_unstable();
    lengths.dedup();
    if lengths.len() > LENGTHS {
        lengths = (0..LENGTHS).map(|nth| lengths[nth * lengths.len() / LENGTHS]).collect();
    }
    lengths
}

fn prefix_of(route: &RouteEntry) -> Option<&[u8]> {
    match route.matched.path() {
        PathRule::Path(
            PathMatcher::Prefix { prefix, ignore_case: false }
            | PathMatcher::SeparatedPrefix { prefix, ignore_case: false },
        ) => Some(prefix),
        _ => None,
    }
}
