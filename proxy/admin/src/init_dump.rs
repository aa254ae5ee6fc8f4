//! `/init_dump`: what listeners wait for before they serve.

use dhow_proto::envoy::admin::v3::UnreadyTargetsDumps;
use dhow_proto::envoy::admin::v3::unready_targets_dumps::UnreadyTargetsDump;

use crate::pretty;
use crate::query::QueryParams;
use crate::reply::Reply;
use crate::state::AdminState;

pub(crate) fn answer(state: &dyn AdminState, query: &QueryParams) -> Reply {
    let unready_targets_dumps = match query.non_empty("mask") {
        None | Some("listener") => state
            .unready_listeners()
            .into_iter()
            .map(|unready| UnreadyTargetsDump { name: unready.name, target_names: unready.targets })
            .collect(),
        Some(_) => Vec::new(),
    };
    let message = UnreadyTargetsDumps { unready_targets_dumps };
    Reply::json(pretty::print(&dhow_proto::message_to_json(&message)))
}
