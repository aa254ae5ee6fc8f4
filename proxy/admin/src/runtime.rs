//! `/runtime` and `/runtime_modify`.

use serde_json::{Map, Value, json};

use crate::pretty;
use crate::query::QueryParams;
use crate::reply::Reply;
use crate::state::AdminState;

pub(crate) fn answer(state: &dyn AdminState, _: &QueryParams) -> Reply {
    let runtime = state.runtime();
    let entries: Map<String, Value> = runtime
        .entries
        .into_iter()
        .map(|entry| {
            (entry.key, json!({"layer_values": entry.layer_values, "final_value": entry.final_value}))
        })
        .collect();
    Reply::json(pretty::print(&json!({"layers": runtime.layers, "entries": entries})))
}

const USAGE: &str = "usage: /runtime_modify?key1=value1&key2=value2&keyN=valueN\n       \
                     or send the parameters as form values\n\
                     use an empty value to remove a previously added override";

pub(crate) fn modify(state: &dyn AdminState, query: &QueryParams) -> Reply {
    if query.pairs().is_empty() {
        return Reply::error(400, USAGE);
    }
    match state.modify_runtime(&query.firsts()) {
        Ok(()) => Reply::ok(),
        Err(reason) => Reply::error(503, reason),
    }
}
