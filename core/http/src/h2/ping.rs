//! Pings of who owns a connection.

use std::task::{Context, Poll};

use super::shared::SharedCore;
use super::{ConnectionError, StreamError};

/// Sends pings and waits for their answers; the caller keeps the time (`connection_keepalive`).
#[derive(Debug)]
pub struct Pinger {
    core: SharedCore,
}

impl Pinger {
    pub(super) fn new(core: SharedCore) -> Self {
        Self { core }
    }

    /// Sends a ping. One may be under way at a time.
    pub fn ping(&mut self) -> Result<(), ConnectionError> {
        let mut core = self.core.borrow_mut();
        if let Some(error) = core.ended() {
            return Err(over(error));
        }
        core.send_ping();
        Ok(())
    }

    /// Waits for the answer to the last ping.
    pub fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        self.core.borrow_mut().poll_pong(cx).map_err(|error| over(&error))
    }
}

fn over(error: &StreamError) -> ConnectionError {
    ConnectionError::Io(std::io::Error::new(std::io::ErrorKind::BrokenPipe, error.to_string()))
}
