//! The deadlines of one stream. All are kept as moments; the stream's one timer is armed for the earliest.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dhow_proxy_runtime::DeadlineTimer;

/// What ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Nothing moved on the stream (`stream_idle_timeout`).
    StreamIdle,
    /// The request did not arrive whole in time (`request_timeout`).
    Request,
    /// The stream lasted too long (`max_stream_duration`).
    MaxDuration,
    /// The response did not arrive in the route's timeout.
    Response,
    /// One attempt took longer than `per_try_timeout`.
    PerTry,
    /// Nothing moved in one attempt for `per_try_idle_timeout`.
    PerTryIdle,
    /// The stream to the host lasted too long (`max_stream_duration` of the cluster).
    UpstreamDuration,
}

/// The deadlines of one stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Deadlines {
    idle_timeout: Option<Duration>,
    last_activity: Option<Instant>,
    pub(crate) request: Option<Instant>,
    pub(crate) max_duration: Option<Instant>,
    pub(crate) response: Option<Instant>,
    /// Limits of the attempt that has not sent its request yet.
    next_try: (Option<Duration>, Option<Duration>),
    per_try: Option<Instant>,
    per_try_idle: Option<Duration>,
    /// When the stream to the host has lasted for too long.
    upstream_duration: Option<Instant>,
    /// When the stream is logged next although it goes on.
    pub(crate) log: Option<Instant>,
    /// The same of the attempt under way.
    pub(crate) attempt_log: Option<Instant>,
}

impl Deadlines {
    pub(crate) fn new(idle_timeout: Option<Duration>, now: Instant) -> Self {
        Self { idle_timeout, last_activity: Some(now), ..Self::default() }
    }

    /// Replaces the idle timeout, as a route may.
    pub(crate) fn set_idle_timeout(&mut self, timeout: Option<Duration>) {
        self.idle_timeout = timeout;
    }

    /// Something moved.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.last_activity = Some(now);
    }

    /// An attempt begins. Its limits count from when it has a connection and the request was sent whole.
    pub(crate) fn begin_attempt(&mut self, timeout: Option<Duration>, idle: Option<Duration>) {
        self.next_try = (timeout, idle);
        self.per_try = None;
        self.per_try_idle = None;
        self.upstream_duration = None;
        self.attempt_log = None;
    }

    /// An attempt has its stream, which may last for so long.
    pub(crate) fn limit_upstream(&mut self, limit: Option<Duration>, now: Instant) {
        self.upstream_duration = limit.map(|limit| now + limit);
    }

    /// The request was sent whole.
    pub(crate) fn start_try(&mut self, now: Instant) {
        let (timeout, idle) = std::mem::take(&mut self.next_try);
        self.per_try = timeout.map(|timeout| now + timeout);
        if idle.is_some() {
            self.per_try_idle = idle;
            self.last_activity = Some(now);
        }
    }

    /// An attempt has its response. From now on it may only stand still for too long.
    pub(crate) fn on_response_head(&mut self, now: Instant) {
        self.next_try.0 = None;
        self.per_try = None;
        if self.per_try_idle.is_some() {
            self.last_activity = Some(now);
        }
    }

    /// An attempt ended.
    pub(crate) fn end_attempt(&mut self) {
        self.begin_attempt(None, None);
    }

    fn per_try_idle(&self) -> Option<Instant> {
        Some(self.last_activity? + self.per_try_idle?)
    }

    fn idle(&self) -> Option<Instant> {
        Some(self.last_activity? + self.idle_timeout?)
    }

    /// Whether the stream or its attempt is logged although it goes on.
    pub(crate) fn has_logs(&self) -> bool {
        self.log.is_some() || self.attempt_log.is_some()
    }

    /// The earliest deadline or moment of a log.
    pub(crate) fn next_or_log(&self) -> Option<Instant> {
        [self.next(), self.log, self.attempt_log].into_iter().flatten().min()
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        let of_attempt = [self.per_try, self.per_try_idle(), self.upstream_duration];
        let of_stream = [self.idle(), self.request, self.max_duration, self.response];
        of_stream.into_iter().chain(of_attempt).flatten().min()
    }

    /// Ready with what ran out first, once a deadline passed; the timer wakes up for the next one.
    pub(crate) fn poll_expired(&self, cx: &mut Context<'_>, timer: &mut DeadlineTimer) -> Poll<Expired> {
        while timer.poll(cx, self.next()).is_ready() {
            if let Some(expired) = self.expired(Instant::now()) {
                return Poll::Ready(expired);
            }
        }
        Poll::Pending
    }

    /// What has run out; the deadline that passed first.
    pub(crate) fn expired(&self, now: Instant) -> Option<Expired> {
        [
            (self.response, Expired::Response),
            (self.per_try, Expired::PerTry),
            (self.per_try_idle(), Expired::PerTryIdle),
            (self.upstream_duration, Expired::UpstreamDuration),
            (self.idle(), Expired::StreamIdle),
            (self.request, Expired::Request),
            (self.max_duration, Expired::MaxDuration),
        ]
        .into_iter()
        .filter_map(|(at, what)| Some((at?, what)))
        .filter(|(at, _)| *at <= now)
        .min_by_key(|(at, _)| *at)
        .map(|(_, what)| what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_counts_and_activity_moves_the_idle_one() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut deadlines = Deadlines::new(Some(5 * second), now);
        assert_eq!(deadlines.next(), Some(now + 5 * second));
        deadlines.touch(now + 3 * second);
        assert_eq!(deadlines.next(), Some(now + 8 * second));
        deadlines.response = Some(now + 6 * second);
        assert_eq!(deadlines.next(), Some(now + 6 * second));
        assert_eq!(deadlines.expired(now + 5 * second), None);
        assert_eq!(deadlines.expired(now + 9 * second), Some(Expired::Response));
        deadlines.response = None;
        assert_eq!(deadlines.expired(now + 9 * second), Some(Expired::StreamIdle));
        deadlines.set_idle_timeout(None);
        assert_eq!(deadlines.next(), None);
    }

    #[test]
    fn the_duration_of_an_attempt_ends_with_it() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let mut deadlines = Deadlines::new(None, now);
        deadlines.limit_upstream(Some(2 * second), now + second);
        assert_eq!(deadlines.next(), Some(now + 3 * second));
        deadlines.on_response_head(now + 2 * second);
        assert_eq!(deadlines.expired(now + 3 * second), Some(Expired::UpstreamDuration));
        deadlines.end_attempt();
        assert_eq!(deadlines.next(), None);
        deadlines.limit_upstream(None, now);
        assert_eq!(deadlines.next(), None);
    }
}
