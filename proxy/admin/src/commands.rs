//! The commands: their paths, what they take, and who answers.

use std::rc::Rc;

use dhow_matching::StringMatcher;

use crate::query::QueryParams;
use crate::reply::{Reply, ReplyBody};
use crate::state::{AdminState, DrainRequest, ServerState};
use crate::{
    clusters, config_dump, home, init_dump, listeners, logging, profiling, recent_lookups, runtime,
    server_info, stats,
};

/// One command.
pub(crate) struct Command {
    pub(crate) path: &'static str,
    /// Whether it changes something and so demands POST.
    pub(crate) post: bool,
    pub(crate) help: &'static str,
    pub(crate) params: &'static [Param],
    answer: fn(&dyn AdminState, &QueryParams) -> Reply,
}

/// A parameter of a command.
#[derive(Clone, Copy)]
pub(crate) struct Param {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// What it may be; anything when empty.
    pub(crate) choices: &'static [&'static str],
}

impl Param {
    /// Whether the parameter's presence is what counts.
    pub(crate) fn is_flag(&self) -> bool {
        matches!(
            self.name,
            "usedonly"
                | "invert_filter"
                | "text_readouts"
                | "include_eds"
                | "graceful"
                | "skip_exit"
                | "inboundonly"
        )
    }
}

const fn param(name: &'static str, help: &'static str) -> Param {
    Param { name, help, choices: &[] }
}

const fn choice(name: &'static str, help: &'static str, choices: &'static [&'static str]) -> Param {
    Param { name, help, choices }
}

const STAT_FILTERS: [Param; 3] = [
    param("usedonly", "only stats that were written since the start"),
    param("filter", "only stats in whose names this regular expression is found"),
    param("invert_filter", "only stats in whose names it is not found"),
];

/// All commands in the order of `/help`.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        path: "/",
        post: false,
        help: "this overview as a page",
        params: &[],
        answer: |_, _| home::page(),
    },
    Command {
        path: "/allocprofiler",
        post: true,
        help: "profile allocations; this build cannot",
        params: &[choice("enable", "start or stop", &["y", "n"])],
        answer: |_, query| profiling::allocations(query),
    },
    Command {
        path: "/certs",
        post: false,
        help: "certificates in use",
        params: &[],
        answer: |state, _| server_info::certificates(state),
    },
    Command {
        path: "/clusters",
        post: false,
        help: "clusters and their hosts",
        params: &[param("filter", "only clusters in whose names this regular expression is found")],
        answer: clusters::answer,
    },
    Command {
        path: "/config_dump",
        post: false,
        help: "configuration in use",
        params: &[
            param("resource", "one list of the dump, such as static_clusters"),
            param("mask", "comma-separated field paths to keep, of each element when a resource is given"),
            param("name_regex", "only elements whose names match this regular expression"),
            param("include_eds", "endpoints too"),
        ],
        answer: config_dump::answer,
    },
    Command {
        path: "/contention",
        post: false,
        help: "waits for locks; they are not measured",
        params: &[],
        answer: |_, _| profiling::contention(),
    },
    Command {
        path: "/cpuprofiler",
        post: true,
        help: "profile the use of processors; this build cannot",
        params: &[choice("enable", "start or stop", &["y", "n"])],
        answer: |_, query| profiling::processors(query),
    },
    Command {
        path: "/drain_listeners",
        post: true,
        help: "drain listeners",
        params: &[
            param("graceful", "drain for the configured time before listeners close"),
            param("skip_exit", "drain connections and keep listening"),
            param("inboundonly", "only listeners with traffic_direction INBOUND"),
        ],
        answer: drain_listeners,
    },
    Command {
        path: "/healthcheck/fail",
        post: true,
        help: "answer health checks as failing",
        params: &[],
        answer: |state, _| {
            state.set_health_check_failing(true);
            Reply::ok()
        },
    },
    Command {
        path: "/healthcheck/ok",
        post: true,
        help: "answer health checks as healthy again",
        params: &[],
        answer: |state, _| {
            state.set_health_check_failing(false);
            Reply::ok()
        },
    },
    Command {
        path: "/heap_dump",
        post: false,
        help: "what holds memory; this build cannot tell",
        params: &[],
        answer: |_, _| profiling::heap_dump(),
    },
    Command {
        path: "/heapprofiler",
        post: true,
        help: "profile the heap; this build cannot",
        params: &[choice("enable", "start or stop", &["y", "n"])],
        answer: |_, _| profiling::heap(),
    },
    Command {
        path: "/help",
        post: false,
        help: "this overview as text",
        params: &[],
        answer: |_, _| Reply::text(home::help()),
    },
    Command {
        path: "/hot_restart_version",
        post: false,
        help: "version that processes must share for a hot restart",
        params: &[],
        answer: |state, _| Reply::text(state.hot_restart_version()),
    },
    Command {
        path: "/init_dump",
        post: false,
        help: "what the start waits for",
        params: &[param("mask", "listener: only what listeners wait for, which is all there is")],
        answer: init_dump::answer,
    },
    Command {
        path: "/listeners",
        post: false,
        help: "listeners and their addresses",
        params: &[choice("format", "form of the answer", &["text", "json"])],
        answer: listeners::answer,
    },
    Command {
        path: "/logging",
        post: true,
        help: "show or change log levels",
        params: &[
            param("paths", "several loggers: name1:level1,name2:level2"),
            param("group", "a group of loggers and its level, name:level; there are no groups"),
            choice(
                "level",
                "level of all loggers",
                &["", "trace", "debug", "info", "warning", "error", "critical", "off"],
            ),
        ],
        answer: logging::answer,
    },
    Command {
        path: "/memory",
        post: false,
        help: "memory in use",
        params: &[],
        answer: |state, _| server_info::memory(state),
    },
    Command {
        path: "/memory/tcmalloc",
        post: false,
        help: "figures of an allocator that this build has not",
        params: &[],
        answer: |_, _| profiling::tcmalloc(),
    },
    Command {
        path: "/peak_heap_dump",
        post: false,
        help: "what held memory when most was held; this build cannot tell",
        params: &[],
        answer: |_, _| profiling::heap_dump(),
    },
    Command {
        path: "/quitquitquit",
        post: true,
        help: "end the server",
        params: &[],
        answer: |state, _| {
            state.quit();
            Reply::ok()
        },
    },
    Command {
        path: "/ready",
        post: false,
        help: "state of the server: 200 when LIVE, else 503",
        params: &[],
        answer: ready,
    },
    Command {
        path: "/reopen_logs",
        post: true,
        help: "open access logs again",
        params: &[],
        answer: |state, _| {
            state.reopen_logs();
            Reply::ok()
        },
    },
    Command {
        path: "/reset_counters",
        post: true,
        help: "set all counters to zero",
        params: &[],
        answer: |state, _| {
            state.stats().reset_counters();
            Reply::ok()
        },
    },
    Command { path: "/runtime", post: false, help: "runtime values", params: &[], answer: runtime::answer },
    Command {
        path: "/runtime_modify",
        post: true,
        help: "set runtime values (?key1=value1&key2=value2); an empty value takes back what was set here",
        params: &[],
        answer: runtime::modify,
    },
    Command {
        path: "/server_info",
        post: false,
        help: "version, state and command line",
        params: &[],
        answer: |state, _| server_info::answer(state),
    },
    Command {
        path: "/stats",
        post: false,
        help: "stats",
        params: &[
            STAT_FILTERS[0],
            STAT_FILTERS[1],
            STAT_FILTERS[2],
            choice("format", "form of the answer", &["html", "active-html", "text", "json"]),
            choice("type", "kind of stats", &["All", "Counters", "Histograms", "Gauges", "TextReadouts"]),
            choice(
                "histogram_buckets",
                "form of histograms",
                &["cumulative", "disjoint", "detailed", "summary"],
            ),
        ],
        answer: stats::answer,
    },
    Command {
        path: "/stats/prometheus",
        post: false,
        help: "stats in Prometheus' text format",
        params: &[
            STAT_FILTERS[0],
            param("text_readouts", "text readouts too, as gauges with the text as a label"),
            STAT_FILTERS[1],
            STAT_FILTERS[2],
            choice("histogram_buckets", "form of histograms", &["cumulative", "summary"]),
        ],
        answer: stats::prometheus,
    },
    Command {
        path: "/stats/recentlookups",
        post: false,
        help: "names of stats that were looked up by their text",
        params: &[],
        answer: |state, _| recent_lookups::show(state),
    },
    Command {
        path: "/stats/recentlookups/clear",
        post: true,
        help: "forget the names that were looked up",
        params: &[],
        answer: |_, _| Reply::ok(),
    },
    Command {
        path: "/stats/recentlookups/disable",
        post: true,
        help: "stop remembering names that are looked up",
        params: &[],
        answer: |state, _| recent_lookups::track(state, false),
    },
    Command {
        path: "/stats/recentlookups/enable",
        post: true,
        help: "remember names that are looked up",
        params: &[],
        answer: |state, _| recent_lookups::track(state, true),
    },
];

fn ready(state: &dyn AdminState, _: &QueryParams) -> Reply {
    let state = state.state();
    let status = if state == ServerState::Live { 200 } else { 503 };
    Reply::error(status, format!("{}\n", state.name()))
}

fn drain_listeners(state: &dyn AdminState, query: &QueryParams) -> Reply {
    state.drain_listeners(DrainRequest {
        graceful: query.has("graceful"),
        skip_exit: query.has("skip_exit"),
        inbound_only: query.has("inboundonly"),
    });
    Reply::ok()
}

/// The admin interface without its socket.
pub struct Admin {
    state: Rc<dyn AdminState>,
    /// `admin.allow_paths`: all paths when empty.
    allow_paths: Vec<StringMatcher>,
}

impl Admin {
    /// An interface over a server. `allow_paths` are the compiled matchers of `admin.allow_paths`; all paths are allowed when there are none.
    pub fn new(state: Rc<dyn AdminState>, allow_paths: Vec<StringMatcher>) -> Self {
        Self { state, allow_paths }
    }

    /// Answers a request. The fields of a `form` count as parameters where a command changes something and the target has none.
    pub fn handle(&self, method: &str, path_and_query: &str, form: Option<&[u8]>) -> Reply {
        let (path, mut query) = QueryParams::split(path_and_query);
        let allowed = |matcher: &StringMatcher| matcher.matches(path_and_query.as_bytes());
        if !self.allow_paths.is_empty() && !self.allow_paths.iter().any(allowed) {
            return Reply::error(403, format!("request to path {path_and_query} not allowed"));
        }
        let Some(command) = COMMANDS.iter().find(|command| command.path == path) else {
            return Reply::error(404, format!("invalid path. {}", home::help()));
        };
        if command.post && method != "POST" {
            return Reply::error(405, format!("Method {method} not allowed, POST required."));
        }
        if let Some(form) = form.filter(|_| command.post && query.pairs().is_empty()) {
            query = QueryParams::parse(&String::from_utf8_lossy(form));
        }
        (command.answer)(&*self.state, &query)
    }

    /// The bytes of a body.
    pub fn render(&self, body: ReplyBody) -> Vec<u8> {
        match body {
            ReplyBody::Ready(bytes) => bytes,
            ReplyBody::Later(make) => make(&*self.state).into_bytes(),
        }
    }
}
