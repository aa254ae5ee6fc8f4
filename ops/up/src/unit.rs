//! The processes of a mesh: what each of them runs, and to whom it belongs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use crate::bootstrap::{GATEWAY, ProxyIdentity};
use crate::error::UpError;
use crate::plan::{ContainerPlan, PodPlan};
use crate::probe::Probe;
use crate::process::{Launch, Running};
use crate::restart::Restarts;
use crate::state::MeshFolder;

/// Ports of the control plane.
const XDS_PORT: u16 = 15010;
const MONITORING_PORT: u16 = 15014;

/// Where a sidecar is called from in tables and logs.
const SIDECAR: &str = "istio-proxy";

/// Worker threads of a sidecar, and of the gateway. Pods of one machine share its processors anyway.
const SIDECAR_CONCURRENCY: &str = "1";
const GATEWAY_CONCURRENCY: &str = "2";

/// Whose process it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Owner {
    ControlPlane,
    Gateway,
    /// The pod with this index.
    Pod(usize),
}

/// One process that is kept running.
#[derive(Debug)]
pub(crate) struct Unit {
    pub owner: Owner,
    /// Pod and container, for people.
    pub title: String,
    pub launch: Launch,
    pub running: Option<Running>,
    /// How often it was started.
    pub run: u32,
    pub started: Option<Instant>,
    pub ready: bool,
    pub was_ready: bool,
    pub restarts: Restarts,
    pub restart_at: Option<Instant>,
    /// The last line of error output that says something.
    pub last_line: String,
}

impl Unit {
    fn new(owner: Owner, title: String, launch: Launch) -> Self {
        Self {
            owner,
            title,
            launch,
            running: None,
            run: 0,
            started: None,
            ready: false,
            was_ready: false,
            restarts: Restarts::default(),
            restart_at: None,
            last_line: String::new(),
        }
    }
}

/// Makes the processes of a mesh, and writes what they read to its folder.
#[derive(Clone, Debug)]
pub(crate) struct Launcher<'a> {
    /// This program.
    pub dhow: &'a str,
    /// A program with Envoy's command line to be used instead of our proxy.
    pub proxy: Option<&'a str>,
    pub mesh_config: Option<&'a Path>,
    pub folder: &'a MeshFolder,
    /// The control plane's address.
    pub control: IpAddr,
}

impl Launcher<'_> {
    /// Where the control plane's xDS service listens.
    pub(crate) fn xds(&self) -> SocketAddr {
        SocketAddr::new(self.control, XDS_PORT)
    }

    /// The control plane, which watches the folder's configuration.
    pub(crate) fn control_plane(&self) -> Unit {
        let mut command = vec![
            self.dhow.to_owned(),
            "discovery".to_owned(),
            "--configDir".to_owned(),
            self.folder.config().display().to_string(),
            "--grpcAddr".to_owned(),
            self.xds().to_string(),
            "--monitoringAddr".to_owned(),
            SocketAddr::new(self.control, MONITORING_PORT).to_string(),
        ];
        if let Some(mesh_config) = self.mesh_config {
            command.extend(["--meshConfig".to_owned(), mesh_config.display().to_string()]);
        }
        let launch = Launch { command, environment: Vec::new(), probe: Probe::Accepts(self.xds()) };
        Unit::new(Owner::ControlPlane, "dhowd".to_owned(), launch)
    }

    /// The gateway's proxy.
    pub(crate) fn gateway(&self, pod: &str) -> Result<(Unit, ProxyIdentity), UpError> {
        let identity = ProxyIdentity::gateway(pod, Ipv4Addr::LOCALHOST.into(), self.control);
        let launch = self.proxy_launch(&identity, GATEWAY, GATEWAY_CONCURRENCY)?;
        Ok((Unit::new(Owner::Gateway, pod.to_owned(), launch), identity))
    }

    /// The sidecar of the pod with this index.
    pub(crate) fn sidecar(&self, index: usize, pod: &PodPlan) -> Result<(Unit, ProxyIdentity), UpError> {
        let identity = ProxyIdentity::sidecar(pod);
        let launch =
            self.proxy_launch(&identity, &format!("{}.{}", pod.namespace, pod.name), SIDECAR_CONCURRENCY)?;
        Ok((Unit::new(Owner::Pod(index), format!("{} {SIDECAR}", pod.name), launch), identity))
    }

    /// A container of the pod with this index.
    pub(crate) fn container(&self, index: usize, pod: &PodPlan, container: &ContainerPlan) -> Unit {
        let own = container.command.first().is_some_and(|program| program == self.dhow);
        let command = if own { container.command.clone() } else { self.attached(&container.command) };
        let probe = match container.ports.first() {
            Some((_, port)) => Probe::Accepts(SocketAddr::new(pod.addresses.application, *port)),
            None => Probe::Runs,
        };
        let launch = Launch { command, environment: container.environment.clone(), probe };
        Unit::new(Owner::Pod(index), format!("{} {}", pod.name, container.name), launch)
    }

    /// How a proxy is started, with its bootstrap in the file `name`.
    fn proxy_launch(
        &self,
        identity: &ProxyIdentity,
        name: &str,
        concurrency: &str,
    ) -> Result<Launch, UpError> {
        let bootstrap = identity.bootstrap(self.xds());
        let file = Path::new("bootstrap").join(format!("{name}.json"));
        let path = self.folder.write(file, format!("{bootstrap:#}").as_bytes())?.display().to_string();
        let mut command = match self.proxy {
            Some(proxy) => self.attached(&[proxy.to_owned()]),
            None => vec![self.dhow.to_owned(), "proxy".to_owned()],
        };
        let flags = ["-c", &path, "--concurrency", concurrency, "--disable-hot-restart", "-l", "warning"];
        command.extend(flags.map(str::to_owned));
        Ok(Launch { command, environment: Vec::new(), probe: Probe::AdminReady(identity.admin) })
    }

    /// A command of others, started so that it ends with this process.
    fn attached(&self, command: &[String]) -> Vec<String> {
        [self.dhow, "exec", "--"]
            .iter()
            .map(|word| (*word).to_owned())
            .chain(command.iter().cloned())
            .collect()
    }
}
