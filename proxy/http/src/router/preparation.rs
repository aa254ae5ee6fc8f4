//! What is settled before the first attempt: the cluster, limits, the host's hash, retries, copies; and the request as it goes up.

use std::cell::RefCell;
use std::time::Duration;

use dhow_base::ResponseFlag;
use dhow_http::KnownHeader;
use dhow_proxy_api::{LocalReply, StreamFormat};
use dhow_proxy_runtime::LoadShedPoint;
use dhow_proxy_upstream::{ResponseTraits, RoutingPriority, WorkerCluster};
use dhow_routing::{ForwardAction, HashInput, HashPolicy, MirrorPolicy, Priority, SelectedRoute};

use super::Forwarding;
use super::hedge::Hedges;
use super::retry::RetryState;
use super::timeouts::{RequestTimeouts, set_grpc_timeout};
use crate::config::{ClusterOptions, RouterConfig};
use crate::stream::{Exchange, KeptBody, is_grpc};

impl Exchange {
    /// Chooses the cluster, sets limits and rewrites the request.
    pub(super) fn prepare(
        &mut self,
        route: &SelectedRoute,
        action: &ForwardAction,
    ) -> Result<Forwarding, LocalReply> {
        let manager = self.manager.clone();
        self.grpc = is_grpc(&self.request);
        let default: RouterConfig;
        let router = match &manager.config.chain_of(self.upgrade_chain).router {
            Some(router) => router,
            None => {
                default = RouterConfig::default();
                &default
            }
        };
        let name = route.cluster(&self.request).unwrap_or_default();
        let Some(cluster) = manager.clusters.get(name) else {
            manager.stats.router.no_cluster().inc();
            return Err(LocalReply::new(action.cluster_not_found_status, &b""[..], "cluster_not_found")
                .flag(ResponseFlag::NoClusterFound));
        };
        let info = cluster.info();
        self.info.upstream.cluster = Some(info.observability_name.clone());
        if info.observability_name != info.name {
            self.info.upstream.cluster_name = Some(info.name.clone());
        }
        if let Some(metadata) = &info.metadata {
            self.info.upstream.cluster_metadata = Some(metadata.clone());
        }
        if manager.sheds(LoadShedPoint::DownstreamFilter, &self.info.connection) {
            manager.stats.router.rq_overload_local_reply().inc();
            return Err(LocalReply::overloaded());
        }
        let mut groups = manager.request_groups(route, &self.request);
        self.info.virtual_cluster = groups.virtual_cluster();
        self.check_strictly(router)?;
        groups.take_alternative(&mut self.request);
        let refused = self.refuse_in_maintenance(&cluster).err().or_else(|| self.dropped(&cluster));
        if let Some(reply) = refused {
            let internal = self.internal;
            let traits =
                ResponseTraits { internal, alternative: groups.alternative(), ..ResponseTraits::default() };
            self.charge(&cluster, &groups, reply.status, &traits);
            return Err(reply);
        }
        let grpc = self.is_grpc();
        let timeouts = RequestTimeouts::of(action, router, &mut self.request, grpc);
        self.set_expected_timeout(&timeouts, action, Duration::ZERO);
        if route.virtual_host().include_request_attempt_count() {
            self.request.set_known(KnownHeader::XEnvoyAttemptCount, b"1");
        }
        // The attempt that comes is the first to the formats of the route's headers.
        self.info.upstream.attempts = 1;
        {
            let context = StreamFormat::new(&self.info);
            route.apply_request_rewrites(&mut self.request, &context, router.suppress_envoy_headers);
        }
        self.info.upstream.attempts = 0;
        let mut cookies = Vec::new();
        let policies = hash_policies(&cluster, action);
        // A cookie that is to be set is made only where the choice of a host depends on it.
        let hashed = !policies.is_empty() && cluster.reads_hash();
        let hash = if hashed { self.hash(policies, &mut cookies) } else { None };
        let tls = self.requested_tls(&cluster);
        let retry = RetryState::of(route, &cluster, &mut self.request, timeouts.hedging);
        let previous_priorities = retry.as_ref().and_then(RetryState::previous_priorities).map(RefCell::new);
        let timeout_status = if self.takes_timeout_as_success() { 204 } else { 504 };
        if let Some(complete) = self.info.request_complete {
            self.deadlines.response = timeouts.global.map(|timeout| complete + timeout);
        }
        let priority = match action.priority {
            Priority::Default => RoutingPriority::Default,
            Priority::High => RoutingPriority::High,
        };
        let limit = route.entry().request_body_buffer_limit();
        let limit = limit.map_or(self.control.request_buffer_limit, |limit| limit as usize);
        // The body of a request that was redirected was kept for this.
        let mut kept = self.redirects.body.take();
        if retry.is_some() || action.internal_redirect_policy.is_some() {
            kept = kept.or_else(|| Some(KeptBody::with_limit(limit, cluster.clone())));
        }
        Ok(Forwarding {
            kept,
            mirrors: !mirrors(&cluster, action).is_empty(),
            groups,
            cluster,
            route: route.clone(),
            priority,
            timeouts,
            retry,
            hash,
            tls,
            tried: Vec::new(),
            previous_priorities,
            host: None,
            started: false,
            interim: false,
            hedges: Hedges::default(),
            log: None,
            replaced: false,
            canary: false,
            timeout_status,
            cookies,
        })
    }

    /// Tells upstream how long it has, of which `elapsed` is over: none before the first attempt, however long the
    /// request waited for the router.
    pub(super) fn set_expected_timeout(
        &mut self,
        timeouts: &RequestTimeouts,
        action: &ForwardAction,
        elapsed: Duration,
    ) {
        let expected = timeouts.expected_millis(elapsed);
        if let Some(millis) =
            expected.filter(|_| action.max_grpc_timeout.is_some() && !action.has_stream_duration)
            && self.is_grpc()
        {
            set_grpc_timeout(&mut self.request, Duration::from_millis(millis));
        }
        let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
        if suppressed {
            return;
        }
        // Without a limit of its own the router leaves what an internal request says as it is.
        if let Some(millis) = expected {
            self.request.set_known_number(KnownHeader::XEnvoyExpectedRqTimeoutMs, millis);
        }
    }

    fn hash(&self, policies: &[HashPolicy], cookies: &mut Vec<String>) -> Option<u64> {
        let worker = &self.manager.worker;
        let mut make_cookie = |cookie: &dhow_routing::HashCookie| {
            let value = format!("{:016x}", worker.random());
            cookies.push(cookie.set_cookie(&value));
            Some(value)
        };
        let mut input = HashInput {
            headers: &self.request,
            source_ip: self.info.client_address.ip(),
            filter_state: &|key| self.info.filter_state.text(key).map(|text| dhow_routing::hash_of(&text)),
            make_cookie: &mut make_cookie,
        };
        HashPolicy::combined(policies, &mut input)
    }
}

/// What decides about the host: the cluster's policies, if it has some, or else the route's.
fn hash_policies<'a>(cluster: &'a WorkerCluster, action: &'a ForwardAction) -> &'a [HashPolicy] {
    let of_cluster = ClusterOptions::of(cluster).map(|options| &*options.hash_policies);
    of_cluster.filter(|policies| !policies.is_empty()).unwrap_or(&action.hash_policies)
}

/// Where copies go: the cluster's policies, if it has some, or else the route's.
pub(super) fn mirrors<'a>(cluster: &'a WorkerCluster, action: &'a ForwardAction) -> &'a [MirrorPolicy] {
    let of_cluster = ClusterOptions::of(cluster).map(|options| &*options.mirror_policies);
    of_cluster.filter(|policies| !policies.is_empty()).unwrap_or(&action.mirror_policies)
}
