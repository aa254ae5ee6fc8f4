//! `VirtualHost`, and the search among its routes.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_matching::{HeaderMatcher, all_match};

use crate::entry::RouteEntry;
use crate::index::RouteIndex;
use crate::pb::core::Metadata;
use crate::pb::route;

/// `TlsRequirementType`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsRequirement {
    /// Plain text is fine.
    #[default]
    None,
    /// External requests must use TLS.
    ExternalOnly,
    /// All requests must use TLS.
    All,
}

/// A compiled `envoy.config.route.v3.VirtualHost`.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    pub(crate) name: Box<str>,
    pub(crate) routes: Box<[Arc<RouteEntry>]>,
    pub(crate) index: Option<RouteIndex>,
    pub(crate) require_tls: TlsRequirement,
    pub(crate) virtual_clusters: Box<[VirtualCluster]>,
    pub(crate) rate_limits: Box<[route::RateLimit]>,
    pub(crate) metadata: Option<Metadata>,
    pub(crate) include_request_attempt_count: bool,
    pub(crate) include_attempt_count_in_response: bool,
    pub(crate) include_is_timeout_retry_header: bool,
}

/// `VirtualCluster`: requests that are counted together.
#[derive(Clone, Debug)]
pub struct VirtualCluster {
    pub(crate) name: Box<str>,
    pub(crate) headers: Box<[HeaderMatcher]>,
}

impl VirtualHost {
    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Routes in order.
    pub fn routes(&self) -> &[Arc<RouteEntry>] {
        &self.routes
    }

    /// Which requests must use TLS.
    pub fn require_tls(&self) -> TlsRequirement {
        self.require_tls
    }

    /// Rate limit descriptors, as they were configured.
    pub fn rate_limits(&self) -> &[route::RateLimit] {
        &self.rate_limits
    }

    /// Metadata.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_ref()
    }

    /// Whether upstreams are told the number of the attempt (`x-envoy-attempt-count`).
    pub fn include_request_attempt_count(&self) -> bool {
        self.include_request_attempt_count
    }

    /// Whether clients are told the number of attempts.
    pub fn include_attempt_count_in_response(&self) -> bool {
        self.include_attempt_count_in_response
    }

    /// Whether upstreams are told that an attempt follows a time-out (`x-envoy-is-timeout-retry`).
    pub fn include_is_timeout_retry_header(&self) -> bool {
        self.include_is_timeout_retry_header
    }

    /// Names of the virtual clusters; empty when the host has none, and then `other` is not counted either.
    pub fn virtual_cluster_names(&self) -> impl Iterator<Item = &str> {
        self.virtual_clusters.iter().map(|cluster| &*cluster.name)
    }

    /// The index of the virtual cluster that a request belongs to; `None` is `other`.
    pub fn virtual_cluster(&self, headers: &HeaderMap) -> Option<usize> {
        self.virtual_clusters.iter().position(|cluster| all_match(&cluster.headers, headers))
    }

    /// The first route for which `matches` holds, among those that the path does not rule out.
    pub(crate) fn first_match(
        &self,
        path: &[u8],
        matches: impl Fn(&RouteEntry) -> bool,
    ) -> Option<&Arc<RouteEntry>> {
        match &self.index {
            Some(index) => index.first(path, |at| matches(&self.routes[at])).map(|at| &self.routes[at]),
            None => self.routes.iter().find(|route| matches(route)),
        }
    }
}
