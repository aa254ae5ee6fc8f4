//! `VirtualHost`, and the search among its routes.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_matching::{HeaderMatcher, all_match};

use crate::entry::RouteEntry;
use crate::index::RouteIndex;
use crate::pb::core::Metadata;
use crate::rate_limit::RateLimitRule;
use crate::route_tree::RouteTree;
use crate::table::RouteInput;

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

/// Routes of a virtual host.
pub(crate) type Routes = Box<[Arc<RouteEntry>]>;

/// A compiled `envoy.config.route.v3.VirtualHost`.
#[derive(Clone, Debug)]
pub struct VirtualHost {
    pub(crate) name: Box<str>,
    /// In order; those of a matcher in the order in which they were compiled.
    pub(crate) routes: Routes,
    pub(crate) search: RouteSearch,
    pub(crate) require_tls: TlsRequirement,
    pub(crate) virtual_clusters: Box<[VirtualCluster]>,
    pub(crate) rate_limits: Box<[RateLimitRule]>,
    pub(crate) metadata: Option<Box<Metadata>>,
    pub(crate) include_request_attempt_count: bool,
    pub(crate) include_attempt_count_in_response: bool,
    pub(crate) include_is_timeout_retry_header: bool,
}

/// How the routes of a virtual host are searched.
#[derive(Clone, Debug)]
pub(crate) enum RouteSearch {
    /// One after the other.
    InOrder,
    /// One after the other among those that the path does not rule out.
    Indexed(Box<RouteIndex>),
    /// Those that `matcher` leads to, one after the other.
    Tree(Box<RouteTree>),
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

    /// Rate limit descriptors.
    pub fn rate_limits(&self) -> &[RateLimitRule] {
        &self.rate_limits
    }

    /// Metadata.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
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

    /// The routes that are looked at, with their positions: all, or those that the matcher leads to.
    pub(crate) fn candidates(
        &self,
        headers: &HeaderMap,
        input: &RouteInput<'_>,
    ) -> impl Iterator<Item = (usize, &Arc<RouteEntry>)> {
        let range = match &self.search {
            RouteSearch::Tree(tree) => tree.candidates(headers, input),
            RouteSearch::InOrder | RouteSearch::Indexed(_) => 0..self.routes.len(),
        };
        range.clone().zip(&self.routes[range])
    }

    /// The first route for which `matches` holds, among those that path and matcher do not rule out.
    pub(crate) fn first_match(
        &self,
        headers: &HeaderMap,
        path: &[u8],
        input: &RouteInput<'_>,
        matches: impl Fn(&RouteEntry) -> bool,
    ) -> Option<&Arc<RouteEntry>> {
        match &self.search {
            RouteSearch::InOrder => self.routes.iter().find(|route| matches(route)),
            RouteSearch::Indexed(index) => {
                index.first(path, |at| matches(&self.routes[at])).map(|at| &self.routes[at])
            }
            RouteSearch::Tree(tree) => {
                self.routes[tree.candidates(headers, input)].iter().find(|route| matches(route))
            }
        }
    }
}
