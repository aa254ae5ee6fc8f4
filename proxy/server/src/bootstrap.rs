//! The `Bootstrap` message: every field honoured, refused or warned about.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_http::set_control_prefix;
use dhow_matching::StringMatcher;
use dhow_net::socket_option::SocketOption;
use dhow_proto::envoy::config::accesslog::v3::{AccessLog, access_log};
use dhow_proto::envoy::config::bootstrap::v3 as pb;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::core::v3 as core;
use dhow_proto::envoy::config::core::v3::{ConfigSource, Node, config_source};
use dhow_proto::envoy::config::listener::v3::Listener;
use dhow_proto::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use dhow_proto::google::protobuf::Duration as ProtoDuration;
use dhow_proto::open_typed_structs;
use dhow_proxy_listener::ListenAddress;
use dhow_proxy_upstream::{ResolverOptions, check_source_file};
use dhow_proxy_xds::{PathSource, Variant};
use dhow_tls::Secrets;

use crate::cli::Options;
use crate::log_pattern::LogPattern;
use crate::overload::OverloadSettings;
use crate::runtime::LayerSource;
use crate::stats_config::{StatsFields, StatsSettings, StatsdTarget};
use crate::watchdog::Watchdogs;

const NODE_REQUIRED: &str = "node 'id' and 'cluster' are required. Set it either in 'node' config or via --service-node \
    and --service-cluster options.";

/// Where a type's resources come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The aggregated stream.
    Ads,
    /// A file.
    File(PathSource),
}

/// A subscription to all resources of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TypeSource {
    pub(crate) source: Source,
    /// Zero waits for ever.
    pub(crate) initial_fetch_timeout: Duration,
}

/// `ads_config`.
#[derive(Clone, Debug)]
pub(crate) struct Ads {
    pub(crate) variant: Variant,
    pub(crate) cluster: String,
    pub(crate) authority: String,
    pub(crate) initial_metadata: Vec<(String, String)>,
    pub(crate) set_node_on_first_message_only: bool,
}

/// `admin`.
#[derive(Clone, Debug)]
pub(crate) struct AdminSettings {
    /// The interface is opened only where there is one.
    pub(crate) address: Option<core::Address>,
    /// `allow_paths`; all paths are allowed when there are none.
    pub(crate) allow_paths: Vec<StringMatcher>,
    pub(crate) socket_options: Vec<core::SocketOption>,
    /// `access_log`, and what `access_log_path` stands for.
    pub(crate) access_logs: Vec<AccessLog>,
    /// `ignore_global_conn_limit`.
    pub(crate) ignore_global_conn_limit: bool,
}

/// What the process needs of its bootstrap.
#[derive(Clone, Debug)]
pub(crate) struct Bootstrap {
    pub(crate) node: Node,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) cds: Option<TypeSource>,
    pub(crate) lds: Option<TypeSource>,
    pub(crate) ads: Option<Ads>,
    pub(crate) admin: Option<AdminSettings>,
    pub(crate) runtime: Vec<LayerSource>,
    pub(crate) stats: StatsSettings,
    /// Form of log lines, where it is not the default or the command line's.
    pub(crate) log_pattern: Option<LogPattern>,
    /// `cluster_manager.local_cluster_name`.
    pub(crate) local_cluster_name: Option<String>,
    /// `cluster_manager.outlier_detection.event_log_path`.
    pub(crate) ejection_log: Option<String>,
    /// `cluster_manager.upstream_bind_config`.
    pub(crate) upstream_bind: Option<core::BindConfig>,
    /// `typed_dns_resolver_config` and its like.
    pub(crate) resolver: ResolverOptions,
    /// `stats_server_version_override`: what `server.version` says.
    pub(crate) version_gauge: Option<u64>,
    /// `static_resources.secrets`.
    pub(crate) secrets: Arc<Secrets>,
    /// `watchdogs`.
    pub(crate) watchdogs: Watchdogs,
    /// `overload_manager`.
    pub(crate) overload: Option<OverloadSettings>,
}

/// Lowers the message; the command line overrides the node.
pub(crate) fn lower(
    mut message: pb::Bootstrap,
    options: &Options,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Bootstrap, ConfigError> {
    // Static resources are shown as they were written, and opened one by one.
    let static_resources = message.static_resources.take();
    message = open_typed_structs(message)?;
    message.static_resources = static_resources;
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let pb::Bootstrap {
        node,
        node_context_params,
        static_resources,
        dynamic_resources,
        cluster_manager,
        hds_config,
        flags_path,
        stats_sinks,
        deferred_stat_options,
        stats_config,
        stats_flush_interval,
        watchdog,
        watchdogs,
        tracing,
        layered_runtime,
        admin,
        overload_manager,
        enable_dispatcher_stats,
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        inline_headers,
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        grpc_async_client_manager_config,
        memory_allocator_manager,
        enable_worker_cpu_affinity,
        stats_flush,
        stats_eviction,
    } = message;
    // Before anything that names headers is read.
    set_control_prefix(&header_prefix);
    let root = FieldPath::root();
    let refuse = |is_set: bool, field: &str| ConfigError::refuse_if(is_set, &root, field);
    refuse(!node_context_params.is_empty(), "node_context_params")?;
    refuse(hds_config.is_some(), "hds_config")?;
    refuse(!flags_path.is_empty(), "flags_path")?;
    refuse(tracing.is_some(), "tracing")?;
    refuse(!bootstrap_extensions.is_empty(), "bootstrap_extensions")?;
    refuse(!fatal_actions.is_empty(), "fatal_actions")?;
    refuse(!config_sources.is_empty(), "config_sources")?;
    refuse(default_config_source.is_some(), "default_config_source")?;
    refuse(!default_socket_interface.is_empty(), "default_socket_interface")?;
    refuse(!certificate_provider_instances.is_empty(), "certificate_provider_instances")?;
    refuse(xds_delegate_extension.is_some(), "xds_delegate_extension")?;
    refuse(xds_config_tracker_extension.is_some(), "xds_config_tracker_extension")?;
    refuse(listener_manager.is_some(), "listener_manager")?;
    check_regex_engine(default_regex_engine.as_ref(), &root)?;
    let without_effect = [
        (
            deferred_stat_options.is_some(),
            "deferred_stat_options",
            "without effect: all statistics are created at once",
        ),
        (enable_dispatcher_stats, "enable_dispatcher_stats", "without effect: event loops are not timed"),
        (
            !inline_headers.is_empty(),
            "inline_headers",
            "without effect: all headers are found alike, and repeated ones are not joined",
        ),
        (
            !perf_tracing_file_path.is_empty(),
            "perf_tracing_file_path",
            "without effect: no trace of the program is written",
        ),
        (
            grpc_async_client_manager_config.is_some(),
            "grpc_async_client_manager_config",
            "without effect: gRPC clients are not cached",
        ),
        (
            memory_allocator_manager.is_some(),
            "memory_allocator_manager",
            "without effect: memory is the system allocator's",
        ),
        (
            enable_worker_cpu_affinity,
            "enable_worker_cpu_affinity",
            "without effect: workers run on any processor",
        ),
    ];
    for (is_set, field, effect) in without_effect {
        if is_set {
            warnings.push(ConfigWarning::new(root.field(field), effect));
        }
    }
    let resolver = ResolverOptions::of_bootstrap(
        use_tcp_for_dns_lookups,
        dns_resolution_config.as_ref(),
        typed_dns_resolver_config.as_ref(),
        &root,
        warnings,
    )?;
    let cluster_manager = lower_cluster_manager(cluster_manager, &root.field("cluster_manager"))?;
    let ClusterManagerSettings { local_cluster_name, ejection_log, upstream_bind } = cluster_manager;
    let pb::bootstrap::StaticResources { listeners, clusters, secrets } =
        static_resources.unwrap_or_default();
    let static_path = root.field("static_resources");
    let secrets = Secrets::from_messages(secrets, &static_path.field("secrets"))?;
    let (cds, lds, ads) = lower_dynamic(dynamic_resources, &root.field("dynamic_resources"))?;
    let node = lower_node(node.unwrap_or_default(), options);
    if ads.is_some() && (node.id.is_empty() || node.cluster.is_empty()) {
        return Err(ConfigError::new(root.field("node"), NODE_REQUIRED));
    }
    let admin = admin.map(|admin| lower_admin(admin, &root.field("admin"))).transpose()?;
    let fields = StatsFields {
        config: stats_config,
        sinks: stats_sinks,
        flush_interval: stats_flush_interval,
        flush_on_admin: matches!(stats_flush, Some(pb::bootstrap::StatsFlush::StatsFlushOnAdmin(true))),
    };
    if let Some(pb::bootstrap::StatsEviction::StatsEvictionInterval(interval)) = stats_eviction {
        // Nothing is evicted: stats go with the cluster or listener that they count.
        check_eviction_interval(interval, fields.flush_interval, &root)?;
    }
    let stats = crate::stats_config::lower(fields, &options.stats_tag, &root)?;
    let tcp_statsd = stats.sinks.iter().find_map(|sink| match &sink.target {
        StatsdTarget::Tcp(cluster) => Some(cluster),
        StatsdTarget::Udp(_) => None,
    });
    if let Some(cluster) = tcp_statsd {
        let reason = match clusters.iter().any(|known| known.name == *cluster) {
            _ if node.id.is_empty() || node.cluster.is_empty() => format!("tcp statsd: {NODE_REQUIRED}"),
            false => format!("tcp statsd: unknown cluster '{cluster}'"),
            true => String::new(),
        };
        if !reason.is_empty() {
            return Err(ConfigError::new(root.field("stats_sinks"), reason));
        }
    }
    let overload = overload_manager
        .map(|manager| crate::overload::lower(manager, &root.field("overload_manager"), warnings))
        .transpose()?;
    let watchdogs = crate::watchdog::lower(watchdog, watchdogs, &root)?;
    let log_pattern =
        lower_log_config(application_log_config, options, &root.field("application_log_config"))?;
    let runtime =
        crate::runtime::lower(layered_runtime, &options.service_cluster, &root.field("layered_runtime"))?;
    if let Some(name) = &local_cluster_name
        && !clusters.iter().any(|cluster| cluster.name == *name)
    {
        let path = root.field("cluster_manager").field("local_cluster_name");
        return Err(ConfigError::new(path, format!("local cluster '{name}' must be defined")));
    }
    Ok(Bootstrap {
        node,
        clusters,
        listeners,
        cds,
        lds,
        ads,
        admin,
        runtime,
        local_cluster_name,
        ejection_log,
        upstream_bind,
        resolver,
        secrets: Arc::new(secrets),
        watchdogs,
        overload,
        stats,
        log_pattern,
        version_gauge: stats_server_version_override.map(|version| version.value),
    })
}

/// `stats_eviction_interval` is counted in flushes.
fn check_eviction_interval(
    interval: ProtoDuration,
    flush: Option<ProtoDuration>,
    root: &FieldPath,
) -> Result<(), ConfigError> {
    let millis = |duration: ProtoDuration| duration.seconds * 1000 + i64::from(duration.nanos / 1_000_000);
    let flush = flush.map_or(crate::stats_config::FLUSH_INTERVAL.as_millis() as i64, millis);
    if flush > 0 && millis(interval) % flush == 0 {
        return Ok(());
    }
    let reason = "stats_eviction_interval must be a multiple of stats_flush_interval";
    Err(ConfigError::new(root.field("stats_eviction_interval"), reason))
}

/// `default_regex_engine`: RE2's syntax is what all expressions are in.
fn check_regex_engine(
    engine: Option<&core::TypedExtensionConfig>,
    root: &FieldPath,
) -> Result<(), ConfigError> {
    let Some(core::TypedExtensionConfig { name, typed_config }) = engine else { return Ok(()) };
    let type_url = typed_config.as_ref().map_or("", |config| config.type_url.as_str());
    let type_name = type_url.rsplit('/').next().unwrap_or_default();
    if type_name == "envoy.extensions.regex_engines.v3.GoogleRE2" {
        return Ok(());
    }
    let reason = format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
    Err(ConfigError::new(root.field("default_regex_engine"), reason))
}

/// `application_log_config`.
fn lower_log_config(
    message: Option<pb::bootstrap::ApplicationLogConfig>,
    options: &Options,
    path: &FieldPath,
) -> Result<Option<LogPattern>, ConfigError> {
    use pb::bootstrap::application_log_config::{LogFormat, log_format::LogFormat as Choice};
    let Some(pb::bootstrap::ApplicationLogConfig { log_format }) = message else { return Ok(None) };
    let Some(LogFormat { log_format }) = log_format else { return Ok(None) };
    let path = path.field("log_format");
    if options.log_format.is_some() {
        let reason =
            "Only one of ApplicationLogConfig.log_format or CLI option --log-format can be specified.";
        return Err(ConfigError::new(path, reason));
    }
    match log_format {
        None => Err(ConfigError::new(path, "log_format: is required")),
        Some(Choice::TextFormat(format)) => {
            Ok(Some(LogPattern::compile(&format, options.log_format_escaped)))
        }
        Some(Choice::JsonFormat(fields)) => LogPattern::compile_json(&fields).map(Some).map_err(|reason| {
            ConfigError::new(path.field("json_format"), format!("setJsonLogFormat error: {reason}"))
        }),
    }
}

fn lower_node(mut node: Node, options: &Options) -> Node {
    if !options.service_node.is_empty() {
        node.id.clone_from(&options.service_node);
    }
    if !options.service_cluster.is_empty() {
        node.cluster.clone_from(&options.service_cluster);
    }
    if !options.service_zone.is_empty() {
        node.locality.get_or_insert_default().zone.clone_from(&options.service_zone);
    }
    node.user_agent_name = "envoy".into();
    node
}

/// What the message says beside what clusters say themselves.
#[derive(Default)]
struct ClusterManagerSettings {
    local_cluster_name: Option<String>,
    ejection_log: Option<String>,
    upstream_bind: Option<core::BindConfig>,
}

fn lower_cluster_manager(
    message: Option<pb::ClusterManager>,
    path: &FieldPath,
) -> Result<ClusterManagerSettings, ConfigError> {
    let Some(pb::ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation: _, // clusters are set up on a worker when it first uses them
    }) = message
    else {
        return Ok(ClusterManagerSettings::default());
    };
    let pb::cluster_manager::OutlierDetection { event_log_path, event_service } =
        outlier_detection.unwrap_or_default();
    ConfigError::refuse_if(event_service.is_some(), &path.field("outlier_detection"), "event_service")?;
    ConfigError::refuse_if(load_stats_config.is_some(), path, "load_stats_config")?;
    Ok(ClusterManagerSettings {
        local_cluster_name: Some(local_cluster_name).filter(|name| !name.is_empty()),
        ejection_log: Some(event_log_path).filter(|path| !path.is_empty()),
        upstream_bind: upstream_bind_config,
    })
}

fn lower_admin(admin: pb::Admin, path: &FieldPath) -> Result<AdminSettings, ConfigError> {
    #[allow(deprecated, reason = "named so that nothing is dropped")]
    let pb::Admin {
        access_log: mut access_logs,
        access_log_path,
        profile_path: _, // there is no profiler
        address,
        socket_options,
        ignore_global_conn_limit,
        allow_paths,
    } = admin;
    let paths = allow_paths.iter().enumerate();
    let allow_paths = paths
        .map(|(index, matcher)| StringMatcher::compile(matcher, &path.field("allow_paths").index(index)))
        .collect::<Result<_, _>>()?;
    SocketOption::from_messages(socket_options.clone(), &path.field("socket_options"))?;
    if address.is_some() {
        ListenAddress::lower(address.as_ref(), None, &path.field("address"))?;
    }
    if !access_log_path.is_empty() {
        let file = FileAccessLog { path: access_log_path, access_log_format: None };
        access_logs.push(AccessLog {
            name: "envoy.access_loggers.file".to_owned(),
            config_type: Some(access_log::ConfigType::TypedConfig(dhow_proto::any::pack(&file))),
            ..AccessLog::default()
        });
    }
    Ok(AdminSettings { address, allow_paths, socket_options, access_logs, ignore_global_conn_limit })
}

type Dynamic = (Option<TypeSource>, Option<TypeSource>, Option<Ads>);

fn lower_dynamic(
    message: Option<pb::bootstrap::DynamicResources>,
    path: &FieldPath,
) -> Result<Dynamic, ConfigError> {
    let Some(pb::bootstrap::DynamicResources {
        lds_config,
        lds_resources_locator,
        cds_config,
        cds_resources_locator,
        ads_config,
    }) = message
    else {
        return Ok((None, None, None));
    };
    ConfigError::refuse_if(!lds_resources_locator.is_empty(), path, "lds_resources_locator")?;
    ConfigError::refuse_if(!cds_resources_locator.is_empty(), path, "cds_resources_locator")?;
    let source = |config: Option<ConfigSource>, field: &str| {
        config.map(|config| lower_source(config, &path.field(field))).transpose()
    };
    let ads = ads_config.map(|config| lower_ads(config, &path.field("ads_config"))).transpose()?;
    let (cds, lds) = (source(cds_config, "cds_config")?, source(lds_config, "lds_config")?);
    let uses_ads = |source: &Option<TypeSource>| source.as_ref().is_some_and(|s| s.source == Source::Ads);
    if ads.is_none() && (uses_ads(&cds) || uses_ads(&lds)) {
        let reason = "a resource comes by ADS and there is no ads_config";
        return Err(ConfigError::new(path.field("ads_config"), reason));
    }
    Ok((cds, lds, ads))
}

fn lower_source(config: ConfigSource, path: &FieldPath) -> Result<TypeSource, ConfigError> {
    use config_source::ConfigSourceSpecifier as Specifier;
    let ConfigSource { authorities, initial_fetch_timeout, resource_api_version: _, config_source_specifier } =
        config;
    ConfigError::refuse_if(!authorities.is_empty(), path, "authorities")?;
    let source = match config_source_specifier {
        Some(Specifier::Ads(_)) => Source::Ads,
        #[allow(deprecated, reason = "the field is deprecated and still in use")]
        Some(Specifier::Path(file)) => {
            check_source_file(&file, true, &path.field("path"))?;
            Source::File(PathSource { path: PathBuf::from(file), watched_directory: None })
        }
        Some(Specifier::PathConfigSource(core::PathConfigSource {
            path: file,
            watched_directory,
            poll_interval,
        })) => {
            let path = path.field("path_config_source");
            ConfigError::refuse_if(poll_interval.is_some(), &path, "poll_interval")?;
            check_source_file(&file, watched_directory.is_none(), &path.field("path"))?;
            let watched_directory = watched_directory.map(|directory| PathBuf::from(directory.path));
            Source::File(PathSource { path: PathBuf::from(file), watched_directory })
        }
        Some(Specifier::ApiConfigSource(_)) => {
            let error = ConfigError::unsupported(path.field("api_config_source"));
            return Err(error.with_hint("use ads with ads_config"));
        }
        Some(Specifier::Self_(_)) => return Err(ConfigError::unsupported(path.field("self"))),
        None => return Err(ConfigError::new(path.clone(), "config_source_specifier: is required")),
    };
    let initial_fetch_timeout =
        initial_fetch_timeout.map_or(Duration::from_secs(15), |time| dhow_proto::whole_millis(&time));
    Ok(TypeSource { source, initial_fetch_timeout })
}

fn lower_ads(config: core::ApiConfigSource, path: &FieldPath) -> Result<Ads, ConfigError> {
    use core::api_config_source::ApiType;
    let core::ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay: _,       // concerns REST
        request_timeout: _,     // concerns REST
        rate_limit_settings: _, // requests follow responses one to one, so there is nothing to limit
        set_node_on_first_message_only,
        config_validators,
    } = config;
    #[allow(deprecated, reason = "named to be refused")]
    let second = core::ApiVersion::V2 as i32;
    if transport_api_version == second {
        let reason = "V2 xDS transport protocol version is deprecated in ApiConfigSource. The v2 xDS major version has \
                      been removed and is no longer supported.";
        return Err(ConfigError::new(path.field("transport_api_version"), reason));
    }
    ConfigError::refuse_if(!cluster_names.is_empty(), path, "cluster_names")?;
    ConfigError::refuse_if(!config_validators.is_empty(), path, "config_validators")?;
    let variant = match ApiType::try_from(api_type) {
        Ok(ApiType::Grpc | ApiType::AggregatedGrpc) => Variant::StateOfTheWorld,
        Ok(ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc) => Variant::Delta,
        _ => return Err(ConfigError::unsupported(path.field("api_type"))),
    };
    let services = path.field("grpc_services");
    let mut grpc_services = grpc_services.into_iter();
    let Some(service) = grpc_services.next() else {
        return Err(ConfigError::new(services, "a gRPC service is required"));
    };
    if grpc_services.next().is_some() {
        return Err(ConfigError::unsupported(services.index(1)));
    }
    let services = services.index(0);
    let core::GrpcService { timeout: _, initial_metadata, retry_policy, target_specifier } = service;
    ConfigError::refuse_if(retry_policy.is_some(), &services, "retry_policy")?;
    let grpc = match target_specifier {
        Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(grpc)) => grpc,
        Some(core::grpc_service::TargetSpecifier::GoogleGrpc(_)) => {
            return Err(ConfigError::unsupported(services.field("google_grpc")));
        }
        None => return Err(ConfigError::new(services, "target_specifier: is required")),
    };
    let core::grpc_service::EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        skip_envoy_headers: _, // none are sent
    } = grpc;
    let services = services.field("envoy_grpc");
    ConfigError::refuse_if(retry_policy.is_some(), &services, "retry_policy")?;
    ConfigError::refuse_if(max_receive_message_length.is_some(), &services, "max_receive_message_length")?;
    let initial_metadata = initial_metadata.into_iter().map(|header| (header.key, header.value)).collect();
    Ok(Ads { variant, cluster: cluster_name, authority, initial_metadata, set_node_on_first_message_only })
}
