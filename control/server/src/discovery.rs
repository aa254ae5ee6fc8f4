//! `discovery`: watches the configuration and serves proxies until told to stop.

use std::sync::Arc;

use anyhow::{Context, Result};
use dhow_control_discovery::{Discovery, Settings};
use dhow_control_sources::watch;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::DiscoveryArgs;
use crate::monitoring;
use crate::publisher::Publisher;
use crate::snapshot::Inputs;
use crate::xds_dump::load;

/// The control plane has no request path of its own to spread over many threads.
const WORKER_THREADS: usize = 2;

pub(crate) fn run(args: &DiscoveryArgs) -> Result<()> {
    // Inside of another program the log may be set up already.
    let _ = tracing_subscriber::fmt()
        .with_max_level(args.log_output_level)
        .with_target(false)
        .with_writer(std::io::stderr)
        .try_init();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .enable_all()
        .build()
        .context("cannot start")?
        .block_on(serve(args))
}

async fn serve(args: &DiscoveryArgs) -> Result<()> {
    let (directory, mesh) = load(&args.mesh, |warning| tracing::warn!("{warning}"))?;
    let publisher = Arc::new(Publisher::new(Inputs::new(&directory, mesh), &args.mesh.domain));
    let generation = publisher.generation().clone();
    let grpc = TcpListener::bind(args.grpc_addr)
        .await
        .with_context(|| format!("cannot listen on {} (--grpcAddr)", args.grpc_addr))?;
    let http = TcpListener::bind(args.monitoring_addr)
        .await
        .with_context(|| format!("cannot listen on {} (--monitoringAddr)", args.monitoring_addr))?;
    let watching = publisher.clone();
    let _watcher = watch(directory, move |directory| watching.objects_changed(directory))
        .with_context(|| format!("cannot watch {}", args.mesh.config_dir.display()))?;
    if let Some(path) = args.mesh.mesh_config.clone() {
        // Ends with the runtime.
        tokio::spawn(async move { publisher.follow_mesh_config(path).await });
    }
    let discovery = Discovery::new(generation.clone(), Settings::default());
    let monitoring = tokio::spawn(monitoring::serve(http, discovery.clone(), generation));
    let mut terminated = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let stopped = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    tracing::info!(xds = %grpc.local_addr()?, "serving");
    let outcome = discovery.serve(grpc, stopped).await.context("the xDS service ended");
    monitoring.abort();
    outcome
}
