//! A mesh while it runs: starts its processes, restarts those that end, tells the control plane which pods are ready and the user how things are.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinHandle;

use crate::attach::{CANNOT_START, CANNOT_START_CODE};
use crate::error::UpError;
use crate::object;
use crate::plan::PodPlan;
use crate::probe::{is_served, knows};
use crate::process::{Event, Running, What};
use crate::screen::Screen;
use crate::state::{MeshFolder, MeshState};
use crate::table::{Row, Status};
use crate::unit::{Owner, Unit};

/// How long processes may take to end when they are asked to.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything about a mesh that is known before it runs.
#[derive(Debug)]
pub(crate) struct Setup {
    pub folder: MeshFolder,
    pub pods: Vec<PodPlan>,
    /// The control plane first, then the gateway, then the processes of the pods.
    pub units: Vec<Unit>,
    pub gateway_pod: String,
    pub gateway_port: u16,
    pub opening: Opening,
    pub state: MeshState,
    pub verbose: bool,
}

/// What has to be so before the mesh is said to be open.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub gateway: SocketAddr,
    /// Path to open in a browser, if a route leads in.
    pub path: Option<String>,
    /// Admin interfaces of the sidecars.
    pub sidecars: Vec<SocketAddr>,
    /// Addresses and ports of the pods that are behind Services.
    pub endpoints: Vec<String>,
}

/// A running mesh.
#[derive(Debug)]
pub(crate) struct Mesh {
    setup: Setup,
    screen: Screen,
    sender: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
    /// Readiness of each pod as the control plane knows it.
    published: Vec<bool>,
    progress: Progress,
}

/// How far the mesh has come.
#[derive(Debug)]
enum Progress {
    Starting,
    /// All processes are ready; the gateway is being asked for the page to open.
    Opening(JoinHandle<()>),
    Open,
}

/// Why a mesh stops.
enum Stop {
    Asked,
    Failed(UpError),
}

struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hang_up: SignalStream,
}

impl Signals {
    fn listen() -> Result<Self, UpError> {
        let listen = |kind| {
            signal(kind)
                .map_err(|cause| UpError::Part { part: "dhow up".to_owned(), reason: cause.to_string() })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

impl Mesh {
    pub(crate) fn new(setup: Setup, screen: Screen) -> Self {
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let published = vec![false; setup.pods.len()];
        Self { setup, screen, sender, events, published, progress: Progress::Starting }
    }

    /// Runs until a signal comes or something fails that restarting does not help; ends all processes before it returns.
    pub(crate) async fn run(&mut self) -> Result<(), UpError> {
        let mut signals = Signals::listen()?;
        let stop = self.supervise(&mut signals).await;
        if matches!(stop, Stop::Asked) {
            self.screen.line("stopping");
        }
        self.end_all(&mut signals).await;
        match stop {
            Stop::Asked => Ok(()),
            Stop::Failed(error) => Err(error),
        }
    }

    async fn supervise(&mut self, signals: &mut Signals) -> Stop {
        // Proxies that find no control plane wait before they try again, so it is started first.
        if let Err(error) = self.publish_all().and_then(|()| self.start(0)) {
            return Stop::Failed(error);
        }
        loop {
            self.draw();
            let restart = self.setup.units.iter().filter_map(|unit| unit.restart_at).min();
            let outcome = tokio::select! {
                () = signals.any() => return Stop::Asked,
                Some(event) = self.events.recv() => self.handle(event),
                () = until(restart) => self.restart_due(),
                () = opened(&mut self.progress) => {
                    self.open();
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                return Stop::Failed(error);
            }
        }
    }

    fn start(&mut self, index: usize) -> Result<(), UpError> {
        let unit = &mut self.setup.units[index];
        unit.restart_at = None;
        unit.run += 1;
        unit.started = Some(Instant::now());
        let started = Running::start(&unit.launch, &self.setup.folder.id, index, unit.run, &self.sender);
        unit.running = Some(started.map_err(|cause| UpError::Command {
            owner: unit.title.clone(),
            command: unit.launch.command[0].clone(),
            reason: cause.to_string(),
        })?);
        Ok(())
    }

    fn restart_due(&mut self) -> Result<(), UpError> {
        let now = Instant::now();
        for index in 0..self.setup.units.len() {
            if self.setup.units[index].restart_at.is_some_and(|at| at <= now) {
                self.start(index)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), UpError> {
        let Event { unit: index, run, what } = event;
        if self.setup.units[index].run != run {
            return Ok(());
        }
        match what {
            What::Line(line, error) => {
                self.show_line(index, &line);
                if error && !line.trim().is_empty() {
                    self.setup.units[index].last_line = line;
                }
                Ok(())
            }
            What::Ready(ready) => self.change_readiness(index, ready),
            What::Ended(status) => self.ended(index, &status),
        }
    }

    /// Shows a line of output: everything when asked for, otherwise what the control plane has against the configuration.
    fn show_line(&mut self, index: usize, line: &str) {
        let unit = &self.setup.units[index];
        if self.setup.verbose {
            let text = format!("{}: {line}", unit.title);
            self.screen.line(&text);
        } else if let Some(complaint) = complaint(line).filter(|_| {
            // Why it does not start at all is said by the error.
            unit.owner == Owner::ControlPlane && unit.was_ready
        }) {
            self.screen.line(complaint);
        }
    }

    fn change_readiness(&mut self, index: usize, ready: bool) -> Result<(), UpError> {
        let unit = &mut self.setup.units[index];
        let first = ready && !unit.was_ready;
        unit.ready = ready && unit.running.is_some();
        unit.was_ready |= ready;
        let owner = unit.owner;
        if first && owner == Owner::ControlPlane {
            for other in 1..self.setup.units.len() {
                self.start(other)?;
            }
        }
        self.publish(owner)?;
        self.announce(owner);
        Ok(())
    }

    fn ended(
        &mut self,
        index: usize,
        status: &std::io::Result<std::process::ExitStatus>,
    ) -> Result<(), UpError> {
        let unit = &mut self.setup.units[index];
        unit.running = None;
        unit.ready = false;
        let how = match status {
            Ok(status) => ending(*status),
            Err(error) => error.to_string(),
        };
        let code = status.as_ref().ok().and_then(std::process::ExitStatus::code);
        if let Some(reason) =
            unit.last_line.strip_prefix(CANNOT_START).filter(|_| code == Some(CANNOT_START_CODE.into()))
        {
            let (command, reason) = reason.split_once(": ").unwrap_or((reason, "unknown reason"));
            return Err(UpError::Command {
                owner: unit.title.clone(),
                command: command.to_owned(),
                reason: reason.to_owned(),
            });
        }
        let own = unit.owner == Owner::ControlPlane || unit.owner == Owner::Gateway;
        if own && !unit.was_ready {
            let words = unit.last_line.trim_start_matches("Error: ");
            let reason = if words.is_empty() { how } else { words.to_owned() };
            return Err(UpError::Part { part: unit.title.clone(), reason });
        }
        let now = Instant::now();
        let ran = unit.started.map_or(Duration::ZERO, |started| now - started);
        let wait = unit.restarts.ended(ran);
        unit.restart_at = Some(now + wait);
        let last = if unit.last_line.is_empty() { String::new() } else { format!(": {}", unit.last_line) };
        let text = format!("{} {how}; it is started again in {} s{last}", unit.title, wait.as_secs());
        unit.last_line.clear();
        let owner = unit.owner;
        self.screen.line(&text);
        self.publish(owner)
    }

    /// Tells the control plane about the readiness of all pods.
    fn publish_all(&mut self) -> Result<(), UpError> {
        let service = object::gateway_service(self.setup.gateway_port);
        self.write_generated("istio-system.service.istio-ingressgateway", &service)?;
        self.publish_gateway()?;
        for index in 0..self.setup.pods.len() {
            self.write_pod(index, false)?;
        }
        Ok(())
    }

    fn publish(&mut self, owner: Owner) -> Result<(), UpError> {
        match owner {
            Owner::ControlPlane => Ok(()),
            Owner::Gateway => self.publish_gateway(),
            Owner::Pod(index) => {
                let ready = self.pod_ready(index);
                if self.published[index] != ready {
                    self.published[index] = ready;
                    self.write_pod(index, ready)?;
                }
                Ok(())
            }
        }
    }

    fn publish_gateway(&self) -> Result<(), UpError> {
        let name = &self.setup.gateway_pod;
        // Always ready: the control plane must not wait for the gateway, which itself waits for the control plane.
        self.write_generated(&format!("istio-system.pod.{name}"), &object::gateway_pod(name, true))
    }

    fn write_pod(&self, index: usize, ready: bool) -> Result<(), UpError> {
        let pod = &self.setup.pods[index];
        self.write_generated(&format!("{}.pod.{}", pod.namespace, pod.name), &object::pod(pod, ready))
    }

    fn write_generated(&self, name: &str, object: &serde_json::Value) -> Result<(), UpError> {
        let path = format!("config/generated/{name}.yaml");
        self.setup.folder.write(path, format!("{object:#}\n").as_bytes()).map(|_| ())
    }

    fn units_of(&self, owner: Owner) -> impl Iterator<Item = &Unit> {
        self.setup.units.iter().filter(move |unit| unit.owner == owner)
    }

    fn pod_ready(&self, index: usize) -> bool {
        self.units_of(Owner::Pod(index)).all(|unit| unit.ready)
    }

    /// Says what became ready, where no table shows it, and goes on when all is ready for the first time.
    fn announce(&mut self, owner: Owner) {
        if !matches!(self.progress, Progress::Starting) {
            return;
        }
        if !self.screen.is_terminal() && self.units_of(owner).all(|unit| unit.ready) {
            let name = match owner {
                Owner::ControlPlane => "the control plane",
                Owner::Gateway => "the gateway",
                Owner::Pod(index) => &self.setup.pods[index].name,
            };
            let line = format!("{name} is ready");
            self.screen.line(&line);
        }
        if self.setup.units.iter().all(|unit| unit.ready) {
            self.progress = Progress::Opening(tokio::spawn(open_page(self.setup.opening.clone())));
        }
    }

    /// Shows how to use the mesh, which is now ready for it.
    fn open(&mut self) {
        self.progress = Progress::Open;
        if !self.screen.is_terminal() {
            let rows = self.rows();
            self.screen.plain_table(&rows);
            self.footer().iter().for_each(|line| self.screen.line(line));
        }
    }

    fn draw(&mut self) {
        let rows = self.rows();
        let footer = self.footer();
        self.screen.table(&rows, &footer);
    }

    fn footer(&self) -> Vec<String> {
        let pods = self.setup.pods.len();
        if !matches!(self.progress, Progress::Open) {
            let ready = (0..pods).filter(|index| self.pod_ready(*index)).count();
            return vec![format!("starting: {ready} of {pods} pods are ready")];
        }
        vec![
            format!(
                "Open   {}{}",
                self.setup.state.gateway,
                self.setup.opening.path.as_deref().unwrap_or("/")
            ),
            format!("Rules  dhow apply -f FILE, or cp FILE {}/", self.setup.state.config.display()),
            "Stop   Ctrl-C".to_owned(),
        ]
    }

    fn rows(&self) -> Vec<Row> {
        let pods = self.setup.pods.iter().enumerate().map(|(index, pod)| {
            let address = match pod.containers.iter().find_map(|container| container.ports.first()) {
                Some((_, port)) => format!("{}:{port}", pod.addresses.pod),
                None => pod.addresses.pod.to_string(),
            };
            self.row(Owner::Pod(index), pod.name.clone(), address)
        });
        let gateway = format!("127.0.0.1:{}", self.setup.gateway_port);
        let mut rows: Vec<Row> = pods.collect();
        rows.push(self.row(Owner::Gateway, self.setup.gateway_pod.clone(), gateway));
        rows.push(self.row(Owner::ControlPlane, "dhowd".to_owned(), self.setup.state.control_plane.clone()));
        rows
    }

    fn row(&self, owner: Owner, name: String, address: String) -> Row {
        let (mut ready, mut all, mut restarts, mut waiting) = (0, 0, 0, false);
        for unit in self.units_of(owner) {
            all += 1;
            ready += usize::from(unit.ready);
            restarts += unit.restarts.count;
            waiting |= unit.restart_at.is_some();
        }
        let status = match (waiting, ready == all) {
            (true, _) => Status::CrashLoopBackOff,
            (false, true) => Status::Running,
            (false, false) => Status::Starting,
        };
        Row { name, ready: (ready, all), status, restarts, address }
    }

    /// Asks all processes to end and waits for that, but not for ever, and not when another signal comes.
    async fn end_all(&mut self, signals: &mut Signals) {
        for unit in &self.setup.units {
            if let Some(running) = &unit.running {
                running.signal(Signal::TERM);
            }
        }
        let all_ended = async {
            while self.setup.units.iter().any(|unit| unit.running.is_some()) {
                let Some(event) = self.events.recv().await else { return };
                if let What::Ended(_) = event.what {
                    self.setup.units[event.unit].running = None;
                }
            }
        };
        tokio::select! {
            () = all_ended => {}
            () = tokio::time::sleep(PATIENCE) => {}
            () = signals.any() => {}
        }
        for unit in &mut self.setup.units {
            if let Some(running) = unit.running.take() {
                running.signal(Signal::KILL);
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until the news that all is ready has reached every proxy, and the gateway serves its page.
///
/// What the proxies know of each other is up to the configuration, so after a while it is left at that.
async fn open_page(opening: Opening) {
    let Opening { gateway, path, sidecars, endpoints } = opening;
    let deadline = Instant::now() + PATIENCE;
    let pause = || tokio::time::sleep(Duration::from_millis(20));
    for sidecar in sidecars {
        while !knows(sidecar, &endpoints).await && Instant::now() < deadline {
            pause().await;
        }
    }
    if let Some(path) = path {
        while !is_served(gateway, &path).await && Instant::now() < deadline {
            pause().await;
        }
    }
}

async fn opened(progress: &mut Progress) {
    match progress {
        // It has nothing to say but that it is done.
        Progress::Opening(page) => drop(page.await),
        Progress::Starting | Progress::Open => std::future::pending().await,
    }
}

/// A log line of the control plane from its level on, if that says that something is wrong.
fn complaint(line: &str) -> Option<&str> {
    let start = ["ERROR", "WARN"].iter().find_map(|level| line.find(&format!(" {level} ")))?;
    Some(&line[start + 1..])
}

/// How a process ended, as the end of a sentence.
fn ending(status: std::process::ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_warnings_and_errors() {
        assert_eq!(complaint("2026-11-21T10:14:52.2Z ERROR a.yaml:7: wrong"), Some("ERROR a.yaml:7: wrong"));
        assert_eq!(complaint("2026-11-21T10:14:52.7Z  WARN b: odd"), Some("WARN b: odd"));
        assert_eq!(complaint("2026-11-21T10:14:52.7Z  INFO no errors, no warnings"), None);
    }
}
