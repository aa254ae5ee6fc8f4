//! The handler of a connection: the terminal network filter.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use dhow_proxy_runtime::Worker;

use crate::connection::Connection;

/// A future that stays on its worker.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A terminal network filter as configured: shared by all workers, immutable.
pub trait NetworkFilter: fmt::Debug + Send + Sync {
    /// Makes the filter's state of one worker. Called once per worker when the filter chain becomes active there, so that
    /// serving a connection needs no look-ups.
    fn on_worker(&self, worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler>;

    /// Whether the filter has everything that it needs to serve, such as its routes; a listener does not accept before.
    fn is_warm(&self) -> bool {
        true
    }
}

/// A terminal network filter on one worker.
pub trait ConnectionHandler {
    /// Serves a connection until it ends. Dropping the future closes the connection at once.
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()>;

    /// Asks all connections of this handler to end gracefully: `connection: close` or GOAWAY goes with the next response.
    /// False takes it back (`/healthcheck/ok`).
    fn set_draining(&self, draining: bool);
}
