//! What the admin interface asks of the server.

use std::cell::Cell;

use dhow_proto::envoy::admin::v3::{Certificates, Memory, ServerInfo};
use dhow_proto::envoy::config::core::v3::Address;
use dhow_stats::{Store, UnstoredStat};

/// `ServerInfo.State`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Serving.
    Live,
    /// Draining, after `/healthcheck/fail` or on the way out.
    Draining,
    /// Waiting for clusters.
    PreInitializing,
    /// Waiting for listeners.
    Initializing,
}

impl ServerState {
    /// As `/ready` and `/server_info` print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "LIVE",
            Self::Draining => "DRAINING",
            Self::PreInitializing => "PRE_INITIALIZING",
            Self::Initializing => "INITIALIZING",
        }
    }
}

/// Circuit breaker thresholds of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Connections.
    pub max_connections: u32,
    /// Requests waiting for a connection.
    pub max_pending_requests: u32,
    /// Requests.
    pub max_requests: u32,
    /// Retries at the same time.
    pub max_retries: u32,
}

/// What `/clusters` shows of success-rate outlier detection; -1 where there is no figure yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutlierStatus {
    /// Average success rate, 0 to 100.
    pub success_rate_average: f64,
    /// Rate below which hosts are ejected.
    pub success_rate_ejection_threshold: f64,
    /// The same for errors that arose on this side.
    pub local_origin_success_rate_average: f64,
    /// The same for errors that arose on this side.
    pub local_origin_success_rate_ejection_threshold: f64,
}

/// A cluster as `/clusters` shows it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Name.
    pub name: String,
    /// `alt_stat_name`, or the name.
    pub observability_name: String,
    /// `DEFAULT` and `HIGH`.
    pub thresholds: [Thresholds; 2],
    /// Success-rate outlier detection, where it is configured.
    pub outlier: Option<OutlierStatus>,
    /// Whether it came from CDS.
    pub added_via_api: bool,
    /// `eds_cluster_config.service_name`; empty when there is none.
    pub eds_service_name: String,
    /// Hosts in order of priority.
    pub hosts: Vec<HostStatus>,
}

/// A host as `/clusters` shows it.
#[derive(Clone, Debug, Default)]
pub struct HostStatus {
    /// Address as text (`127.0.0.1:80`).
    pub address_text: String,
    /// Address as message.
    pub address: Address,
    /// Counters, by name: `cx_connect_fail`, `cx_total`, `rq_error`, `rq_success`, `rq_timeout`, `rq_total`.
    pub counters: Vec<(&'static str, u64)>,
    /// Gauges, by name: `cx_active`, `rq_active`, `rq_pending_active`.
    pub gauges: Vec<(&'static str, u64)>,
    /// Host name; empty for an address.
    pub hostname: String,
    /// Flags such as `failed_active_hc`; none for a healthy host.
    pub health_flags: Vec<&'static str>,
    /// Weight.
    pub weight: u32,
    /// Locality's region.
    pub region: String,
    /// Locality's zone.
    pub zone: String,
    /// Locality's sub-zone.
    pub sub_zone: String,
    /// Whether the host is a canary.
    pub canary: bool,
    /// Priority, 0 is the highest.
    pub priority: u32,
    /// Success rate of outlier detection; `None` when unknown.
    pub success_rate: Option<f64>,
    /// Success rate without errors of the upstream; `None` when unknown.
    pub local_origin_success_rate: Option<f64>,
}

/// A listener as `/listeners` shows it.
#[derive(Clone, Debug)]
pub struct ListenerStatus {
    /// Name.
    pub name: String,
    /// Address as text.
    pub address_text: String,
    /// Address as message.
    pub address: Address,
    /// Further addresses, as text and message.
    pub additional: Vec<(String, Address)>,
}

/// One element of `/config_dump`'s `configs`, encoded.
#[derive(Clone, Debug)]
pub struct ConfigPart {
    /// Full name of its type, such as `envoy.admin.v3.ClustersConfigDump`.
    pub type_name: &'static str,
    /// The encoded message.
    pub bytes: Vec<u8>,
}

/// What `/runtime` shows.
#[derive(Clone, Debug, Default)]
pub struct RuntimeValues {
    /// Names of the layers, the lowest first.
    pub layers: Vec<String>,
    /// Keys with their values, in order of the keys.
    pub entries: Vec<RuntimeEntry>,
}

/// One key of `/runtime`.
#[derive(Clone, Debug)]
pub struct RuntimeEntry {
    /// Key.
    pub key: String,
    /// What each layer says; empty when it says nothing.
    pub layer_values: Vec<String>,
    /// What counts.
    pub final_value: String,
}

/// The query of `POST /drain_listeners`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainRequest {
    /// Drain for the configured time before listeners close.
    pub graceful: bool,
    /// Drain connections and keep listening.
    pub skip_exit: bool,
    /// Only listeners with `traffic_direction: INBOUND`.
    pub inbound_only: bool,
}

/// Log levels of `/logging`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
    Off,
}

impl LogLevel {
    /// All levels in order.
    pub const ALL: [Self; 7] =
        [Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error, Self::Critical, Self::Off];

    /// As Envoy spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Off => "off",
        }
    }

    /// The level of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

/// A listener that does not serve yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadyListener {
    /// Name of what waits, in Envoy's form.
    pub name: String,
    /// Names of what is waited for.
    pub targets: Vec<String>,
}

/// The server as the admin interface sees it. All calls come from the main thread and must not block.
pub trait AdminState {
    /// The server's stats.
    fn stats(&self) -> &Store;
    /// Called before stats are shown, so that gauges such as `server.uptime` are current.
    fn refresh_stats(&self) {}
    /// Stats of hosts, of the clusters that ask for them (`track_cluster_stats.per_endpoint_stats`).
    fn endpoint_stats(&self) -> Vec<UnstoredStat> {
        Vec::new()
    }
    /// Where the server is in its life.
    fn state(&self) -> ServerState;
    /// `/server_info`.
    fn server_info(&self) -> ServerInfo;
    /// `/clusters`.
    fn clusters(&self) -> Vec<ClusterStatus>;
    /// `/listeners`.
    fn listeners(&self) -> Vec<ListenerStatus>;
    /// `/init_dump`: listeners that wait for something.
    fn unready_listeners(&self) -> Vec<UnreadyListener>;
    /// Whether names of statistics that are looked up are to be remembered (`/stats/recentlookups`).
    fn tracks_lookups(&self) -> &Cell<bool>;
    /// `/config_dump` in the order bootstrap, clusters, endpoints when asked for, listeners, scoped routes, routes, secrets.
    fn config_dump(&self, include_eds: bool) -> Vec<ConfigPart>;
    /// `/certs`.
    fn certificates(&self) -> Certificates;
    /// `/memory`.
    fn memory(&self) -> Memory;
    /// `/runtime`.
    fn runtime(&self) -> RuntimeValues;
    /// `POST /runtime_modify`: values to set, empty ones to remove; `Err` with Envoy's words when there is no admin layer.
    fn modify_runtime(&self, values: &[(&str, &str)]) -> Result<(), String>;
    /// Loggers with their levels, in the order of `/logging`.
    fn loggers(&self) -> Vec<(String, LogLevel)>;
    /// Sets the level of one logger, or of all; false when there is no logger of this name.
    fn set_log_level(&self, logger: Option<&str>, level: LogLevel) -> bool;
    /// `POST /reopen_logs`.
    fn reopen_logs(&self);
    /// `POST /healthcheck/fail` and `/healthcheck/ok`.
    fn set_health_check_failing(&self, failing: bool);
    /// `POST /drain_listeners`.
    fn drain_listeners(&self, request: DrainRequest);
    /// `POST /quitquitquit`. The answer is sent before the server ends.
    fn quit(&self);
    /// `/hot_restart_version`.
    fn hot_restart_version(&self) -> String;
}
