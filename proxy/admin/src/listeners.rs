//! `/listeners`.

use dhow_proto::envoy::admin::v3::{ListenerStatus as ListenerMessage, Listeners};

use crate::pretty;
use crate::query::QueryParams;
use crate::reply::Reply;
use crate::state::{AdminState, ListenerStatus};

pub(crate) fn answer(state: &dyn AdminState, query: &QueryParams) -> Reply {
    let listeners = state.listeners();
    if query.get("format") == Some("json") {
        let message = Listeners { listener_statuses: listeners.into_iter().map(message).collect() };
        return Reply::json(pretty::print(&dhow_proto::message_to_json(&message)));
    }
    let lines = listeners.iter().flat_map(|listener| {
        let addresses =
            std::iter::once(&listener.address_text).chain(listener.additional.iter().map(|(text, _)| text));
        addresses.map(|address| format!("{}::{address}\n", listener.name))
    });
    Reply::text(lines.collect::<String>())
}

fn message(listener: ListenerStatus) -> ListenerMessage {
    ListenerMessage {
        name: listener.name,
        local_address: Some(listener.address),
        additional_local_addresses: listener.additional.into_iter().map(|(_, address)| address).collect(),
    }
}
