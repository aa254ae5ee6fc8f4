//! The command line, with pilot-discovery's names for what it has too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Dhow's control plane.
#[derive(Debug, Parser)]
#[command(name = "dhowd", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves proxies with configuration over xDS.
    Discovery(DiscoveryArgs),
    /// Prints what a proxy would get, as Envoy's config_dump, and exits.
    XdsDump(XdsDumpArgs),
}

/// Where the mesh's configuration is.
#[derive(Debug, Args)]
pub(crate) struct MeshArgs {
    /// Directory of YAML files with Kubernetes and Istio objects, read recursively.
    #[arg(long = "configDir", alias = "config-dir", value_name = "DIR")]
    pub config_dir: PathBuf,
    /// File with MeshConfig, plain or as the ConfigMap `istio`.
    #[arg(long = "meshConfig", alias = "mesh-config", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// DNS domain of Kubernetes services.
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Namespace of objects that name none.
    #[arg(
        long = "defaultNamespace",
        alias = "default-namespace",
        default_value = "default",
        value_name = "NAME"
    )]
    pub default_namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct DiscoveryArgs {
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// Address of the xDS service; without a host it is reachable from everywhere.
    #[arg(long = "grpcAddr", alias = "grpc-addr", default_value = ":15010", value_parser = listen_address, value_name = "ADDRESS")]
    pub grpc_addr: SocketAddr,
    /// Address of metrics, readiness and debugging.
    #[arg(long = "monitoringAddr", alias = "monitoring-addr", default_value = ":15014", value_parser = listen_address, value_name = "ADDRESS")]
    pub monitoring_addr: SocketAddr,
    /// Least severity of messages: debug, info, warn, error, none; `default:info` works too.
    #[arg(long = "log_output_level", default_value = "info", value_parser = log_level, value_name = "LEVEL")]
    pub log_output_level: tracing::level_filters::LevelFilter,
}

#[derive(Debug, Args)]
pub(crate) struct XdsDumpArgs {
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// JSON file with the proxy's Envoy node; `-` reads standard input.
    #[arg(long, value_name = "NODE.json")]
    pub node: PathBuf,
}

/// `:15010`, `127.0.0.1:15010`, `[::1]:15010`
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT or :PORT"))
}

fn log_level(text: &str) -> Result<tracing::level_filters::LevelFilter, String> {
    use tracing::level_filters::LevelFilter;
    let level = text.strip_prefix("default:").or_else(|| text.strip_prefix("all:")).unwrap_or(text);
    match level {
        "debug" => Ok(LevelFilter::DEBUG),
        "info" => Ok(LevelFilter::INFO),
        "warn" => Ok(LevelFilter::WARN),
        "error" | "fatal" => Ok(LevelFilter::ERROR),
        "none" => Ok(LevelFilter::OFF),
        _ => Err(format!(
            "{text:?} is not debug, info, warn, error or none; levels of single scopes are not supported"
        )),
    }
}
