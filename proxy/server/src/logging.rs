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

use crate::cli::{Mode, Options};
use crate::log_pattern::{self, Line, LogPattern};

/// Envoy's names of components, in the order in which it lists them. Levels of those that have no counterpart here are accepted and do
/// nothing.
const COMPONENTS: &[&str] = &[
    "a2a",
    "admin",
    "ai_protocol_manager",
    "alternate_protocols_cache",
    "aws",
    "assert",
    "backtrace",
    "basic_auth",
    "cache_filter",
    "client",
    "config",
    "connection",
    "conn_handler",
    "compression",
    "credential_injector",
    "decompression",
    "dns",
    "dubbo",
    "envoy_bug",
    "ext_authz",
    "ext_proc",
    "rocketmq",
    "file",
    "filter",
    "forward_proxy",
    "geolocation",
    "grpc",
    "happy_eyeballs",
    "hc",
    "health_checker",
    "http",
    "http2",
    "hystrix",
    "init",
    "io",
    "jwt",
    "json_rpc",
    "kafka",
    "key_value_store",
    "lua",
    "local_rate_limit",
    "main",
    "matcher",
    "mcp",
    "misc",
    "mongo",
    "multi_connection",
    "notification",
    "oauth2",
    "quic",
    "quic_stream",
    "pool",
    "rate_limit_quota",
    "rbac",
    "rds",
    "redis",
    "router",
    "runtime",
    "stats",
    "secret",
    "sse",
    "tap",
    "testing",
    "thrift",
    "tracing",
    "upstream",
    "udp",
    "wasm",
    "websocket",
    "golang",
    "stats_sinks",
    "dynamic_modules",
    "ip_tagging",
];

/// The crates and modules that do the work of a component here.
const TARGETS: &[(&str, &str)] = &[
    ("main", "dhow_proxy_server"),
    ("admin", "dhow_proxy_admin"),
    ("config", "dhow_proxy_xds"),
    ("upstream", "dhow_proxy_upstream"),
    ("http", "dhow_proxy_http"),
    ("router", "dhow_proxy_http::router"),
    ("pool", "dhow_proxy_http::upstream"),
    ("config", "dhow_proxy_listener::manager"),
    ("conn_handler", "dhow_proxy_listener"),
    ("filter", "dhow_proxy_filters"),
    ("filter", "dhow_proxy_tcp"),
    ("file", "dhow_proxy_access_log"),
    ("http2", "h2"),
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
        Some(path) if options.mode != Mode::Validate => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            let file = file.map_err(|error| {
                format!("Failed to open log-file '{}'. e.what(): {error}", path.display())
            })?;
            Output::File(Mutex::new(file))
        }
        _ => Output::Stderr,
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
    default: LogLevel,
    levels: Vec<(&'static str, LogLevel)>,
    handle: reload::Handle<Targets, Registry>,
}

static STATE: OnceLock<Mutex<LogState>> = OnceLock::new();

/// The level of every component, by the command line.
fn initial_levels(options: &Options, default: LogLevel) -> Result<Vec<(&'static str, LogLevel)>, String> {
    let mut levels: Vec<_> = COMPONENTS.iter().map(|name| (*name, default)).collect();
    let given = Some(options.component_log_level.as_str()).filter(|given| !given.is_empty());
    for pair in given.into_iter().flat_map(|given| given.split(',')) {
        let (name, wanted) = pair
            .split_once(':')
            .ok_or_else(|| format!("error: component log level not correctly specified '{pair}'"))?;
        let wanted = level(wanted)?;
        match levels.iter_mut().find(|(component, _)| *component == name) {
            Some((_, level)) => *level = wanted,
            None => return Err(format!("error: invalid component specified '{name}'")),
        }
    }
    Ok(levels)
}

fn targets(default: LogLevel, levels: &[(&'static str, LogLevel)]) -> Targets {
    let other = filter(default);
    let mut targets = Targets::new().with_default(other);
    // Libraries speak up only when asked for by name.
    for library in ["hyper", "hyper_util", "hickory_resolver", "hickory_proto", "rustls", "mio"] {
        targets = targets.with_target(library, other.min(LevelFilter::WARN));
    }
    for (name, target) in TARGETS {
        let level = levels.iter().find(|(component, _)| component == name);
        let level = level.map_or(other, |(_, level)| filter(*level));
        let level = if *name == "http2" { level.min(LevelFilter::WARN) } else { level };
        targets = targets.with_target(*target, level);
    }
    targets
}

/// All components and their levels.
pub(crate) fn levels() -> Vec<(String, LogLevel)> {
    let Some(state) = STATE.get() else { return Vec::new() };
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect()
}

/// Sets the level of one component, or of all. False when there is none of this name.
pub(crate) fn set_level(component: Option<&str>, wanted: LogLevel) -> bool {
    let Some(state) = STATE.get() else { return false };
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    match component {
        None => {
            state.default = wanted;
            state.levels.iter_mut().for_each(|(_, level)| *level = wanted);
        }
        Some(component) => match state.levels.iter_mut().find(|(name, _)| *name == component) {
            Some((_, level)) => *level = wanted,
            None => return false,
        },
    }
    let fresh = targets(state.default, &state.levels);
    state.handle.reload(fresh).is_ok()
}

fn log_level(level: Level) -> LogLevel {
    match level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warning,
        Level::INFO => LogLevel::Info,
        Level::DEBUG => LogLevel::Debug,
        Level::TRACE => LogLevel::Trace,
    }
}

/// What is let through at a level. Nothing is critical here and not an error too.
fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Error | LogLevel::Critical => LevelFilter::ERROR,
        LogLevel::Off => LevelFilter::OFF,
    }
}

fn level(name: &str) -> Result<LogLevel, String> {
    // The command line has a short form of one of them.
    let name = if name == "warn" { "warning" } else { name };
    LogLevel::from_name(name).ok_or_else(|| format!("error: invalid log level specified '{name}'"))
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
        let component = TARGETS
            .iter()
            .filter(|(_, prefix)| target.starts_with(prefix))
            .max_by_key(|(_, prefix)| prefix.len())
            .map_or("misc", |(component, _)| component);
        let mut message = Message::default();
        event.record(&mut message);
        let line = Line {
            time: SystemTime::now(),
            level: log_level(*metadata.level()).name(),
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
