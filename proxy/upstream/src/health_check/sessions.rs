//! The checks of all hosts of one cluster.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use dhow_base::Rng;
use dhow_net::StreamAddress;
use dhow_stats::Scope;
use parking_lot::Mutex;
use tokio::task::AbortHandle;

use super::HealthCheckConfig;
use super::check::{Prober, Setup};
use super::event::{EventSource, line};
use super::interval::random_below;
use super::session::{CheckThresholds, Event, Outcome, Session, State, Transition, Verdict};
use crate::cluster_info::ClusterInfo;
use crate::event_log::EventFile;
use crate::health_check::Failure;
use crate::host::{HealthFlag, Host};
use crate::transport_socket::TransportSocket;

/// Called with the host after a check that changed it, was its first, or found it well (true) while it is ejected.
pub(crate) type OnChecked = Arc<dyn Fn(&Arc<Host>, bool) + Send + Sync>;

/// Runs the checks of a cluster's hosts for as long as it lives.
pub(crate) struct HealthChecks {
    checker: Arc<Checker>,
    running: Vec<Running>,
}

/// What the checks of all hosts share.
struct Checker {
    setup: Arc<Setup>,
    events: Vec<Arc<EventFile>>,
    on_checked: OnChecked,
}

/// The checks of one host.
struct Running {
    checked: Arc<Checked>,
    target: StreamAddress,
    task: AbortHandle,
}

struct Checked {
    /// Replaced when an update replaces the host and leaves its checks as they are.
    host: Mutex<Arc<Host>>,
    session: Mutex<Session>,
}

impl HealthChecks {
    /// Checks without hosts yet; `scope` is the cluster's.
    pub(crate) fn new(
        config: Arc<HealthCheckConfig>,
        info: Arc<ClusterInfo>,
        scope: &Scope,
        events: Vec<Arc<EventFile>>,
        socket: Option<TransportSocket>,
        on_checked: OnChecked,
    ) -> Self {
        let stats = scope.scope("health_check").group();
        let setup = Arc::new(Setup { config, info, stats, socket });
        let checker = Checker { setup, events, on_checked };
        Self { checker: Arc::new(checker), running: Vec::new() }
    }

    /// Checks these hosts from now on, and no others.
    pub(crate) fn follow<'a>(&mut self, hosts: impl Iterator<Item = &'a Arc<Host>>) {
        let wanted: Vec<&Arc<Host>> = hosts.filter(|host| !host.health_check_disabled()).collect();
        let present: HashSet<*const Host> = wanted.iter().map(|host| Arc::as_ptr(host)).collect();
        let mut before = std::mem::take(&mut self.running);
        let mut known = HashSet::new();
        let mut replaced = Vec::new();
        for running in before.drain(..) {
            let host = Arc::as_ptr(&running.checked.host.lock());
            if present.contains(&host) && known.insert(host) {
                self.running.push(running);
            } else {
                replaced.push(running);
            }
        }
        for host in wanted {
            if !known.insert(Arc::as_ptr(host)) {
                continue;
            }
            let target = host.health_check_address().clone();
            let heir = replaced.iter().position(|running| {
                running.target == target && running.checked.host.lock().address() == host.address()
            });
            let running = match heir {
                Some(at) => {
                    let running = replaced.swap_remove(at);
                    *running.checked.host.lock() = host.clone();
                    running
                }
                None => self.start(host, target),
            };
            self.running.push(running);
        }
        for running in &replaced {
            self.checker.stop(running);
        }
    }

    fn start(&self, host: &Arc<Host>, target: StreamAddress) -> Running {
        let flags = host.health_flags();
        if !flags.contains(HealthFlag::FailedActiveHc) {
            self.checker.setup.stats.healthy().inc();
        }
        if flags.contains(HealthFlag::DegradedActiveHc) {
            self.checker.setup.stats.degraded().inc();
        }
        let checked = Checked { host: Mutex::new(host.clone()), session: Mutex::new(Session::new()) };
        let checked = Arc::new(checked);
        let task = tokio::task::spawn_local(self.checker.clone().run(checked.clone())).abort_handle();
        Running { checked, target, task }
    }

    /// Whether every host was checked at least once.
    pub(crate) fn first_round_is_over(&self) -> bool {
        self.running.iter().all(|running| !running.checked.session.lock().is_fresh())
    }

    /// A request found the host unwilling. True when that changed it.
    pub(crate) fn fail_passively(&self, host: &Arc<Host>) -> bool {
        let found = self.running.iter().find(|running| Arc::ptr_eq(&running.checked.host.lock(), host));
        let Some(running) = found else {
            return false;
        };
        let verdict = self.checker.note(&running.checked, Outcome::Failure(Failure::PASSIVE));
        verdict.transition == Transition::Changed
    }
}

impl Drop for HealthChecks {
    fn drop(&mut self) {
        for running in &self.running {
            self.checker.stop(running);
        }
    }
}

impl fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthChecks").field("hosts", &self.running.len()).finish_non_exhaustive()
    }
}

impl Checker {
    /// Checks one host again and again.
    async fn run(self: Arc<Self>, checked: Arc<Checked>) {
        let mut rng = Rng::from_entropy();
        let mut prober = Prober::new(self.setup.clone());
        tokio::time::sleep(random_below(self.setup.config.initial_jitter, &mut rng)).await;
        loop {
            self.setup.stats.attempt().inc();
            let host = checked.host.lock().clone();
            let outcome = prober.check(&host).await;
            let verdict = self.note(&checked, outcome);
            let host = checked.host.lock().clone();
            let well = verdict.state == State::Healthy;
            let comes_back = well && host.has_health_flag(HealthFlag::FailedOutlierCheck);
            if verdict.first || verdict.transition == Transition::Changed || comes_back {
                (self.on_checked)(&host, well);
            }
            let traffic = self.setup.info.stats.upstream_cx_total().value() > 0;
            let pause =
                self.setup.config.intervals.next(traffic, verdict.state, verdict.transition, &mut rng);
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, checked: &Checked, outcome: Outcome) -> Verdict {
        let host = checked.host.lock().clone();
        let limits = CheckThresholds {
            healthy: self.setup.config.healthy_threshold,
            unhealthy: self.setup.config.unhealthy_threshold,
        };
        let verdict = checked.session.lock().note(&host, limits, outcome);
        match outcome {
            Outcome::Success { .. } => self.setup.stats.success().inc(),
            Outcome::Failure(failure) => {
                self.setup.stats.failure().inc();
                if failure.kind.is_network() {
                    self.setup.stats.network_failure().inc();
                } else if failure == Failure::PASSIVE {
                    self.setup.stats.passive_failure().inc();
                }
            }
        }
        match verdict.healthy {
            1 => self.setup.stats.healthy().inc(),
            -1 => self.setup.stats.healthy().dec(),
            _ => {}
        }
        if verdict.degraded {
            self.setup.stats.degraded().inc();
        }
        self.log(&host, &verdict.events);
        verdict
    }

    fn log(&self, host: &Host, events: &[Event]) {
        if self.events.is_empty() {
            return;
        }
        let source = EventSource {
            checker: self.setup.config.check.type_name(),
            cluster: &self.setup.info.name,
            host,
            address: host.address(),
        };
        for event in events {
            let wanted = match event {
                Event::Successful => self.setup.config.log_successes,
                Event::Failed { first_check, .. } => self.setup.config.log_failures || *first_check,
                _ => true,
            };
            if wanted {
                let line = line(&source, *event, SystemTime::now());
                self.events.iter().for_each(|file| file.write(line.clone()));
            }
        }
    }

    /// Ends the checks of a host, and takes it out of the gauges.
    fn stop(&self, running: &Running) {
        running.task.abort();
        let flags = running.checked.host.lock().health_flags();
        if !flags.contains(HealthFlag::FailedActiveHc) {
            self.setup.stats.healthy().dec();
        }
        if flags.contains(HealthFlag::DegradedActiveHc) {
            self.setup.stats.degraded().dec();
        }
    }
}
