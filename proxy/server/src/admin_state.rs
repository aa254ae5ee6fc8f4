//! The process as the admin interface sees it.

use std::cell::{Cell, RefCell};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use dhow_net::StreamAddress;
use dhow_proto::Message;
use dhow_proto::Name;
use dhow_proto::envoy::admin::v3 as pb;
use dhow_proto::envoy::config::bootstrap::v3::Bootstrap as BootstrapMessage;
use dhow_proto::envoy::config::core::v3::{self as core, address, socket_address};
use dhow_proto::google::protobuf::{Duration as ProtoDuration, Timestamp};
use dhow_proxy_access_log::LogWriter;
use dhow_proxy_admin::{
    AdminState, ClusterStatus, ConfigPart, DrainRequest, HostStatus, ListenerStatus, LogLevel, OutlierStatus,
    RuntimeValues, ServerState, Thresholds, UnreadyListener,
};
use dhow_proxy_listener::ListenerView;
use dhow_proxy_upstream::{Host, Origin, Resource, RoutingPriority};
use dhow_stats::{Query, Store, UnstoredStat};
use dhow_tls::Secrets;
use tokio::sync::Notify;

use crate::cli::{DrainStrategy, Mode, Options};
use crate::config_dump;
use crate::configuration::Configuration;
use crate::endpoint_stats;
use crate::load::Topics;
use crate::runtime::RuntimeLoader;
use crate::server_stats::{IdleStats, ServerStats};
use crate::stats_sink::StatsdSink;

/// What the admin interface shows and changes.
pub(crate) struct ProcessState {
    pub(crate) options: Options,
    pub(crate) bootstrap: Bytes,
    pub(crate) node: core::Node,
    pub(crate) configuration: Rc<RefCell<Configuration>>,
    pub(crate) store: Arc<Store>,
    pub(crate) runtime: Rc<RuntimeLoader>,
    pub(crate) sinks: RefCell<Vec<StatsdSink>>,
    /// Whether asking the admin interface for statistics flushes them.
    pub(crate) flush_on_admin: bool,
    pub(crate) stats: ServerStats,
    /// Knows the certificates in use.
    pub(crate) secrets: Arc<Secrets>,
    /// Kept, so that they exist.
    pub(crate) _idle_stats: IdleStats,
    pub(crate) log_writer: Arc<LogWriter>,
    pub(crate) state: Cell<ServerState>,
    pub(crate) failing: Cell<bool>,
    /// What was told to drain (`/drain_listeners?graceful`).
    pub(crate) draining: Cell<Option<Draining>>,
    pub(crate) begun: Instant,
    pub(crate) begun_at: SystemTime,
    /// Whether names of statistics that are looked up are to be remembered.
    pub(crate) tracks_lookups: Cell<bool>,
    /// Told when the process is to end.
    pub(crate) quit: Rc<Notify>,
    /// Flushes what workers hold of access logs.
    pub(crate) flush_logs: Box<dyn Fn()>,
}

impl ProcessState {
    /// Counts what there was to say about a configuration.
    pub(crate) fn count_topics(&self, topics: Topics) {
        let Topics { deprecated, unknown, work_in_progress } = topics;
        self.runtime.deprecated_features_used(deprecated);
        self.stats.static_unknown_fields().add(unknown);
        self.stats.wip_protos().add(work_in_progress);
    }

    /// Brings gauges up to date that nobody counts as things happen.
    fn refresh_gauges(&self) {
        let epoch = self.options.restart_epoch.into();
        self.stats.refresh_certificates(self.secrets.first_expiry(), now_seconds());
        self.stats.refresh(self.begun.elapsed(), self.state(), self.options.workers(), epoch);
        // A configuration that is being changed reports next time.
        if let Ok(configuration) = self.configuration.try_borrow() {
            let Topics { deprecated, unknown, work_in_progress } = configuration.dynamic.take_found();
            self.runtime.deprecated_features_used(deprecated);
            self.stats.dynamic_unknown_fields().add(unknown);
            self.stats.wip_protos().add(work_in_progress);
        }
    }

    /// Closes the interval of histograms and feeds the sinks.
    pub(crate) fn flush_stats(&self) {
        self.store.merge_histograms();
        let mut sinks = self.sinks.borrow_mut();
        if sinks.is_empty() {
            return;
        }
        self.refresh_gauges();
        let used = Query { used_only: true, ..Query::default() };
        let mut snapshot = self.store.snapshot(&used);
        snapshot.add_unstored(&used, self.endpoint_stats());
        for sink in sinks.iter_mut() {
            sink.flush(&self.store, &snapshot);
        }
    }
}

impl AdminState for ProcessState {
    fn stats(&self) -> &Store {
        &self.store
    }

    fn refresh_stats(&self) {
        self.refresh_gauges();
        if self.flush_on_admin {
            self.flush_stats();
        }
    }

    fn endpoint_stats(&self) -> Vec<UnstoredStat> {
        // While the configuration is being changed there are none to be had.
        let Ok(configuration) = self.configuration.try_borrow() else { return Vec::new() };
        let clusters = configuration.clusters.describe();
        let active = clusters.iter().filter(|cluster| !cluster.warming);
        active.flat_map(|described| endpoint_stats::of_cluster(&described.cluster)).collect()
    }

    fn state(&self) -> ServerState {
        if self.failing.get() { ServerState::Draining } else { self.state.get() }
    }

    fn server_info(&self) -> pb::ServerInfo {
        let uptime = self.begun.elapsed();
        let uptime = ProtoDuration { seconds: uptime.as_secs() as i64, nanos: 0 };
        pb::ServerInfo {
            version: crate::cli::version_text(),
            state: match self.state() {
                ServerState::Live => pb::server_info::State::Live,
                ServerState::Draining => pb::server_info::State::Draining,
                ServerState::PreInitializing => pb::server_info::State::PreInitializing,
                ServerState::Initializing => pb::server_info::State::Initializing,
            } as i32,
            uptime_current_epoch: Some(uptime),
            uptime_all_epochs: Some(uptime),
            hot_restart_version: self.hot_restart_version(),
            command_line_options: Some(command_line(&self.options)),
            node: Some(self.node.clone()),
            hot_restart_initializing: false,
        }
    }

    fn clusters(&self) -> Vec<ClusterStatus> {
        let described = self.configuration.borrow().clusters.describe();
        described.iter().filter(|cluster| !cluster.warming).map(cluster_status).collect()
    }

    fn listeners(&self) -> Vec<ListenerStatus> {
        let views = self.configuration.borrow().listeners.views();
        views.iter().filter(|view| view.active).map(listener_status).collect()
    }

    fn unready_listeners(&self) -> Vec<UnreadyListener> {
        let views = self.configuration.borrow().listeners.views();
        let waiting = views.iter().filter(|view| !view.waits_for.is_empty());
        let unready = waiting.map(|view| {
            let mut hasher = DefaultHasher::new();
            view.encoded.hash(&mut hasher);
            let name = format!("init manager Listener-local-init-manager {} {}", view.name, hasher.finish());
            UnreadyListener { name, targets: view.waits_for.clone() }
        });
        unready.collect()
    }

    fn tracks_lookups(&self) -> &Cell<bool> {
        &self.tracks_lookups
    }

    fn config_dump(&self, include_eds: bool) -> Vec<ConfigPart> {
        let written = BootstrapMessage::decode(&*self.bootstrap).expect("it was encoded by this process");
        let secrets = config_dump::secrets(&written);
        let bootstrap = pb::BootstrapConfigDump {
            bootstrap: Some(BootstrapMessage { node: Some(self.node.clone()), ..written }),
            last_updated: Some(timestamp(self.begun_at)),
        };
        let mut parts = vec![part("envoy.admin.v3.BootstrapConfigDump", &bootstrap)];
        let configuration = self.configuration.borrow();
        parts.push(part("envoy.admin.v3.ClustersConfigDump", &config_dump::clusters(&configuration)));
        if include_eds {
            parts.push(part("envoy.admin.v3.EndpointsConfigDump", &config_dump::endpoints(&configuration)));
        }
        parts.push(part("envoy.admin.v3.ListenersConfigDump", &config_dump::listeners(&configuration)));
        parts.push(part("envoy.admin.v3.ScopedRoutesConfigDump", &pb::ScopedRoutesConfigDump::default()));
        parts.push(part("envoy.admin.v3.RoutesConfigDump", &config_dump::routes(&configuration)));
        parts.push(part("envoy.admin.v3.SecretsConfigDump", &secrets));
        parts
    }

    fn certificates(&self) -> pb::Certificates {
        config_dump::certificates(&self.secrets.contexts(), now_seconds())
    }

    fn memory(&self) -> pb::Memory {
        let resident = crate::server_stats::resident_bytes();
        pb::Memory {
            allocated: resident,
            heap_size: resident,
            pageheap_unmapped: 0,
            pageheap_free: 0,
            total_thread_cache: 0,
            total_physical_bytes: resident,
        }
    }

    fn runtime(&self) -> RuntimeValues {
        self.runtime.describe()
    }

    fn modify_runtime(&self, values: &[(&str, &str)]) -> Result<(), String> {
        self.runtime.modify(values)
    }

    fn loggers(&self) -> Vec<(String, LogLevel)> {
        crate::logging::levels()
    }

    fn set_log_level(&self, logger: Option<&str>, level: LogLevel) -> bool {
        crate::logging::set_level(logger, level)
    }

    fn reopen_logs(&self) {
        (self.flush_logs)();
        self.log_writer.reopen();
        self.configuration.borrow().clusters.reopen_event_logs();
    }

    fn set_health_check_failing(&self, failing: bool) {
        self.failing.set(failing);
        self.configuration.borrow().listeners.set_failing(failing);
    }

    fn drain_listeners(&self, request: DrainRequest) {
        let DrainRequest { graceful, skip_exit, inbound_only } = request;
        let begun = self.draining.get();
        let drains_already = begun == Some(Draining::All) || begun.is_some() && inbound_only;
        if !drains_already {
            self.draining.set(Some(if inbound_only { Draining::Inbound } else { Draining::All }));
            self.configuration.borrow().listeners.drain_connections(inbound_only);
        }
        if skip_exit {
            return;
        }
        if !graceful {
            self.configuration.borrow_mut().listeners.stop(inbound_only);
        } else if !drains_already {
            let shared = self.configuration.clone();
            let drain_time = std::time::Duration::from_secs(self.options.drain_time_s);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(drain_time).await;
                shared.borrow_mut().listeners.stop(inbound_only);
            });
        }
    }

    fn quit(&self) {
        self.quit.notify_one();
    }

    fn hot_restart_version(&self) -> String {
        "disabled".into()
    }
}

fn part<M: Name>(type_name: &'static str, message: &M) -> ConfigPart {
    ConfigPart { type_name, bytes: message.encode_to_vec() }
}

/// Which connections were told to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Draining {
    /// Those of inbound listeners.
    Inbound,
    /// Those of all listeners.
    All,
}

/// The moment as protobuf has it.
pub(crate) fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: (since.subsec_millis() * 1_000_000) as i32 }
}

fn seconds(count: u64) -> Option<ProtoDuration> {
    Some(ProtoDuration { seconds: count as i64, nanos: 0 })
}

fn command_line(options: &Options) -> pb::CommandLineOptions {
    let path = |path: &Option<std::path::PathBuf>| {
        path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    };
    pb::CommandLineOptions {
        base_id: options.base_id.into(),
        use_dynamic_base_id: options.use_dynamic_base_id,
        concurrency: options.workers() as u32,
        config_path: options.config_path.clone(),
        config_yaml: options.config_yaml.clone(),
        allow_unknown_static_fields: options.allow_unknown_static_fields,
        reject_unknown_dynamic_fields: options.reject_unknown_dynamic_fields,
        ignore_unknown_dynamic_fields: options.ignore_unknown_dynamic_fields,
        admin_address_path: path(&options.admin_address_path),
        local_address_ip_version: i32::from(options.local_address_ip_version == "v6"),
        log_level: options.log_level.clone(),
        component_log_level: options.component_log_level.clone(),
        log_path: path(&options.log_path),
        service_cluster: options.service_cluster.clone(),
        service_node: options.service_node.clone(),
        service_zone: options.service_zone.clone(),
        file_flush_interval: Some(ProtoDuration {
            seconds: (options.file_flush_interval_msec / 1000) as i64,
            nanos: (options.file_flush_interval_msec % 1000 * 1_000_000) as i32,
        }),
        drain_time: seconds(options.drain_time_s),
        parent_shutdown_time: seconds(options.parent_shutdown_time_s),
        mode: match options.mode {
            Mode::Serve => 0,
            Mode::Validate => 1,
            Mode::InitOnly => 2,
        },
        disable_hot_restart: options.disable_hot_restart,
        restart_epoch: options.restart_epoch,
        skip_hot_restart_on_no_parent: options.skip_hot_restart_on_no_parent,
        skip_hot_restart_parent_stats: options.skip_hot_restart_parent_stats,
        base_id_path: path(&options.base_id_path),
        skip_deprecated_logs: options.skip_deprecated_logs,
        log_format: options.log_format.as_deref().unwrap_or(crate::log_pattern::DEFAULT).to_owned(),
        log_format_escaped: options.log_format_escaped,
        drain_strategy: match options.drain_strategy {
            DrainStrategy::Gradual => pb::command_line_options::DrainStrategy::Gradual,
            DrainStrategy::Immediate => pb::command_line_options::DrainStrategy::Immediate,
        } as i32,
        cpuset_threads: options.cpuset_threads,
        log_stacktrace_single_entry: options.log_stacktrace_single_entry,
        socket_path: options.socket_path.clone(),
        stats_tag: options.stats_tag.iter().map(|tag| format!("{}:{}", tag.name, tag.value)).collect(),
        ..pb::CommandLineOptions::default()
    }
}

fn cluster_status(cluster: &dhow_proxy_upstream::ClusterDescription) -> ClusterStatus {
    let info = cluster.cluster.info();
    let thresholds = RoutingPriority::ALL.map(|priority| {
        let limit =
            |resource| u32::try_from(info.circuit_breakers.limit(priority, resource)).unwrap_or(u32::MAX);
        Thresholds {
            max_connections: limit(Resource::Connections),
            max_pending_requests: limit(Resource::PendingRequests),
            max_requests: limit(Resource::Requests),
            max_retries: limit(Resource::Retries),
        }
    });
    ClusterStatus {
        name: info.name.to_string(),
        observability_name: info.observability_name.to_string(),
        thresholds,
        outlier: cluster.success_rates.map(|[answers, connections]| OutlierStatus {
            success_rate_average: answers.average,
            success_rate_ejection_threshold: answers.threshold,
            local_origin_success_rate_average: connections.average,
            local_origin_success_rate_ejection_threshold: connections.threshold,
        }),
        added_via_api: cluster.origin != Origin::Static,
        eds_service_name: config_dump::eds_service_name(&cluster.message),
        hosts: cluster.cluster.hosts().hosts().map(|host| host_status(host)).collect(),
    }
}

pub(crate) fn host_status(host: &Host) -> HostStatus {
    let [success_rate, local_origin_success_rate] = host.success_rates();
    // A negative rate stands for one that is not known.
    let known = |rate: f64| (rate >= 0.0).then_some(rate);
    let stats = host.stats();
    let read = |figure: &std::sync::atomic::AtomicU64| figure.load(Ordering::Relaxed);
    let locality = host.locality();
    let flags = host.health_flags();
    HostStatus {
        address_text: host.address().to_string(),
        address: address_message(host.address()),
        counters: vec![
            ("cx_connect_fail", read(&stats.cx_connect_fail)),
            ("cx_total", read(&stats.cx_total)),
            ("rq_error", read(&stats.rq_error)),
            ("rq_success", read(&stats.rq_success)),
            ("rq_timeout", read(&stats.rq_timeout)),
            ("rq_total", read(&stats.rq_total)),
        ],
        gauges: vec![
            ("cx_active", read(&stats.cx_active)),
            ("rq_active", read(&stats.rq_active)),
            ("rq_pending_active", read(&stats.rq_pending_active)),
        ],
        hostname: host.hostname().to_owned(),
        health_flags: dhow_proxy_upstream::HealthFlag::ALL
            .iter()
            .filter(|(flag, _)| flags.contains(*flag))
            .map(|(_, text)| text.trim_start_matches('/'))
            .collect(),
        weight: host.weight(),
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
        canary: host.metadata().is_canary(),
        priority: host.priority(),
        success_rate: known(success_rate),
        local_origin_success_rate: known(local_origin_success_rate),
    }
}

fn listener_status(view: &ListenerView) -> ListenerStatus {
    let mut addresses = view.addresses.iter().map(|address| (address.to_string(), address_message(address)));
    let (address_text, address) = addresses.next().unwrap_or_default();
    ListenerStatus { name: view.name.to_string(), address_text, address, additional: addresses.collect() }
}

/// An address as a message.
pub(crate) fn address_message(address: &StreamAddress) -> core::Address {
    match address {
        StreamAddress::Ip(ip) => ip_address(*ip),
        StreamAddress::Pipe(path) => core::Address {
            address: Some(address::Address::Pipe(core::Pipe { path: path.to_string(), mode: 0 })),
        },
    }
}

fn ip_address(ip: std::net::SocketAddr) -> core::Address {
    core::Address {
        address: Some(address::Address::SocketAddress(core::SocketAddress {
            address: ip.ip().to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(ip.port().into())),
            ..core::SocketAddress::default()
        })),
    }
}

/// Seconds since 1970.
fn now_seconds() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
