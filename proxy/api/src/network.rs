//! Network filters: the terminal one, which serves a connection, and those in front of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use dhow_proxy_runtime::Worker;

use crate::connection::{Connection, ConnectionInfo};
use crate::draining::DrainEvent;

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

    /// What the filter waits for, in Envoy's form, as long as it is not warm.
    fn waits_for(&self) -> Option<String> {
        None
    }
}

/// A terminal network filter on one worker.
pub trait ConnectionHandler {
    /// Serves a connection until it ends. Dropping the future closes the connection at once.
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()>;

    /// Whether connections of TLS are served from before their handshake. The transport makes the handshake as it is read and
    /// written; until it is done there is no session in the [info](ConnectionInfo::tls), and there never is one if it fails.
    fn begins_before_handshake(&self) -> bool {
        false
    }

    /// Notes a connection that a filter in front of this one, or a failed handshake, ended before it could be served.
    fn refuse(self: Rc<Self>, connection: Rc<ConnectionInfo>) {
        let _ = connection;
    }

    /// Tells all connections of this handler that they are to end gracefully, or no longer: `connection: close` or GOAWAY goes
    /// with a response.
    fn on_drain(&self, event: DrainEvent);
}

/// A network filter in front of the terminal one, as configured: shared by all workers, immutable.
pub trait ReadFilterFactory: fmt::Debug + Send + Sync {
    /// The filter of a new connection, which lives as long as the connection does.
    fn create(&self) -> Box<dyn ReadFilter>;
}

/// What a network filter says about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadVerdict {
    /// It goes on to the next filter.
    Continue,
    /// It is closed after this time, and nothing passes until then.
    Close(Duration),
}

/// A network filter in front of the terminal one, on one connection.
pub trait ReadFilter {
    /// Sees the connection once its filter chain is chosen, before the handshake of TLS. Notes go to its
    /// [record](ConnectionInfo::record_mut).
    fn on_new_connection(&mut self, connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        let _ = connection;
        ReadVerdict::Continue
    }

    /// Sees the connection once its handshake is done; without TLS there is none.
    fn on_handshake(&mut self, connection: &Rc<ConnectionInfo>) {
        let _ = connection;
    }

    /// Whether [`on_data`](Self::on_data) is to be called with the next bytes.
    fn watches_data(&self) -> bool {
        false
    }

    /// Sees that bytes of the client came, or their end, before the terminal filter does.
    fn on_data(&mut self, connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        let _ = connection;
        ReadVerdict::Continue
    }
}
