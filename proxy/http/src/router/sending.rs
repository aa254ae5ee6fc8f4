//! One attempt, from the choice of a host to the head of a response.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dhow_http::h1::BodyLength;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_proxy_upstream::{ChosenHost, ConnectionGuard, DiscoveryType, Host, HostResult};
use dhow_routing::set_authority;

use super::attempt::{PendingGuard, RequestGuard};
use super::hedge::Hedge;
use super::host_selection::no_healthy_upstream;
use super::{Forwarding, Outcome};
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{
    Direction, Exchange, Expired, Interruption, Pump, RequestBody, incomplete_request, incomplete_response,
    missing_header,
};
use crate::upstream::UpstreamStream;

impl Exchange {
    /// Sends the request to a host and waits for the head of the response.
    pub(super) async fn attempt<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
    ) -> Outcome {
        let mut chosen = self.choose_host(forwarding);
        if chosen.is_none() && forwarding.cluster.info().discovery == DiscoveryType::DynamicForwardProxy {
            match Box::pin(self.await_name(down, timer, forwarding)).await {
                Ok(found) => chosen = found,
                Err(interruption) => return Outcome::Interrupted(interruption),
            }
        }
        let Some(ChosenHost { host, member }) = chosen else {
            forwarding.cluster.info().stats.upstream_cx_none_healthy().inc();
            self.info.upstream.attempts += 1;
            let mut reply = no_healthy_upstream();
            if let Some(wanted) = self.info.override_host.as_deref().filter(|wanted| wanted.strict) {
                reply.status = wanted.status;
            }
            return Outcome::Final(Box::new(reply));
        };
        if std::mem::take(&mut forwarding.mirrors) {
            self.mirror(forwarding);
        }
        self.info.upstream.attempts += 1;
        self.info.upstream.host = Some(host.address_text().clone());
        self.info.upstream.local_address = None;
        self.info.upstream.connection_id = None;
        self.info.upstream.tls = None;
        self.info.upstream.hostname = host.shared_hostname().cloned();
        let metadata = &host.metadata().endpoint;
        let has_metadata = !metadata.filter_metadata.is_empty();
        self.info.upstream.host_metadata = has_metadata.then(|| metadata.clone());
        forwarding.host = Some(host.clone());
        forwarding.replaced = false;
        self.update_for_attempt(forwarding, &host);
        self.begin_attempt_log(forwarding);
        if forwarding.retry.is_some() {
            forwarding.tried.push(host.clone());
            if let Some(previous) = &forwarding.previous_priorities {
                previous.borrow_mut().on_attempt(host.clone());
            }
        }
        let held = match self.filter_upstream_request(forwarding) {
            Ok(held) => held,
            Err(interruption) => return Outcome::Interrupted(interruption),
        };
        let cluster = member.unwrap_or_else(|| forwarding.cluster.clone());
        self.waited = true;
        let mut pending = PendingGuard::new(&cluster);
        let asked = clock::now();
        let stream = self.acquire(down, timer, forwarding, (&cluster, &host)).await;
        self.info.upstream.pool = Some((asked, clock::now()));
        if matches!(stream, Ok(_) | Err(Interruption::Upstream(_) | Interruption::Answered(..))) {
            pending.settle();
        }
        drop(pending);
        let mut upstream = match stream {
            Ok(stream) => stream,
            Err(Interruption::Upstream(reset)) => {
                if reset.kind != ResetKind::Overflow {
                    cluster.note_result(&host, HostResult::ConnectFailed);
                    host.stats().rq_error.fetch_add(1, Ordering::Relaxed);
                    return Outcome::Reset(reset);
                }
                return self.overflowed(forwarding);
            }
            Err(Interruption::Answered(reply, _)) => {
                self.forget_host(forwarding);
                return Outcome::Final(reply);
            }
            Err(interruption) => return Outcome::Interrupted(interruption),
        };
        let Some(guard) = RequestGuard::begin(cluster, &host, forwarding.priority) else {
            return Outcome::Reset(Reset::new(ResetKind::Overflow));
        };
        guard.on_connected();
        forwarding.groups.each(|group| group.upstream_rq_total().inc());
        forwarding.started = true;
        let begun = clock::now();
        let longest = forwarding.timeouts.stream.or(forwarding.cluster.info().http.max_stream_duration);
        self.deadlines.limit_upstream(longest.filter(|longest| !longest.is_zero()), begun);
        self.info.upstream.first_tx = Some(begun);
        self.info.upstream.protocol = upstream.protocol();
        self.info.upstream.local_address = upstream.connection().local_address();
        self.info.upstream.connection_id = Some(upstream.connection().id());
        self.note_connection(upstream.connection());
        self.log_attempt_stream(forwarding, &upstream);
        if held && let Err(interruption) = Box::pin(self.hold_attempt(down, timer, forwarding)).await {
            upstream.abandon();
            return broken_off(&upstream, &guard, interruption);
        }
        if let Some(meter) = &self.info.upstream_bytes {
            upstream.set_meter(meter);
        }
        if !matches!(upstream, UpstreamStream::Tunnel(_))
            && let Some(missing) = missing_header(&self.request)
        {
            upstream.abandon();
            let reply = Box::new(incomplete_request(missing));
            return broken_off(&upstream, &guard, Interruption::Answered(reply, Direction::Request));
        }
        if let Err(reset) = upstream.begin(&self.request, self.end_stream) {
            return Outcome::Reset(reset);
        }
        self.join_metadata(down, &upstream);
        self.await_response(down, timer, forwarding, upstream, guard).await
    }

    /// What logs tell of a connection beside its number.
    fn note_connection(&mut self, connection: &ConnectionGuard) {
        self.info.upstream.tls = connection.tls().cloned();
        if connection.begun() >= self.info.start {
            self.info.upstream.connect = Some((connection.begun(), connection.connected()));
        }
    }

    /// The limits of the cluster left no room to wait for a connection: the attempt had no host.
    fn overflowed(&mut self, forwarding: &mut Forwarding) -> Outcome {
        self.forget_host(forwarding);
        Outcome::Reset(Reset::new(ResetKind::Overflow))
    }

    fn forget_host(&mut self, forwarding: &mut Forwarding) {
        self.info.upstream.host = None;
        self.info.upstream.hostname = None;
        forwarding.host = None;
    }

    /// Sends the request and waits for the head of the final response.
    async fn await_response<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        mut upstream: UpstreamStream,
        guard: RequestGuard,
    ) -> Outcome {
        let manager = self.manager.clone();
        // What follows an upgrade is for the other protocol, if the host agrees to it.
        let holds_body = self.upgrade && !matches!(upstream, UpstreamStream::Tunnel(_));
        let rejects_early_data = holds_body && self.rejects_early_data();
        let (stream, deadlines) = self.parts();
        let mut body = RequestBody { down, kept: forwarding.kept.as_mut(), stream };
        let mut pump = Pump {
            body: &mut body,
            upstream: &mut upstream,
            deadlines,
            timer,
            request_done: false,
            response_timeout: forwarding.timeouts.global,
            upgraded: false,
            holds_body,
            rejects_early_data,
            attempt: forwarding.log.as_deref_mut(),
        };
        let mut interim = None;
        let result = loop {
            match pump.await_head().await {
                // One at most is looked at, whatever the host sends.
                Ok(head) if head.informational && interim.is_some() => {}
                Ok(head) if head.informational => {
                    interim = Some(head.status);
                    // Another host would have to send the same again.
                    forwarding.retry = None;
                    forwarding.interim = true;
                    if manager.config.proxy_100_continue {
                        manager.stats.charge_interim(head.status);
                        pump.body.stream.info.response_code = Some(head.status);
                        pump.body.down.send_informational(pump.body.stream.response);
                    }
                }
                other => break other,
            }
        };
        let request_done = pump.request_done;
        if request_done {
            forwarding.finish_copies(down.trailers());
        }
        if let Some(status) = interim {
            let traits = forwarding.traits(self.internal);
            self.charge(&forwarding.cluster, &forwarding.groups, status, &traits);
        }
        let interruption = match result {
            Ok(head) => {
                let now = clock::now();
                self.deadlines.on_response_head(now);
                self.info.upstream.first_rx = Some(now);
                self.filter_upstream_response(head.body == BodyLength::None);
                if !self.response.contains_known(KnownHeader::Status) {
                    guard.count_discarded(&upstream, &head);
                    let reply = Box::new(incomplete_response());
                    return Outcome::Interrupted(Interruption::Answered(reply, Direction::Request));
                }
                guard.on_head(&self.response, self.is_grpc());
                return Outcome::Response(head, upstream, guard, request_done);
            }
            Err(interruption) => interruption,
        };
        self.deadlines.end_attempt();
        guard.release_client(&upstream, &manager.stats.manager);
        let idle = match interruption {
            Interruption::Expired(Expired::PerTry) => false,
            Interruption::Expired(Expired::PerTryIdle) => true,
            Interruption::Expired(Expired::UpstreamDuration) => {
                guard.count_end(&upstream, &interruption);
                guard.on_too_long();
                return Outcome::TooLong;
            }
            other => return broken_off(&upstream, &guard, other),
        };
        guard.on_timeout();
        if forwarding.timeouts.hedging {
            return Outcome::SoftTimeout(Box::new(Hedge {
                stream: upstream,
                guard,
                host: forwarding.host.clone().expect("an attempt has a host"),
                upstream: self.info.upstream.clone(),
                response: HeaderMap::new(),
                log: forwarding.log.take(),
                replaced: false,
            }));
        }
        guard.count_end(&upstream, &interruption);
        guard.on_timed_out();
        let stats = &forwarding.cluster.info().stats;
        match idle {
            false => stats.upstream_rq_per_try_timeout().inc(),
            true => stats.upstream_rq_per_try_idle_timeout().inc(),
        }
        Outcome::PerTryTimeout { idle }
    }

    /// What differs from attempt to attempt: counts, what is left of the time, the host's name.
    fn update_for_attempt(&mut self, forwarding: &Forwarding, host: &Arc<Host>) {
        let attempts = self.info.upstream.attempts;
        if attempts > 1 {
            if let Some(action) = forwarding.route.forward() {
                let elapsed = self.since_request(clock::now());
                self.set_expected_timeout(&forwarding.timeouts, action, elapsed);
            }
            if forwarding.route.virtual_host().include_request_attempt_count() {
                self.request.set_known_number(KnownHeader::XEnvoyAttemptCount, attempts.into());
            }
        }
        if let Some(action) = forwarding.route.forward()
            && action.is_auto_host_rewrite()
            && !host.hostname().is_empty()
        {
            let append = action.append_x_forwarded_host && attempts == 1;
            let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
            let keep = attempts == 1 && !suppressed;
            set_authority(&mut self.request, host.hostname().as_bytes(), append, keep);
        }
        if self.manager.config.forwarding.scheme.match_upstream {
            let scheme: &[u8] = if host.transport_socket().is_secure() { b"https" } else { b"http" };
            self.request.set_known(KnownHeader::Scheme, scheme);
        }
        let per_try = &forwarding.timeouts;
        self.deadlines.begin_attempt(per_try.per_try, per_try.per_try_idle);
    }
}

/// What becomes of an attempt that ended without response, not by limits of its own.
fn broken_off(upstream: &UpstreamStream, guard: &RequestGuard, interruption: Interruption) -> Outcome {
    guard.count_end(upstream, &interruption);
    match interruption {
        Interruption::Upstream(reset) => {
            guard.on_failure();
            Outcome::Reset(reset)
        }
        Interruption::Expired(Expired::Response) => {
            guard.on_timeout();
            guard.on_timed_out();
            Outcome::Interrupted(Interruption::Expired(Expired::Response))
        }
        interruption => Outcome::Interrupted(interruption),
    }
}
