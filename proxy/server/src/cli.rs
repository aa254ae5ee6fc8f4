//! Envoy's command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, ValueEnum};

/// `--mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Serve traffic.
    #[default]
    Serve,
    /// Check the configuration and exit.
    Validate,
    /// Initialise as for serving and exit.
    InitOnly,
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
    #[arg(long, value_enum, default_value_t)]
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
    /// Admin address path: the file that the bound admin address is written to
    #[arg(long)]
    pub(crate) admin_address_path: Option<PathBuf>,
    /// Hot restart and LDS removal drain time in seconds
    #[arg(long, default_value_t = 600)]
    pub(crate) drain_time_s: u64,
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
    /// Interval for log flushing in msec
    #[arg(long, default_value_t = 10_000)]
    pub(crate) file_flush_interval_msec: u64,
    /// Allow unknown fields in the static configuration
    #[arg(long, alias = "allow-unknown-fields")]
    pub(crate) allow_unknown_static_fields: bool,
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

    // Flags of Envoy that do nothing here yet: naming them gives the user a clear answer.
    #[arg(long, hide = true)]
    log_format: Option<String>,
    #[arg(long, hide = true)]
    log_format_escaped: bool,
    #[arg(long, hide = true)]
    enable_fine_grain_logging: bool,
    #[arg(long, hide = true)]
    socket_path: Option<String>,
    #[arg(long, hide = true)]
    socket_mode: Option<String>,
    #[arg(long, hide = true)]
    base_id_path: Option<String>,
    #[arg(long, hide = true)]
    skip_hot_restart_on_no_parent: bool,
    #[arg(long, hide = true)]
    skip_hot_restart_parent_stats: bool,
    #[arg(long, hide = true)]
    hot_restart_version: bool,
    #[arg(long, hide = true)]
    drain_strategy: Option<String>,
    #[arg(long, hide = true)]
    disable_extensions: Option<String>,
    #[arg(long, hide = true)]
    stats_tag: Vec<String>,
    #[arg(long, hide = true)]
    enable_mutex_tracing: bool,
    #[arg(long, hide = true)]
    enable_core_dump: bool,
    #[arg(long, hide = true)]
    cpuset_threads: bool,
    #[arg(long, hide = true)]
    file_flush_min_size_kb: Option<u64>,
    #[arg(long, hide = true)]
    skip_deprecated_logs: bool,
    #[arg(long, hide = true)]
    log_stacktrace_single_entry: bool,
}

impl Options {
    /// The first flag that was given and is not implemented.
    fn unimplemented(&self) -> Option<&'static str> {
        [
            (self.log_format.is_some(), "--log-format"),
            (self.log_format_escaped, "--log-format-escaped"),
            (self.enable_fine_grain_logging, "--enable-fine-grain-logging"),
            (self.socket_path.is_some(), "--socket-path"),
            (self.socket_mode.is_some(), "--socket-mode"),
            (self.base_id_path.is_some(), "--base-id-path"),
            (self.skip_hot_restart_on_no_parent, "--skip-hot-restart-on-no-parent"),
            (self.skip_hot_restart_parent_stats, "--skip-hot-restart-parent-stats"),
            (self.hot_restart_version, "--hot-restart-version"),
            (self.drain_strategy.is_some(), "--drain-strategy"),
            (self.disable_extensions.is_some(), "--disable-extensions"),
            (!self.stats_tag.is_empty(), "--stats-tag"),
            (self.enable_mutex_tracing, "--enable-mutex-tracing"),
            (self.enable_core_dump, "--enable-core-dump"),
            (self.cpuset_threads, "--cpuset-threads"),
            (self.file_flush_min_size_kb.is_some(), "--file-flush-min-size-kb"),
            (self.skip_deprecated_logs, "--skip-deprecated-logs"),
            (self.log_stacktrace_single_entry, "--log-stacktrace-single-entry"),
            (self.restart_epoch > 0, "--restart-epoch above 0 (hot restart)"),
            (self.reject_unknown_dynamic_fields, "--reject-unknown-dynamic-fields"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }

    /// Number of worker threads.
    pub(crate) fn workers(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, usize::from);
        self.concurrency.unwrap_or_else(available).max(1)
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
    let arguments = std::iter::once(OsString::from("dhow-proxy")).chain(arguments);
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) if !error.use_stderr() => {
            // Help was asked for.
            let _ = error.print();
            return Err(ExitCode::SUCCESS);
        }
        Err(error) => {
            eprintln!("PARSE ERROR: {}", error.to_string().trim_start_matches("error: ").trim_end());
            return Err(ExitCode::FAILURE);
        }
    };
    if options.version {
        println!("{}", version_line("dhow-proxy"));
        return Err(ExitCode::SUCCESS);
    }
    if let Some(flag) = options.unimplemented() {
        eprintln!("PARSE ERROR: Argument: {flag}\n             is not implemented yet");
        return Err(ExitCode::FAILURE);
    }
    if !matches!(options.local_address_ip_version.as_str(), "v4" | "v6") {
        eprintln!("error: unknown IP address version '{}'", options.local_address_ip_version);
        return Err(ExitCode::FAILURE);
    }
    Ok(options)
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
    fn zero_workers_are_one() {
        assert_eq!(parse_words(&["--concurrency", "0"]).unwrap().workers(), 1);
    }

    #[test]
    fn what_is_not_implemented_is_refused() {
        for words in [&["--restart-epoch", "1"][..], &["--stats-tag", "a:b"], &["--no-such-flag"]] {
            assert!(parse_words(words).is_err(), "{words:?}");
        }
    }
}
