//! Heads on their way through the filters of the chain.

use std::future::poll_fn;
use std::task::Poll;

use dhow_http::KnownHeader;
use dhow_proxy_api::{HeadersVerdict, LocalReply, Resumption};
use dhow_proxy_runtime::{DeadlineTimer, clock};
use dhow_routing::{FilterOverride, SelectedRoute};

use super::exchange::{Ending, Exchange};
use super::filtering::{Direction, FilterSlot, PART_BYTES, StreamParts};
use super::pump::{Interruption, Pump};
use super::required::incomplete_response;
use crate::body::{BodyState, BufferedBody};
use crate::config::ConfiguredFilter;
use crate::downstream::Downstream;
use crate::router::AttemptLog;

/// How far a response head came.
pub(crate) enum Encoded {
    /// All filters saw it.
    Done,
    /// This filter keeps it.
    Stopped(usize, HeadersVerdict),
}

/// What a route says to a filter, by the filter's name or else by its other one.
fn levels_of<'a>(route: Option<&'a SelectedRoute>, filter: &ConfiguredFilter) -> &'a [FilterOverride] {
    let Some(route) = route.filter(|route| !route.filter_configs().is_empty()) else { return &[] };
    let other = || filter.factory.other_name().map(|name| route.filter_configs().levels(name));
    match route.filter_configs().levels(&filter.name) {
        [] => other().unwrap_or_default(),
        levels => levels,
    }
}

impl Exchange {
    /// What filters see of this stream, and its deadlines.
    pub(crate) fn parts(&mut self) -> (StreamParts<'_>, &mut super::Deadlines) {
        let parts = StreamParts {
            manager: &self.manager,
            info: &mut self.info,
            request: &mut self.request,
            response: &mut self.response,
            filters: &mut self.filters,
            control: &mut self.control,
            random: self.random,
        };
        (parts, &mut self.deadlines)
    }

    /// Makes the filters of the stream, as its route says.
    pub(crate) fn create_filters(&mut self) {
        let manager = self.manager.clone();
        let filters = &manager.config.chain_of(self.upgrade_chain).filters;
        if filters.is_empty() {
            return;
        }
        let route = self.info.route.as_ref();
        self.filters.usual =
            self.upgrade_chain.is_none() && route.is_none_or(|route| route.filter_configs().is_empty());
        self.filters.slots = manager.take_chain();
        if !self.filters.usual {
            self.filters.slots.clear();
        } else if !self.filters.slots.is_empty() {
            return;
        }
        for (at, filter) in filters.iter().enumerate() {
            let levels = levels_of(self.info.route.as_ref(), filter);
            if levels.first().map_or(filter.disabled, |level| level.disabled) {
                self.filters.disabled |= 1u64.checked_shl(at as u32).unwrap_or(0);
                continue;
            }
            if let Some(filter) = filter.factory.create(levels) {
                self.filters.slots.push(FilterSlot { filter, configured: at });
            }
        }
    }

    /// Selects the route anew, after the filter at `at`: the filters behind it follow what the new route says to them.
    fn reselect_route(&mut self, at: usize) {
        self.info.route = None;
        self.select_route();
        let manager = self.manager.clone();
        let last = self.filters.slots[at].configured;
        self.filters.slots.truncate(at + 1);
        let usual = std::mem::take(&mut self.filters.usual);
        let filters = &manager.config.chain_of(self.upgrade_chain).filters;
        for (at, filter) in filters.iter().enumerate().skip(last + 1) {
            let levels = levels_of(self.info.route.as_ref(), filter);
            // Which filters there are was decided by the first route.
            let disabled = match usual {
                true => filter.disabled,
                false => self.filters.disabled & 1u64.checked_shl(at as u32).unwrap_or(0) != 0,
            };
            if !disabled {
                let created = filter.factory.create(levels);
                self.filters.slots.extend(created.map(|filter| FilterSlot { filter, configured: at }));
            }
        }
    }

    /// Shows the request head to the filters, in order.
    pub(crate) async fn decode_filters<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
    ) -> Result<(), Ending> {
        let mut at = 0;
        while at < self.filters.slots.len() {
            let end_stream = self.end_stream;
            let verdict = self
                .parts()
                .0
                .call(at, |filter, request, _, stream| filter.decode_headers(request, end_stream, stream));
            if !end_stream {
                self.filters.watch(at, Direction::Request);
            }
            let stopped = match verdict {
                HeadersVerdict::Continue => Ok(()),
                HeadersVerdict::LocalReply(reply) => {
                    return Err(self.reply(down, timer, reply).await);
                }
                HeadersVerdict::Wait(work) => {
                    self.waited = true;
                    Box::pin(self.decode_waiting(down, timer, at, work)).await
                }
                HeadersVerdict::Hold if end_stream => Ok(()),
                HeadersVerdict::Hold => Box::pin(self.decode_held(down, timer)).await,
            };
            if let Err(interruption) = stopped {
                return Err(self.interrupted(down, timer, interruption).await);
            }
            if std::mem::take(&mut self.control.reselect_route) {
                self.reselect_route(at);
            }
            at += 1;
        }
        Ok(())
    }

    async fn decode_waiting<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        at: usize,
        mut work: dhow_proxy_api::LocalFuture<Resumption>,
    ) -> Result<(), Interruption> {
        let resumption = poll_fn(|cx| {
            if let Poll::Ready(resumption) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(resumption));
            }
            if let Poll::Ready(reset) = down.poll_closed(cx) {
                return Poll::Ready(Err(Interruption::Downstream(reset)));
            }
            self.deadlines.poll_expired(cx, timer).map(|expired| Err(Interruption::Expired(expired)))
        })
        .await?;
        match resumption {
            Resumption::Continue => {
                self.parts().0.call(at, |filter, request, _, stream| filter.decode_resumed(request, stream));
                Ok(())
            }
            Resumption::LocalReply(reply) => {
                self.receive_waiting(down).await;
                Err(Interruption::Answered(Box::new(reply), Direction::Request))
            }
        }
    }

    /// Receives what of the request came while a filter waited. It was left with its connection; Envoy reads on meanwhile, and a
    /// request that has come whole is complete when it is answered.
    async fn receive_waiting<D: Downstream>(&mut self, down: &mut D) {
        let mut room = self.control.request_buffer_limit;
        poll_fn(|cx| {
            while room > 0 {
                match down.poll_body(cx) {
                    Poll::Ready(Ok(BodyState::Data)) => {
                        let length = down.split(PART_BYTES).len();
                        self.info.bytes_received += length as u64;
                        room = room.saturating_sub(length);
                    }
                    Poll::Ready(Ok(BodyState::End)) => {
                        self.info.request_complete.get_or_insert_with(clock::now);
                        break;
                    }
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Moves the request body through the filters until the one that keeps the head lets it go.
    async fn decode_held<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
    ) -> Result<(), Interruption> {
        let (mut parts, deadlines) = self.parts();
        poll_fn(|cx| {
            let before = parts.info.bytes_received;
            let polled = parts.poll_released(cx, down, Direction::Request);
            if parts.info.bytes_received != before {
                deadlines.touch(clock::now());
            }
            match polled {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
                Poll::Ready(Err(reset)) => {
                    let answer = parts.filters.take_answer();
                    return Poll::Ready(Err(match answer {
                        Some((reply, direction)) => Interruption::Answered(reply, direction),
                        None => Interruption::Downstream(reset),
                    }));
                }
                Poll::Pending => {}
            }
            deadlines.poll_expired(cx, timer).map(|expired| Err(Interruption::Expired(expired)))
        })
        .await?;
        if parts.info.request_complete.is_some() {
            deadlines.request = None;
        }
        Ok(())
    }

    /// Shows the response head to the filters, last one first.
    pub(crate) fn encode_filters(&mut self, end_stream: bool) -> Encoded {
        self.encode_filters_before(self.filters.slots.len(), end_stream)
    }

    fn encode_filters_before(&mut self, before: usize, end_stream: bool) -> Encoded {
        for at in (0..before).rev() {
            let verdict = self.parts().0.call(at, |filter, request, response, stream| {
                filter.encode_headers(request, response, end_stream, stream)
            });
            if !end_stream {
                self.filters.watch(at, Direction::Response);
            }
            match verdict {
                HeadersVerdict::Continue => {}
                HeadersVerdict::Hold if end_stream => {}
                verdict => return Encoded::Stopped(at, verdict),
            }
        }
        if !self.response.contains_known(KnownHeader::Status) {
            return Encoded::Stopped(0, HeadersVerdict::LocalReply(incomplete_response()));
        }
        Encoded::Done
    }

    /// Goes on with an upstream's response head that a filter stopped, until all filters let it go.
    pub(crate) async fn encode_stopped<D: Downstream>(
        &mut self,
        mut pump: PumpSetup<'_, D>,
        mut encoded: Encoded,
    ) -> Result<(), Interruption> {
        while let Encoded::Stopped(at, verdict) = encoded {
            let (parts, deadlines) = self.parts();
            let mut body = super::RequestBody { down: &mut *pump.down, kept: None, stream: parts };
            let mut running = Pump {
                body: &mut body,
                upstream: &mut *pump.upstream,
                deadlines,
                timer: &mut *pump.timer,
                request_done: *pump.request_done,
                response_timeout: pump.response_timeout,
                upgraded: false,
                holds_body: false,
                rejects_early_data: false,
                attempt: pump.attempt.as_deref_mut(),
            };
            let result = match verdict {
                HeadersVerdict::Continue => Ok(()),
                HeadersVerdict::LocalReply(reply) => {
                    Err(Interruption::Answered(Box::new(reply), Direction::Response))
                }
                HeadersVerdict::Wait(work) => running.wait_for(work).await,
                HeadersVerdict::Hold => running.hold().await,
            };
            *pump.request_done = running.request_done;
            result?;
            encoded = self.encode_filters_before(at, false);
        }
        Ok(())
    }

    /// Goes on with the head of a reply of our own that a filter stopped. A filter that answers itself has its answer sent as
    /// it is; none means that a deadline passed.
    pub(crate) async fn encode_reply_stopped(
        &mut self,
        timer: &mut DeadlineTimer,
        body: &mut BufferedBody<'_>,
        end_stream: bool,
        mut encoded: Encoded,
    ) -> Result<(), Option<Box<LocalReply>>> {
        while let Encoded::Stopped(at, verdict) = encoded {
            let (mut parts, deadlines) = self.parts();
            match verdict {
                HeadersVerdict::Continue => {}
                HeadersVerdict::LocalReply(reply) => return Err(Some(Box::new(reply))),
                HeadersVerdict::Wait(mut work) => {
                    let resumption = poll_fn(|cx| {
                        if let Poll::Ready(resumption) = work.as_mut().poll(cx) {
                            return Poll::Ready(Ok(resumption));
                        }
                        deadlines.poll_expired(cx, timer).map(|_| Err(None))
                    });
                    if let Resumption::LocalReply(reply) = resumption.await? {
                        return Err(Some(Box::new(reply)));
                    }
                }
                HeadersVerdict::Hold => {
                    poll_fn(|cx| match parts.poll_released(cx, body, Direction::Response) {
                        Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
                        Poll::Ready(Err(_)) => {
                            Poll::Ready(Err(parts.filters.take_answer().map(|(reply, _)| reply)))
                        }
                        Poll::Pending => deadlines.poll_expired(cx, timer).map(|_| Err(None)),
                    })
                    .await?;
                }
            }
            encoded = self.encode_filters_before(at, end_stream);
        }
        Ok(())
    }
}

/// What a pump is made of besides the stream.
pub(crate) struct PumpSetup<'a, D> {
    pub(crate) down: &'a mut D,
    pub(crate) timer: &'a mut DeadlineTimer,
    pub(crate) upstream: &'a mut crate::upstream::UpstreamStream,
    pub(crate) request_done: &'a mut bool,
    pub(crate) response_timeout: Option<std::time::Duration>,
    pub(crate) attempt: Option<&'a mut AttemptLog>,
}
