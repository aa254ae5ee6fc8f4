//! Interleaved rounds: every proxy has its turn in every round, so that a change of the machine's mood hits all alike.

use std::time::Duration;

use anyhow::Result;
use dhow_load::{Pass, Spec};
use serde::Serialize;

use super::Options;
use super::accounting::{CpuTime, stolen};
use super::job::{Arrival, Job};
use super::lab::{Lab, Proxy};
use super::peer::Peer;

/// What one turn of one proxy brought.
#[derive(Debug, Clone, Copy, Serialize)]
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
    /// Its turns.
    pub turns: Vec<Turn>,
    /// System calls per request.
    pub syscalls: Option<f64>,
    /// User instructions per request.
    pub instructions: Option<f64>,
    /// Calls of the system's allocator per request, where the proxy uses it.
    pub allocations: Option<f64>,
}

/// The figures of all proxies and the state of the machine.
pub struct Results {
    /// One entry per proxy, in the order asked for.
    pub figures: Vec<Figures>,
    /// Share of the machine's CPU time that its host took away meanwhile.
    pub stolen: f64,
}

/// Runs the rounds after one warm-up.
pub fn measure(lab: &Lab, job: &Job, options: &Options) -> Result<Results> {
    let mut figures: Vec<Figures> = lab.proxies().iter().map(|proxy| Figures::empty(proxy.peer)).collect();
    let (_, before) = stolen(None);
    for proxy in lab.proxies() {
        lab.send(&timed(lab, job, proxy, options, 1))?;
    }
    for round in 1..=options.rounds {
        for (proxy, figures) in lab.proxies().iter().zip(&mut figures) {
            let turn = turn(lab, proxy, &timed(lab, job, proxy, options, options.duration))?;
            eprintln!(
                "{} round {round}/{} {:<10} {:6.1} us/request, {:7.0} requests/s",
                job.name,
                options.rounds,
                proxy.peer.name(),
                turn.cpu_us,
                turn.load.requests as f64 / turn.load.seconds
            );
            figures.turns.push(turn);
        }
    }
    let (stolen, _) = stolen(Some(before));
    Ok(Results { figures, stolen })
}

fn timed(lab: &Lab, job: &Job, proxy: &Proxy, options: &Options, seconds: u64) -> Spec {
    let rate = if job.arrival == Arrival::FixedRate { options.rate } else { 0 };
    Spec { millis: seconds * 1000, rate, ..lab.spec(proxy, options.connections) }
}

impl Figures {
    fn empty(peer: Peer) -> Self {
        Self { peer, turns: Vec::new(), syscalls: None, instructions: None, allocations: None }
    }
}

fn turn(lab: &Lab, proxy: &Proxy, spec: &Spec) -> Result<Turn> {
    let pids = proxy.pids();
    let before = CpuTime::of(&pids)?;
    let load = lab.send(spec)?;
    let used = CpuTime::of(&pids)?.since(before);
    let per_request = |time: Duration| time.as_secs_f64() * 1e6 / load.requests.max(1) as f64;
    Ok(Turn { cpu_us: per_request(used.total), user_us: per_request(used.user), load })
}
