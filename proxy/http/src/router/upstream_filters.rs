//! Filters between the router and the connection to a host, of the cluster or else of the router: each attempt passes them anew, with
//! what those of the attempts before made of the request.

use std::future::poll_fn;
use std::task::Poll;

use dhow_proxy_api::HeadersVerdict;
use dhow_proxy_runtime::{DeadlineTimer, clock};

use super::{Forwarding, poll_deadlines};
use crate::config::ClusterOptions;
use crate::downstream::Downstream;
use crate::stream::{AttemptFilters, Direction, Exchange, Interruption, RequestBody, UPSTREAM};

impl Exchange {
    /// Shows the request head to the upstream filters of an attempt. Whether one of them keeps the head back.
    pub(super) fn filter_upstream_request(&mut self, forwarding: &Forwarding) -> Result<bool, Interruption> {
        let of_cluster = ClusterOptions::of(&forwarding.cluster).and_then(|options| options.filters.as_ref());
        if of_cluster.is_none() && self.chain().router.as_ref().is_none_or(|r| r.upstream_filters.is_empty())
        {
            return Ok(false);
        }
        let manager = self.manager.clone();
        let of_router = manager.config.chain_of(self.upgrade_chain).router.as_ref();
        let configured = of_cluster.or_else(|| of_router.map(|router| &router.upstream_filters));
        let route = self.info.route.as_ref();
        let made = configured.into_iter().flatten().filter_map(|filter| {
            let levels = route.map(|route| route.filter_configs().levels(&filter.name)).unwrap_or_default();
            let disabled = levels.first().map_or(filter.disabled, |level| level.disabled);
            if disabled { None } else { filter.factory.create(levels) }
        });
        let attempt = AttemptFilters { filters: made.collect(), request_body: None };
        let count = attempt.filters.len();
        self.filters.attempt = Some(Box::new(attempt));
        let end_stream = self.end_stream;
        let mut holds = false;
        for at in UPSTREAM..UPSTREAM + count {
            let verdict = self
                .parts()
                .0
                .call(at, |filter, request, _, stream| filter.decode_headers(request, end_stream, stream));
            if !end_stream {
                self.filters.watch(at, Direction::Request);
            }
            match verdict {
                HeadersVerdict::Continue => {}
                HeadersVerdict::Hold => holds |= !end_stream,
                HeadersVerdict::LocalReply(reply) => {
                    return Err(Interruption::Answered(Box::new(reply), Direction::Request));
                }
                HeadersVerdict::Wait(_) => {
                    debug_assert!(false, "filters that wait are not accepted here");
                }
            }
        }
        Ok(holds)
    }

    /// Moves the request body through the upstream filters until the one that keeps the head lets it go.
    pub(super) async fn hold_attempt<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &mut Forwarding,
    ) -> Result<(), Interruption> {
        let (stream, deadlines) = self.parts();
        let mut body = RequestBody { down, kept: forwarding.kept.as_mut(), stream };
        poll_fn(|cx| {
            let before = body.stream.info.bytes_received;
            let polled = body.poll_attempt_released(cx);
            if body.stream.info.bytes_received != before {
                deadlines.touch(clock::now());
            }
            match polled {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(reset)) => {
                    return Poll::Ready(Err(match body.stream.filters.take_answer() {
                        Some((reply, direction)) => Interruption::Answered(reply, direction),
                        None => Interruption::Downstream(reset),
                    }));
                }
                Poll::Pending => {}
            }
            poll_deadlines(cx, timer, deadlines).map(Err)
        })
        .await
    }

    /// Shows the response head of an attempt to its upstream filters, last one first.
    pub(super) fn filter_upstream_response(&mut self, end: bool) {
        for at in self.upstream_filters().rev() {
            let verdict = self.parts().0.call(at, |filter, request, response, stream| {
                filter.encode_headers(request, response, end, stream)
            });
            debug_assert!(matches!(verdict, HeadersVerdict::Continue), "no such filter stops a response");
        }
    }

    /// Has the rest of the response that is passed on pass the upstream filters that want to see it.
    pub(super) fn watch_upstream_response(&mut self) {
        for at in self.upstream_filters().rev() {
            self.filters.watch(at, Direction::Response);
        }
    }

    fn upstream_filters(&self) -> std::ops::Range<usize> {
        let count = self.filters.attempt.as_ref().map_or(0, |attempt| attempt.filters.len());
        UPSTREAM..UPSTREAM + count
    }
}
