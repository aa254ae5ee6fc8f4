//! The filters of one stream as they see it, and bodies that pass through them on their way.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use dhow_http::HeaderMap;
use dhow_proxy_access_log::Logged;
use dhow_proxy_api::{
    BodyPart, DataVerdict, FilterStream, HttpFilter, LocalReply, LogMoment, Protocol, StreamControl,
    StreamFormat, StreamInfo, TrailersVerdict, Watches,
};
use dhow_proxy_runtime::clock;
use dhow_runtime_config::Current;

use super::body_pipe::{BodyPipe, PipeFilters, Stopped};
use crate::body::{BodySource, BodyState};
use crate::manager::Manager;
use crate::reset::{Reset, ResetKind};

/// Most bytes that a filter is shown at once.
pub(super) const PART_BYTES: usize = 64 * 1024;

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Upstream.
    Request,
    /// Downstream.
    Response,
}

/// The place of the first upstream filter of an attempt, among all filters: behind any that the chain has.
pub(crate) const UPSTREAM: usize = 1 << 16;

/// The upstream filters of one attempt, and the request body on its way through those that watch it.
#[derive(Default)]
pub(crate) struct AttemptFilters {
    pub(crate) filters: Vec<Box<dyn HttpFilter>>,
    pub(crate) request_body: Option<BodyPipe>,
}

/// A filter, and its place in the configured chain.
pub(crate) struct FilterSlot {
    pub(crate) filter: Box<dyn HttpFilter>,
    pub(crate) configured: usize,
}

/// The filters of one stream, and bodies on their way through those that watch them.
#[derive(Default)]
pub(crate) struct FilterChain {
    pub(crate) slots: Vec<FilterSlot>,
    /// Configured filters, by place, that the route had disabled when the chain was made.
    pub(crate) disabled: u64,
    /// Whether the filters are those of the configured chain, no route having a say in which there are and how they are
    /// configured.
    pub(crate) usual: bool,
    pub(crate) request_body: Option<Box<BodyPipe>>,
    pub(crate) response_body: Option<Box<BodyPipe>>,
    /// The upstream filters of the attempt that is under way or was the last, where there are any.
    pub(crate) attempt: Option<Box<AttemptFilters>>,
    /// What a filter answered to a part of a body, and whether to the request or the response.
    answer: Option<(Box<LocalReply>, Direction)>,
}

impl fmt::Debug for FilterChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterChain").field("filters", &self.slots.len()).finish_non_exhaustive()
    }
}

impl FilterChain {
    /// Has the body pass a filter that watches it; filters are added in the order in which heads pass them.
    pub(crate) fn watch(&mut self, at: usize, direction: Direction) {
        let Some(watches) = self.filter(at).map(|filter| filter.watches()) else { return };
        if watches == Watches::NOTHING {
            return;
        }
        let (any, data) = match direction {
            Direction::Request => (Watches::REQUEST_TRAILERS, watches.request_data()),
            Direction::Response => (Watches::RESPONSE_TRAILERS, watches.response_data()),
        };
        if !data && !watches.any_of(any) {
            return;
        }
        match (direction, self.attempt.as_deref_mut().filter(|_| at >= UPSTREAM)) {
            (Direction::Request, Some(attempt)) => {
                attempt.request_body.get_or_insert_default().add(at, data);
            }
            (Direction::Request, None) => self.request_body.get_or_insert_default().add(at, data),
            (Direction::Response, _) => self.response_body.get_or_insert_default().add(at, data),
        }
    }

    /// The filter at a place of the chain, or of the upstream filters.
    fn filter(&mut self, at: usize) -> Option<&mut dyn HttpFilter> {
        Some(match at.checked_sub(UPSTREAM) {
            None => self.slots.get_mut(at)?.filter.as_mut(),
            Some(at) => self.attempt.as_deref_mut()?.filters.get_mut(at)?.as_mut(),
        })
    }

    /// Takes what a filter answered to a part of a body.
    pub(crate) fn take_answer(&mut self) -> Option<(Box<LocalReply>, Direction)> {
        self.answer.take()
    }
}

/// What filters see of a stream, borrowed from it for as long as a body moves.
#[derive(Debug)]
pub(crate) struct StreamParts<'a> {
    pub(crate) manager: &'a Manager,
    pub(crate) info: &'a mut StreamInfo,
    pub(crate) request: &'a mut HeaderMap,
    pub(crate) response: &'a mut HeaderMap,
    pub(crate) filters: &'a mut FilterChain,
    pub(crate) control: &'a mut StreamControl,
    pub(crate) random: u64,
}

impl StreamParts<'_> {
    /// Writes the access logs.
    pub(crate) fn log(&mut self, moment: LogMoment) {
        self.info.log_moment = moment;
        // Of a head that could not be read there is nothing to tell, not even that it is empty.
        let request = Some(&*self.request).filter(|request| !request.is_empty());
        let context = StreamFormat { request, response: Some(self.response), ..StreamFormat::new(self.info) };
        for log in &self.manager.config.access_logs {
            log.log(&context, &Logged { info: self.info, request: Some(self.request) });
        }
    }

    /// Calls a filter with the heads and what else it sees.
    pub(crate) fn call<T>(
        &mut self,
        at: usize,
        call: impl FnOnce(&mut dyn HttpFilter, &mut HeaderMap, &mut HeaderMap, &mut FilterStream<'_>) -> T,
    ) -> T {
        let mut stream = FilterStream {
            info: self.info,
            random: self.random,
            control: self.control,
            runtime: &Current,
            clusters: self.manager,
        };
        let filter = self.filters.filter(at).expect("places come from the chains themselves");
        call(filter, self.request, self.response, &mut stream)
    }

    /// Moves what is in a pipe as far as its filters let it. What a filter answers is kept for whoever sees the
    /// failure. What upstream filters hold back (`of_attempt`) is not counted as too large.
    pub(super) fn poll_advance(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut BodyPipe,
        direction: Direction,
        of_attempt: bool,
    ) -> Poll<Result<(), Reset>> {
        let mut called = Called { parts: self, direction };
        let Err(stopped) = ready!(pipe.poll_advance(cx, &mut called)) else { return Poll::Ready(Ok(())) };
        let mut answer = self.answer_to(stopped, direction, of_attempt);
        if direction == Direction::Request && self.info.protocol != Some(Protocol::Http2) {
            // The end of an HTTP/1 request comes behind all of its bytes: what is answered before cuts it off.
            answer.close |= self.info.request_complete.is_none();
        }
        self.filters.answer = Some((answer, direction));
        Poll::Ready(Err(Reset::new(ResetKind::LocalReset)))
    }

    /// Makes body bytes available or finds the end, through the filters if any of them watches.
    #[inline]
    pub(crate) fn poll_body<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        direction: Direction,
    ) -> Poll<Result<BodyState, Reset>> {
        let pipe = match direction {
            Direction::Request => &self.filters.request_body,
            Direction::Response => &self.filters.response_body,
        };
        if pipe.is_none() {
            return source.poll_body(cx);
        }
        let done = |pipe: &BodyPipe| pipe.is_ended() || !pipe.ready().is_empty();
        ready!(self.poll_pipe(cx, source, direction, done))?;
        let pipe = match direction {
            Direction::Request => &self.filters.request_body,
            Direction::Response => &self.filters.response_body,
        };
        let any = pipe.as_ref().is_some_and(|pipe| !pipe.ready().is_empty());
        Poll::Ready(Ok(if any { BodyState::Data } else { BodyState::End }))
    }

    /// Moves the body until the filter that was added last lets something of it, or its end, go on.
    pub(crate) fn poll_released<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        direction: Direction,
    ) -> Poll<Result<(), Reset>> {
        self.poll_pipe(cx, source, direction, BodyPipe::last_released)
    }

    #[cold]
    fn poll_pipe<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut S,
        direction: Direction,
        done: impl Fn(&BodyPipe) -> bool,
    ) -> Poll<Result<(), Reset>> {
        let taken = match direction {
            Direction::Request => self.filters.request_body.take(),
            Direction::Response => self.filters.response_body.take(),
        };
        let Some(mut pipe) = taken else { return Poll::Ready(Ok(())) };
        let polled = self.poll_taken(cx, &mut pipe, source, direction, done);
        match direction {
            Direction::Request => self.filters.request_body = Some(pipe),
            Direction::Response => self.filters.response_body = Some(pipe),
        }
        polled
    }

    fn poll_taken<S: BodySource>(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut BodyPipe,
        source: &mut S,
        direction: Direction,
        done: impl Fn(&BodyPipe) -> bool,
    ) -> Poll<Result<(), Reset>> {
        loop {
            ready!(self.poll_advance(cx, pipe, direction, false))?;
            if done(pipe) {
                return Poll::Ready(Ok(()));
            }
            if !pipe.wants_more() {
                return Poll::Pending;
            }
            match ready!(source.poll_body(cx))? {
                BodyState::Data => {
                    let data = source.split(PART_BYTES);
                    if direction == Direction::Request {
                        self.info.bytes_received += data.len() as u64;
                    }
                    pipe.push(BytesMut::from(data));
                    // In HTTP/2 the end comes with the last bytes: filters see them together.
                    if direction == Direction::Request
                        && self.info.protocol == Some(Protocol::Http2)
                        && let Poll::Ready(Ok(BodyState::End)) = source.poll_body(cx)
                    {
                        self.info.request_complete.get_or_insert_with(clock::now);
                        pipe.finish(source.trailers().cloned());
                    }
                }
                BodyState::End => {
                    if direction == Direction::Request {
                        self.info.request_complete.get_or_insert_with(clock::now);
                    }
                    pipe.finish(source.trailers().cloned());
                }
            }
        }
    }

    fn answer_to(&self, stopped: Stopped, direction: Direction, of_attempt: bool) -> Box<LocalReply> {
        let stats = &self.manager.stats.manager;
        Box::new(match (stopped, direction) {
            (Stopped::Reply(reply), _) => return reply,
            (Stopped::TooLarge, Direction::Request) => {
                if !of_attempt {
                    stats.downstream_rq_too_large().inc();
                }
                LocalReply::new(413, &b"Payload Too Large"[..], "request_payload_too_large")
            }
            (Stopped::TooLarge, Direction::Response) => {
                stats.rs_too_large().inc();
                LocalReply::new(500, &b"Internal Server Error"[..], "response_payload_too_large")
            }
        })
    }
}

/// The filters of a stream as the pipe of one direction calls them.
struct Called<'a, 'b> {
    parts: &'a mut StreamParts<'b>,
    direction: Direction,
}

impl PipeFilters for Called<'_, '_> {
    fn data(&mut self, filter: usize, part: BodyPart<'_>) -> DataVerdict {
        let direction = self.direction;
        self.parts.call(filter, |filter, request, response, stream| match direction {
            Direction::Request => filter.decode_data(request, part, stream),
            Direction::Response => filter.encode_data(response, part, stream),
        })
    }

    fn trailers(&mut self, filter: usize, trailers: &mut HeaderMap) -> TrailersVerdict {
        let direction = self.direction;
        self.parts.call(filter, |filter, request, response, stream| match direction {
            Direction::Request => filter.decode_trailers(request, trailers, stream),
            Direction::Response => filter.encode_trailers(request, response, trailers, stream),
        })
    }

    fn limit(&self) -> usize {
        match self.direction {
            Direction::Request => self.parts.control.request_buffer_limit,
            Direction::Response => self.parts.control.response_buffer_limit,
        }
    }
}

/// A response body that passes through the filters.
#[derive(Debug)]
pub(crate) struct FilteredResponse<'a, 'b, S> {
    pub(crate) source: &'a mut S,
    pub(crate) parts: &'a mut StreamParts<'b>,
}

impl<S> FilteredResponse<'_, '_, S> {
    fn pipe(&self) -> Option<&BodyPipe> {
        self.parts.filters.response_body.as_deref()
    }
}

impl<S: BodySource> BodySource for FilteredResponse<'_, '_, S> {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<BodyState, Reset>> {
        self.parts.poll_body(cx, self.source, Direction::Response)
    }

    fn chunk(&self) -> &[u8] {
        self.pipe().map_or_else(|| self.source.chunk(), BodyPipe::ready)
    }

    fn consume(&mut self, count: usize) {
        match &mut self.parts.filters.response_body {
            Some(pipe) => pipe.consume(count),
            None => self.source.consume(count),
        }
    }

    fn split(&mut self, max: usize) -> Bytes {
        match &mut self.parts.filters.response_body {
            Some(pipe) => pipe.split(max).freeze(),
            None => self.source.split(max),
        }
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.pipe().map_or_else(|| self.source.trailers(), BodyPipe::trailers)
    }
}
