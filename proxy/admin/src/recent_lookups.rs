//! `/stats/recentlookups`. Names of statistics are resolved when what counts is set up and never looked up by their text, so there is
//! nothing to show.

use crate::reply::Reply;
use crate::state::AdminState;

/// `/stats/recentlookups`.
pub(crate) fn show(state: &dyn AdminState) -> Reply {
    let head = match state.tracks_lookups().get() {
        true => "   Count Lookup\n",
        false => "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n",
    };
    Reply::text(format!("{head}\ntotal: 0\n"))
}

/// `/stats/recentlookups/enable` and `/stats/recentlookups/disable`.
pub(crate) fn track(state: &dyn AdminState, enabled: bool) -> Reply {
    state.tracks_lookups().set(enabled);
    Reply::ok()
}
