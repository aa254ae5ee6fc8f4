//! Envoy's command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::error::{ContextKind, ErrorKind};
use clap::{ArgAction, Parser};

/// `--mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Serve traffic.
    #[default]
    Serve,
    /// Check the configuration and exit.
    Validate,
    /// Initialise as for serving and exit.
    InitOnly,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "serve" => Ok(Self::Serve),
            "validate" => Ok(Self::Validate),
            "init_only" => Ok(Self::InitOnly),
            other => Err(format!("error: unknown mode '{other}'")),
        }
    }
}

/// `--drain-strategy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DrainStrategy {
    /// Connections are told to end with a probability that grows over the drain time.
    #[default]
    Gradual,
    /// All connections are told with their next response.
    Immediate,
}

impl FromStr for DrainStrategy {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "gradual" => Ok(Self::Gradual),
            "immediate" => Ok(Self::Immediate),
            other => Err(format!("error: unknown drain-strategy '{other}'")),
        }
    }
}

/// A tag of `--stats-tag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatsTag {
    /// Letters and digits.
    pub(crate) name: String,
    /// No dots.
    pub(crate) value: String,
}

impl FromStr for StatsTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, value)) = text.split_once(':') else {
            return Err(format!("error: misformatted stats-tag '{text}'"));
        };
        let invalid =
            |what: &str| format!("error: misformatted stats-tag '{text}' contains invalid char in '{what}'");
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(invalid(name));
        }
        if value.is_empty() || value.contains('.') {
            return Err(invalid(value));
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The flags, with Envoy's names and defaults.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "dhow-proxy",
    disable_version_flag = true,
    about = "Dhow's data plane: takes Envoy's configuration"
)]
pub(crate) struct Options {
    /// Path to configuration file
    #[arg(short = 'c', long, default_value = "")]
    pub(crate) config_path: String,
    /// Inline YAML configuration, merges with the contents of --config-path
    #[arg(long, default_value = "")]
    pub(crate) config_yaml: String,
    /// One of 'serve' (default), 'validate' (validate configs and exit) or 'init_only'
    #[arg(long, default_value = "serve")]
    pub(crate) mode: Mode,
    /// # of worker threads to run (default: the cores that this process may use)
    #[arg(long)]
    pub(crate) concurrency: Option<usize>,
    /// Log levels: [trace][debug][info][warning|warn][error][critical][off]
    #[arg(short = 'l', long, default_value = "info")]
    pub(crate) log_level: String,
    /// Comma-separated list of component log levels, for example upstream:debug,config:trace
    #[arg(long, default_value = "")]
    pub(crate) component_log_level: String,
    /// Path to logfile
    #[arg(long)]
    pub(crate) log_path: Option<PathBuf>,
    /// Node name
    #[arg(long, default_value = "")]
    pub(crate) service_node: String,
    /// Cluster name
    #[arg(long, default_value = "")]
    pub(crate) service_cluster: String,
    /// Zone name
    #[arg(long, default_value = "")]
    pub(crate) service_zone: String,
    /// Log message format in spdlog syntax
    #[arg(long)]
    pub(crate) log_format: Option<String>,
    /// Escape c-style escape sequences in the application logs
    #[arg(long)]
    pub(crate) log_format_escaped: bool,
    /// Skips the logging of deprecated field warnings
    #[arg(long)]
    pub(crate) skip_deprecated_logs: bool,
    /// Emit a stack trace in a single log entry: there are no stack traces, so that this holds in any case
    #[arg(long)]
    pub(crate) log_stacktrace_single_entry: bool,
    /// Admin address path: the file that the bound admin address is written to
    #[arg(long)]
    pub(crate) admin_address_path: Option<PathBuf>,
    /// Hot restart and LDS removal drain time in seconds
    #[arg(long, default_value_t = 600)]
    pub(crate) drain_time_s: u64,
    /// Drain sequence behaviour, one of 'gradual' (default) or 'immediate'
    #[arg(long, default_value = "gradual")]
    pub(crate) drain_strategy: DrainStrategy,
    /// Hot restart parent shutdown time in seconds
    #[arg(long, default_value_t = 900)]
    pub(crate) parent_shutdown_time_s: u64,
    /// Base ID so that multiple instances can run on the same host
    #[arg(long, default_value_t = 0)]
    pub(crate) base_id: u32,
    /// Hot restart epoch #
    #[arg(long, default_value_t = 0)]
    pub(crate) restart_epoch: u32,
    /// Disable hot restart functionality
    #[arg(long)]
    pub(crate) disable_hot_restart: bool,
    /// The server chooses a base ID dynamically
    #[arg(long)]
    pub(crate) use_dynamic_base_id: bool,
    /// Path to which the base ID is written
    #[arg(long)]
    pub(crate) base_id_path: Option<PathBuf>,
    /// Continue with a regular start when there is no parent to take over from
    #[arg(long)]
    pub(crate) skip_hot_restart_on_no_parent: bool,
    /// Do not take over the statistics of a parent, of which there is none
    #[arg(long)]
    pub(crate) skip_hot_restart_parent_stats: bool,
    /// Path to hot restart socket file, which is not used without hot restart
    #[arg(long, default_value = "@envoy_domain_socket")]
    pub(crate) socket_path: String,
    /// Socket file permission, in octal
    #[arg(long, default_value = "0")]
    pub(crate) socket_mode: String,
    /// Hot restart compatibility version
    #[arg(long)]
    hot_restart_version: bool,
    /// A tag, as tag:value, for all statistics; may be repeated
    #[arg(long)]
    pub(crate) stats_tag: Vec<StatsTag>,
    /// Enable core dumps
    #[arg(long)]
    pub(crate) enable_core_dump: bool,
    /// Minimum size in KB for log flushing (default: 64)
    #[arg(long, default_value_t = 0)]
    pub(crate) file_flush_min_size_kb: u64,
    /// Get the default # of worker threads from the cpuset: always the case
    #[arg(long)]
    pub(crate) cpuset_threads: bool,
    /// Interval for log flushing in msec
    #[arg(long, default_value_t = 10_000)]
    pub(crate) file_flush_interval_msec: u64,
    /// Allow unknown fields in the static configuration
    #[arg(long)]
    pub(crate) allow_unknown_static_fields: bool,
    /// Allow unknown fields in the static configuration (DEPRECATED)
    #[arg(long)]
    pub(crate) allow_unknown_fields: bool,
    /// Reject unknown fields in dynamic configuration
    #[arg(long)]
    pub(crate) reject_unknown_dynamic_fields: bool,
    /// Ignore unknown fields in dynamic configuration
    #[arg(long)]
    pub(crate) ignore_unknown_dynamic_fields: bool,
    /// The local IP address version (v4 or v6)
    #[arg(long, default_value = "v4")]
    pub(crate) local_address_ip_version: String,
    /// Displays version information and exits.
    #[arg(long, action = ArgAction::SetTrue)]
    pub(crate) version: bool,

    // Flags of Envoy that are not implemented: naming them gives the user a clear answer.
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    disable_extensions: Option<String>,
    #[arg(long, hide = true)]
    enable_mutex_tracing: bool,
}

impl Options {
    /// The first flag that was given and is not implemented.
    fn unimplemented(&self) -> Option<&'static str> {
        [
            (self.enable_fine_grain_logging, "--enable-fine-grain-logging"),
            (self.disable_extensions.is_some(), "--disable-extensions"),
            (self.enable_mutex_tracing, "--enable-mutex-tracing"),
            (
                self.restart_epoch > 0 && !self.skip_hot_restart_on_no_parent,
                "--restart-epoch above 0 without --skip-hot-restart-on-no-parent (hot restart)",
            ),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }

    /// Number of worker threads.
    pub(crate) fn workers(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        self.concurrency.unwrap_or_else(available).max(1)
    }

    /// Bytes of an access log that a worker collects before it hands them over.
    pub(crate) fn flush_bytes(&self) -> usize {
        match self.file_flush_min_size_kb {
            0 => 64 * 1024,
            kib => usize::try_from(kib).unwrap_or(usize::MAX).saturating_mul(1024),
        }
    }

    /// The loopback-free address that Envoy calls local, by the wanted version.
    pub(crate) fn local_address(&self) -> IpAddr {
        crate::node_address::of_version(self.local_address_ip_version == "v6")
    }
}

/// Version and kind of build, as `/server_info` has it.
pub(crate) fn version_text() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let build = if cfg!(debug_assertions) { "DEBUG" } else { "RELEASE" };
    format!("dhow/{version}/Clean/{build}/rustls")
}

/// The line of `--version`.
fn version_line(program: &str) -> String {
    format!("{program}  version: {}", version_text())
}

/// Reads the arguments. The error is how the process is to end at once.
pub(crate) fn parse(arguments: Vec<OsString>) -> Result<Options, ExitCode> {
    // As in Envoy, what comes behind `--` is nobody's.
    let arguments = arguments.into_iter().take_while(|argument| argument != "--");
    let arguments = std::iter::once(OsString::from("dhow-proxy")).chain(arguments);
    let mut options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) if !error.use_stderr() => {
            // Help was asked for.
            let _ = error.print();
            return Err(ExitCode::SUCCESS);
        }
        Err(error) => {
            eprintln!("{}", parse_error(&error));
            return Err(ExitCode::FAILURE);
        }
    };
    if options.version {
        println!("{}", version_line("dhow-proxy"));
        return Err(ExitCode::SUCCESS);
    }
    if options.hot_restart_version {
        println!("disabled");
        return Err(ExitCode::SUCCESS);
    }
    if let Err(text) = check(&options) {
        eprintln!("{text}");
        return Err(ExitCode::FAILURE);
    }
    options.allow_unknown_static_fields |= options.allow_unknown_fields;
    Ok(options)
}

/// What is wrong with the flags beyond their form.
fn check(options: &Options) -> Result<(), String> {
    if !matches!(options.local_address_ip_version.as_str(), "v4" | "v6") {
        return Err(format!("error: unknown IP address version '{}'", options.local_address_ip_version));
    }
    if options.use_dynamic_base_id && options.restart_epoch > 0 {
        return Err(format!(
            "error: cannot use --restart-epoch={} with --use-dynamic-base-id",
            options.restart_epoch
        ));
    }
    match options.unimplemented() {
        Some(flag) => Err(format!("PARSE ERROR: Argument: {flag}\n             is not implemented")),
        None => Ok(()),
    }
}

/// The text that Envoy's command line has for an error.
fn parse_error(error: &clap::Error) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let argument = context(ContextKind::InvalidArg);
    let flag = argument.split_whitespace().next().unwrap_or_default();
    let reason = match error.kind() {
        ErrorKind::UnknownArgument => {
            return format!(
                "PARSE ERROR: Argument: {argument}\n             Couldn't find match for argument"
            );
        }
        ErrorKind::ArgumentConflict => "Argument already set!".to_owned(),
        ErrorKind::InvalidValue => "Missing a value for this argument!".to_owned(),
        ErrorKind::ValueValidation => {
            // A flag whose value has a form of its own words its error itself.
            if let Some(own) = std::error::Error::source(error).map(ToString::to_string)
                && own.starts_with("error: ")
            {
                return own;
            }
            format!("Couldn't read argument value from string '{}'", context(ContextKind::InvalidValue))
        }
        _ => return format!("PARSE ERROR: {}", error.to_string().trim_start_matches("error: ").trim_end()),
    };
    format!("PARSE ERROR: Argument: ({flag})\n             {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str]) -> Result<Options, ExitCode> {
        parse(words.iter().map(OsString::from).collect())
    }

    #[test]
    fn envoys_flags_are_taken() {
        let options = parse_words(&[
            "-c",
            "a.yaml",
            "--config-yaml",
            "{}",
            "--mode",
            "init_only",
            "--concurrency",
            "3",
            "-l",
            "debug",
            "--component-log-level",
            "upstream:trace",
            "--log-path",
            "x",
            "--service-node",
            "n",
            "--service-cluster",
            "c",
            "--service-zone",
            "z",
            "--admin-address-path",
            "p",
            "--drain-time-s",
            "5",
            "--base-id",
            "1",
            "--restart-epoch",
            "0",
            "--disable-hot-restart",
        ])
        .unwrap();
        assert_eq!(options.mode, Mode::InitOnly);
        assert_eq!(options.workers(), 3);
        assert_eq!(options.drain_time_s, 5);
    }

    #[test]
    fn what_is_behind_two_dashes_is_not_read() {
        assert_eq!(parse_words(&["--concurrency", "2", "--", "--nope", "rest"]).unwrap().workers(), 2);
    }

    #[test]
    fn zero_workers_are_one() {
        assert_eq!(parse_words(&["--concurrency", "0"]).unwrap().workers(), 1);
    }

    #[test]
    fn what_is_not_implemented_is_refused() {
        for words in [&["--restart-epoch", "1"][..], &["--disable-extensions", "a/b"], &["--no-such-flag"]] {
            assert!(parse_words(words).is_err(), "{words:?}");
        }
        let epoch = parse_words(&["--restart-epoch", "1", "--skip-hot-restart-on-no-parent"]).unwrap();
        assert_eq!(epoch.restart_epoch, 1);
    }

    #[test]
    fn errors_are_worded_as_envoy_words_them() {
        let said = |words: &[&str]| {
            let words = std::iter::once("dhow-proxy").chain(words.iter().copied());
            parse_error(&Options::try_parse_from(words).unwrap_err())
        };
        assert!(said(&["--bad"]).starts_with("PARSE ERROR: Argument: --bad\n"));
        let value = "PARSE ERROR: Argument: (--concurrency)\n             Couldn't read argument value from string 'x'";
        assert_eq!(said(&["--concurrency", "x"]), value);
        assert!(
            said(&["--log-path", "a", "--log-path", "b"])
                .contains("(--log-path)\n             Argument already set!")
        );
        assert_eq!(said(&["--mode", "foo"]), "error: unknown mode 'foo'");
        assert_eq!(said(&["--stats-tag", "foo"]), "error: misformatted stats-tag 'foo'");
        let invalid = "error: misformatted stats-tag 'a:b.c' contains invalid char in 'b.c'";
        assert_eq!(said(&["--stats-tag", "a:b.c"]), invalid);
    }
}
