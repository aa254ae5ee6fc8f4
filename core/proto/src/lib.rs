//! The message types of Envoy and xDS with their JSON mapping, `Any` and validation rules; it must not know what any setting does.

pub use envoy_types;
pub use envoy_types::pb::*;
pub use prost::Name as NamedMessage;
pub use prost::{self, Message};
