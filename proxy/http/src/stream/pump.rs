//! The two phases of a proxied exchange: the request goes up until the response head is there, then both bodies move
//! until the response is complete.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use dhow_http::h1::ResponseInfo;
use dhow_proxy_api::{LocalFuture, LocalReply, LogMoment, Resumption};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_proxy_upstream::ClusterStats;

use super::deadlines::{Deadlines, Expired};
use super::filtering::{Direction, FilteredResponse, StreamParts};
use super::request_body::RequestBody;
use crate::body::{BodySink, TransferError, poll_transfer};
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::router::{AttemptLog, early_data, sends_early};
use crate::upstream::UpstreamStream;

/// Why a phase ended before its purpose was reached.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// The upstream stream ended.
    Upstream(Reset),
    /// The client went away.
    Downstream(Reset),
    /// A deadline passed.
    Expired(Expired),
    /// A filter answers, to the request or instead of the response.
    Answered(Box<LocalReply>, Direction),
}

/// One attempt under way.
#[derive(Debug)]
pub(crate) struct Pump<'a, 'b, D> {
    pub(crate) body: &'a mut RequestBody<'b, D>,
    pub(crate) upstream: &'a mut UpstreamStream,
    pub(crate) deadlines: &'a mut Deadlines,
    pub(crate) timer: &'a mut DeadlineTimer,
    /// Whether the whole request was sent upstream.
    pub(crate) request_done: bool,
    /// The route's timeout, which starts when the request was received whole.
    pub(crate) response_timeout: Option<Duration>,
    /// The exchange was upgraded: both directions are bytes until one side closes.
    pub(crate) upgraded: bool,
    /// The body waits until the response head is there.
    pub(crate) holds_body: bool,
    /// A body that comes meanwhile is refused.
    pub(crate) rejects_early_data: bool,
    /// What is logged of the attempt, where attempts are logged.
    pub(crate) attempt: Option<&'a mut AttemptLog>,
}

impl<D: Downstream> Pump<'_, '_, D> {
    /// Sends the request and waits for the response head (or an informational one).
    pub(crate) async fn await_head(&mut self) -> Result<ResponseInfo, Interruption> {
        if self.request_done {
            self.on_request_sent();
        }
        poll_fn(|cx| {
            // A request that is sent has only its client left to look after, which can wait until nothing came.
            if self.request_done
                && let Poll::Ready(head) = self.upstream.poll_head(cx, self.body.stream.response)
            {
                return Poll::Ready(head.map_err(Interruption::Upstream));
            }
            let polled = if self.holds_body { self.poll_held_request(cx) } else { self.poll_request(cx) };
            let failed = match polled {
                Poll::Ready(Err(interruption)) => return Poll::Ready(Err(interruption)),
                Poll::Ready(Ok(failed)) => failed,
                // The worker comes again in this turn: the rest can wait until the request is sent.
                Poll::Pending if self.upstream.waits_for_others() => return Poll::Pending,
                Poll::Pending => None,
            };
            match (self.upstream.poll_head(cx, self.body.stream.response), failed) {
                (Poll::Ready(Ok(info)), _) => return Poll::Ready(Ok(info)),
                (Poll::Ready(Err(reset)), _) | (Poll::Pending, Some(reset)) => {
                    return Poll::Ready(Err(Interruption::Upstream(reset)));
                }
                (Poll::Pending, None) => {}
            }
            self.poll_deadlines(cx).map(Err)
        })
        .await
    }

    /// Sends the response body, and what is left of the request, until the response is complete, or waits in the client's
    /// connection as a whole. Counts its bytes.
    pub(crate) async fn relay(&mut self) -> Result<(), Interruption> {
        poll_fn(|cx| {
            if !self.request_done
                && let Poll::Ready(Err(interruption)) = self.poll_request(cx)
            {
                return Poll::Ready(Err(interruption));
            }
            let mut moved = 0;
            let RequestBody { down, stream, .. } = &mut *self.body;
            let polled = if stream.filters.response_body.is_some() {
                let mut source = FilteredResponse { source: self.upstream, parts: stream };
                poll_transfer(cx, &mut source, *down, &mut moved)
            } else {
                poll_transfer(cx, self.upstream, *down, &mut moved)
            };
            if moved != 0 {
                stream.info.bytes_sent += moved;
                self.deadlines.touch(clock::now());
            }
            self.count_response_pressure();
            match polled {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(TransferError::Source(reset))) => {
                    return Poll::Ready(Err(self.answered_or(Interruption::Upstream(reset))));
                }
                Poll::Ready(Err(TransferError::Sink(reset))) => {
                    return Poll::Ready(Err(Interruption::Downstream(reset)));
                }
                Poll::Pending if self.request_done && self.body.down.unflushed() > 0 => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending => {}
            }
            if self.request_done
                && let Poll::Ready(Err(interruption)) = self.poll_request(cx)
            {
                return Poll::Ready(Err(interruption));
            }
            self.poll_deadlines(cx).map(Err)
        })
        .await
    }

    /// Reads the response body until the filter that keeps its head lets it go, and sends what is left of the request.
    pub(crate) async fn hold(&mut self) -> Result<(), Interruption> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(interruption)) = self.poll_request(cx) {
                return Poll::Ready(Err(interruption));
            }
            match self.body.stream.poll_released(cx, self.upstream, Direction::Response) {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(reset)) => {
                    return Poll::Ready(Err(self.answered_or(Interruption::Upstream(reset))));
                }
                Poll::Pending => {}
            }
            self.poll_deadlines(cx).map(Err)
        })
        .await
    }

    /// Sends what is left of the request while a filter works on the response head.
    pub(crate) async fn wait_for(&mut self, mut work: LocalFuture<Resumption>) -> Result<(), Interruption> {
        poll_fn(|cx| {
            match work.as_mut().poll(cx) {
                Poll::Ready(Resumption::Continue) => return Poll::Ready(Ok(())),
                Poll::Ready(Resumption::LocalReply(reply)) => {
                    return Poll::Ready(Err(Interruption::Answered(Box::new(reply), Direction::Response)));
                }
                Poll::Pending => {}
            }
            if let Poll::Ready(Err(interruption)) = self.poll_request(cx) {
                return Poll::Ready(Err(interruption));
            }
            self.poll_deadlines(cx).map(Err)
        })
        .await
    }

    /// What a filter answered to the body that just failed to come, else `interruption`.
    fn answered_or(&mut self, interruption: Interruption) -> Interruption {
        match self.body.stream.filters.take_answer() {
            Some((reply, direction)) => Interruption::Answered(reply, direction),
            None => interruption,
        }
    }

    /// Moves the request body. Ready with the upstream's failure to take it, which a response may yet explain.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reset>, Interruption>> {
        if self.request_done {
            return match self.body.down.poll_closed(cx) {
                Poll::Ready(reset) => Poll::Ready(Err(Interruption::Downstream(reset))),
                Poll::Pending => Poll::Pending,
            };
        }
        let mut moved = 0;
        let polled = poll_transfer(cx, self.body, self.upstream, &mut moved);
        if moved > 0 {
            self.deadlines.touch(clock::now());
        }
        self.count_request_pressure();
        match polled {
            // Nobody reads from the client while the host is slow.
            Poll::Pending if self.upstream.is_backed_up() => {
                self.body.down.poll_closed(cx).map(|reset| Err(Interruption::Downstream(reset)))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) if self.upgraded => {
                Poll::Ready(Err(Interruption::Downstream(Reset::new(ResetKind::ConnectionTermination))))
            }
            Poll::Ready(Ok(())) => {
                self.request_done = true;
                self.on_request_sent();
                if self.upstream.waits_for_others() {
                    return Poll::Pending;
                }
                // Nothing else may wake this task before the client goes.
                self.body.down.poll_closed(cx).map(|reset| Err(Interruption::Downstream(reset)))
            }
            Poll::Ready(Err(TransferError::Source(reset))) => {
                Poll::Ready(Err(self.answered_or(Interruption::Downstream(reset))))
            }
            Poll::Ready(Err(TransferError::Sink(reset))) => Poll::Ready(Ok(Some(reset))),
        }
    }

    /// Sends the head alone.
    fn poll_held_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reset>, Interruption>> {
        if let Poll::Ready(Err(reset)) = self.upstream.poll_flush(cx) {
            return Poll::Ready(Ok(Some(reset)));
        }
        if self.rejects_early_data && sends_early(cx, self.body.down, self.body.stream.info) {
            return Poll::Ready(Err(early_data()));
        }
        self.body.down.poll_closed(cx).map(|reset| Err(Interruption::Downstream(reset)))
    }

    /// Counts how often the client was not read because the host was slow.
    fn count_request_pressure(&mut self) {
        let pressure = self.upstream.take_pressure();
        if pressure.is_none() {
            return;
        }
        let (cluster, manager) = (self.cluster_stats(), &self.body.stream.manager.stats.manager);
        cluster.upstream_flow_control_backed_up_total().add(pressure.backed_up.into());
        cluster.upstream_flow_control_drained_total().add(pressure.drained.into());
        manager.downstream_flow_control_paused_reading_total().add(pressure.backed_up.into());
        manager.downstream_flow_control_resumed_reading_total().add(pressure.drained.into());
    }

    /// Counts how often the host was not read because the client was slow.
    fn count_response_pressure(&mut self) {
        let pressure = self.body.down.take_pressure();
        if pressure.is_none() {
            return;
        }
        let cluster = self.cluster_stats();
        cluster.upstream_flow_control_paused_reading_total().add(pressure.backed_up.into());
        cluster.upstream_flow_control_resumed_reading_total().add(pressure.drained.into());
    }

    fn cluster_stats(&self) -> &ClusterStats {
        &self.upstream.connection().info().stats
    }

    fn on_request_sent(&mut self) {
        let now = clock::now();
        let info = &mut *self.body.stream.info;
        let complete = *info.request_complete.get_or_insert(now);
        info.upstream.last_tx = Some(now);
        self.deadlines.request = None;
        self.deadlines.start_try(now);
        if self.deadlines.response.is_none() {
            self.deadlines.response = self.response_timeout.map(|timeout| complete + timeout);
        }
    }

    fn poll_deadlines(&mut self, cx: &mut Context<'_>) -> Poll<Interruption> {
        if self.deadlines.has_logs() {
            return self.poll_deadlines_and_log(cx);
        }
        self.deadlines.poll_expired(cx, self.timer).map(Interruption::Expired)
    }

    /// The same of a stream that is logged again and again, or whose attempts are (`access_log_flush_interval`,
    /// `upstream_log_flush_interval`).
    #[cold]
    fn poll_deadlines_and_log(&mut self, cx: &mut Context<'_>) -> Poll<Interruption> {
        loop {
            ready!(self.timer.poll(cx, self.deadlines.next_or_log()));
            let now = Instant::now();
            if let Some(expired) = self.deadlines.expired(now) {
                return Poll::Ready(Interruption::Expired(expired));
            }
            if self.deadlines.log.is_some_and(|at| at <= now) {
                let interval = self.body.stream.manager.config.log_moments.interval;
                self.deadlines.log = interval.map(|interval| now + interval);
                self.body.stream.log(LogMoment::Periodic);
            }
            if self.deadlines.attempt_log.is_some_and(|at| at <= now) {
                let StreamParts { info, request, response, .. } = &self.body.stream;
                let log = self.attempt.as_deref_mut();
                self.deadlines.attempt_log =
                    log.and_then(|log| log.write_periodic(info, request, response, now));
            }
        }
    }
}
