//! A soak run: mixed traffic through a proxy whose upstreams fail, stall, reset and come back, and what must be true of it.
//!
//! The rules are in `verdict`. They hold for the real Envoy too: a run with its binary shows that they are right.

mod origins;
mod process;
mod topology;
mod traffic;
mod verdict;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use dhow_base::Rng;
use dhow_testkit::certs::{TestCa, TlsVersions, client_config};
use dhow_testkit::client::TlsOptions;
use dhow_testkit::{ChildGuard, ChildSpec, HeldPort, TempDir, poll_until_async};
use tokio::task::LocalSet;

use origins::Origins;
use process::{Readings, Sample, ask, sample};
use topology::{HTTP_LISTENERS, Places};
use traffic::{Door, DoorCounts, Field, Tally};
use verdict::{Evidence, LogCounts};

/// How long the proxy may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long gauges may take to return once the last client has gone: longer than every timeout of the configuration.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// How long the proxy may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Pages of the admin interface that are read during the run, in turn.
const PAGES: [&str; 8] = [
    "/stats",
    "/stats/prometheus",
    "/clusters",
    "/config_dump?include_eds",
    "/listeners",
    "/stats?usedonly&format=json",
    "/clusters?format=json",
    "/server_info",
];

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The proxy: anything that takes Envoy's command line and bootstrap.
    pub proxy: PathBuf,
    /// How long traffic is sent.
    pub duration: Duration,
    /// What decides about everything random, but for the timing of the kernel.
    pub seed: u64,
    /// Clients at a time.
    pub clients: usize,
    /// How often a line tells how it goes.
    pub progress: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            proxy: PathBuf::new(),
            duration: Duration::from_secs(600),
            seed: 1,
            clients: 24,
            progress: Duration::from_secs(10),
        }
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// What was sent and seen, as text.
    pub text: String,
    /// What must not be, a line each; none for a run that holds.
    pub violations: Vec<String>,
}

/// Runs the traffic, printing as it goes, and judges what the proxy says afterwards.
pub fn run(options: &Options) -> Result<Summary> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, soak(options))
}

async fn soak(options: &Options) -> Result<Summary> {
    let dir = TempDir::new("soak")?;
    let mut lab = Lab::start(options, &dir).await?;
    println!(
        "soak: {} s with {} clients, seed {}, {}",
        options.duration.as_secs(),
        options.clients,
        options.seed,
        options.proxy.display()
    );
    let base = sample(lab.child.id(), 0.0)?;
    let start = Instant::now();
    let field = Rc::new(lab.field(start + options.duration)?);
    let mut rng = Rng::seeded(options.seed);
    let clients: Vec<_> = (0..options.clients)
        .map(|_| tokio::task::spawn_local(traffic::client(Rc::clone(&field), Rng::seeded(rng.next_u64()))))
        .collect();
    let samples = lab.watch(&field, &dir, start, options).await?;
    lab.origins.calm(&dir)?;
    for client in clients {
        client.await.context("a client of the run failed")?;
    }
    let (readings, rest) = lab.settle(&base).await?;
    let status = lab.child.terminate(STOP_LIMIT);
    let evidence = Evidence {
        readings: &readings,
        doors: &field.doors,
        tally: &field.tally,
        logs: HTTP_LISTENERS
            .iter()
            .map(|name| LogCounts::read(&dir.path().join(format!("{name}.log"))))
            .collect::<Result<_>>()?,
        arrivals: std::array::from_fn(|index| lab.origins.arrivals(index)),
        samples: &samples,
        base,
        rest,
        exit: status,
        log: &lab.child.log(),
    };
    let violations = verdict::judge(&evidence);
    Ok(Summary { text: describe(&evidence, options), violations })
}

fn describe(evidence: &Evidence<'_>, options: &Options) -> String {
    let mut text = format!("soak: {} s, seed {}\n", options.duration.as_secs(), options.seed);
    for (door, log) in evidence.doors.iter().zip(&evidence.logs) {
        let counts = &door.counts;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {}: {} connections, {} requests begun, {} answered; the proxy logged {}, {} without an answer",
            door.name,
            counts.connections.get(),
            counts.requests.get(),
            counts.answers.get(),
            log.lines,
            log.unanswered,
        );
    }
    let join = |items: Vec<String>| items.join(", ");
    let actions = evidence.tally.actions.borrow().iter().map(|(name, n)| format!("{n} {name}")).collect();
    let statuses =
        evidence.tally.statuses.borrow().iter().map(|(status, n)| format!("{status}: {n}")).collect();
    let _ = writeln!(text, "  actions: {}", join(actions));
    let _ = writeln!(text, "  answers: {}", join(statuses));
    let _ = writeln!(text, "  {}", verdict::describe_memory(evidence));
    text
}

/// The proxy and everything around it.
struct Lab {
    ports: [HeldPort; 4],
    origins: Origins,
    ca: TestCa,
    child: ChildGuard,
}

impl Lab {
    async fn start(options: &Options, dir: &TempDir) -> Result<Self> {
        ensure!(options.proxy.is_file(), "{} is not a file", options.proxy.display());
        let ca = TestCa::new("soak CA")?;
        let server = ca.issue("server", &["localhost"])?;
        server.write(dir, "server")?;
        dir.write("ca.pem", &ca.cert_pem)?;
        let origins = Origins::start(dir, &server, options.seed)?;
        let ports = [HeldPort::new()?, HeldPort::new()?, HeldPort::new()?, HeldPort::new()?];
        let child = start_proxy(options, dir.path(), &ports, &origins)?;
        let mut lab = Self { ports, origins, ca, child };
        lab.wait_ready().await?;
        Ok(lab)
    }

    fn admin(&self) -> SocketAddr {
        self.ports[0].address()
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let admin = self.admin();
        let child = &mut self.child;
        let ready = poll_until_async(START_LIMIT, || {
            let ended = child.exited();
            async move {
                match ended {
                    Some(status) => Some(Err(anyhow!("the proxy ended with {status}"))),
                    None => ask(admin, "/ready").await.is_ok().then_some(Ok(())),
                }
            }
        })
        .await;
        let ready = ready.unwrap_or_else(|error| Err(anyhow!("the proxy is not ready: {error}")));
        ready.with_context(|| self.child.log())
    }

    fn field(&self, end: Instant) -> Result<Field> {
        let tls = |alpn: &[&str]| -> Result<TlsOptions> {
            let config = client_config(&self.ca.cert_pem, alpn, None, TlsVersions::All)?;
            Ok(TlsOptions { config, server_name: "localhost".to_owned() })
        };
        let door = |name: &'static str, port: &HeldPort, tls1, tls2| Door {
            name,
            address: port.address(),
            tls1,
            tls2,
            counts: DoorCounts::default(),
        };
        let secure = (Some(tls(&["http/1.1"])?), Some(tls(&["h2"])?));
        Ok(Field {
            doors: vec![
                door(HTTP_LISTENERS[0], &self.ports[1], None, None),
                door(HTTP_LISTENERS[1], &self.ports[2], secure.0, secure.1),
            ],
            bytes: self.ports[3].address(),
            end,
            tally: Tally::default(),
        })
    }

    /// Disturbs, scrapes, samples and reports until the end of `field`.
    async fn watch(
        &mut self,
        field: &Field,
        dir: &TempDir,
        start: Instant,
        options: &Options,
    ) -> Result<Vec<Sample>> {
        let mut samples: Vec<Sample> = Vec::new();
        let mut reported = start;
        let mut disturbed = Instant::now();
        let mut pause = self.origins.pause();
        let mut last_event = "nothing yet".to_owned();
        let interval = Duration::from_millis(500);
        while Instant::now() < field.end {
            tokio::time::sleep(interval.min(field.end - Instant::now())).await;
            let now =
                sample(self.child.id(), start.elapsed().as_secs_f64()).with_context(|| self.child.log())?;
            samples.push(now);
            ask(self.admin(), PAGES[samples.len() % PAGES.len()]).await?;
            if disturbed.elapsed() >= pause {
                last_event = self.origins.disturb(dir)?;
                pause = self.origins.pause();
                disturbed = Instant::now();
            }
            if reported.elapsed() >= options.progress {
                reported = Instant::now();
                println!("{}; {last_event}", progress(field, &now));
            }
        }
        Ok(samples)
    }

    /// Waits until nothing is under way any more; what the proxy says then, or at the limit.
    ///
    /// The numbers of one answer are read one after the other, counters before gauges: the first answer without anything
    /// under way may lack what ended while it was written, the one after it cannot.
    async fn settle(&mut self, base: &Sample) -> Result<(Readings, Sample)> {
        let start = Instant::now();
        let mut was_settled = false;
        loop {
            let readings = Readings::of(self.admin()).await?;
            let now = sample(self.child.id(), 0.0)?;
            let settled = verdict::busy(&readings).is_empty() && verdict::descriptors(base, &now).is_none();
            if (settled && was_settled) || start.elapsed() > SETTLE_LIMIT {
                return Ok((readings, now));
            }
            was_settled = settled;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn progress(field: &Field, now: &Sample) -> String {
    let sum = |of: &dyn Fn(&DoorCounts) -> u64| field.doors.iter().map(|door| of(&door.counts)).sum::<u64>();
    format!(
        "{:>5.0} s: {} requests, {} answers, {} connections, {} wrong; {:.1} MiB resident, {} descriptors",
        now.at,
        sum(&|c| c.requests.get()),
        sum(&|c| c.answers.get()),
        sum(&|c| c.connections.get()),
        field.tally.wrong_count.get(),
        now.resident_kib as f64 / 1024.0,
        now.descriptors,
    )
}

fn start_proxy(
    options: &Options,
    dir: &Path,
    ports: &[HeldPort; 4],
    origins: &Origins,
) -> Result<ChildGuard> {
    let moody = origins.moody();
    let places = Places {
        admin: ports[0].port(),
        plain: ports[1].port(),
        secure: ports[2].port(),
        bytes: ports[3].port(),
        steady: origins.steady(),
        moody: &moody,
        echo: origins.echo(),
        refused: origins.refused(),
        dir,
    };
    let file = dir.join("bootstrap.json");
    std::fs::write(&file, topology::bootstrap(&places).to_string())?;
    let args =
        ["--concurrency", "2", "--disable-hot-restart", "-l", "warning", "--file-flush-interval-msec", "100"];
    let spec = ChildSpec::new(&options.proxy, dir.join("proxy.txt")).args(args).arg("-c").arg(file);
    Ok(spec.current_dir(dir).spawn()?)
}
