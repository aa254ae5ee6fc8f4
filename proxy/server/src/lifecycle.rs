//! The life of the process: load, check, start, serve, end.

use std::cell::{Cell, RefCell};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dhow_base::{ConfigError, FieldPath, Rng};
use dhow_proto::{Excerpts, Message};
use dhow_proxy_access_log::LogWriter;
use dhow_proxy_admin::{AdminState, ServerState};
use dhow_proxy_http::{FilterRegistry, lower_cluster_options};
use dhow_proxy_listener::{ListenerManager, Origin as ListenerOrigin, Provenance};
use dhow_proxy_runtime::{Worker, Workers};
use dhow_proxy_upstream::{
    ClusterManager, ForwardingLowering, Locality, Origin as ClusterOrigin, ProxyFacts, WorkerClusters,
};
use dhow_proxy_xds::Connector;
use dhow_stats::Store;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use crate::admin_listener;
use crate::admin_state::ProcessState;
use crate::bootstrap::Bootstrap;
use crate::cli::{DrainStrategy, Mode, Options};
use crate::configuration::{Configuration, DynamicChecks, warn_all};
use crate::load::{LoadedBootstrap, load};
use crate::network_filters::FilterBuilder;
use crate::overload::OverloadSettings;
use crate::route_tables::RouteTables;
use crate::runtime::RuntimeLoader;
use crate::server_stats::ServerStats;
use crate::stats_sink::StatsdSink;
use crate::subscriptions::{ClusterConnector, Subscriptions};
use crate::watchdog::{GuardDog, Pulse};

/// Runs the process as the command line says.
pub(crate) fn run(options: Options) -> ExitCode {
    if let Err(error) = crate::logging::start(&options) {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot make an event loop: {error}");
            return ExitCode::FAILURE;
        }
    };
    prepare_process(&options);
    let local = tokio::task::LocalSet::new();
    let outcome = local.block_on(&runtime, async {
        match options.mode {
            Mode::Validate => validate(&options),
            Mode::Serve | Mode::InitOnly => serve(&options).await,
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let what = match options.mode {
                Mode::Validate => "error initializing configuration",
                Mode::Serve | Mode::InitOnly => "error initializing config",
            };
            tracing::error!("{what} '{}': {error}", options.config_path);
            ExitCode::FAILURE
        }
    }
}

/// An error of the operating system without its number.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Adds what the bootstrap lists, and takes it out of there: thousands of messages need not stay in memory.
/// `message` is the bootstrap as it is kept.
fn add_static(
    message: &Bytes,
    bootstrap: &mut Bootstrap,
    configuration: &mut Configuration,
) -> Result<(), String> {
    if let Some(file) = &bootstrap.ejection_log {
        let failed = |error| format!("unable to open file '{file}': {}", plain(&error));
        configuration.clusters.log_ejections(file).map_err(failed)?;
    }
    let path = FieldPath::root().field("static_resources");
    let ads_cluster = bootstrap.ads.as_ref().map_or(Ok(()), |ads| check_ads_cluster(&ads.cluster, bootstrap));
    configuration.clusters.batch(|clusters| {
        let mut excerpts = Excerpts::of(message.clone());
        for (i, cluster) in std::mem::take(&mut bootstrap.clusters).into_iter().enumerate() {
            let name = cluster.name.clone();
            let encoded = excerpts.share(cluster.encode_to_vec());
            let accepted = clusters
                .add_or_update_encoded(cluster, encoded, "", ClusterOrigin::Static)
                .map_err(|error| error.under(&path.field("clusters").index(i)).to_string())?;
            warn_all(&format!("cluster '{name}'"), &accepted.warnings);
        }
        Ok::<(), String>(())
    })?;
    ads_cluster.map_err(|error| error.to_string())?;
    let mut excerpts = Excerpts::of(message.clone());
    for (i, listener) in std::mem::take(&mut bootstrap.listeners).into_iter().enumerate() {
        let mut warnings = Vec::new();
        let encoded = excerpts.share(listener.encode_to_vec());
        let path = path.field("listeners").index(i);
        let Configuration { listeners, filters, .. } = configuration;
        let provenance = Provenance { encoded, version: "", origin: ListenerOrigin::Static };
        let added = listeners.add_or_update(listener, provenance, filters, &path, &mut warnings);
        warn_all("", &warnings);
        added.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// The management server's cluster must be in the bootstrap and find its hosts without a management server.
fn check_ads_cluster(name: &str, bootstrap: &Bootstrap) -> Result<(), ConfigError> {
    const EDS: i32 = 3;
    let is_eds = |cluster: &dhow_proto::envoy::config::cluster::v3::Cluster| {
        use dhow_proto::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
        matches!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(EDS)))
    };
    if bootstrap.clusters.iter().any(|cluster| cluster.name == name && !is_eds(cluster)) {
        return Ok(());
    }
    let path = FieldPath::root().field("dynamic_resources").field("ads_config");
    let reason = format!(
        "envoy.config.core.v3.ApiConfigSource must have a statically defined non-EDS cluster: '{name}' does not \
         exist, was added via api, or is an EDS cluster"
    );
    Err(ConfigError::new(path, reason))
}

fn configuration(
    options: &Options,
    bootstrap: &Bootstrap,
    store: &Arc<Store>,
    log_writer: &Arc<LogWriter>,
    clusters: ClusterManager,
    workers: Option<Rc<Workers>>,
) -> Configuration {
    let local_cluster = bootstrap.local_cluster_name.as_deref().unwrap_or_default();
    let routes = Rc::new(RefCell::new(RouteTables::new(store, local_cluster)));
    let filters = FilterBuilder {
        store: store.clone(),
        route_stats: store.clone(),
        log_writer: log_writer.clone(),
        clusters: clusters.clone(),
        routes: routes.clone(),
        node_cluster: bootstrap.node.cluster.as_str().into(),
        local_cluster: local_cluster.into(),
        node_id: bootstrap.node.id.as_str().into(),
        node_address: options.local_address(),
        secrets: bootstrap.secrets.clone(),
    };
    let drain_time = Duration::from_secs(options.drain_time_s);
    crate::secrets::follow(&bootstrap.secrets, store);
    clusters.set_proxy_facts(proxy_facts(options, bootstrap, store));
    let listeners = ListenerManager::new(
        store.clone(),
        workers,
        drain_time,
        options.drain_strategy == DrainStrategy::Immediate,
    );
    Configuration {
        clusters,
        listeners,
        filters,
        routes,
        cds_version: String::new(),
        lds_version: String::new(),
        dynamic: DynamicChecks::new(options),
    }
}

fn proxy_facts(options: &Options, bootstrap: &Bootstrap, store: &Arc<Store>) -> ProxyFacts {
    let locality = bootstrap.node.locality.clone().unwrap_or_default();
    ProxyFacts {
        workers: options.workers(),
        locality: Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone },
        local_cluster_name: bootstrap.local_cluster_name.clone(),
        upstream_bind: bootstrap.upstream_bind.clone(),
        secrets: bootstrap.secrets.clone(),
        resolver: bootstrap.resolver.clone(),
        forwarding: forwarding_lowering(store.clone(), bootstrap.node.cluster.clone()),
    }
}

/// How what clusters say about the forwarding of requests is read.
fn forwarding_lowering(store: Arc<Store>, node_cluster: String) -> ForwardingLowering {
    ForwardingLowering::new(move |message| {
        let registry = FilterRegistry { filters: dhow_proxy_filters::all() };
        lower_cluster_options(message, registry, &store, &node_cluster)
    })
}

/// `--mode validate`: builds everything, binds nothing, connects to nobody.
fn validate(options: &Options) -> Result<(), String> {
    let LoadedBootstrap { message, mut bootstrap, .. } = load(options)?;
    let store = Arc::new(Store::new());
    RuntimeLoader::new(bootstrap.runtime.clone(), &store).watch()?;
    let log_writer = LogWriter::start(Duration::from_secs(10), options.flush_bytes(), &store)
        .map_err(|error| error.to_string())?;
    let clusters = ClusterManager::for_validation((*store).clone());
    let mut configuration = configuration(options, &bootstrap, &store, &log_writer, clusters, None);
    if let Some(settings) = &bootstrap.admin {
        admin_listener::lower(settings, &configuration.filters).map_err(|error| error.to_string())?;
    }
    add_static(&message, &mut bootstrap, &mut configuration)?;
    println!("configuration '{}' OK", options.config_path);
    Ok(())
}

/// What the command line says about the process itself.
fn prepare_process(options: &Options) {
    if options.allow_unknown_fields {
        tracing::warn!("--allow-unknown-fields is deprecated, use --allow-unknown-static-fields instead.");
    }
    if options.cpuset_threads {
        tracing::warn!("--cpuset-threads is now the default behavior and no longer required.");
    }
    if options.enable_core_dump {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let Rlimit { maximum, .. } = getrlimit(Resource::Core);
        match setrlimit(Resource::Core, Rlimit { current: maximum, maximum }) {
            Ok(()) => tracing::info!("core dump enabled"),
            Err(error) => tracing::warn!("failed to enable core dump: {error}"),
        }
    }
    if let Some(path) = &options.base_id_path
        && let Err(error) = std::fs::write(path, options.base_id.to_string())
    {
        tracing::error!("cannot open base id output file {} for writing: {error}", path.display());
    }
}

fn start_workers(
    options: &Options,
    clusters: &ClusterManager,
    log_writer: &Arc<LogWriter>,
    pulses: Vec<(String, Arc<Pulse>)>,
) -> std::io::Result<Rc<Workers>> {
    let published = clusters.published();
    let (log_writer, at_end) = (log_writer.clone(), log_writer.clone());
    let init = move |worker: &Rc<Worker>| {
        let clusters = worker.extension(|_| WorkerClusters::new(published.clone(), Rng::from_entropy()));
        tokio::task::spawn_local(clusters.follow());
        if let Some((_, pulse)) = pulses.iter().find(|(name, _)| *name == worker.stat_name()) {
            tokio::task::spawn_local(pulse.clone().answer());
        }
        let writer = log_writer.clone();
        tokio::task::spawn_local(async move {
            let mut interval = tokio::time::interval(writer.flush_interval());
            loop {
                interval.tick().await;
                writer.flush_worker();
            }
        });
    };
    Ok(Rc::new(Workers::start(options.workers(), init, move || at_end.flush_worker())?))
}

/// `--mode serve` and `init_only`.
async fn serve(options: &Options) -> Result<(), String> {
    let begun = Instant::now();
    let LoadedBootstrap { message, mut bootstrap, topics } = load(options)?;
    let store = Arc::new(Store::new());
    bootstrap.stats.apply(&store);
    let runtime = RuntimeLoader::new(bootstrap.runtime.clone(), &store);
    runtime.watch()?;
    let flush = Duration::from_millis(options.file_flush_interval_msec.max(1));
    let log_writer =
        LogWriter::start(flush, options.flush_bytes(), &store).map_err(|error| error.to_string())?;
    let clusters = ClusterManager::new((*store).clone());
    let pulses: Vec<_> =
        (0..options.workers()).map(|worker| (format!("worker_{worker}"), Arc::<Pulse>::default())).collect();
    let workers = start_workers(options, &clusters, &log_writer, pulses.clone());
    let workers = workers.map_err(|error| error.to_string())?;
    let configuration = Rc::new(RefCell::new(configuration(
        options,
        &bootstrap,
        &store,
        &log_writer,
        clusters.clone(),
        Some(workers.clone()),
    )));
    let quit = Rc::new(Notify::new());
    let process = Rc::new(ProcessState {
        options: options.clone(),
        bootstrap: message.clone(),
        node: bootstrap.node.clone(),
        configuration: configuration.clone(),
        store: store.clone(),
        runtime: runtime.clone(),
        sinks: RefCell::new(sinks(&bootstrap, &clusters)?),
        flush_on_admin: bootstrap.stats.flush_interval.is_none(),
        secrets: bootstrap.secrets.clone(),
        stats: ServerStats::new(&store, bootstrap.version_gauge),
        _idle_stats: store.scope("").group(),
        log_writer: log_writer.clone(),
        state: Cell::new(ServerState::PreInitializing),
        failing: Cell::new(false),
        draining: Cell::new(None),
        tracks_lookups: Cell::new(false),
        begun,
        begun_at: SystemTime::now(),
        quit: quit.clone(),
        flush_logs: {
            let (workers, log_writer) = (workers.clone(), log_writer.clone());
            Box::new(move || _ = flush_logs(&workers, &log_writer))
        },
    });
    process.count_topics(topics);
    if let Some(settings) = bootstrap.overload.clone() {
        crate::overload::start(settings, &store);
    }
    start_admin(options, &bootstrap, &process, &clusters)?;
    add_static(&message, &mut bootstrap, &mut configuration.borrow_mut())?;
    let pulse = Arc::<Pulse>::default();
    tokio::task::spawn_local(pulse.clone().answer());
    let guard = GuardDog::start(&bootstrap.watchdogs, pulse, pulses, &store);
    let guard = guard.map_err(|error| error.to_string())?;
    let subscriptions = Subscriptions::new(configuration.clone(), &store, bootstrap.clone());

    let initialise = async {
        clusters.primary_ready().await;
        // As in Envoy: the layers are read again when those that come over the network would be there.
        runtime.load();
        subscriptions.start()?;
        while !subscriptions.clusters_arrived() {
            subscriptions.progressed().await;
        }
        clusters.all_ready().await;
        process.state.set(ServerState::Initializing);
        subscriptions.allow_listeners()?;
        let errors = configuration.borrow_mut().listeners.start();
        if let Some(error) = errors.into_iter().next() {
            return Err(error);
        }
        while !subscriptions.listeners_arrived() || configuration.borrow().listeners.is_warming() {
            subscriptions.progressed().await;
        }
        Ok::<(), String>(())
    };
    let mut ending = std::pin::pin!(until_told_to_end(&quit, &process));
    tokio::select! {
        result = initialise => result?,
        () = &mut ending => return Ok(()),
    }
    process.state.set(ServerState::Live);
    if bootstrap.overload.as_ref().and_then(OverloadSettings::max_connections).is_none() {
        tracing::warn!(
            "There is no configured limit to the number of allowed active downstream connections. Configure a limit in \
             `envoy.resource_monitors.global_downstream_max_connections` resource monitor."
        );
    }
    process.stats.initialization_time_ms().record(begun.elapsed().as_millis() as u64);
    start_flushing(&bootstrap, &process);
    tracing::info!("all dependencies initialized. starting workers ({} ms)", begun.elapsed().as_millis());
    if options.mode == Mode::InitOnly {
        return Ok(());
    }
    dhow_proxy_runtime::release_program_pages();
    dhow_proxy_runtime::release_free_memory();
    ending.await;
    tracing::info!("shutting down server instance");
    // From here on the main thread waits for others.
    drop(guard);
    configuration.borrow_mut().listeners.stop(false);
    if flush_logs(&workers, &log_writer) {
        // The connections that are left are closed, and logged.
        workers.stop();
        log_writer.sync();
    }
    Ok(())
}

/// Merges histograms and feeds sinks at every interval; without one, the admin interface does it.
fn start_flushing(bootstrap: &Bootstrap, process: &Rc<ProcessState>) {
    let Some(interval) = bootstrap.stats.flush_interval else { return };
    let process = process.clone();
    tokio::task::spawn_local(async move {
        // The first interval is a whole one: what was recorded is not seen before.
        let mut interval = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
        loop {
            interval.tick().await;
            process.flush_stats();
        }
    });
}

/// The sinks of the bootstrap.
fn sinks(bootstrap: &Bootstrap, clusters: &ClusterManager) -> Result<Vec<StatsdSink>, String> {
    let connector: Rc<dyn Connector> = Rc::new(ClusterConnector { clusters: clusters.clone() });
    let sinks = bootstrap.stats.sinks.iter();
    let sinks = sinks.map(|config| StatsdSink::new(config.clone(), connector.clone()));
    sinks.collect::<Result<_, _>>().map_err(|error| format!("stats_sinks: {}", plain(&error)))
}

/// Opens the admin interface, if it has an address.
fn start_admin(
    options: &Options,
    bootstrap: &Bootstrap,
    process: &Rc<ProcessState>,
    clusters: &ClusterManager,
) -> Result<(), String> {
    let Some(settings) = &bootstrap.admin else { return Ok(()) };
    let Configuration { listeners, filters, .. } = &*process.configuration.borrow();
    let config = admin_listener::lower(settings, filters).map_err(|error| error.to_string())?;
    if settings.address.is_none() {
        tracing::warn!("No admin address given, so no admin HTTP server started.");
        return Ok(());
    }
    let bound = admin_listener::open(settings, config, process.clone(), clusters, listeners, filters);
    let bound = bound.map_err(|error| error.to_string())?;
    tracing::info!("admin address: {bound}");
    if let Some(path) = &options.admin_address_path
        && let Err(error) = dhow_proxy_admin::write_address_file(path, &bound)
    {
        tracing::error!("cannot open admin address output file {} for writing: {error}", path.display());
    }
    Ok(())
}

/// Waits for a signal that ends the process.
async fn until_told_to_end(quit: &Notify, process: &ProcessState) {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut reopen)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::user_defined1()),
    ) else {
        tracing::error!("cannot watch for signals: only SIGKILL ends this process");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => tracing::warn!("caught ENVOY_SIGTERM"),
            _ = interrupt.recv() => tracing::warn!("caught SIGINT"),
            () = quit.notified() => tracing::info!("told to end by the admin interface"),
            _ = reopen.recv() => {
                tracing::info!("caught SIGUSR1");
                process.reopen_logs();
                continue;
            }
        }
        return;
    }
}

/// Has all threads hand over what they hold of access logs, and waits until it is written; whether all workers did.
fn flush_logs(workers: &Workers, log_writer: &Arc<LogWriter>) -> bool {
    let (done, wait) = std::sync::mpsc::channel();
    let writer = log_writer.clone();
    let count = workers.count();
    workers.post_all(move |_| {
        writer.flush_worker();
        let _ = done.send(());
    });
    // A worker that does not answer in time must not keep the process.
    let answered = (0..count).filter(|_| wait.recv_timeout(Duration::from_secs(2)).is_ok()).count();
    log_writer.flush_worker();
    log_writer.sync();
    answered == count
}
