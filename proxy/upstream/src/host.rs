//! A host of a cluster: where it listens, how it is doing and what was counted about it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Instant;

use dhow_net::StreamAddress;

use crate::metadata::HostMetadata;
use crate::outlier::{HostMonitor, Rate};
use crate::transport_socket::TransportSocket;

/// `envoy.config.core.v3.Locality`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// Region, such as `eu-west-1`.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// Sub-zone within the zone.
    pub sub_zone: String,
}

impl Locality {
    /// No locality, held once.
    pub(crate) fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<Locality>> = LazyLock::new(Arc::default);
        NONE.clone()
    }

    /// The locality of many hosts.
    pub(crate) fn shared(self) -> Arc<Self> {
        if self == Self::default() { Self::none() } else { Arc::new(self) }
    }
}

/// Why a host is not simply healthy: Envoy's health flags, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum HealthFlag {
    /// The host fails active health checks.
    FailedActiveHc = 0x1,
    /// Outlier detection ejected the host.
    FailedOutlierCheck = 0x2,
    /// EDS says that it is unhealthy.
    FailedEdsHealth = 0x4,
    /// Active health checks call it degraded.
    DegradedActiveHc = 0x8,
    /// EDS says that it is degraded.
    DegradedEdsHealth = 0x10,
    /// Discovery no longer lists it, but health checks keep it.
    PendingDynamicRemoval = 0x20,
    /// It has not had its first health check yet.
    PendingActiveHc = 0x40,
    /// A health check asked for exclusion (`x-envoy-immediate-health-check-fail`).
    ExcludedViaImmediateHcFail = 0x80,
    /// The last active health check timed out.
    ActiveHcTimeout = 0x100,
    /// EDS says that it is draining.
    EdsStatusDraining = 0x200,
    /// It said in an answer that it is degraded (`detect_degraded_hosts`).
    DegradedOutlierDetection = 0x400,
}

impl HealthFlag {
    /// All flags with the text of `/clusters`, in Envoy's order.
    pub const ALL: [(Self, &'static str); 11] = [
        (Self::FailedActiveHc, "/failed_active_hc"),
        (Self::FailedOutlierCheck, "/failed_outlier_check"),
        (Self::FailedEdsHealth, "/failed_eds_health"),
        (Self::DegradedActiveHc, "/degraded_active_hc"),
        (Self::DegradedEdsHealth, "/degraded_eds_health"),
        (Self::PendingDynamicRemoval, "/pending_dynamic_removal"),
        (Self::PendingActiveHc, "/pending_active_hc"),
        (Self::ExcludedViaImmediateHcFail, "/excluded_via_immediate_hc_fail"),
        (Self::ActiveHcTimeout, "/active_hc_timeout"),
        (Self::EdsStatusDraining, "/eds_status_draining"),
        (Self::DegradedOutlierDetection, "/degraded_outlier_detection"),
    ];
}

/// A set of [`HealthFlag`]s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthFlags(u32);

impl HealthFlags {
    /// No flag: the host is healthy.
    pub const NONE: Self = Self(0);

    const UNHEALTHY: u32 = HealthFlag::FailedActiveHc as u32
        | HealthFlag::FailedOutlierCheck as u32
        | HealthFlag::FailedEdsHealth as u32
        | HealthFlag::EdsStatusDraining as u32;
    const DEGRADED: u32 = HealthFlag::DegradedActiveHc as u32
        | HealthFlag::DegradedEdsHealth as u32
        | HealthFlag::DegradedOutlierDetection as u32;
    /// What is found out here, as opposed to what discovery says.
    const LEARNT: u32 = HealthFlag::FailedActiveHc as u32
        | HealthFlag::FailedOutlierCheck as u32
        | HealthFlag::DegradedActiveHc as u32
        | HealthFlag::DegradedOutlierDetection as u32
        | HealthFlag::PendingActiveHc as u32
        | HealthFlag::ExcludedViaImmediateHcFail as u32
        | HealthFlag::ActiveHcTimeout as u32;
    const EXCLUDED: u32 =
        HealthFlag::ExcludedViaImmediateHcFail as u32 | HealthFlag::EdsStatusDraining as u32;

    /// These flags and `flag`.
    #[must_use]
    pub const fn with(self, flag: HealthFlag) -> Self {
        Self(self.0 | flag as u32)
    }

    /// Whether `flag` is set.
    pub const fn contains(self, flag: HealthFlag) -> bool {
        self.0 & flag as u32 != 0
    }

    /// The load balancer's view of a host with these flags.
    pub const fn health(self) -> Health {
        if self.0 & Self::UNHEALTHY != 0 {
            Health::Unhealthy
        } else if self.0 & Self::DEGRADED != 0 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    /// Whether the host is left out of the arithmetic of priorities and panic.
    pub const fn is_excluded(self, pending_counts: bool) -> bool {
        self.0 & Self::EXCLUDED != 0 || (pending_counts && self.0 & HealthFlag::PendingActiveHc as u32 != 0)
    }
}

/// `healthy`, or the set flags one after the other, as the `health_flags` lines of `/clusters`.
impl fmt::Display for HealthFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("healthy");
        }
        HealthFlag::ALL
            .iter()
            .filter(|(flag, _)| self.contains(*flag))
            .try_for_each(|(_, text)| f.write_str(text))
    }
}

/// The three classes of hosts that load balancing distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Gets traffic.
    Healthy,
    /// Gets traffic when the healthy hosts of all priorities do not suffice.
    Degraded,
    /// Gets traffic in panic only.
    Unhealthy,
}

macro_rules! host_stats {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What is counted per host; shared by all workers, relaxed atomics as in Envoy.
        #[derive(Debug, Default)]
        pub struct HostStats {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        impl HostStats {
            /// Name and value of every figure, in the order of `/clusters`.
            pub fn values(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)*]
            }
        }
    };
}

host_stats! {
    /// Gauge: open connections.
    cx_active,
    /// Connections that could not be made.
    cx_connect_fail,
    /// Connections ever begun.
    cx_total,
    /// Gauge: requests under way.
    rq_active,
    /// Requests that ended with a failure (status 5xx, reset).
    rq_error,
    /// Gauge: requests that wait for a connection.
    rq_pending_active,
    /// Requests that ended well.
    rq_success,
    /// Requests that timed out.
    rq_timeout,
    /// Requests ever sent.
    rq_total,
}

/// What is known about a host when it enters a cluster.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// Where it listens.
    pub address: StreamAddress,
    /// `endpoint.hostname`, or the DNS name it was resolved from; empty when there is none.
    pub hostname: Arc<str>,
    /// Locality of its group.
    pub locality: Arc<Locality>,
    /// `load_balancing_weight`, at least 1.
    pub weight: u32,
    /// Priority of its group; 0 is the first choice.
    pub priority: u32,
    /// Metadata of the endpoint and of its locality.
    pub metadata: Arc<HostMetadata>,
    /// Health as discovery reports it.
    pub health: HealthFlags,
    /// How to speak to it.
    pub transport_socket: TransportSocket,
    /// Where active health checks go when not to `address` (`health_check_config`).
    pub health_check_address: Option<StreamAddress>,
    /// `health_check_config.hostname`.
    pub health_check_hostname: Arc<str>,
    /// `health_check_config.disable_active_health_check`.
    pub health_check_disabled: bool,
    /// `additional_addresses`: other ways to the same host.
    pub additional: Arc<[SocketAddr]>,
}

impl HostSpec {
    /// A healthy host of weight 1 and priority 0 at `address`, spoken to in clear text.
    pub fn at(address: StreamAddress) -> Self {
        Self {
            address,
            hostname: Arc::default(),
            locality: Locality::none(),
            weight: 1,
            priority: 0,
            metadata: HostMetadata::none(),
            health: HealthFlags::NONE,
            transport_socket: TransportSocket::RawBuffer,
            health_check_address: None,
            health_check_hostname: Arc::default(),
            health_check_disabled: false,
            additional: Arc::default(),
        }
    }
}

/// One host of a cluster. Its identity is the `Arc` that holds it: connection pools key on the pointer, and an update that
/// leaves the host as it was keeps the pointer.
#[derive(Debug)]
pub struct Host {
    address: StreamAddress,
    hostname: Arc<str>,
    locality: Arc<Locality>,
    priority: u32,
    metadata: Arc<HostMetadata>,
    transport_socket: TransportSocket,
    special: Option<Box<Special>>,
    weight: AtomicU32,
    health: AtomicU32,
    history: Arc<History>,
    /// The address in text, made when it is first asked for.
    address_text: OnceLock<Arc<str>>,
    /// Since when it has been taking traffic, on the clock of [`uptime_millis`].
    slow_start_from: AtomicU64,
    /// Whether it was asked for since somebody last looked; only noted for original destinations.
    touched: AtomicBool,
}

/// What few hosts have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Special {
    health_check_address: Option<StreamAddress>,
    health_check_hostname: Arc<str>,
    health_check_disabled: bool,
    additional: Arc<[SocketAddr]>,
}

/// What goes on with the host that takes this one's place.
#[derive(Debug, Default)]
struct History {
    stats: HostStats,
    /// Since results are noted.
    monitor: OnceLock<Box<HostMonitor>>,
}

impl Host {
    /// A new host with counters at zero.
    pub fn new(spec: HostSpec) -> Self {
        Self::with_history(spec, Arc::default())
    }

    /// The host that takes this one's place at the same address: counters and what was learnt about its health go on.
    pub(crate) fn succeeded_by(&self, spec: HostSpec) -> Self {
        let successor = Self::with_history(spec, self.history.clone());
        let learnt = HealthFlags::LEARNT & self.health_flags().0;
        successor.health.fetch_or(learnt, Ordering::Relaxed);
        successor
    }

    fn with_history(spec: HostSpec, history: Arc<History>) -> Self {
        let HostSpec {
            address,
            hostname,
            locality,
            weight,
            priority,
            metadata,
            health,
            transport_socket,
            health_check_address,
            health_check_hostname,
            health_check_disabled,
            additional,
        } = spec;
        let special =
            Special { health_check_address, health_check_hostname, health_check_disabled, additional };
        Self {
            address,
            hostname,
            locality,
            priority,
            metadata,
            transport_socket,
            special: (special != Special::default()).then(|| Box::new(special)),
            weight: AtomicU32::new(weight.max(1)),
            health: AtomicU32::new(health.0),
            history,
            address_text: OnceLock::new(),
            slow_start_from: AtomicU64::new(uptime_millis()),
            touched: AtomicBool::new(true),
        }
    }

    /// Where to connect.
    pub fn address(&self) -> &StreamAddress {
        &self.address
    }

    /// The address as `%UPSTREAM_HOST%` prints it, to be shared.
    pub fn address_text(&self) -> &Arc<str> {
        self.address_text.get_or_init(|| self.address.to_string().into())
    }

    /// [`Host::hostname`], to be shared; `None` when there is none.
    pub fn shared_hostname(&self) -> Option<&Arc<str>> {
        Some(&self.hostname).filter(|name| !name.is_empty())
    }

    /// `endpoint.hostname` or the DNS name; empty when there is none. `auto_host_rewrite` and `auto_sni` use it.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// The host's locality.
    pub fn locality(&self) -> &Arc<Locality> {
        &self.locality
    }

    /// The priority level that it belongs to.
    pub fn priority(&self) -> u32 {
        self.priority
    }

    /// Endpoint and locality metadata.
    pub fn metadata(&self) -> &Arc<HostMetadata> {
        &self.metadata
    }

    /// How connections to this host are protected.
    pub fn transport_socket(&self) -> &TransportSocket {
        &self.transport_socket
    }

    /// Where active health checks connect.
    pub fn health_check_address(&self) -> &StreamAddress {
        let own = self.special.as_ref().and_then(|special| special.health_check_address.as_ref());
        own.unwrap_or(&self.address)
    }

    /// `health_check_config.hostname`; empty when unset.
    pub fn health_check_hostname(&self) -> &str {
        self.special.as_ref().map_or("", |special| &special.health_check_hostname)
    }

    /// Whether active health checks leave this host alone.
    pub fn health_check_disabled(&self) -> bool {
        self.special.as_ref().is_some_and(|special| special.health_check_disabled)
    }

    /// Other addresses of the host, to be tried beside the first.
    pub fn additional_addresses(&self) -> &[SocketAddr] {
        self.special.as_ref().map_or(&[], |special| &special.additional)
    }

    /// Load-balancing weight, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_weight(&self, weight: u32) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
    }

    /// Health flags at this moment. Load balancing works with the sets computed when they last changed.
    pub fn health_flags(&self) -> HealthFlags {
        HealthFlags(self.health.load(Ordering::Relaxed))
    }

    pub(crate) fn has_health_flag(&self, flag: HealthFlag) -> bool {
        self.health_flags().contains(flag)
    }

    /// Clears a flag; true when it was set.
    pub(crate) fn take_health_flag(&self, flag: HealthFlag) -> bool {
        let was_set = self.health.fetch_and(!(flag as u32), Ordering::Relaxed) & flag as u32 != 0;
        if was_set && flag == HealthFlag::FailedActiveHc {
            self.slow_start_from.store(uptime_millis(), Ordering::Relaxed);
        }
        was_set
    }

    /// The class that the flags of this moment put the host in.
    pub fn health(&self) -> Health {
        self.health_flags().health()
    }

    pub(crate) fn set_health_flag(&self, flag: HealthFlag, on: bool) {
        if on {
            self.health.fetch_or(flag as u32, Ordering::Relaxed);
        } else {
            self.take_health_flag(flag);
        }
    }

    /// Notes that a request asked for the host.
    pub(crate) fn touch(&self) {
        // Most of the time it is noted already, and the line of memory stays shared.
        if !self.touched.load(Ordering::Relaxed) {
            self.touched.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the host was asked for since the last call.
    pub(crate) fn take_touched(&self) -> bool {
        self.touched.swap(false, Ordering::Relaxed)
    }

    /// Since when the host has been taking traffic, on the clock of [`uptime_millis`]: slow start begins here.
    pub fn slow_start_from(&self) -> u64 {
        self.slow_start_from.load(Ordering::Relaxed)
    }

    /// The host's counters.
    pub fn stats(&self) -> &HostStats {
        &self.history.stats
    }

    /// What outlier detection counts.
    pub(crate) fn monitor(&self) -> &HostMonitor {
        self.history.monitor.get_or_init(Box::default)
    }

    /// Percent of good answers, and of good connections, in the last interval of outlier detection; -1 when it had too few
    /// of them.
    pub fn success_rates(&self) -> [f64; 2] {
        let monitor = self.history.monitor.get();
        [Rate::External, Rate::LocalOrigin].map(|rate| monitor.map_or(-1.0, |monitor| monitor.rate(rate)))
    }

    /// Counts a request as under way until the guard is dropped: `rq_total` and `rq_active`.
    pub fn begin_request(&self) -> ActiveRequest {
        self.stats().rq_total.fetch_add(1, Ordering::Relaxed);
        self.stats().rq_active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(self.history.clone())
    }

    /// Requests under way on all workers, the load that least-request balancing compares.
    pub fn active_requests(&self) -> u64 {
        self.stats().rq_active.load(Ordering::Relaxed)
    }
}

/// Milliseconds since the process first asked.
pub(crate) fn uptime_millis() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_millis().try_into().unwrap_or(u64::MAX)
}

/// One request that a host is working on.
#[derive(Debug)]
pub struct ActiveRequest(Arc<History>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.stats.rq_active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use dhow_net::StreamAddress;

    use super::{Health, HealthFlag, HealthFlags, Host, HostSpec};

    fn host() -> Host {
        Host::new(HostSpec::at(StreamAddress::Ip(([127, 0, 0, 1], 80).into())))
    }

    #[test]
    fn flags_decide_the_class_and_the_text() {
        let host = host();
        assert_eq!((host.health(), host.health_flags().to_string().as_str()), (Health::Healthy, "healthy"));
        host.set_health_flag(HealthFlag::DegradedEdsHealth, true);
        assert_eq!(host.health(), Health::Degraded);
        host.set_health_flag(HealthFlag::FailedOutlierCheck, true);
        assert_eq!(host.health(), Health::Unhealthy);
        assert_eq!(host.health_flags().to_string(), "/failed_outlier_check/degraded_eds_health");
        host.set_health_flag(HealthFlag::FailedOutlierCheck, false);
        assert_eq!(host.health(), Health::Degraded);
    }

    #[test]
    fn draining_excludes_and_pending_excludes_only_when_asked() {
        assert!(HealthFlags::NONE.with(HealthFlag::EdsStatusDraining).is_excluded(false));
        let pending = HealthFlags::NONE.with(HealthFlag::PendingActiveHc);
        assert!(!pending.is_excluded(false));
        assert!(pending.is_excluded(true));
    }

    #[test]
    fn a_request_is_active_until_its_guard_goes() {
        let host = host();
        let guard = host.begin_request();
        assert_eq!(host.active_requests(), 1);
        drop(guard);
        assert_eq!(host.active_requests(), 0);
        assert!(host.stats().values().contains(&("rq_total", 1)));
    }
}
