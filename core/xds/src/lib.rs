//! xDS sessions, client and server side, state of the world and delta; it must not know sockets, clocks, tasks or what a resource means.

pub mod messages;
mod resource;
pub mod type_url;

pub use resource::{NamedResource, Resource, Update, name_in_body};

/// Which of the two xDS protocols a stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Variant {
    /// `StreamAggregatedResources` and its single-type siblings (`api_type: GRPC`).
    StateOfTheWorld,
    /// `DeltaAggregatedResources` and its single-type siblings (`api_type: DELTA_GRPC`).
    Delta,
}
