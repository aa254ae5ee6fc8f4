//! `dhow up`: run a mesh on this machine.

use std::path::PathBuf;

use dhow_up::{ImageRule, Options, UpError, Validate};

/// Run a mesh on this machine from Kubernetes manifests, until Ctrl-C.
///
/// Each pod becomes processes of this machine: its containers, whose images are looked up among the samples and in --image, and a sidecar in front of
/// them. Istio Gateways that select `istio: ingressgateway` are served on 127.0.0.1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder with manifests; its subfolders are not read.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Command for an image, such as `nginx=nginx -g 'daemon off;'`. In it, {bind} stands for the address and port to listen on,
    /// {address} and {port} for either of them, {pod} for the name of the pod. A container's args are added to it.
    #[arg(long = "image", value_name = "NAME=COMMAND")]
    images: Vec<ImageRule>,
    /// Port of the gateway on 127.0.0.1 for the ports 80 and 8080 of Gateways, 0 for any free one; port 443 of Gateways is 363 more (8443). Other ports stay as
    /// they are.
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    gateway_port: u16,
    /// File with Istio's mesh configuration.
    #[arg(long = "meshConfig", value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Program with Envoy's command line to use for sidecars and gateway instead of the own proxy, for comparison.
    #[arg(long, value_name = "PROGRAM")]
    proxy: Option<String>,
    /// Print the output of all processes.
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn run(args: Args, validate: Validate) -> Result<(), UpError> {
    let dhow = std::env::current_exe().map_err(|cause| UpError::Command {
        owner: "dhow up".to_owned(),
        command: "dhow".to_owned(),
        reason: cause.to_string(),
    })?;
    dhow_up::up(&Options {
        folder: args.folder,
        images: args.images,
        gateway_port: args.gateway_port,
        mesh_config: args.mesh_config,
        proxy: args.proxy,
        verbose: args.verbose,
        dhow,
        validate,
    })
}
