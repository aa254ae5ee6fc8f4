//! Which cluster a route forwards to.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::{Address, AddressFact};
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::MetadataCriteria;

use crate::cluster_matcher::MatchedClusters;
use crate::compile::CompileOptions;
use crate::filter_config::FilterConfigs;
use crate::hash::{HashInput, HashPolicy};
use crate::headers::HeaderLevels;
use crate::table::RouteInput;
use dhow_runtime_config::RuntimeValues;

/// A cluster by name, or by a header that holds its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterSource {
    /// Its name.
    Name(Box<str>),
    /// The header that names it.
    Header(HeaderName),
}

impl ClusterSource {
    /// The cluster's name; `None` when the header is missing or empty.
    pub fn name<'a>(&'a self, headers: &'a HeaderMap) -> Option<&'a str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Header(header) => {
                let name = std::str::from_utf8(headers.get(header)?).ok()?;
                (!name.is_empty()).then_some(name)
            }
        }
    }

    /// A named cluster that must exist when clusters are validated; `what` is Envoy's word for its role.
    pub(crate) fn named(
        name: &str,
        what: &str,
        path: &FieldPath,
        validate: Option<&CompileOptions<'_>>,
    ) -> Result<Self, ConfigError> {
        if validate.is_some_and(|options| !(options.cluster_exists)(name)) {
            return Err(ConfigError::new(path.clone(), format!("route: unknown {what}cluster '{name}'")));
        }
        Ok(Self::Name(name.into()))
    }
}

/// The choice among clusters.
#[derive(Clone, Debug)]
pub enum ClusterChoice {
    /// Always the same.
    One(ClusterSource),
    /// By weight.
    Weighted(Box<WeightedClusters>),
    /// By what the request is like (`cluster_specifier_plugin`).
    Matched(Arc<MatchedClusters>),
}

/// `WeightedCluster`.
#[derive(Clone, Debug)]
pub struct WeightedClusters {
    pub(crate) clusters: Box<[WeightedCluster]>,
    pub(crate) total: u64,
    pub(crate) runtime_key_prefix: Box<str>,
    /// `header_name`: a header whose number is used in place of the random value.
    pub(crate) random_header: Option<HeaderName>,
    /// `use_hash_policy`: the hash of the route's hash policies is used in place of the random value, where they give one.
    pub(crate) use_hash_policy: bool,
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ClusterSource,
    /// Its weight.
    pub weight: u32,
    /// `envoy.lb` metadata that hosts must have, already merged over the route's; `None` leaves it at the route's.
    pub metadata_match: Option<MetadataCriteria>,
    pub(crate) host_rewrite: Option<Box<[u8]>>,
    pub(crate) request_headers: HeaderLevels,
    pub(crate) response_headers: HeaderLevels,
    pub(crate) filter_configs: FilterConfigs,
}

/// The hash of a request while its cluster is chosen; cookies are not made yet.
fn hash_of(headers: &HeaderMap, policies: &[HashPolicy], input: &RouteInput<'_>) -> Option<u64> {
    let source_ip = match input.context.address(AddressFact::DownstreamRemote) {
        Some(Address::Ip(address)) => Some(address.ip()),
        _ => None,
    };
    let filter_state = |key: &str| {
        let mut text = Vec::new();
        let object = input.context.filter_state(false, key)?;
        object.append_text(&mut text).then(|| crate::hash::xx_hash(&text))
    };
    let mut input = HashInput { headers, source_ip, filter_state: &filter_state, make_cookie: &mut |_| None };
    HashPolicy::combined(policies, &mut input)
}

impl WeightedClusters {
    /// Completes the criteria of each cluster with those of the route.
    pub(crate) fn merge_criteria_over(&mut self, route: &MetadataCriteria) {
        for own in self.clusters.iter_mut().filter_map(|cluster| cluster.metadata_match.as_mut()) {
            *own = route.merged_with_criteria(own);
        }
    }

    /// The index of the cluster that a random value falls on.
    pub(crate) fn pick(&self, headers: &HeaderMap, policies: &[HashPolicy], input: &RouteInput<'_>) -> usize {
        let from_header = self
            .random_header
            .as_ref()
            .and_then(|name| headers.get(name))
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let hashed = || if self.use_hash_policy { hash_of(headers, policies, input) } else { None };
        let random = from_header.or_else(hashed).unwrap_or(input.random);
        let runtime = input.runtime;
        if !self.runtime_key_prefix.is_empty() {
            return self.pick_with_runtime(random, runtime);
        }
        let mut left = random % self.total;
        for (at, cluster) in self.clusters.iter().enumerate() {
            match left.checked_sub(u64::from(cluster.weight)) {
                None => return at,
                Some(rest) => left = rest,
            }
        }
        self.clusters.len() - 1
    }

    /// Weights that the runtime may override: `<prefix>.<cluster name>`. When all are zero, the last cluster is used.
    fn pick_with_runtime(&self, random: u64, runtime: &dyn RuntimeValues) -> usize {
        let weight = |cluster: &WeightedCluster| match &cluster.cluster {
            ClusterSource::Name(name) => runtime
                .number(&format!("{}.{name}", self.runtime_key_prefix))
                .unwrap_or(u64::from(cluster.weight)),
            ClusterSource::Header(_) => u64::from(cluster.weight),
        };
        let weights: Vec<u64> = self.clusters.iter().map(weight).collect();
        let total: u64 = weights.iter().sum();
        let mut left = if total == 0 { 0 } else { random % total };
        for (at, weight) in weights.iter().enumerate() {
            match left.checked_sub(*weight) {
                None => return at,
                Some(rest) => left = rest,
            }
        }
        self.clusters.len() - 1
    }
}
