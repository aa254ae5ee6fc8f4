//! One route, and a route as it was selected for a request.

use std::sync::Arc;

use dhow_expr::FormatContext;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_matching::MetadataCriteria;

use crate::action::ForwardAction;
use crate::cluster::{ClusterChoice, ClusterSource, WeightedCluster};
use crate::direct_response::DirectResponse;
use crate::filter_config::FilterConfigs;
use crate::headers::HeaderLevels;
use crate::pb::core::Metadata;
use crate::pb::route;
use crate::redirect::Redirect;
use crate::route_match::RouteMatch;
use crate::virtual_host::VirtualHost;

/// What a route does.
#[derive(Clone, Debug)]
pub enum Action {
    /// `route`.
    Forward(Box<ForwardAction>),
    /// `redirect`.
    Redirect(Box<Redirect>),
    /// `direct_response`.
    DirectResponse(Box<DirectResponse>),
    /// `non_forwarding_action`: no answer here; a filter gives it.
    NonForwarding,
}

/// A compiled `envoy.config.route.v3.Route`.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    pub(crate) name: Box<str>,
    pub(crate) matched: RouteMatch,
    pub(crate) action: Action,
    pub(crate) request_headers: HeaderLevels,
    pub(crate) response_headers: HeaderLevels,
    pub(crate) filter_configs: FilterConfigs,
    pub(crate) metadata: Option<Box<Metadata>>,
    pub(crate) stat_prefix: Box<str>,
    pub(crate) request_body_buffer_limit: Option<u64>,
    pub(crate) decorator: Option<Box<route::Decorator>>,
    pub(crate) tracing: Option<Box<route::Tracing>>,
}

impl RouteEntry {
    /// Name; empty when it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it matches.
    pub fn route_match(&self) -> &RouteMatch {
        &self.matched
    }

    /// What it does.
    pub fn action(&self) -> &Action {
        &self.action
    }

    /// Its forwarding action, if it forwards.
    pub fn forward(&self) -> Option<&ForwardAction> {
        match &self.action {
            Action::Forward(action) => Some(action),
            _ => None,
        }
    }

    /// Metadata.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// `stat_prefix`: with one, `vhost.<vh>.route.<prefix>.*` is counted. Empty: none.
    pub fn stat_prefix(&self) -> &str {
        &self.stat_prefix
    }

    /// Bytes of a request body that may be buffered; `None`: the listener's limit.
    pub fn request_body_buffer_limit(&self) -> Option<u64> {
        self.request_body_buffer_limit
    }

    /// Name of the span, as configured.
    pub fn decorator(&self) -> Option<&route::Decorator> {
        self.decorator.as_deref()
    }

    /// Tracing settings, as configured.
    pub fn tracing(&self) -> Option<&route::Tracing> {
        self.tracing.as_deref()
    }
}

/// A route selected for a request, with its cluster if it has several. Holding it keeps what it needs of the table alive.
#[derive(Clone, Debug)]
pub struct SelectedRoute {
    pub(crate) entry: Arc<RouteEntry>,
    pub(crate) virtual_host: Arc<VirtualHost>,
    /// Which of several clusters it is.
    pub(crate) chosen: Option<u32>,
}

impl SelectedRoute {
    /// The route.
    pub fn entry(&self) -> &RouteEntry {
        &self.entry
    }

    /// Its virtual host.
    pub fn virtual_host(&self) -> &Arc<VirtualHost> {
        &self.virtual_host
    }

    /// What it does.
    pub fn action(&self) -> &Action {
        &self.entry.action
    }

    /// Its forwarding action, if it forwards.
    pub fn forward(&self) -> Option<&ForwardAction> {
        self.entry.forward()
    }

    /// The weighted cluster that was picked.
    pub fn weighted_cluster(&self) -> Option<&WeightedCluster> {
        match &self.forward()?.cluster {
            ClusterChoice::Weighted(clusters) => clusters.clusters.get(self.chosen? as usize),
            ClusterChoice::One(_) | ClusterChoice::Matched(_) => None,
        }
    }

    /// Where the request goes.
    pub fn cluster_source(&self) -> Option<&ClusterSource> {
        match &self.forward()?.cluster {
            ClusterChoice::One(source) => Some(source),
            ClusterChoice::Weighted(_) => self.weighted_cluster().map(|weighted| &weighted.cluster),
            ClusterChoice::Matched(clusters) => clusters.get(self.chosen?),
        }
    }

    /// The cluster's name; `None` when a header should name it and does not, when no cluster matched, or the route does not forward.
    pub fn cluster<'a>(&'a self, headers: &'a HeaderMap) -> Option<&'a str> {
        self.cluster_source()?.name(headers)
    }

    /// `envoy.lb` metadata that hosts must have: the route's with the weighted cluster's merged over it.
    pub fn metadata_match(&self) -> Option<&MetadataCriteria> {
        let weighted = self.weighted_cluster().and_then(|weighted| weighted.metadata_match.as_ref());
        weighted.or_else(|| self.forward()?.metadata_match.as_ref())
    }

    /// What the route, its virtual host and its table say to filters.
    pub fn filter_configs(&self) -> &FilterConfigs {
        self.weighted_cluster().map_or(&self.entry.filter_configs, |weighted| &weighted.filter_configs)
    }

    /// Edits a request that is about to be forwarded: headers first, then host, then path, as in Envoy.
    ///
    /// `context` gives all facts but the request's headers. `suppress_envoy_headers` is the router filter's: without it the former path and
    /// host are kept in `x-envoy-original-path` and `x-envoy-original-host`.
    pub fn apply_request_rewrites(
        &self,
        headers: &mut HeaderMap,
        context: &dyn FormatContext,
        suppress_envoy_headers: bool,
    ) {
        let weighted = self.weighted_cluster();
        let levels = weighted.map_or(&self.entry.request_headers, |weighted| &weighted.request_headers);
        levels.apply_to_request(headers, context);
        let Some(action) = self.forward() else { return };
        let keep_original = !suppress_envoy_headers;
        let forwarded_host = action.append_x_forwarded_host;
        // The weighted cluster's host leaves no trace of the former one, and the route's comes after it: as in Envoy.
        if let Some(literal) = weighted.and_then(|weighted| weighted.host_rewrite.as_ref()) {
            headers.set_known(KnownHeader::Authority, literal);
        }
        if let Some(rewrite) = &action.host_rewrite {
            rewrite.apply(headers, context, forwarded_host, keep_original);
        }
        if let Some(rewrite) = &action.path_rewrite {
            rewrite.apply(&self.entry.matched, headers, context, keep_original);
        }
    }

    /// Edits a response; also a local reply, once the route is selected. `context` gives all facts but the response's headers.
    pub fn apply_response_headers(&self, headers: &mut HeaderMap, context: &dyn FormatContext) {
        let weighted = self.weighted_cluster();
        let levels = weighted.map_or(&self.entry.response_headers, |weighted| &weighted.response_headers);
        levels.apply_to_response(headers, context);
    }

    /// The `location` of a redirect, or the request's own URI for a direct response, which is its location where the status
    /// calls for one. `None` when the route does not answer itself.
    pub fn direct_uri(&self, headers: &HeaderMap, context: &dyn FormatContext) -> Option<Vec<u8>> {
        let matched = &self.entry.matched;
        match &self.entry.action {
            Action::Redirect(redirect) => Some(redirect.location(matched, headers, context)),
            Action::DirectResponse(_) => Some(Redirect::nowhere_else().location(matched, headers, context)),
            Action::Forward(_) | Action::NonForwarding => None,
        }
    }

    /// Rewrites the path of a request that is redirected, as the log shows it. Call it after [`Self::direct_uri`].
    pub fn rewrite_redirected_path(
        &self,
        headers: &mut HeaderMap,
        context: &dyn FormatContext,
        suppress_envoy_headers: bool,
    ) {
        if let Action::Redirect(redirect) = &self.entry.action
            && let Some(rewrite) = redirect.path_rewrite()
        {
            rewrite.apply(&self.entry.matched, headers, context, !suppress_envoy_headers);
        }
    }

    /// Status and `location` of a redirect; `None` when the route does not redirect.
    pub fn redirect_location(
        &self,
        headers: &HeaderMap,
        context: &dyn FormatContext,
    ) -> Option<(u16, Vec<u8>)> {
        match &self.entry.action {
            Action::Redirect(redirect) => {
                Some((redirect.status(), redirect.location(&self.entry.matched, headers, context)))
            }
            _ => None,
        }
    }
}
