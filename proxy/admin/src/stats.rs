//! `/stats` and `/stats/prometheus`.

use dhow_matching::compile_regex;
use dhow_stats::{HistogramBuckets, Query, Snapshot, StatType, render_json, render_prometheus, render_text};

use crate::query::QueryParams;
use crate::reply::{HTML, JSON, Reply, TEXT};
use crate::state::AdminState;
use crate::stats_page;

/// What is asked for, by its form.
enum Format {
    Text,
    Json,
    Page,
    ActivePage,
    Prometheus,
}

/// How histograms are wanted.
enum Histograms {
    /// As the form has them by itself.
    Unsaid,
    /// In one of our own ways.
    Mode(HistogramBuckets),
    /// As Prometheus' own kind of histograms, which its text form has not.
    Native,
}

/// Which statistics are wanted.
struct Selected {
    query: Query,
    /// Those alone that are hidden otherwise, which none is.
    hidden_only: bool,
}

/// What `/stats` is asked for.
struct Asked {
    selected: Selected,
    histograms: Histograms,
    format: Format,
}

impl Asked {
    /// Reads the parameters, or answers what is wrong with the first of them that Envoy looks at.
    fn of(query: &QueryParams) -> Result<Self, Reply> {
        let filter = match query.non_empty("filter").map(compile_regex).transpose() {
            Ok(filter) => filter,
            Err(reason) => return Err(Reply::error(400, format!("Invalid re2 regex: {reason}"))),
        };
        let histograms = match query.non_empty("histogram_buckets") {
            None => Histograms::Unsaid,
            Some("prometheusnative") => Histograms::Native,
            Some("none") => Histograms::Mode(HistogramBuckets::Summary),
            Some(name) => match HistogramBuckets::from_name(name) {
                Some(mode) => Histograms::Mode(mode),
                None => {
                    let modes = "cumulative|disjoint|detailed|summary|prometheusnative";
                    return Err(Reply::error(400, format!("usage: /stats?histogram_buckets=({modes})\n")));
                }
            },
        };
        let kind = match query.non_empty("type") {
            None | Some("All") => None,
            Some(name) => match StatType::from_name(name) {
                Some(kind) => Some(kind),
                None => return Err(Reply::error(400, "invalid &type= param")),
            },
        };
        let hidden_only = match query.non_empty("hidden") {
            None | Some("include" | "exclude") => false,
            Some("only") => true,
            Some(_) => return Err(Reply::error(400, "usage: /stats?hidden=(include|only|exclude)\n\n")),
        };
        let format = match query.non_empty("format") {
            None | Some("text") => Format::Text,
            Some("json") => Format::Json,
            Some("html") => Format::Page,
            Some("active-html") => Format::ActivePage,
            Some("prometheus") => Format::Prometheus,
            Some(_) => {
                let usage = "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n";
                return Err(Reply::error(400, usage));
            }
        };
        let (used_only, invert_filter) = (query.has("usedonly"), query.has("invert_filter"));
        let query = Query { used_only, filter, invert_filter, kind };
        Ok(Self { selected: Selected { query, hidden_only }, histograms, format })
    }
}

pub(crate) fn answer(state: &dyn AdminState, query: &QueryParams) -> Reply {
    let Asked { selected, histograms, format } = match Asked::of(query) {
        Ok(asked) => asked,
        Err(reply) => return reply,
    };
    if let Format::Prometheus = format {
        return in_prometheus_form(state, selected, &histograms, query.has("text_readouts"));
    }
    let mode = match histograms {
        Histograms::Unsaid => HistogramBuckets::default(),
        Histograms::Mode(mode) => mode,
        Histograms::Native => {
            return Reply::error(400, "Invalid histogram_buckets type for non prometheus stats type");
        }
    };
    state.refresh_stats();
    match format {
        Format::Json => {
            Reply::later(JSON, move |state| render_json(state.stats(), &snapshot(state, &selected), mode))
        }
        Format::Page => {
            let asked = query.clone();
            Reply::later(HTML, move |state| {
                let text = render_text(state.stats(), &snapshot(state, &selected), mode);
                stats_page::fixed(&asked, &text)
            })
        }
        Format::ActivePage => Reply::html(stats_page::active(query)),
        Format::Text | Format::Prometheus => {
            Reply::later(TEXT, move |state| render_text(state.stats(), &snapshot(state, &selected), mode))
        }
    }
}

pub(crate) fn prometheus(state: &dyn AdminState, query: &QueryParams) -> Reply {
    match Asked::of(query) {
        Ok(Asked { selected, histograms, .. }) => {
            in_prometheus_form(state, selected, &histograms, query.has("text_readouts"))
        }
        Err(reply) => reply,
    }
}

fn in_prometheus_form(
    state: &dyn AdminState,
    mut selected: Selected,
    histograms: &Histograms,
    text_readouts: bool,
) -> Reply {
    let mode = match histograms {
        Histograms::Unsaid => HistogramBuckets::Cumulative,
        Histograms::Mode(mode @ (HistogramBuckets::Cumulative | HistogramBuckets::Summary)) => *mode,
        Histograms::Mode(_) => return Reply::error(400, "unsupported prometheus histogram bucket mode"),
        Histograms::Native => {
            let reason =
                "unsupported prometheusnative histogram type when not using protobuf exposition format";
            return Reply::error(400, reason);
        }
    };
    // All kinds are shown, whatever was asked for.
    selected.query.kind = None;
    state.refresh_stats();
    Reply::later(TEXT, move |state| {
        render_prometheus(state.stats(), &snapshot(state, &selected), mode, text_readouts)
    })
}

fn snapshot(state: &dyn AdminState, selected: &Selected) -> Snapshot {
    let Selected { query, hidden_only } = selected;
    if *hidden_only {
        return Snapshot::default();
    }
    let mut snapshot = state.stats().snapshot(query);
    snapshot.add_unstored(query, state.endpoint_stats());
    snapshot
}
