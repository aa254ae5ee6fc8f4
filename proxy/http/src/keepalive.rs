//! `connection_keepalive`: HTTP/2 pings that find out whether the peer is still there.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use dhow_http::h2::Pinger;
use dhow_proxy_upstream::Http2Keepalive;

/// The pings of one connection.
#[derive(Debug)]
pub(crate) struct Keepalive {
    rules: Http2Keepalive,
    pinger: Pinger,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Quiet,
    /// The next ping is due.
    Due(Instant),
    /// An answer is due.
    Awaiting(Instant),
}

/// The peer did not answer in time, or cannot be asked any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unanswered;

impl Keepalive {
    /// Starts at `now`; `random` spreads the pings of many connections.
    pub(crate) fn new(rules: Http2Keepalive, pinger: Pinger, now: Instant, random: u64) -> Self {
        let mut this = Self { rules, pinger, state: State::Quiet };
        this.schedule(now, random);
        this
    }

    fn schedule(&mut self, now: Instant, random: u64) {
        self.state = match self.rules.interval {
            Some(interval) => State::Due(now + with_jitter(interval, self.rules.jitter_percent, random)),
            None => State::Quiet,
        };
    }

    /// When to look again, whatever the peer does.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Quiet => None,
            State::Due(at) | State::Awaiting(at) => Some(at),
        }
    }

    /// Sends the ping that is due and takes an answer that came.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        random: impl FnOnce() -> u64,
    ) -> Result<(), Unanswered> {
        if let State::Due(at) = self.state
            && at <= now
        {
            self.ping(now)?;
        }
        if let State::Awaiting(until) = self.state {
            match self.pinger.poll_pong(cx) {
                Poll::Ready(Ok(())) => self.schedule(now, random()),
                Poll::Ready(Err(_)) => self.state = State::Quiet,
                Poll::Pending if until <= now => return Err(Unanswered),
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Sends a ping unless one is under way.
    pub(crate) fn ping(&mut self, now: Instant) -> Result<(), Unanswered> {
        if matches!(self.state, State::Awaiting(_)) {
            return Ok(());
        }
        self.pinger.ping().map_err(|_| Unanswered)?;
        self.state = State::Awaiting(now + self.rules.timeout);
        Ok(())
    }
}

/// A time that is longer by up to this many percent.
pub(crate) fn with_jitter(time: Duration, percent: f64, random: u64) -> Duration {
    let share = percent.clamp(0.0, 100.0) / 100.0 * (random as f64 / u64::MAX as f64);
    time + time.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_makes_a_time_longer_by_at_most_its_share() {
        let second = Duration::from_secs(1);
        assert_eq!(with_jitter(second, 15.0, 0), second);
        assert_eq!(with_jitter(second, 15.0, u64::MAX), Duration::from_millis(1150));
        assert_eq!(with_jitter(second, 0.0, u64::MAX), second);
        assert_eq!(with_jitter(second, 250.0, u64::MAX), 2 * second);
    }
}
