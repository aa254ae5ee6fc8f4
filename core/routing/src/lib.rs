//! Compiles a `RouteConfiguration` into an immutable table and selects the route of a request as a pure function, with an optional explanation.
//! It must not know clusters' hosts, connections or filters: their names and messages pass through it.
//!
//! [`RouteTable::compile`] does everything that can be done when configuration arrives; [`RouteTable::select`] reads headers and
//! facts and gives a [`Decision`]; the [`SelectedRoute`] in it edits headers, builds redirects and tells time-outs and policies.

mod action;
mod cluster;
mod cluster_matcher;
mod compile;
mod compile_action;
mod cors_field;
mod direct_response;
mod entry;
mod explain;
mod filter_config;
mod hash;
mod header_edit;
mod headers;
mod index;
mod internal_redirect;
mod mirror;
mod pb;
mod rate_limit;
mod redirect;
mod retry;
mod rewrite;
mod route_match;
mod route_tree;
mod table;
#[cfg(test)]
mod tests;
mod virtual_host;

pub use action::{
    ForwardAction, ForwardSettings, HedgePolicy, HostRewrite, Priority, ProxyProtocol, UpgradeConfig,
};
pub use cluster::{ClusterChoice, ClusterSource, WeightedCluster, WeightedClusters};
pub use cluster_matcher::MatchedClusters;
pub use compile::{CompileFilterConfig, CompileOptions, ReadSource};
pub use cors_field::CORS_FIELD;
pub use dhow_runtime_config::{Fraction, NoRuntime, RuntimeFraction, RuntimeValues};
pub use direct_response::DirectResponse;
pub use entry::{Action, RouteEntry, SelectedRoute};
pub use explain::{Explanation, Step};
pub use filter_config::{FilterConfigObject, FilterConfigs, FilterOverride};
pub use hash::{HashCookie, HashInput, HashPolicy, xx_hash as hash_of};
pub use header_edit::HeaderEdit;
pub use headers::{HeaderLevels, HeaderMutations};
pub use internal_redirect::{InternalRedirectPolicy, RedirectPredicate};
pub use mirror::MirrorPolicy;
pub use rate_limit::{RateLimitDescriptor, RateLimitInput, RateLimitRule, RateLimitUnit, XRateLimitHeaders};
pub use redirect::Redirect;
pub use retry::{BackOff, RateLimitedBackOff, ResetHeader, RetryOn, RetryPolicy};
pub use rewrite::{PathRewrite, set_authority};
pub use route_match::{Mismatch, RouteMatch};
pub use table::{ClientCertificate, Decision, RouteInput, RouteTable};
pub use virtual_host::{TlsRequirement, VirtualCluster, VirtualHost};
