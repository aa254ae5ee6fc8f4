//! How what the last attempt brought reaches the client, and what is counted about it.

use std::future::poll_fn;
use std::task::Poll;

use dhow_base::ResponseFlag;
use dhow_http::KnownHeader;
use dhow_http::h1::{BodyLength, ResponseInfo};
use dhow_proxy_api::{LocalReply, Protocol};
use dhow_proxy_runtime::{DeadlineTimer, clock, turn};
use dhow_proxy_upstream::{ResponseTraits, WorkerCluster};

use super::attempt::RequestGuard;
use super::hedge::reset_status;
use super::{Forwarding, Outcome, RequestGroups};
use crate::body::BodySource;
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{
    Encoded, Ending, Exchange, Expired, Interruption, KeptBody, Pump, PumpSetup, RequestBody,
    upstream_duration_reply,
};
use crate::upgrade;
use crate::upstream::UpstreamStream;

impl Exchange {
    /// Follows a redirect of the upstream where the route's policy says so: only once the request is here as a whole and can be sent
    /// again.
    fn redirect_internally<D: Downstream>(
        &mut self,
        down: &D,
        forwarding: &mut Forwarding,
        status: u16,
        request_done: bool,
    ) -> Option<Ending> {
        let policy = forwarding.route.forward()?.internal_redirect_policy.as_deref()?;
        if !policy.follows(status) {
            return None;
        }
        let stats = &forwarding.cluster.info().stats;
        let complete = request_done && down.request_complete();
        let kept = forwarding.kept.as_ref().is_none_or(KeptBody::can_retry);
        if !complete || !kept || !self.follow_redirect(&forwarding.route, policy, status) {
            stats.upstream_internal_redirect_failed_total().inc();
            return None;
        }
        stats.upstream_internal_redirect_succeeded_total().inc();
        self.log_attempt_end(forwarding, status, None);
        self.info.response_code = Some(status);
        self.info.details = Some("internal_redirect".into());
        if let Some(kept) = forwarding.kept.take().filter(|_| !self.end_stream) {
            self.redirects.keep_body(kept);
        }
        Some(Ending::Redirected)
    }

    /// Gives the client what the last attempt brought.
    pub(super) async fn conclude<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        outcome: Outcome,
    ) -> Ending {
        match outcome {
            Outcome::Response(head, upstream, guard, request_done) => {
                if let Some(ending) = self.redirect_internally(down, forwarding, head.status, request_done) {
                    return ending;
                }
                if self.fails_handshake(head.status) {
                    return self.refuse_handshake(down, forwarding, upstream).await;
                }
                self.relay(down, timer, forwarding, (head, upstream, guard, request_done)).await
            }
            Outcome::Reset(reset) => {
                self.charge_abort(forwarding, reset_status(&reset));
                self.info.upstream.transport_failure = reset.transport.as_deref().map(Into::into);
                let reply = reset_reply(&reset, self.info.upstream.attempts > 1, forwarding.interim);
                self.take_in_request(down, forwarding).await;
                self.reply_of_router(down, timer, forwarding, reply).await
            }
            Outcome::PerTryTimeout { idle } => {
                let status = forwarding.timeout_status;
                self.charge_abort(forwarding, status);
                self.record_budget(forwarding);
                let details = if idle { "upstream_per_try_idle_timeout" } else { "upstream_per_try_timeout" };
                self.reply_of_router(down, timer, forwarding, timeout_reply(status, details)).await
            }
            Outcome::TooLong => {
                let status = if down.request_complete() { 504 } else { 408 };
                self.reply_of_router(down, timer, forwarding, upstream_duration_reply(status)).await
            }
            Outcome::Final(reply) => {
                let traits = forwarding.traits(self.internal);
                self.charge(&forwarding.cluster, &forwarding.groups, reply.status, &traits);
                self.reply_of_router(down, timer, forwarding, *reply).await
            }
            Outcome::Interrupted(Interruption::Expired(Expired::Response)) => {
                self.response_timeout(down, timer, forwarding, true).await
            }
            Outcome::SoftTimeout(_) => self.response_timeout(down, timer, forwarding, false).await,
            Outcome::Interrupted(interruption) => self.interrupted(down, timer, interruption).await,
        }
    }

    /// Answers a request that ran out of its time. Each attempt that was under way is counted; `current` tells whether there was
    /// one beside those that went on.
    pub(super) async fn response_timeout<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        current: bool,
    ) -> Ending {
        let stats = &forwarding.cluster.info().stats;
        for _ in 0..forwarding.hedges.time_out() + usize::from(current) {
            stats.upstream_rq_timeout().inc();
            forwarding.groups.each(|group| group.upstream_rq_timeout().inc());
            self.charge_abort(forwarding, forwarding.timeout_status);
        }
        self.record_budget(forwarding);
        // The deadline that passed must not end the reply too.
        self.deadlines.response = None;
        let reply = timeout_reply(forwarding.timeout_status, "response_timeout");
        self.reply_of_router(down, timer, forwarding, reply).await
    }

    /// Counts the status that an attempt without response comes to. An interim response was counted as its response.
    fn charge_abort(&self, forwarding: &Forwarding, status: u16) {
        if !forwarding.interim {
            let traits = forwarding.traits(self.internal);
            self.charge(&forwarding.cluster, &forwarding.groups, status, &traits);
        }
    }

    /// Reads what has come of a request that no upstream took, so that a request that is here as a whole leaves its connection
    /// usable. Copies of it get what has come.
    async fn take_in_request<D: Downstream>(&mut self, down: &mut D, forwarding: &mut Forwarding) {
        if self.info.request_complete.is_some() {
            return;
        }
        let limit = self.control.request_buffer_limit;
        poll_fn(|cx| {
            let (stream, _) = self.parts();
            let kept = forwarding.kept.as_mut().filter(|kept| kept.is_copied());
            let mut body = RequestBody { down, kept, stream };
            body.discard(cx, limit);
            Poll::Ready(())
        })
        .await;
        if down.request_complete() {
            self.info.request_complete.get_or_insert_with(clock::now);
            forwarding.finish_copies(down.trailers());
        }
    }

    /// Sends a reply of the router's own, which tells the number of attempts where the virtual host wants it told.
    async fn reply_of_router<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &Forwarding,
        mut reply: LocalReply,
    ) -> Ending {
        if forwarding.route.virtual_host().include_attempt_count_in_response() {
            let attempts = self.info.upstream.attempts.max(1).to_string();
            reply = reply.header(KnownHeader::XEnvoyAttemptCount, attempts.into_bytes());
        }
        self.reply(down, timer, reply).await
    }

    /// Whether the response neither grants the WebSocket that was asked for nor says what is wrong: a client might take its
    /// body for frames.
    fn fails_handshake(&self, status: u16) -> bool {
        self.upgrade && (200..400).contains(&status) && upgrade::kind(&self.request) == "websocket"
    }

    async fn refuse_handshake<D: Downstream>(
        &mut self,
        down: &mut D,
        forwarding: &Forwarding,
        upstream: UpstreamStream,
    ) -> Ending {
        drop(upstream);
        self.info.details = Some("websocket_handshake_unsuccessful".into());
        self.info.response_code = self.response.status();
        self.response.remove_known(KnownHeader::ContentLength);
        self.response.remove_known(KnownHeader::TransferEncoding);
        self.apply_response_headers_of(&forwarding.route);
        self.send_response_head(down, true, true);
        match poll_fn(|cx| down.poll_finish(cx, None)).await {
            Ok(()) => Ending::Complete,
            Err(_) => Ending::Gone,
        }
    }

    /// Sends the response downstream while the rest of the request still goes up.
    async fn relay<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
        (head, mut upstream, guard, mut request_done): (ResponseInfo, UpstreamStream, RequestGuard, bool),
    ) -> Ending {
        let now = clock::now();
        let status = head.status;
        let end = head.body == BodyLength::None;
        let grpc = self.is_grpc();
        forwarding.retry = None;
        forwarding.canary = self.response.get_known(KnownHeader::XEnvoyUpstreamCanary) == Some(b"true");
        let traits = forwarding.traits(self.internal);
        self.charge(&forwarding.cluster, &forwarding.groups, status, &traits);
        guard.on_accepted(&self.response, grpc, end);
        let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
        if let Some(complete) = self.info.request_complete.filter(|_| !suppressed) {
            let millis = now.saturating_duration_since(complete).as_millis() as u64;
            self.set_response_number(KnownHeader::XEnvoyUpstreamServiceTime, millis);
        }
        for cookie in &forwarding.cookies {
            self.response.append_known(KnownHeader::SetCookie, cookie.as_bytes());
        }
        self.info.response_code = Some(status);
        self.info.details = Some("via_upstream".into());
        let upgraded = self.is_upgraded();
        self.apply_response_headers_of(&forwarding.route);
        if forwarding.route.virtual_host().include_attempt_count_in_response() {
            self.set_response_number(KnownHeader::XEnvoyAttemptCount, self.info.upstream.attempts.into());
        }
        if !end {
            self.watch_upstream_response();
        }
        let encoded = self.encode_filters(end);
        if matches!(encoded, Encoded::Stopped(..)) {
            let setup = PumpSetup {
                down: &mut *down,
                timer: &mut *timer,
                upstream: &mut upstream,
                request_done: &mut request_done,
                response_timeout: forwarding.timeouts.global,
                attempt: forwarding.log.as_deref_mut(),
            };
            if let Err(interruption) = Box::pin(self.encode_stopped(setup, encoded)).await {
                match interruption {
                    Interruption::Answered(..) => guard.count_discarded(&upstream, &head),
                    _ => guard.count_end(&upstream, &interruption),
                }
                self.log_attempt_end(forwarding, status, None);
                return self.interrupted(down, timer, interruption).await;
            }
        }
        if upgraded {
            // Bytes of another protocol have no end that could be waited for; they can be idle, though.
            self.deadlines.request = None;
            self.deadlines.response = None;
            forwarding.timeouts.global = None;
        }
        self.send_response_head(down, end, false);
        let http1 = down.protocol() != Protocol::Http2;
        let (stream, deadlines) = self.parts();
        let kept = forwarding.kept.as_mut().filter(|kept| kept.is_copied());
        let mut body = RequestBody { down, kept, stream };
        let mut pump = Pump {
            body: &mut body,
            upstream: &mut upstream,
            deadlines,
            timer,
            request_done,
            response_timeout: forwarding.timeouts.global,
            // Only a stream of HTTP/2 can end in one direction and go on in the other.
            upgraded: upgraded && http1,
            holds_body: false,
            rejects_early_data: false,
            attempt: forwarding.log.as_deref_mut(),
        };
        let result = pump.relay().await;
        let request_done = pump.request_done;
        if request_done {
            forwarding.finish_copies(down.trailers());
        }
        self.keep_trailers(&upstream);
        guard.release_client(&upstream, &self.manager.stats.manager);
        let done = clock::now();
        self.info.upstream.last_rx = Some(done);
        let broken = match &result {
            Err(Interruption::Upstream(reset)) => Some(reset),
            _ => None,
        };
        self.log_attempt_end(forwarding, status, broken);
        let cluster = &forwarding.cluster.info().stats;
        if let Err(interruption) = &result {
            guard.count_end(&upstream, interruption);
        }
        match result {
            Ok(()) => {
                if !request_done {
                    guard.count_given_up(&upstream);
                }
                if grpc {
                    guard.on_grpc_status(upstream.trailers());
                }
                self.record_budget(forwarding);
                if self.info.request_complete.is_some() && self.counts_by_code(status) {
                    let millis = self.since_request(done).as_millis() as u64;
                    cluster.record_request_time(millis, &forwarding.traits(self.internal));
                    forwarding.groups.record_time(millis);
                }
                if down.unflushed() == 0 {
                    return Ending::Complete;
                }
                // The host's connection is free for others while the client takes its time.
                drop((upstream, guard));
                if down.waits_for_others() {
                    turn::joined().await;
                    if let Poll::Ready(Ok(())) = poll_fn(|cx| Poll::Ready(down.poll_finish(cx, None))).await {
                        return Ending::Complete;
                    }
                }
                self.flush(down, timer).await
            }
            Err(Interruption::Expired(Expired::Response)) => {
                self.record_budget(forwarding);
                cluster.upstream_rq_timeout().inc();
                forwarding.groups.each(|group| group.upstream_rq_timeout().inc());
                guard.on_timed_out();
                self.interrupted(down, timer, Interruption::Expired(Expired::Response)).await
            }
            Err(Interruption::Expired(Expired::PerTryIdle)) => {
                cluster.upstream_rq_per_try_idle_timeout().inc();
                guard.on_timeout();
                guard.on_timed_out();
                self.info.flag(ResponseFlag::UpstreamRequestTimeout);
                self.info.details = Some("upstream_per_try_idle_timeout".into());
                Ending::Broken
            }
            Err(Interruption::Upstream(reset)) => {
                guard.on_failure();
                self.interrupted(down, timer, Interruption::Upstream(reset)).await
            }
            Err(Interruption::Expired(Expired::UpstreamDuration)) => {
                guard.on_too_long();
                self.interrupted(down, timer, Interruption::Expired(Expired::UpstreamDuration)).await
            }
            Err(interruption) => self.interrupted(down, timer, interruption).await,
        }
    }

    /// Records how much of its time the request took, where that is wanted.
    fn record_budget(&self, forwarding: &Forwarding) {
        if let Some(stats) = forwarding.cluster.info().stats.tracked() {
            stats.record_request_time(self.since_request(clock::now()), forwarding.timeouts.global);
        }
    }

    /// Keeps the trailers of the response, as its filters left them, for what is logged of it.
    fn keep_trailers(&mut self, upstream: &UpstreamStream) {
        if self.manager.config.access_logs.is_empty() {
            return;
        }
        let pipe = self.filters.response_body.as_deref();
        let trailers = pipe.map_or_else(|| upstream.trailers(), |pipe| pipe.trailers());
        self.info.response_trailers = trailers.cloned().map(Box::new);
    }

    /// Whether responses are counted by their status at all.
    fn counts_by_code(&self, status: u16) -> bool {
        !self.info.health_check
            && !self.chain().router.as_ref().is_some_and(|router| {
                !router.dynamic_stats
                    || (router.suppress_grpc_failure_stats && status != 200 && self.is_grpc())
            })
    }

    /// Counts a status under the cluster, for all requests and by what is special about the response.
    pub(super) fn charge(
        &self,
        cluster: &WorkerCluster,
        groups: &RequestGroups,
        status: u16,
        traits: &ResponseTraits<'_>,
    ) {
        if self.counts_by_code(status) {
            groups.charge(status);
            cluster.info().stats.charge_response(status, traits);
        }
    }
}

/// The reply to a request that ran out of time; empty when its client takes that for success.
fn timeout_reply(status: u16, details: &'static str) -> LocalReply {
    let body: &[u8] = if status == 504 { b"upstream request timeout" } else { b"" };
    LocalReply::new(status, body, details).flag(ResponseFlag::UpstreamRequestTimeout)
}

/// The reply for an attempt that ended without a response, or with none but an interim one.
fn reset_reply(reset: &Reset, retried: bool, interim: bool) -> LocalReply {
    let again = if retried { "retried and the latest " } else { "" };
    let body = format!(
        "upstream connect error or disconnect/reset before headers. {again}reset reason: {}",
        reset.kind.as_str()
    );
    let reply = LocalReply::new(reset_status(reset), body.into_bytes(), reset.details(interim))
        .flag(reset.kind.flag());
    if reset.kind == ResetKind::Overflow {
        return reply.header(KnownHeader::XEnvoyOverloaded, &b"true"[..]);
    }
    reply
}
