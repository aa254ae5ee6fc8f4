//! Mirrored requests: copies for other clusters, whose responses are dropped.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::StreamFormat;
use dhow_proxy_runtime::clock;
use dhow_proxy_upstream::{
    AttemptSizes, ClusterStats, HeadSize, Host, LbContext, ResponseTraits, RoutingPriority, WorkerCluster,
};
use dhow_routing::MirrorPolicy;
use dhow_runtime_config::Current;

use super::Forwarding;
use super::attempt::RequestGuard;
use super::hedge::reset_status;
use super::host_selection::is_canary;
use super::preparation::mirrors;
use crate::body::{BodySource, BodyState, BufferedBody, TransferError, poll_transfer};
use crate::body_copy::{self, CopyReader, CopyWriter};
use crate::manager::Manager;
use crate::reset::Reset;
use crate::stream::{Exchange, KeptBody, missing_header};
use crate::upstream::{Acquired, Foresight, UpstreamStream};

/// One copy of a request.
struct Shadow {
    manager: Rc<Manager>,
    cluster: Rc<WorkerCluster>,
    priority: RoutingPriority,
    head: HeaderMap,
    timeout: Option<Duration>,
    /// The host that was chosen.
    host: RefCell<Option<Arc<Host>>>,
    /// Whether the response says that it comes from a canary.
    canary: Cell<bool>,
    /// What was moved, for `track_cluster_stats`.
    sizes: Cell<AttemptSizes>,
    /// Whether the response has begun: what is counted then is its status, however it ends.
    answered: Cell<bool>,
}

/// Bytes of a copied body that may wait in any case, the default of `per_connection_buffer_limit_bytes`.
const LEAST_WAITING: usize = 1 << 20;

impl Exchange {
    /// Sends the copies that are wanted of the request, now that a host was found for it.
    pub(super) fn mirror(&mut self, forwarding: &mut Forwarding) {
        let Some(action) = forwarding.route.forward() else { return };
        let policies = mirrors(&forwarding.cluster, action);
        // What arrives at once always fits, however little the connections may buffer.
        let limit = self.control.request_buffer_limit.max(LEAST_WAITING);
        let copies = self.send_shadows(policies, limit, forwarding.priority, forwarding.timeouts.global);
        if !copies.is_empty() {
            forwarding.kept.get_or_insert_with(KeptBody::unkept).copy_to(copies);
        }
    }

    /// Sends copies of the request, which is rewritten already. Their bodies follow through what is given back; a copy for
    /// which more than `limit` bytes wait is given up.
    fn send_shadows(
        &self,
        policies: &[MirrorPolicy],
        limit: usize,
        priority: RoutingPriority,
        timeout: Option<Duration>,
    ) -> Vec<CopyWriter> {
        let mut bodies = Vec::new();
        if policies.is_empty() || self.request.method() == b"CONNECT" {
            return bodies;
        }
        for policy in policies {
            if !policy.fraction.as_ref().is_none_or(|fraction| fraction.contains(self.random, &Current)) {
                continue;
            }
            let cluster = policy.cluster.name(&self.request).and_then(|name| self.manager.clusters.get(name));
            let Some(cluster) = cluster else { continue };
            let manager = self.manager.clone();
            let mut head = self.shadow_head(policy);
            let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
            if let Some(timeout) = timeout.filter(|_| !suppressed) {
                // A copy is tried once: it is expected within the whole time.
                head.set_known_number(KnownHeader::XEnvoyExpectedRqTimeoutMs, timeout.as_millis() as u64);
            }
            let shadow = Shadow::new(manager, cluster, priority, head, timeout);
            if self.end_stream {
                tokio::task::spawn_local(shadow.run(None));
            } else {
                let (writer, reader) = body_copy::copy(limit);
                bodies.push(writer);
                tokio::task::spawn_local(shadow.run(Some(reader)));
            }
        }
        bodies
    }

    fn shadow_head(&self, policy: &MirrorPolicy) -> HeaderMap {
        let mut head = self.request.clone();
        let context = StreamFormat::new(&self.info);
        policy.apply_to_request(&mut head, &context);
        if let Some(host) = &policy.host_rewrite {
            head.set_known(KnownHeader::Authority, host);
        } else if policy.host_suffix {
            let host = with_suffix(head.authority());
            head.set_known(KnownHeader::Authority, &host);
        }
        head.set_known(KnownHeader::XEnvoyInternal, b"true");
        append_forwarded_for(&mut head, self.manager.config.forwarding.node_address);
        head
    }
}

/// `-shadow` behind the host, in front of its port.
fn with_suffix(authority: &[u8]) -> Vec<u8> {
    let port_at = match authority.iter().rposition(|&b| b == b':') {
        Some(at) if !authority[at..].contains(&b']') => at,
        _ => authority.len(),
    };
    let (host, port) = authority.split_at(port_at);
    [host, b"-shadow", port].concat()
}

/// As a client of the proxy's own does.
fn append_forwarded_for(head: &mut HeaderMap, address: IpAddr) {
    let address = address.to_string();
    let joined = match head.get_known(KnownHeader::XForwardedFor).filter(|before| !before.is_empty()) {
        Some(before) => [before, b",", address.as_bytes()].concat(),
        None => address.into_bytes(),
    };
    head.set_known(KnownHeader::XForwardedFor, &joined);
}

impl Shadow {
    fn new(
        manager: Rc<Manager>,
        cluster: Rc<WorkerCluster>,
        priority: RoutingPriority,
        head: HeaderMap,
        timeout: Option<Duration>,
    ) -> Self {
        let (host, canary, sizes, answered) = Default::default();
        Self { manager, cluster, priority, head, timeout, host, canary, sizes, answered }
    }

    /// Counts under the cluster, and wherever the host and the response belong.
    fn count(&self, count: impl FnOnce(&ClusterStats, &ResponseTraits<'_>)) {
        let host = self.host.borrow();
        let host = host.as_deref();
        let traits = ResponseTraits {
            internal: true,
            canary: self.canary.get() || host.is_some_and(is_canary),
            zone: host.map_or("", |host| &host.locality().zone),
            alternative: None,
        };
        count(&self.cluster.info().stats, &traits);
    }

    fn charge(&self, status: u16) {
        self.count(|stats, traits| stats.charge_response(status, traits));
    }

    async fn run(self, body: Option<CopyReader>) {
        self.manager.stats.async_client.rq_total().inc();
        let started = clock::now();
        let exchange = self.exchange(body);
        let ended = match self.timeout {
            None => exchange.await,
            Some(timeout) => tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
                self.cluster.info().stats.upstream_rq_timeout().inc();
                Err(504)
            }),
        };
        let elapsed = clock::now().saturating_duration_since(started);
        match ended {
            Ok(()) => {
                self.count(|stats, traits| stats.record_request_time(elapsed.as_millis() as u64, traits))
            }
            Err(status) if !self.answered.get() => self.charge(status),
            Err(_) => {}
        }
        if let Some(tracked) = self.cluster.info().stats.tracked() {
            let sizes = AttemptSizes { request: HeadSize::of(&self.head), ..self.sizes.get() };
            tracked.record_sizes(&sizes);
            tracked.record_request_time(elapsed, self.timeout);
            if sizes.response.is_some() {
                tracked.record_attempt_time(elapsed, None);
            }
        }
    }

    /// Sends the copy and drops the response; `Err` has the status that stands for a response that does not come whole.
    async fn exchange(&self, body: Option<CopyReader>) -> Result<(), u16> {
        let Some(chosen) = self.cluster.choose_host(&LbContext::default()) else {
            self.cluster.info().stats.upstream_cx_none_healthy().inc();
            return Err(503);
        };
        let (cluster, host) = (chosen.cluster(&self.cluster).clone(), chosen.host);
        *self.host.borrow_mut() = Some(host.clone());
        let next_host = || Some((self.cluster.peek_host(&LbContext::default())?, None));
        let foresight = Foresight::of(&self.cluster, &next_host);
        let acquired = self.manager.pools.acquire(&cluster, &host, self.priority, false, None, foresight);
        let stream = match acquired {
            Ok(Acquired::Ready(stream)) => Ok(stream),
            Ok(Acquired::Wait(waiting)) => waiting.await,
            Ok(Acquired::NoPool) => return Err(503),
            Err(reset) => Err(reset),
        };
        let mut upstream = stream.map_err(|_| 503_u16)?;
        let guard = RequestGuard::begin(cluster, &host, self.priority).ok_or(503_u16)?;
        if missing_header(&self.head).is_some() {
            upstream.abandon();
            guard.count_given_up(&upstream);
            self.answered.set(true);
            return Err(503);
        }
        let driven = match body {
            Some(mut body) => self.drive(&mut upstream, &guard, &mut body, false).await,
            None => self.drive(&mut upstream, &guard, &mut BufferedBody::new(b"", None), true).await,
        };
        driven.map_err(|reset| {
            guard.count_reset(&upstream, &reset);
            guard.on_failure();
            reset_status(&reset)
        })
    }

    async fn drive<S: BodySource>(
        &self,
        upstream: &mut UpstreamStream,
        guard: &RequestGuard,
        source: &mut S,
        end: bool,
    ) -> Result<(), Reset> {
        upstream.begin(&self.head, end)?;
        let mut response = HeaderMap::new();
        let (mut sent, mut moved) = (false, 0);
        let mut interim = None;
        let status = poll_fn(|cx| {
            if !sent && let Poll::Ready(result) = poll_transfer(cx, source, upstream, &mut moved) {
                sent = true;
                if let Err(TransferError::Sink(reset) | TransferError::Source(reset)) = result {
                    return Poll::Ready(Err(reset));
                }
            }
            loop {
                match upstream.poll_head(cx, &mut response) {
                    Poll::Ready(Ok(head)) if head.informational => {
                        // One at most is looked at, whatever the host sends. It counts as the answer if no other comes.
                        if interim.replace(head.status).is_none() {
                            self.charge(head.status);
                            self.answered.set(true);
                        }
                    }
                    Poll::Ready(Ok(head)) => return Poll::Ready(Ok(head.status)),
                    Poll::Ready(Err(reset)) => return Poll::Ready(Err(reset)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await?;
        self.canary.set(response.get_known(KnownHeader::XEnvoyUpstreamCanary) == Some(b"true"));
        let mut sizes = AttemptSizes { request_body: moved, ..AttemptSizes::default() };
        sizes.response = Some(HeadSize::of(&response));
        self.sizes.set(sizes);
        self.answered.set(true);
        self.charge(status);
        guard.on_head(&response, false);
        guard.on_accepted(&response, false, false);
        poll_fn(|cx| {
            loop {
                match upstream.poll_body(cx) {
                    Poll::Ready(Ok(BodyState::Data)) => {
                        let count = upstream.chunk().len();
                        sizes.response_body += count as u64;
                        self.sizes.set(sizes);
                        upstream.consume(count);
                    }
                    Poll::Ready(Ok(BodyState::End)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Err(reset)) => return Poll::Ready(Err(reset)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::with_suffix;

    #[test]
    fn the_suffix_goes_in_front_of_the_port() {
        for (host, expected) in [
            ("a.test", "a.test-shadow"),
            ("a.test:80", "a.test-shadow:80"),
            ("[::1]:80", "[::1]-shadow:80"),
            ("[::1]", "[::1]-shadow"),
        ] {
            assert_eq!(with_suffix(host.as_bytes()), expected.as_bytes());
        }
    }
}
