//! `watchdogs`, or the older `watchdog` in its place.

use std::time::Duration;

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::config::bootstrap::v3 as pb;
use dhow_proto::google::protobuf::Duration as ProtoDuration;

const MISS: Duration = Duration::from_millis(200);
const MEGA_MISS: Duration = Duration::from_secs(1);
/// Threads are not looked at more often than this, whatever is configured.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// For how long a thread may show no sign of life (`Watchdog`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    /// `miss_timeout`, 200 ms: then it is counted.
    pub(crate) miss: Duration,
    /// `megamiss_timeout`, 1 s: then it is counted again.
    pub(crate) mega_miss: Duration,
    /// `kill_timeout`: then the process ends.
    pub(crate) kill: Option<Duration>,
    /// `max_kill_timeout_jitter`: by how much `kill` is put off at most.
    pub(crate) kill_jitter: Duration,
    /// `multikill_timeout`: the process ends when this is true of several threads.
    pub(crate) multi_kill: Option<Duration>,
    /// `multikill_threshold`: of how many percent of them. Two at least.
    pub(crate) multi_kill_percent: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            miss: MISS,
            mega_miss: MEGA_MISS,
            kill: None,
            kill_jitter: Duration::ZERO,
            multi_kill: None,
            multi_kill_percent: 0.0,
        }
    }
}

impl Limits {
    /// How often threads have to be looked at.
    pub(crate) fn interval(&self) -> Duration {
        let shortest = [Some(self.miss), Some(self.mega_miss), self.kill, self.multi_kill];
        shortest.into_iter().flatten().min().unwrap_or(MISS).max(SHORTEST_INTERVAL)
    }

    fn lower(message: pb::Watchdog, path: &FieldPath) -> Result<Self, ConfigError> {
        let pb::Watchdog {
            actions,
            miss_timeout,
            megamiss_timeout,
            kill_timeout,
            max_kill_timeout_jitter,
            multikill_timeout,
            multikill_threshold,
        } = message;
        // An action without configuration is none.
        let acts = actions.iter().any(|pb::watchdog::WatchdogAction { config, event: _ }| config.is_some());
        ConfigError::refuse_if(acts, path, "actions")
            .map_err(|error| error.with_hint("a thread that is stuck is counted, or the process ends"))?;
        Ok(Self {
            miss: miss_timeout.map_or(MISS, duration),
            mega_miss: megamiss_timeout.map_or(MEGA_MISS, duration),
            kill: kill_timeout.map(duration).filter(|timeout| !timeout.is_zero()),
            kill_jitter: max_kill_timeout_jitter.map_or(Duration::ZERO, duration),
            multi_kill: multikill_timeout.map(duration).filter(|timeout| !timeout.is_zero()),
            multi_kill_percent: multikill_threshold.map_or(0.0, |percent| percent.value),
        })
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Watchdogs {
    /// `main_thread_watchdog`.
    pub(crate) main_thread: Limits,
    /// `worker_watchdog`.
    pub(crate) workers: Limits,
}

/// Lowers the two fields of the bootstrap.
///
/// # Errors
/// When both are set, and for actions other than the end of the process.
pub(crate) fn lower(
    watchdog: Option<pb::Watchdog>,
    watchdogs: Option<pb::Watchdogs>,
    root: &FieldPath,
) -> Result<Watchdogs, ConfigError> {
    let path = root.field("watchdogs");
    match (watchdog, watchdogs) {
        (None, None) => Ok(Watchdogs::default()),
        (Some(_), Some(_)) => Err(ConfigError::new(path, "Only one of watchdog or watchdogs should be set!")),
        (Some(both), None) => {
            let limits = Limits::lower(both, &root.field("watchdog"))?;
            Ok(Watchdogs { main_thread: limits, workers: limits })
        }
        (None, Some(pb::Watchdogs { main_thread_watchdog, worker_watchdog })) => Ok(Watchdogs {
            main_thread: Limits::lower(
                main_thread_watchdog.unwrap_or_default(),
                &path.field("main_thread_watchdog"),
            )?,
            workers: Limits::lower(worker_watchdog.unwrap_or_default(), &path.field("worker_watchdog"))?,
        }),
    }
}

/// A duration that passed validation, in whole milliseconds as Envoy counts them.
fn duration(message: ProtoDuration) -> Duration {
    Duration::from_millis(message.seconds.max(0) as u64 * 1000 + (message.nanos.max(0) / 1_000_000) as u64)
}
