//! A body on its way through the filters that watch it: a queue in front of each, and what each of them holds back.

use std::fmt;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use dhow_http::HeaderMap;
use dhow_proxy_api::{BodyPart, DataVerdict, LocalFuture, LocalReply, Resumption, TrailersVerdict};

/// Why a body does not go on.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// A filter answers.
    Reply(Box<LocalReply>),
    /// A filter holds back more than it may.
    TooLarge,
}

/// The filters as the pipe calls them, by their place in the chain.
pub(crate) trait PipeFilters {
    /// Shows a part of the body to a filter.
    fn data(&mut self, filter: usize, part: BodyPart<'_>) -> DataVerdict;
    /// Shows the trailers to a filter.
    fn trailers(&mut self, filter: usize, trailers: &mut HeaderMap) -> TrailersVerdict;
    /// Bytes that a filter may hold back now.
    fn limit(&self) -> usize;
}

/// The filters of one direction of a stream that watch its body, in the order in which the body passes them.
#[derive(Debug, Default)]
pub(crate) struct BodyPipe {
    stages: Vec<Stage>,
    ready: BytesMut,
    trailers: Option<HeaderMap>,
    source_ended: bool,
    ended: bool,
}

struct Stage {
    filter: usize,
    /// Whether the filter wants the body, not only the trailers.
    wants_data: bool,
    input: BytesMut,
    input_ended: bool,
    held: BytesMut,
    work: Option<Work>,
    /// The filter is to be called again although nothing arrived.
    again: bool,
    /// Something passed the filter, or the end did.
    released: bool,
    ended: bool,
}

enum Work {
    Resume(LocalFuture<Resumption>),
    Pace(LocalFuture<()>),
}

impl fmt::Debug for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { filter, held, ended, .. } = self;
        f.debug_struct("Stage")
            .field("filter", filter)
            .field("held", &held.len())
            .field("ended", ended)
            .finish_non_exhaustive()
    }
}

impl BodyPipe {
    /// Adds a filter behind the others.
    pub(crate) fn add(&mut self, filter: usize, wants_data: bool) {
        let input = std::mem::take(&mut self.ready);
        self.stages.push(Stage {
            filter,
            wants_data,
            input,
            // What passed the filters in front while they kept the head back is new to this one.
            input_ended: std::mem::take(&mut self.ended),
            held: BytesMut::new(),
            work: None,
            again: false,
            released: false,
            ended: false,
        });
    }

    /// Whether something or the end passed the filter that was added last.
    pub(crate) fn last_released(&self) -> bool {
        self.stages.last().is_none_or(|stage| stage.released)
    }

    /// Whether everything passed all filters.
    pub(crate) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Bytes that passed all filters.
    pub(crate) fn ready(&self) -> &[u8] {
        &self.ready
    }

    /// Drops bytes from the front of what is ready.
    pub(crate) fn consume(&mut self, count: usize) {
        self.ready.advance(count);
    }

    /// Takes bytes from the front of what is ready.
    pub(crate) fn split(&mut self, max: usize) -> BytesMut {
        let count = self.ready.len().min(max);
        self.ready.split_to(count)
    }

    /// Trailers as the filters left them, once everything passed.
    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref().filter(|_| self.ended)
    }

    /// Whether more may be read from the source: not while a filter works on what came before.
    pub(crate) fn wants_more(&self) -> bool {
        !self.source_ended && self.ready.is_empty() && self.stages.iter().all(|stage| stage.work.is_none())
    }

    /// Puts bytes in front of the first filter.
    pub(crate) fn push(&mut self, data: BytesMut) {
        let into = self.stages.first_mut().map_or(&mut self.ready, |stage| &mut stage.input);
        append(into, data);
    }

    /// Puts the end in front of the first filter.
    pub(crate) fn finish(&mut self, trailers: Option<HeaderMap>) {
        self.source_ended = true;
        self.trailers = trailers;
        match self.stages.first_mut() {
            Some(stage) => stage.input_ended = true,
            None => self.ended = true,
        }
    }

    /// Moves what is there as far as the filters let it. Ready when nothing is left to do before more is read.
    pub(crate) fn poll_advance(
        &mut self,
        cx: &mut Context<'_>,
        filters: &mut dyn PipeFilters,
    ) -> Poll<Result<(), Stopped>> {
        let mut working = false;
        for at in 0..self.stages.len() {
            loop {
                let polled = match &mut self.stages[at].work {
                    Some(Work::Resume(work)) => work.as_mut().poll(cx).map(Some),
                    Some(Work::Pace(work)) => work.as_mut().poll(cx).map(|()| None),
                    None => {
                        // Work that begins here is polled at once, so that it can say when to come back.
                        if self.run(at, filters)? {
                            continue;
                        }
                        break;
                    }
                };
                match polled {
                    Poll::Ready(resumption) => self.on_work_done(at, resumption)?,
                    Poll::Pending => {
                        working = true;
                        break;
                    }
                }
            }
        }
        if working && self.ready.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn on_work_done(&mut self, at: usize, resumption: Option<Resumption>) -> Result<(), Stopped> {
        let stage = &mut self.stages[at];
        stage.work = None;
        match resumption {
            None => stage.again = true,
            Some(Resumption::LocalReply(reply)) => return Err(Stopped::Reply(Box::new(reply))),
            Some(Resumption::Continue) => {
                let held = std::mem::take(&mut stage.held);
                let end = stage.input_ended && stage.input.is_empty() && self.trailers.is_none();
                self.release(at, held, end);
            }
        }
        Ok(())
    }

    /// Shows a filter what is in front of it; tells whether the filter now works on something.
    fn run(&mut self, at: usize, filters: &mut dyn PipeFilters) -> Result<bool, Stopped> {
        let has_trailers = self.trailers.is_some();
        let stage = &mut self.stages[at];
        let again = std::mem::take(&mut stage.again);
        if stage.ended || (stage.input.is_empty() && !stage.input_ended && !again) {
            return Ok(false);
        }
        let end_stream = stage.input_ended && !has_trailers;
        if !stage.input.is_empty() || end_stream || again {
            let mut data = std::mem::take(&mut stage.input);
            let verdict = if stage.wants_data {
                let part = BodyPart { data: &mut data, held: &mut stage.held, end_stream };
                filters.data(stage.filter, part)
            } else {
                DataVerdict::Continue
            };
            if self.obey(at, verdict, data, end_stream, filters.limit())? {
                return Ok(true);
            }
        }
        let stage = &mut self.stages[at];
        if let Some(trailers) = self.trailers.as_mut().filter(|_| stage.input_ended && !stage.ended) {
            match filters.trailers(stage.filter, trailers) {
                TrailersVerdict::LocalReply(reply) => return Err(Stopped::Reply(Box::new(reply))),
                TrailersVerdict::Continue => {
                    let held = std::mem::take(&mut stage.held);
                    self.release(at, held, true);
                }
            }
        }
        Ok(false)
    }

    fn obey(
        &mut self,
        at: usize,
        verdict: DataVerdict,
        data: BytesMut,
        end_stream: bool,
        limit: usize,
    ) -> Result<bool, Stopped> {
        let stage = &mut self.stages[at];
        match verdict {
            DataVerdict::Continue => {
                let mut out = std::mem::take(&mut stage.held);
                append(&mut out, data);
                self.release(at, out, end_stream);
            }
            DataVerdict::StopAndBuffer => {
                append(&mut stage.held, data);
                if stage.held.len() > limit {
                    return Err(Stopped::TooLarge);
                }
                if end_stream {
                    // Nothing more comes that could make the filter change its mind.
                    let held = std::mem::take(&mut stage.held);
                    self.release(at, held, true);
                }
            }
            DataVerdict::Wait(work) => {
                append(&mut stage.held, data);
                stage.work = Some(Work::Resume(work));
                return Ok(true);
            }
            DataVerdict::Pace(work) => {
                stage.work = Some(Work::Pace(work));
                self.release(at, data, false);
                return Ok(true);
            }
            DataVerdict::LocalReply(reply) => return Err(Stopped::Reply(Box::new(reply))),
        }
        Ok(false)
    }

    /// Gives bytes, and the end, to the next filter.
    fn release(&mut self, at: usize, data: BytesMut, end: bool) {
        let stage = &mut self.stages[at];
        stage.released |= !data.is_empty() || end;
        stage.ended |= end;
        match self.stages.get_mut(at + 1) {
            Some(next) => {
                append(&mut next.input, data);
                next.input_ended |= end;
            }
            None => {
                append(&mut self.ready, data);
                self.ended |= end;
            }
        }
    }
}

fn append(into: &mut BytesMut, data: BytesMut) {
    if into.is_empty() {
        *into = data;
    } else {
        into.unsplit(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Filters by script: filter 0 collects everything, filter 1 doubles bytes, filter 2 lets two bytes go per turn.
    struct Script {
        limit: usize,
        parts: Vec<String>,
    }

    impl PipeFilters for Script {
        fn data(&mut self, filter: usize, part: BodyPart<'_>) -> DataVerdict {
            let BodyPart { data, held, end_stream } = part;
            self.parts.push(format!("{filter}:{}{}", data.len(), if end_stream { "." } else { "" }));
            match filter {
                0 if end_stream => DataVerdict::Continue,
                0 => DataVerdict::StopAndBuffer,
                1 => {
                    let doubled: Vec<u8> = data.iter().flat_map(|byte| [*byte, *byte]).collect();
                    *data = BytesMut::from(&doubled[..]);
                    DataVerdict::Continue
                }
                _ => {
                    held.unsplit(std::mem::take(data));
                    *data = held.split_to(held.len().min(2));
                    if held.is_empty() {
                        return DataVerdict::Continue;
                    }
                    DataVerdict::Pace(Box::pin(std::future::ready(())))
                }
            }
        }

        fn trailers(&mut self, filter: usize, trailers: &mut HeaderMap) -> TrailersVerdict {
            self.parts.push(format!("{filter}:trailers"));
            trailers.append(b"x-seen", filter.to_string().as_bytes());
            TrailersVerdict::Continue
        }

        fn limit(&self) -> usize {
            self.limit
        }
    }

    fn drain(pipe: &mut BodyPipe, filters: &mut Script) -> Result<Vec<u8>, Stopped> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut out = Vec::new();
        for _ in 0..100 {
            match pipe.poll_advance(&mut cx, filters) {
                Poll::Ready(result) => result?,
                Poll::Pending => continue,
            }
            out.extend_from_slice(&pipe.split(usize::MAX));
            if pipe.is_ended() && pipe.ready().is_empty() {
                break;
            }
        }
        Ok(out)
    }

    fn pipe(filters: &[usize]) -> BodyPipe {
        let mut pipe = BodyPipe::default();
        for filter in filters {
            pipe.add(*filter, true);
        }
        pipe
    }

    #[test]
    fn a_body_is_collected_changed_and_paced() {
        let mut pipe = pipe(&[0, 1, 2]);
        let mut filters = Script { limit: 10, parts: Vec::new() };
        pipe.push(BytesMut::from(&b"ab"[..]));
        assert_eq!(drain(&mut pipe, &mut filters).unwrap(), b"");
        assert!(pipe.wants_more() && !pipe.is_ended());
        pipe.push(BytesMut::from(&b"c"[..]));
        pipe.finish(None);
        assert_eq!(drain(&mut pipe, &mut filters).unwrap(), b"aabbcc");
        assert!(pipe.is_ended() && pipe.ready().is_empty() && pipe.trailers().is_none());
        assert_eq!(filters.parts, ["0:2", "0:1.", "1:3.", "2:6.", "2:0.", "2:0."]);
    }

    #[test]
    fn trailers_release_what_was_held() {
        let mut pipe = pipe(&[0, 1]);
        let mut filters = Script { limit: 10, parts: Vec::new() };
        pipe.push(BytesMut::from(&b"ab"[..]));
        pipe.finish(Some(HeaderMap::new()));
        assert_eq!(drain(&mut pipe, &mut filters).unwrap(), b"aabb");
        assert_eq!(filters.parts, ["0:2", "0:trailers", "1:2", "1:trailers"]);
        assert_eq!(pipe.trailers().unwrap().len(), 2);
    }

    #[test]
    fn more_than_the_limit_is_not_held() {
        let mut pipe = pipe(&[0]);
        let mut filters = Script { limit: 3, parts: Vec::new() };
        pipe.push(BytesMut::from(&b"abc"[..]));
        assert!(drain(&mut pipe, &mut filters).is_ok());
        pipe.push(BytesMut::from(&b"d"[..]));
        assert!(matches!(drain(&mut pipe, &mut filters), Err(Stopped::TooLarge)));
    }

    #[test]
    fn a_filter_added_later_sees_what_passed_before() {
        let mut pipe = pipe(&[0]);
        let mut filters = Script { limit: 9, parts: Vec::new() };
        pipe.push(BytesMut::from(&b"ab"[..]));
        pipe.finish(None);
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(pipe.poll_advance(&mut cx, &mut filters).is_ready());
        assert!(pipe.last_released() && pipe.is_ended());
        pipe.add(1, true);
        assert!(!pipe.last_released() && !pipe.is_ended());
        assert_eq!(drain(&mut pipe, &mut filters).unwrap(), b"aabb");
    }
}
