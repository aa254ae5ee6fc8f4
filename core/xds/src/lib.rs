//! xDS sessions, client and server side, state of the world and delta; it must not know sockets, clocks, tasks or what a resource means.

mod client;
mod envelope;
#[cfg(test)]
mod fixtures;
mod interest;
pub mod messages;
mod method;
mod resource;
mod server;
#[cfg(test)]
mod simulation;
pub mod type_url;

pub use client::{ClientConfig, ClientEvent, ClientSession, Delivery, Receipt};
pub use envelope::{Request, Response};
pub use interest::Interest;
pub use method::{method_path, parse_method_path};
pub use resource::{NamedResource, Resource, Update, name_in_body};
pub use server::{Push, RequestError, ServerConfig, ServerEvent, ServerSession, SyncState, TypeStatus, Want};

/// Which of the two xDS protocols a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `StreamAggregatedResources` and its single-type siblings (`api_type: GRPC`).
    StateOfTheWorld,
    /// `DeltaAggregatedResources` and its single-type siblings (`api_type: DELTA_GRPC`).
    Delta,
}
