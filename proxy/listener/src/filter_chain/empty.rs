//! What serves a filter chain that has no filters: each connection is closed at once.

use std::rc::Rc;

use dhow_proxy_api::{Connection, ConnectionHandler, DrainEvent, LocalFuture, NetworkFilter};
use dhow_proxy_runtime::Worker;

/// The end of a chain without filters.
#[derive(Debug)]
pub(super) struct Nothing;

impl NetworkFilter for Nothing {
    fn on_worker(&self, _worker: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        Rc::new(Self)
    }
}

impl ConnectionHandler for Nothing {
    fn serve(self: Rc<Self>, connection: Connection) -> LocalFuture<()> {
        drop(connection);
        Box::pin(std::future::ready(()))
    }

    fn on_drain(&self, _event: DrainEvent) {}
}
