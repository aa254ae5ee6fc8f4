//! `Bootstrap.overload_manager` lowered.

use std::path::PathBuf;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::config::overload::v3 as pb;
use dhow_proto::envoy::extensions::resource_monitors::cpu_utilization::v3::CpuUtilizationConfig;
use dhow_proto::envoy::extensions::resource_monitors::downstream_connections::v3::DownstreamConnectionsConfig;
use dhow_proto::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use dhow_proto::envoy::extensions::resource_monitors::injected_resource::v3::InjectedResourceConfig;
use dhow_proto::google::protobuf::{Any, Duration as DurationMessage};
use dhow_proto::{any, check_watched_path};
use dhow_proxy_runtime::{LoadShedPoint, OverloadAction};

const MONITORS: &str = "envoy.extensions.resource_monitors.";

/// The one name under which a limit of connections is known.
const CONNECTIONS: &str = "envoy.resource_monitors.global_downstream_max_connections";

/// Default of `refresh_interval`.
const REFRESH: Duration = Duration::from_secs(1);

/// Default of `timer_interval` of `shrink_heap`.
const SHRINK: Duration = Duration::from_secs(10);

/// The overload manager as configured.
#[derive(Clone, Debug)]
pub(crate) struct OverloadSettings {
    pub(super) refresh: Duration,
    pub(super) monitors: Vec<Monitor>,
    pub(super) actions: Vec<Action>,
    pub(super) points: Vec<Point>,
}

/// Something that can be short.
#[derive(Clone, Debug)]
pub(super) struct Monitor {
    pub(super) name: String,
    pub(super) resource: Resource,
}

/// What is looked at.
#[derive(Clone, Debug)]
pub(super) enum Resource {
    /// Resident memory as a share of so many bytes.
    Memory { max: u64 },
    /// A number in a file.
    File(PathBuf),
    /// Time that the machine's processors are busy.
    Processors,
    /// Connections of clients as a share of so many.
    Connections { max: u64 },
}

/// What is done, and when.
#[derive(Clone, Debug)]
pub(super) struct Action {
    pub(super) name: String,
    pub(super) effect: Effect,
    pub(super) triggers: Vec<Trigger>,
}

/// What an action does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Workers see to it.
    OfWorkers(OverloadAction),
    /// Free memory goes back to the system at this interval.
    ShrinkHeap(Duration),
    /// Only its statistics tell that it is active.
    None,
}

/// Where load is shed, and when.
#[derive(Clone, Debug)]
pub(super) struct Point {
    pub(super) name: String,
    /// What workers know it by; none for points that they do not have.
    pub(super) point: Option<LoadShedPoint>,
    pub(super) triggers: Vec<Trigger>,
}

/// A resource (by its place among the monitors) and how much of it is too much.
#[derive(Clone, Debug)]
pub(super) struct Trigger {
    pub(super) monitor: usize,
    pub(super) threshold: Threshold,
}

/// From which pressure on an action applies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Threshold {
    /// `threshold`.
    At(f64),
    /// `scaled`: more and more between the two.
    Between(f64, f64),
}

impl Threshold {
    /// How far the action applies, from 0 to 1.
    pub(super) fn share(self, pressure: f64) -> f64 {
        match self {
            Self::At(value) => f64::from(u8::from(pressure >= value)),
            Self::Between(from, _) if pressure <= from => 0.0,
            Self::Between(_, to) if pressure >= to => 1.0,
            Self::Between(from, to) => (pressure - from) / (to - from),
        }
    }
}

impl OverloadSettings {
    /// Whether connections of clients are limited.
    pub(crate) fn max_connections(&self) -> Option<u64> {
        self.monitors.iter().find_map(|monitor| match monitor.resource {
            Resource::Connections { max } => Some(max),
            Resource::Memory { .. } | Resource::File(_) | Resource::Processors => None,
        })
    }
}

/// Lowers the message.
pub(crate) fn lower(
    message: pb::OverloadManager,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<OverloadSettings, ConfigError> {
    let pb::OverloadManager {
        refresh_interval,
        resource_monitors,
        actions: messages,
        loadshed_points,
        buffer_factory_config,
    } = message;
    if buffer_factory_config.is_some() {
        let why = "without effect: memory is not accounted to streams, and none is reset for it";
        warnings.push(ConfigWarning::new(path.field("buffer_factory_config"), why));
    }
    let mut monitors: Vec<Monitor> = Vec::new();
    for (at, message) in resource_monitors.into_iter().enumerate() {
        let path = path.field("resource_monitors").index(at);
        let monitor = lower_monitor(message, &path)?;
        if monitors.iter().any(|known| known.name == monitor.name) {
            return Err(ConfigError::new(path, format!("Duplicate resource monitor {}", monitor.name)));
        }
        monitors.push(monitor);
    }
    let mut actions: Vec<Action> = Vec::new();
    for (at, message) in messages.into_iter().enumerate() {
        let path = path.field("actions").index(at);
        let action = lower_action(message, &monitors, &path, warnings)?;
        if actions.iter().any(|known| known.name == action.name) {
            return Err(ConfigError::new(path, format!("Duplicate overload action {}", action.name)));
        }
        actions.push(action);
    }
    let mut points: Vec<Point> = Vec::new();
    for (at, message) in loadshed_points.into_iter().enumerate() {
        let path = path.field("loadshed_points").index(at);
        let point = lower_point(message, &monitors, &path, warnings)?;
        if points.iter().any(|known| known.name == point.name) {
            return Err(ConfigError::new(path, format!("Duplicate loadshed point {}", point.name)));
        }
        points.push(point);
    }
    Ok(OverloadSettings { refresh: duration_or(refresh_interval, REFRESH), monitors, actions, points })
}

fn duration_or(message: Option<DurationMessage>, default: Duration) -> Duration {
    let read = message.map(|message| dhow_proto::whole_millis(&message));
    read.filter(|duration| !duration.is_zero()).unwrap_or(default)
}

fn lower_monitor(message: pb::ResourceMonitor, path: &FieldPath) -> Result<Monitor, ConfigError> {
    let pb::ResourceMonitor { name, config_type } = message;
    let config = match config_type {
        Some(pb::resource_monitor::ConfigType::TypedConfig(config)) => config,
        None => Any::default(),
    };
    let type_name = any::type_name(&config.type_url);
    let path = path.field("typed_config");
    let resource = match type_name.strip_prefix(MONITORS) {
        Some("fixed_heap.v3.FixedHeapConfig") => {
            let FixedHeapConfig { max_heap_size_bytes, max_heap_size_bytes_runtime } =
                any::unpack(&config).map_err(|error| error.under(&path))?;
            ConfigError::refuse_if(
                max_heap_size_bytes_runtime.is_some(),
                &path,
                "max_heap_size_bytes_runtime",
            )?;
            Resource::Memory { max: max_heap_size_bytes }
        }
        Some("injected_resource.v3.InjectedResourceConfig") => {
            let InjectedResourceConfig { filename } =
                any::unpack(&config).map_err(|error| error.under(&path))?;
            check_watched_path(&filename, &path.field("filename"))?;
            Resource::File(filename.into())
        }
        Some("cpu_utilization.v3.CpuUtilizationConfig") => {
            let CpuUtilizationConfig { mode } = any::unpack(&config).map_err(|error| error.under(&path))?;
            if mode != 0 {
                let reason =
                    "CONTAINER is not supported yet (HOST is): quotas of containers are not looked at";
                return Err(ConfigError::new(path.field("mode"), reason));
            }
            Resource::Processors
        }
        Some("downstream_connections.v3.DownstreamConnectionsConfig") if name == CONNECTIONS => {
            let DownstreamConnectionsConfig { max_active_downstream_connections } =
                any::unpack(&config).map_err(|error| error.under(&path))?;
            Resource::Connections { max: max_active_downstream_connections.max(0) as u64 }
        }
        _ => {
            let reason =
                format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
            return Err(ConfigError::new(path, reason));
        }
    };
    Ok(Monitor { name, resource })
}

fn lower_action(
    message: pb::OverloadAction,
    monitors: &[Monitor],
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Action, ConfigError> {
    let pb::OverloadAction { name, triggers, typed_config } = message;
    let effect = match name.strip_prefix("envoy.overload_actions.") {
        Some("stop_accepting_requests") => Effect::OfWorkers(OverloadAction::StopAcceptingRequests),
        Some("disable_http_keepalive") => Effect::OfWorkers(OverloadAction::DisableHttpKeepalive),
        Some("stop_accepting_connections") => Effect::OfWorkers(OverloadAction::StopAcceptingConnections),
        Some("reject_incoming_connections") => Effect::OfWorkers(OverloadAction::RejectIncomingConnections),
        Some("shrink_heap") => lower_shrink(typed_config.as_ref(), &path.field("typed_config"), warnings)?,
        Some(other @ ("reduce_timeouts" | "reset_high_memory_stream" | "close_idle_http_connections")) => {
            let why = format!("without effect: {other} is only counted, nothing is done");
            warnings.push(ConfigWarning::new(path.field("name"), why));
            Effect::None
        }
        _ => {
            let reason = format!("Unknown Overload Manager Action {name}");
            return Err(ConfigError::new(path.field("name"), reason));
        }
    };
    if typed_config.is_some() && matches!(effect, Effect::OfWorkers(_)) {
        let reason = format!("Overload action {name} has an unexpected value for the typed_config field");
        return Err(ConfigError::new(path.field("typed_config"), reason));
    }
    let triggers = lower_triggers(triggers, monitors, path, ["overload action"; 2], &name)?;
    Ok(Action { name, effect, triggers })
}

fn lower_point(
    message: pb::LoadShedPoint,
    monitors: &[Monitor],
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Point, ConfigError> {
    let pb::LoadShedPoint { name, triggers } = message;
    let point = match name.strip_prefix("envoy.load_shed_points.") {
        Some("tcp_listener_accept") => Some(LoadShedPoint::TcpListenerAccept),
        Some("http_connection_manager_decode_headers") => Some(LoadShedPoint::DecodeHeaders),
        Some("hcm_ondata_creating_codec") => Some(LoadShedPoint::CreatingCodec),
        Some("http1_server_abort_dispatch") => Some(LoadShedPoint::Http1Dispatch),
        Some("http2_server_go_away_on_dispatch") => Some(LoadShedPoint::Http2GoAway),
        Some("http2_server_go_away_and_close_on_dispatch") => Some(LoadShedPoint::Http2GoAwayAndClose),
        Some("http_downstream_filter_check") => Some(LoadShedPoint::DownstreamFilter),
        Some("connection_pool_new_connection") => Some(LoadShedPoint::NewUpstreamConnection),
        Some("tcp_proxy_upstream_connect") => Some(LoadShedPoint::TcpProxyConnect),
        Some("tcp_proxy_on_data") => Some(LoadShedPoint::TcpProxyData),
        _ => {
            let why = format!("without effect: no load is shed at {name}");
            warnings.push(ConfigWarning::new(path.field("name"), why));
            None
        }
    };
    let triggers = lower_triggers(triggers, monitors, path, ["loadshed point", "LoadShedPoint"], &name)?;
    Ok(Point { name, point, triggers })
}

/// Lowers the triggers of `owner`, each of another resource. `kind` is what complaints of unknown and of repeated ones call it.
fn lower_triggers(
    messages: Vec<pb::Trigger>,
    monitors: &[Monitor],
    path: &FieldPath,
    kind: [&str; 2],
    owner: &str,
) -> Result<Vec<Trigger>, ConfigError> {
    let mut compiled: Vec<Trigger> = Vec::new();
    for (at, message) in messages.into_iter().enumerate() {
        let path = path.field("triggers").index(at);
        let pb::Trigger { name: resource, trigger_oneof } = message;
        let Some(monitor) = monitors.iter().position(|monitor| monitor.name == resource) else {
            let reason = format!("Unknown trigger resource {resource} for {} {owner}", kind[0]);
            return Err(ConfigError::new(path, reason));
        };
        if compiled.iter().any(|known| known.monitor == monitor) {
            let reason = format!("Duplicate trigger resource for {} {owner}", kind[1]);
            return Err(ConfigError::new(path, reason));
        }
        compiled.push(Trigger { monitor, threshold: lower_threshold(trigger_oneof, &path)? });
    }
    Ok(compiled)
}

fn lower_shrink(
    config: Option<&Any>,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Effect, ConfigError> {
    let Some(config) = config else { return Ok(Effect::ShrinkHeap(SHRINK)) };
    let pb::ShrinkHeapConfig { timer_interval, max_unfreed_memory_bytes } =
        any::unpack(config).map_err(|error| error.under(path))?;
    if max_unfreed_memory_bytes.is_some() {
        let why = "is ignored: the allocator gives back all that it can";
        warnings.push(ConfigWarning::new(path.field("max_unfreed_memory_bytes"), why));
    }
    Ok(Effect::ShrinkHeap(duration_or(timer_interval, SHRINK)))
}

fn lower_threshold(
    message: Option<pb::trigger::TriggerOneof>,
    path: &FieldPath,
) -> Result<Threshold, ConfigError> {
    match message {
        Some(pb::trigger::TriggerOneof::Threshold(pb::ThresholdTrigger { value })) => {
            Ok(Threshold::At(value))
        }
        Some(pb::trigger::TriggerOneof::Scaled(pb::ScaledTrigger {
            scaling_threshold,
            saturation_threshold,
        })) => {
            if scaling_threshold >= saturation_threshold {
                let reason = "scaling_threshold must be less than saturation_threshold";
                return Err(ConfigError::new(path.field("scaled"), reason));
            }
            Ok(Threshold::Between(scaling_threshold, saturation_threshold))
        }
        None => Err(ConfigError::new(path.field("trigger_oneof"), "is required")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_proto::{LoadOptions, load_yaml};

    fn read(yaml: &str) -> Result<OverloadSettings, String> {
        let loaded = load_yaml::<pb::OverloadManager>(yaml, &LoadOptions::default()).unwrap();
        lower(loaded.message, &FieldPath::root(), &mut Vec::new()).map_err(|error| error.reason.to_string())
    }

    const FILE: &str = "resource_monitors: [{name: m, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig, \
        filename: /f}}]\n";

    fn action(name: &str, trigger: &str) -> Result<OverloadSettings, String> {
        read(&format!("{FILE}actions: [{{name: envoy.overload_actions.{name}, triggers: [{trigger}]}}]"))
    }

    #[test]
    fn thresholds_are_a_step_or_a_slope() {
        let at = Threshold::At(0.5);
        assert_eq!([0.0, 0.49, 0.5, 1.0].map(|pressure| at.share(pressure)), [0.0, 0.0, 1.0, 1.0]);
        let slope = Threshold::Between(0.5, 1.0);
        assert_eq!([0.4, 0.5, 0.75, 1.0, 1.2].map(|p| slope.share(p)), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn actions_name_monitors_that_are_there() {
        let settings = action("stop_accepting_requests", "{name: m, threshold: {value: 0.9}}").unwrap();
        assert_eq!(settings.refresh, REFRESH);
        assert_eq!(settings.actions[0].triggers[0].threshold, Threshold::At(0.9));
        assert_eq!(settings.max_connections(), None);
        let error = |name: &str, trigger: &str| action(name, trigger).unwrap_err();
        let unknown = "Unknown trigger resource x for overload action envoy.overload_actions.shrink_heap";
        assert_eq!(error("shrink_heap", "{name: x, threshold: {value: 0.9}}"), unknown);
        let twice = "{name: m, threshold: {value: 0.9}}, {name: m, threshold: {value: 0.8}}";
        let reason = "Duplicate trigger resource for overload action envoy.overload_actions.shrink_heap";
        assert_eq!(error("shrink_heap", twice), reason);
        let reason = "Unknown Overload Manager Action envoy.overload_actions.rest";
        assert_eq!(error("rest", "{name: m, threshold: {value: 0.9}}"), reason);
        let backwards = "{name: m, scaled: {scaling_threshold: 0.9, saturation_threshold: 0.8}}";
        let reason = "scaling_threshold must be less than saturation_threshold";
        assert_eq!(error("shrink_heap", backwards), reason);
    }

    #[test]
    fn points_are_known_or_warned_about() {
        let read = |points: &str| {
            let yaml = format!("{FILE}loadshed_points: [{points}]");
            let loaded = load_yaml::<pb::OverloadManager>(&yaml, &LoadOptions::default()).unwrap();
            let mut warnings = Vec::new();
            let settings = lower(loaded.message, &FieldPath::root(), &mut warnings);
            (settings.map_err(|error| error.reason.to_string()), warnings.len())
        };
        let point = |name: &str, trigger: &str| {
            format!("{{name: envoy.load_shed_points.{name}, triggers: [{trigger}]}}")
        };
        let once = "{name: m, threshold: {value: 0.9}}";
        let (settings, warned) = read(&point("tcp_listener_accept", once));
        assert_eq!(settings.unwrap().points[0].point, Some(LoadShedPoint::TcpListenerAccept));
        assert_eq!(warned, 0);
        let (settings, warned) = read(&point("http3_server_go_away_on_dispatch", once));
        assert_eq!((settings.unwrap().points[0].point, warned), (None, 1));
        let named = "envoy.load_shed_points.tcp_listener_accept";
        let (settings, _) = read(&point("tcp_listener_accept", &format!("{once}, {once}")));
        let expected = format!("Duplicate trigger resource for LoadShedPoint {named}");
        assert_eq!(settings.unwrap_err(), expected);
        let (settings, _) = read(&point("tcp_listener_accept", "{name: x, threshold: {value: 0.9}}"));
        assert_eq!(settings.unwrap_err(), format!("Unknown trigger resource x for loadshed point {named}"));
    }

    #[test]
    fn a_limit_of_connections_has_one_name() {
        let monitor = |name: &str| {
            let config =
                "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig";
            read(&format!(
                "resource_monitors: [{{name: {name}, typed_config: {{\"@type\": type.googleapis.com/{config}, \
                 max_active_downstream_connections: 7}}}}]"
            ))
        };
        assert_eq!(monitor(CONNECTIONS).unwrap().max_connections(), Some(7));
        assert!(monitor("other").unwrap_err().starts_with("Didn't find a registered implementation"));
    }
}
