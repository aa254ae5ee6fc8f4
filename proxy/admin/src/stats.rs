//! `/stats` and `/stats/prometheus`.

use dhow_stats::{HistogramBuckets, Query, Snapshot, StatType, render_json, render_prometheus, render_text};
use regex::Regex;

use crate::query::QueryParams;
use crate::reply::{JSON, Reply, TEXT};
use crate::state::AdminState;

pub(crate) fn answer(state: &dyn AdminState, query: &QueryParams) -> Reply {
    match query.get("format") {
        None | Some("" | "text") => with_query(state, query, |selected, mode| {
            Reply::later(TEXT, move |state| render_text(state.stats(), &snapshot(state, &selected), mode))
        }),
        Some("json") => with_query(state, query, |selected, mode| {
            Reply::later(JSON, move |state| render_json(state.stats(), &snapshot(state, &selected), mode))
        }),
        Some("prometheus") => prometheus(state, query),
        Some(_) => Reply::error(400, "usage: /stats?format=(json|prometheus|text)\n\n"),
    }
}

pub(crate) fn prometheus(state: &dyn AdminState, query: &QueryParams) -> Reply {
    let mode = query.non_empty("histogram_buckets");
    if !matches!(mode, None | Some("cumulative" | "summary")) {
        return Reply::error(400, "usage: /stats/prometheus?histogram_buckets=(cumulative|summary)\n");
    }
    with_query(state, query, |selected, mode| {
        let mode = match query.non_empty("histogram_buckets") {
            None => HistogramBuckets::Cumulative,
            Some(_) => mode,
        };
        let text_readouts = query.has("text_readouts");
        Reply::later(TEXT, move |state| {
            render_prometheus(state.stats(), &snapshot(state, &selected), mode, text_readouts)
        })
    })
}

fn snapshot(state: &dyn AdminState, query: &Query) -> Snapshot {
    let mut snapshot = state.stats().snapshot(query);
    snapshot.add_unstored(query, state.endpoint_stats());
    snapshot
}

fn with_query(
    state: &dyn AdminState,
    query: &QueryParams,
    render: impl FnOnce(Query, HistogramBuckets) -> Reply,
) -> Reply {
    let Some(mode) = HistogramBuckets::from_name(query.get("histogram_buckets").unwrap_or_default()) else {
        return Reply::error(400, "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary)\n");
    };
    let kind = match query.non_empty("type") {
        None | Some("All") => None,
        Some(name) => match StatType::from_name(name) {
            Some(kind) => Some(kind),
            None => return Reply::error(400, "invalid &type= param"),
        },
    };
    let filter = match query.non_empty("filter").map(Regex::new).transpose() {
        Ok(filter) => filter,
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            return Reply::error(400, format!("Invalid re2 regex: {reason}"));
        }
    };
    state.refresh_stats();
    let selected =
        Query { used_only: query.has("usedonly"), filter, invert_filter: query.has("invert_filter"), kind };
    render(selected, mode)
}
