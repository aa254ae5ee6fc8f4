//! Requests whose route disables the router: nobody answers them.

use std::future::poll_fn;
use std::task::Poll;

use dhow_proxy_runtime::{DeadlineTimer, clock};

use super::exchange::{BoxedEnding, Exchange};
use super::pump::Interruption;
use super::request_body::RequestBody;
use crate::body::{BodySource, BodyState};
use crate::downstream::Downstream;

impl Exchange {
    /// Whether the route says that the router is skipped like another filter.
    pub(super) fn is_router_disabled(&self) -> bool {
        let Some(route) = self.info.route.as_ref().filter(|route| !route.filter_configs().is_empty()) else {
            return false;
        };
        let level = self.chain().router.as_ref().and_then(|r| route.filter_configs().get(&r.name));
        level.is_some_and(|level| level.disabled)
    }

    /// Takes the request in and waits until a deadline passes or the client leaves.
    #[cold]
    pub(super) fn never_routed<'a, D: Downstream>(
        &'a mut self,
        down: &'a mut D,
        timer: &'a mut DeadlineTimer,
    ) -> BoxedEnding<'a> {
        Box::pin(async move {
            let mut ended = self.end_stream;
            let (stream, deadlines) = self.parts();
            let mut body = RequestBody { down: &mut *down, kept: None, stream };
            let interruption = poll_fn(|cx| {
                while !ended {
                    match body.poll_body(cx) {
                        Poll::Ready(Ok(BodyState::Data)) => {
                            let count = body.chunk().len();
                            body.consume(count);
                            deadlines.touch(clock::now());
                        }
                        Poll::Ready(Ok(BodyState::End)) => {
                            ended = true;
                            deadlines.request = None;
                            body.stream.info.request_complete.get_or_insert_with(clock::now);
                        }
                        Poll::Ready(Err(reset)) => {
                            let answer = body.stream.filters.take_answer();
                            let answered = |(reply, direction)| Interruption::Answered(reply, direction);
                            return Poll::Ready(answer.map_or(Interruption::Downstream(reset), answered));
                        }
                        Poll::Pending => break,
                    }
                }
                if ended && let Poll::Ready(reset) = body.down.poll_closed(cx) {
                    return Poll::Ready(Interruption::Downstream(reset));
                }
                deadlines.poll_expired(cx, timer).map(Interruption::Expired)
            })
            .await;
            self.interrupted(down, timer, interruption).await
        })
    }
}
