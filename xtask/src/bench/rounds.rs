//! Interleaved rounds: every proxy has its turn in every round, so that a change of the machine's mood hits all alike.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Http1;
use super::accounting::{CpuTime, resident_kib, stolen};
use super::load::{LoadArgs, Pass, closed_loop, own};
use super::peers::{Lab, Peer, Proxy};

/// What one turn of one proxy brought.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// CPU time per request in microseconds.
    pub cpu_us: f64,
    /// The part in user mode.
    pub user_us: f64,
    /// The load's own figures.
    pub load: Pass,
}

/// All figures of one proxy.
#[derive(Debug, Clone)]
pub struct Figures {
    /// Which proxy.
    pub peer: Peer,
    /// Its turns in the closed loop.
    pub turns: Vec<Turn>,
    /// Its turn at a fixed rate.
    pub fixed_rate: Option<Turn>,
    /// Resident memory before the load, KiB.
    pub idle_kib: u64,
    /// Resident memory at the end of a turn, with its connections open, KiB.
    pub loaded_kib: u64,
    /// System calls per request.
    pub syscalls: Option<f64>,
    /// User instructions per request.
    pub instructions: Option<f64>,
    /// Start of the process to the end of the first answer, milliseconds, median.
    pub startup_ms: Option<f64>,
}

/// The figures of all proxies and the state of the machine.
pub struct Results {
    /// One entry per proxy, in the order asked for.
    pub figures: Vec<Figures>,
    /// Share of the machine's CPU time that its host took away meanwhile.
    pub stolen: f64,
}

/// Runs the rounds.
pub fn measure(lab: &mut Lab, options: &Http1) -> Result<Results> {
    let mut figures: Vec<Figures> = lab.proxies().iter().map(empty).collect();
    let (_, before) = stolen(None);
    for proxy in lab.proxies() {
        closed_loop(proxy.address.port(), options.connections, 1)?;
    }
    for round in 1..=options.rounds {
        for (proxy, figures) in lab.proxies().iter().zip(&mut figures) {
            let turn = turn(proxy, figures, |port| closed_loop(port, options.connections, options.duration))?;
            eprintln!(
                "round {round}/{} {:<10} {:6.1} us/request, {:7.0} requests/s",
                options.rounds,
                proxy.peer.name(),
                turn.cpu_us,
                turn.load.requests as f64 / turn.load.seconds
            );
            figures.turns.push(turn);
        }
    }
    if options.rate > 0 {
        for (proxy, figures) in lab.proxies().iter().zip(&mut figures) {
            let millis = options.duration * 1000;
            let load = |port| {
                own(&LoadArgs {
                    port,
                    connections: options.connections,
                    millis,
                    requests: 0,
                    rate: options.rate,
                })
            };
            figures.fixed_rate = Some(turn(proxy, figures, load)?);
        }
    }
    let (stolen, _) = stolen(Some(before));
    Ok(Results { figures, stolen })
}

fn empty(proxy: &Proxy) -> Figures {
    Figures {
        peer: proxy.peer,
        turns: Vec::new(),
        fixed_rate: None,
        idle_kib: resident_kib(&proxy.pids()),
        loaded_kib: 0,
        syscalls: None,
        instructions: None,
        startup_ms: None,
    }
}

fn turn(proxy: &Proxy, figures: &mut Figures, load: impl FnOnce(u16) -> Result<Pass> + Send) -> Result<Turn> {
    let pids = proxy.pids();
    let port = proxy.address.port();
    let before = CpuTime::of(&pids)?;
    let load = std::thread::scope(|scope| {
        let running = scope.spawn(|| load(port));
        // Memory is read while the connections are open: again and again until the load ends.
        while !running.is_finished() {
            figures.loaded_kib = figures.loaded_kib.max(resident_kib(&pids));
            let pause = Instant::now() + Duration::from_millis(200);
            while !running.is_finished() && Instant::now() < pause {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        running.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the load generator panicked")))
    })?;
    let used = CpuTime::of(&pids)?.since(before);
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / load.requests.max(1) as f64;
    Ok(Turn { cpu_us: per_request(used.total), user_us: per_request(used.user), load })
}
