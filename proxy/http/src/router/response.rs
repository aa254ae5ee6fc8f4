//! How what the last attempt brought reaches the client, and what is counted about it.

use std::rc::Rc;

use dhow_base::ResponseFlag;
use dhow_http::KnownHeader;
use dhow_http::h1::{BodyLength, ResponseInfo};
use dhow_proxy_api::{LocalReply, Protocol};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_proxy_upstream::WorkerCluster;

use super::attempt::RequestGuard;
use super::{Forwarding, Outcome, RequestGroups};
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{
    Encoded, Ending, Exchange, Expired, Interruption, KeptBody, Pump, PumpSetup, RequestBody,
};
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
        self.charge(&forwarding.cluster, &forwarding.groups, status);
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
        mut forwarding: Forwarding,
        outcome: Outcome,
    ) -> Ending {
        let retried = forwarding.retry.as_ref().is_some_and(|retry| retry.made() > 0);
        let info = forwarding.cluster.info().clone();
        match outcome {
            Outcome::Response(head, upstream, guard, request_done) => {
                if retried {
                    info.stats.upstream_rq_retry_success().inc();
                    forwarding.groups.each(|group| group.upstream_rq_retry_success().inc());
                }
                if let Some(ending) =
                    self.redirect_internally(down, &mut forwarding, head.status, request_done)
                {
                    guard.on_redirected();
                    return ending;
                }
                self.relay(down, timer, forwarding, (head, upstream, guard, request_done)).await
            }
            Outcome::Reset { reset, .. } => {
                let status = if reset.kind == ResetKind::ProtocolError { 502 } else { 503 };
                self.charge(&forwarding.cluster, &forwarding.groups, status);
                self.info.upstream.transport_failure = reset.transport.as_deref().map(Into::into);
                let reply = reset_reply(&reset, retried);
                self.reply(down, timer, reply).await
            }
            Outcome::PerTryTimeout { idle } => {
                self.charge(&forwarding.cluster, &forwarding.groups, 504);
                let details = if idle { "upstream_per_try_idle_timeout" } else { "upstream_per_try_timeout" };
                let reply = LocalReply::new(504, &b"upstream request timeout"[..], details)
                    .flag(ResponseFlag::UpstreamRequestTimeout);
                self.reply(down, timer, reply).await
            }
            Outcome::Final(reply) => {
                self.charge(&forwarding.cluster, &forwarding.groups, reply.status);
                self.reply(down, timer, reply).await
            }
            Outcome::Interrupted(Interruption::Expired(Expired::Response)) => {
                info.stats.upstream_rq_timeout().inc();
                forwarding.groups.each(|group| group.upstream_rq_timeout().inc());
                self.charge(&forwarding.cluster, &forwarding.groups, 504);
                if self.wants_timeout_as_success() {
                    let reply = LocalReply::new(204, &b""[..], "response_timeout")
                        .flag(ResponseFlag::UpstreamRequestTimeout);
                    return self.reply(down, timer, reply).await;
                }
                self.interrupted(down, timer, Interruption::Expired(Expired::Response)).await
            }
            Outcome::Interrupted(interruption) => self.interrupted(down, timer, interruption).await,
        }
    }

    /// Sends the response downstream while the rest of the request still goes up.
    async fn relay<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        mut forwarding: Forwarding,
        (head, mut upstream, guard, mut request_done): (ResponseInfo, UpstreamStream, RequestGuard, bool),
    ) -> Ending {
        let now = clock::now();
        let suppressed = self.chain().router.as_ref().is_some_and(|router| router.suppress_envoy_headers);
        if let Some(complete) = self.info.request_complete.filter(|_| !suppressed) {
            let millis = now.saturating_duration_since(complete).as_millis() as u64;
            self.set_response_number(KnownHeader::XEnvoyUpstreamServiceTime, millis);
        }
        if forwarding.route.virtual_host().include_attempt_count_in_response() {
            self.set_response_number(KnownHeader::XEnvoyAttemptCount, self.info.upstream.attempts.into());
        }
        for cookie in &forwarding.cookies {
            self.response.append_known(KnownHeader::SetCookie, cookie.as_bytes());
        }
        let status = head.status;
        self.info.response_code = Some(status);
        self.info.details = Some("via_upstream".into());
        let end = head.body == BodyLength::None;
        let upgraded = self.is_upgraded();
        self.apply_route_response_headers();
        let encoded = self.encode_filters(end);
        if matches!(encoded, Encoded::Stopped(..)) {
            let setup = PumpSetup {
                down: &mut *down,
                timer: &mut *timer,
                upstream: &mut upstream,
                request_done: &mut request_done,
                response_timeout: forwarding.timeouts.global,
            };
            if let Err(interruption) = Box::pin(self.encode_stopped(setup, encoded)).await {
                guard.count_reset(&upstream, &interruption);
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
        let kept = forwarding.kept.as_mut().filter(|_| !forwarding.shadows.is_empty());
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
        };
        let result = pump.relay().await;
        let request_done = pump.request_done;
        if request_done {
            forwarding.send_shadows(down.trailers());
        }
        let done = clock::now();
        self.info.upstream.last_rx = Some(done);
        let cluster = &forwarding.cluster.info().stats;
        cluster.upstream_cx_rx_bytes_total().add(self.info.bytes_sent);
        cluster.upstream_cx_tx_bytes_total().add(self.info.bytes_received);
        if let Err(interruption) = &result {
            guard.count_reset(&upstream, interruption);
        }
        match result {
            Ok(()) => {
                let time = self.since_request(done);
                guard.complete(self.internal, time);
                forwarding.groups.record_time(time.as_millis() as u64);
                self.charge(&forwarding.cluster, &forwarding.groups, status);
                Ending::Complete
            }
            Err(Interruption::Expired(Expired::Response)) => {
                cluster.upstream_rq_timeout().inc();
                guard.on_timeout();
                self.interrupted(down, timer, Interruption::Expired(Expired::Response)).await
            }
            Err(interruption) => {
                guard.on_failure();
                self.interrupted(down, timer, interruption).await
            }
        }
    }

    /// Counts a status under the cluster, for all requests and by where they came from.
    pub(super) fn charge(&self, cluster: &Rc<WorkerCluster>, groups: &RequestGroups, status: u16) {
        if self.info.health_check {
            return;
        }
        if self.chain().router.as_ref().is_some_and(|router| {
            !router.dynamic_stats || (router.suppress_grpc_failure_stats && status != 200 && self.is_grpc())
        }) {
            return;
        }
        groups.charge(status);
        let stats = &cluster.info().stats;
        stats.response_codes.charge(status);
        if self.internal {
            stats.internal_response_codes.charge(status);
        } else {
            stats.external_response_codes.charge(status);
        }
        if self.response.get_known(KnownHeader::XEnvoyUpstreamCanary) == Some(b"true") {
            stats.canary_response_codes.charge(status);
        }
    }
}

/// The reply for an attempt that ended without a response.
fn reset_reply(reset: &Reset, retried: bool) -> LocalReply {
    let again = if retried { "retried and the latest " } else { "" };
    let body = format!(
        "upstream connect error or disconnect/reset before headers. {again}reset reason: {}",
        reset.kind.as_str()
    );
    let status = if reset.kind == ResetKind::ProtocolError { 502 } else { 503 };
    let reply = LocalReply::new(status, body.into_bytes(), reset.details(false)).flag(reset.kind.flag());
    if reset.kind == ResetKind::Overflow {
        return reply.header(KnownHeader::XEnvoyOverloaded, &b"true"[..]);
    }
    reply
}
