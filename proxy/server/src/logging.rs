//! Log lines in Envoy's form, for the levels of each component.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use dhow_proxy_admin::LogLevel;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::cli::Options;
use crate::log_pattern::{self, Line, LogPattern};

/// Envoy's names of components with the crates that do their work here.
const COMPONENTS: &[(&str, &str)] = &[
    ("main", "dhow_proxy_server"),
    ("admin", "dhow_proxy_admin"),
    ("config", "dhow_proxy_xds"),
    ("upstream", "dhow_proxy_upstream"),
    ("http", "dhow_proxy_http"),
    ("router", "dhow_proxy_http::router"),
    ("pool", "dhow_proxy_http::upstream"),
    ("conn_handler", "dhow_proxy_listener"),
    ("connection", "dhow_proxy_listener"),
    ("filter", "dhow_proxy_filters"),
    ("tcp_proxy", "dhow_proxy_tcp"),
    ("file", "dhow_proxy_access_log"),
    ("http2", "h2"),
];

/// Names of Envoy's components that have no counterpart here; levels for them are accepted and do nothing.
const OTHERS: &[&str] = &[
    "a2a",
    "ai_protocol_manager",
    "alternate_protocols_cache",
    "assert",
    "aws",
    "backtrace",
    "basic_auth",
    "cache_filter",
    "client",
    "compression",
    "credential_injector",
    "decompression",
    "dns",
    "dubbo",
    "dynamic_modules",
    "envoy_bug",
    "ext_authz",
    "ext_proc",
    "forward_proxy",
    "geolocation",
    "golang",
    "grpc",
    "happy_eyeballs",
    "hc",
    "health_checker",
    "hystrix",
    "init",
    "io",
    "ip_tagging",
    "json_rpc",
    "jwt",
    "kafka",
    "key_value_store",
    "local_rate_limit",
    "lua",
    "matcher",
    "mcp",
    "misc",
    "mongo",
    "multi_connection",
    "notification",
    "oauth2",
    "quic",
    "quic_stream",
    "rate_limit_quota",
    "rbac",
    "rds",
    "redis",
    "rocketmq",
    "runtime",
    "secret",
    "sse",
    "stats",
    "stats_sinks",
    "tap",
    "testing",
    "thrift",
    "tracing",
    "udp",
    "wasm",
    "websocket",
];

/// Starts logging as the command line says.
///
/// # Errors
/// An unknown level or component, or a log file that cannot be opened; the text is for the user.
pub(crate) fn start(options: &Options) -> Result<(), String> {
    let default = level(&options.log_level)?;
    let targets = targets(default, &initial_levels(options, default)?);
    let (targets, handle) = reload::Layer::new(targets);
    let state = LogState { default, levels: initial_levels(options, default)?, handle };
    let _ = STATE.set(Mutex::new(state));
    let pattern = options.log_format.as_deref().unwrap_or(log_pattern::DEFAULT);
    set_pattern(LogPattern::compile(pattern, options.log_format_escaped));
    let output = match &options.log_path {
        None => Output::Stderr,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file =
                file.map_err(|error| format!("error initializing log file {}: {error}", path.display()))?;
            Output::File(Mutex::new(file))
        }
    };
    let lines = EnvoyLines { output };
    tracing_subscriber::registry().with(targets).with(lines).try_init().map_err(|error| error.to_string())
}

/// The form of lines from now on.
pub(crate) fn set_pattern(pattern: LogPattern) {
    *PATTERN.lock().unwrap_or_else(PoisonError::into_inner) = Some(pattern);
}

static PATTERN: Mutex<Option<LogPattern>> = Mutex::new(None);

/// The levels in force; changed by `POST /logging`.
struct LogState {
    default: LevelFilter,
    levels: Vec<(&'static str, LevelFilter)>,
    handle: reload::Handle<Targets, Registry>,
}

static STATE: OnceLock<Mutex<LogState>> = OnceLock::new();

/// The level of every component, by the command line.
fn initial_levels(
    options: &Options,
    default: LevelFilter,
) -> Result<Vec<(&'static str, LevelFilter)>, String> {
    let names = COMPONENTS.iter().map(|(name, _)| *name).chain(OTHERS.iter().copied());
    let mut levels: Vec<_> = names.map(|name| (name, default)).collect();
    levels.sort_unstable_by_key(|(name, _)| *name);
    for pair in options.component_log_level.split(',').filter(|pair| !pair.is_empty()) {
        let (name, wanted) = pair.split_once(':').ok_or_else(|| {
            format!("error: component log level not correctly specified '{}'", options.component_log_level)
        })?;
        let wanted = level(wanted)?;
        match levels.iter_mut().find(|(component, _)| *component == name) {
            Some((_, level)) => *level = wanted,
            None => return Err(format!("error: invalid component specified '{name}'")),
        }
    }
    Ok(levels)
}

fn targets(default: LevelFilter, levels: &[(&'static str, LevelFilter)]) -> Targets {
    let mut targets = Targets::new().with_default(default);
    // Libraries speak up only when asked for by name.
    for library in ["hyper", "hyper_util", "hickory_resolver", "hickory_proto", "rustls", "mio"] {
        targets = targets.with_target(library, default.min(LevelFilter::WARN));
    }
    for (name, target) in COMPONENTS {
        let level =
            levels.iter().find(|(component, _)| component == name).map_or(default, |(_, level)| *level);
        let level = if *name == "http2" { level.min(LevelFilter::WARN) } else { level };
        targets = targets.with_target(*target, level);
    }
    targets
}

/// All components and their levels, by name.
pub(crate) fn levels() -> Vec<(String, LogLevel)> {
    let Some(state) = STATE.get() else { return Vec::new() };
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.levels.iter().map(|(name, level)| ((*name).to_owned(), log_level(*level))).collect()
}

/// Sets the level of one component, or of all. False when there is none of this name.
pub(crate) fn set_level(component: Option<&str>, wanted: LogLevel) -> bool {
    let Some(state) = STATE.get() else { return false };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let filter = level(wanted.name()).unwrap_or(LevelFilter::INFO);
    match component {
        None => {
            state.default = filter;
            state.levels.iter_mut().for_each(|(_, level)| *level = filter);
        }
        Some(component) => match state.levels.iter_mut().find(|(name, _)| *name == component) {
            Some((_, level)) => *level = filter,
            None => return false,
        },
    }
    let fresh = targets(state.default, &state.levels);
    state.handle.reload(fresh).is_ok()
}

fn log_level(filter: LevelFilter) -> LogLevel {
    match filter.into_level() {
        None => LogLevel::Off,
        Some(Level::ERROR) => LogLevel::Error,
        Some(Level::WARN) => LogLevel::Warning,
        Some(Level::INFO) => LogLevel::Info,
        Some(Level::DEBUG) => LogLevel::Debug,
        Some(Level::TRACE) => LogLevel::Trace,
    }
}

fn level(name: &str) -> Result<LevelFilter, String> {
    Ok(match name {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "warning" | "warn" => LevelFilter::WARN,
        "error" | "critical" => LevelFilter::ERROR,
        "off" => LevelFilter::OFF,
        other => return Err(format!("error: invalid log level specified '{other}'")),
    })
}

/// Where lines go.
enum Output {
    Stderr,
    File(Mutex<File>),
}

/// Writes events in the form of the pattern.
struct EnvoyLines {
    output: Output,
}

/// The text of an event, without its other fields.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = &mut self.0;
        let _ = match field.name() {
            "message" => write!(text, "{value:?}"),
            name => write!(text, "{}{name}={value:?}", if text.is_empty() { "" } else { " " }),
        };
    }
}

impl<S: Subscriber> Layer<S> for EnvoyLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let target = metadata.target();
        let component = COMPONENTS
            .iter()
            .filter(|(_, prefix)| target.starts_with(prefix))
            .max_by_key(|(_, prefix)| prefix.len())
            .map_or("misc", |(component, _)| component);
        let mut message = Message::default();
        event.record(&mut message);
        let line = Line {
            time: SystemTime::now(),
            level: log_level((*metadata.level()).into()).name(),
            logger: component,
            thread: std::process::id().into(),
            file: metadata.file().unwrap_or_default(),
            line: metadata.line().unwrap_or_default(),
            message: &message.0,
        };
        let mut text = String::new();
        if let Some(pattern) = &*PATTERN.lock().unwrap_or_else(PoisonError::into_inner) {
            pattern.write(&line, &mut text);
        }
        // There is nowhere to report that reporting failed.
        let _ = match &self.output {
            Output::Stderr => io::stderr().write_all(text.as_bytes()),
            Output::File(file) => {
                file.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes())
            }
        };
    }
}
