//! `/server_info`, `/certs` and `/memory`: messages of which every field is shown.

use dhow_proto::{MessageType, Name};

use crate::pretty;
use crate::reply::Reply;
use crate::state::AdminState;

pub(crate) fn answer(state: &dyn AdminState) -> Reply {
    full(&state.server_info())
}

pub(crate) fn certificates(state: &dyn AdminState) -> Reply {
    full(&state.certificates())
}

pub(crate) fn memory(state: &dyn AdminState) -> Reply {
    full(&state.memory())
}

fn full<M: Name>(message: &M) -> Reply {
    let tree = dhow_proto::message_to_json(message);
    let tree = match MessageType::find(&M::full_name()) {
        Some(described) => pretty::with_defaults(tree, described),
        None => tree,
    };
    Reply::json(pretty::print(&tree))
}
