//! One request and its response, whatever protocols are on its sides.

mod admission;
mod body_pipe;
mod deadlines;
mod exchange;
mod filtering;
mod filters;
mod pump;
mod reply;
mod request_body;
mod required;
mod responding;
mod unrouted;

pub(crate) use deadlines::{Deadlines, Expired};
pub(crate) use exchange::{Ending, Exchange, is_grpc, upstream_duration_reply};
pub(crate) use filtering::{AttemptFilters, Direction, FilterSlot, UPSTREAM};
pub(crate) use filters::{Encoded, PumpSetup};
pub(crate) use pump::{Interruption, Pump};
pub(crate) use request_body::{KeptBody, RequestBody};
pub(crate) use required::{incomplete_request, incomplete_response, missing_header};
pub use responding::{Responder, Response};
