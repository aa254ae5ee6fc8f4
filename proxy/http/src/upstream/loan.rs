//! What a request holds of its pool: a connection for it alone, or a place in the queue for one.

use std::fmt;
use std::rc::Rc;

use dhow_proxy_upstream::Permit;

use super::h1::H1Upstream;
use super::pool::HostPool;

/// An HTTP/1 connection on loan from its pool; dropping it gives it back, or closes it when it cannot be used again.
pub(crate) struct PooledH1 {
    connection: Option<Box<H1Upstream>>,
    pool: Rc<HostPool>,
}

impl PooledH1 {
    pub(super) fn new(connection: Box<H1Upstream>, pool: Rc<HostPool>) -> Self {
        Self { connection: Some(connection), pool }
    }

    /// Undoes the loan: the connection was not used.
    pub(super) fn take_back(&mut self) -> Option<Box<H1Upstream>> {
        self.connection.take()
    }
}

impl std::ops::Deref for PooledH1 {
    type Target = H1Upstream;

    fn deref(&self) -> &H1Upstream {
        self.connection.as_ref().expect("the connection is taken out only when the loan ends")
    }
}

impl std::ops::DerefMut for PooledH1 {
    fn deref_mut(&mut self) -> &mut H1Upstream {
        self.connection.as_mut().expect("the connection is taken out only when the loan ends")
    }
}

impl Drop for PooledH1 {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            connection.set_meter(None);
            self.pool.release(connection);
        }
    }
}

impl fmt::Debug for PooledH1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledH1").field(&self.connection).finish()
    }
}

/// A request that waits for a connection: its place under the circuit breaker and in the gauges.
pub(super) struct PendingGuard {
    pool: Rc<HostPool>,
    _permit: Permit,
}

impl PendingGuard {
    pub(super) fn new(pool: &Rc<HostPool>, permit: Permit) -> Self {
        pool.count_pending();
        Self { pool: pool.clone(), _permit: permit }
    }
}

impl Drop for PendingGuard {
    fn drop(&mut self) {
        self.pool.uncount_pending();
    }
}
