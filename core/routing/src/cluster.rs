//! Which cluster a route forwards to.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName};

use crate::compile::CompileOptions;
use crate::filter_config::FilterConfigs;
use dhow_runtime_config::RuntimeValues;
use crate::headers::HeaderLevels;
use crate::pb::core::Metadata;

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
    Weighted(WeightedClusters),
}

/// `WeightedCluster`.
#[derive(Clone, Debug)]
pub struct WeightedClusters {
    pub(crate) clusters: Box<[WeightedCluster]>,
    pub(crate) total: u64,
    pub(crate) runtime_key_prefix: Box<str>,
    /// `header_name`: a header whose number is used in place of the random value.
    pub(crate) random_header: Option<HeaderName>,
}

/// `WeightedCluster.ClusterWeight`.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    /// The cluster.
    pub cluster: ClusterSource,
    /// Its weight.
    pub weight: u32,
    /// `envoy.lb` metadata that hosts must have; merged over the route's.
    pub metadata_match: Option<Metadata>,
    pub(crate) host_rewrite: Option<Box<[u8]>>,
    pub(crate) request_headers: HeaderLevels,
    pub(crate) response_headers: HeaderLevels,
    pub(crate) filter_configs: FilterConfigs,
}

impl WeightedClusters {
    /// The index of the cluster that a random value falls on.
    pub(crate) fn pick(&self, headers: &HeaderMap, random: u64, runtime: &dyn RuntimeValues) -> usize {
        let from_header = self
            .random_header
            .as_ref()
            .and_then(|name| headers.get(name))
            .and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
        let random = from_header.unwrap_or(random);
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
