//! Watchdogs: a thread of their own asks the event loops for signs of life, counts those that stay away, and ends the process when it is
//! configured to. An event loop that is asked is woken, half as often as Envoy's wake themselves, and does nothing in between.

mod config;
mod watched;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dhow_base::Rng;
use dhow_stats::{Store, stat_group};

pub(crate) use config::{Watchdogs, lower};
pub(crate) use watched::Pulse;

use config::Limits;
use watched::{Findings, Silence, needed_for_multi_kill};

stat_group! {
    /// Signs of life that stayed away: of all threads of a kind, or of one thread.
    struct MissStats {
        counters { watchdog_mega_miss, watchdog_miss }
    }
}

impl MissStats {
    fn count(&self, findings: Findings) {
        if findings.miss {
            self.watchdog_miss().inc();
        }
        if findings.mega_miss {
            self.watchdog_mega_miss().inc();
        }
    }
}

/// A thread as the watchdogs see it.
struct Watched {
    name: String,
    pulse: Arc<Pulse>,
    silence: Silence,
    stats: MissStats,
}

/// Threads with the same limits.
struct Group {
    limits: Limits,
    /// `kill_timeout` and its jitter.
    kill: Option<Duration>,
    stats: MissStats,
    threads: Vec<Watched>,
}

impl Group {
    fn new(name: &str, limits: Limits, threads: Vec<(String, Arc<Pulse>)>, store: &Store) -> Self {
        let jitter = limits.kill_jitter.as_millis() as u64;
        let jitter = if jitter == 0 { 0 } else { Rng::from_entropy().next_u64() % jitter };
        let now = Instant::now();
        let watched = threads.into_iter().map(|(name, pulse)| {
            pulse.ask();
            let stats = store.scope(&format!("server.{name}.")).group();
            Watched { name, pulse, silence: Silence::new(now), stats }
        });
        Self {
            limits,
            kill: limits.kill.map(|limit| limit + Duration::from_millis(jitter)),
            stats: store.scope(&format!("{name}.")).group(),
            threads: watched.collect(),
        }
    }

    /// Looks at all threads and asks them again; the names of those that make it necessary to end the process.
    fn look(&mut self, now: Instant) -> Option<Vec<&str>> {
        let needed = needed_for_multi_kill(self.limits.multi_kill_percent, self.threads.len());
        let mut stuck = Vec::new();
        for Watched { name, pulse, silence, stats } in &mut self.threads {
            let findings = silence.look(pulse.take(), now, &self.limits, self.kill);
            pulse.ask();
            self.stats.count(findings);
            stats.count(findings);
            if findings.kill {
                return Some(vec![name]);
            }
            if findings.multi_kill {
                stuck.push(&**name);
            }
        }
        (stuck.len() >= needed).then_some(stuck)
    }
}

/// The thread that watches the others, until this is dropped.
pub(crate) struct GuardDog {
    stop: Option<Sender<()>>,
    join: Option<JoinHandle<()>>,
}

impl GuardDog {
    /// Watches the main thread and the workers, of which the latter come with their names.
    ///
    /// # Errors
    /// When the thread cannot be made.
    pub(crate) fn start(
        watchdogs: &Watchdogs,
        main_thread: Arc<Pulse>,
        workers: Vec<(String, Arc<Pulse>)>,
        store: &Store,
    ) -> std::io::Result<Self> {
        let main_thread = vec![("main_thread".to_owned(), main_thread)];
        let mut groups = [
            Group::new("main_thread", watchdogs.main_thread, main_thread, store),
            Group::new("workers", watchdogs.workers, workers, store),
        ];
        let interval = watchdogs.main_thread.interval().min(watchdogs.workers.interval());
        let (stop, stopped) = channel();
        let join = std::thread::Builder::new().name("GuardDog".into()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let now = Instant::now();
                if let Some(stuck) = groups.iter_mut().find_map(|group| group.look(now)) {
                    tracing::error!("threads that show no sign of life any more: {}", stuck.join(", "));
                    std::process::abort();
                }
            }
        })?;
        Ok(Self { stop: Some(stop), join: Some(join) })
    }
}

impl Drop for GuardDog {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(join) = self.join.take()
            && join.join().is_err()
        {
            tracing::error!("the thread that watches others panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use dhow_proxy_runtime::Workers;
    use dhow_stats::Query;

    use super::*;

    fn counters(store: &Store) -> Vec<(String, u64)> {
        let text = dhow_stats::render_text(store, &store.snapshot(&Query::default()), Default::default());
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_worker_that_is_stuck_is_counted_and_one_that_sleeps_is_not() {
        let store = Store::new();
        let pulses: Vec<_> = (0..2).map(|n| (format!("worker_{n}"), Arc::<Pulse>::default())).collect();
        let of_workers = pulses.clone();
        let init = move |worker: &std::rc::Rc<dhow_proxy_runtime::Worker>| {
            let pulse = of_workers.iter().find(|(name, _)| *name == worker.stat_name());
            tokio::task::spawn_local(pulse.unwrap().1.clone().answer());
        };
        let workers = Workers::start(2, init, || {}).unwrap();
        let limits = Limits {
            miss: Duration::from_millis(40),
            mega_miss: Duration::from_secs(3600),
            ..Limits::default()
        };
        let mut group = Group::new("workers", limits, pulses, &store);
        let mut now = Instant::now();
        let mut look = |group: &mut Group| {
            now += Duration::from_millis(100);
            assert_eq!(group.look(now), None);
        };
        // Both were asked, and answer.
        let (release, held) = channel::<()>();
        let (stuck, is_stuck) = channel();
        let deadline = Instant::now() + Duration::from_secs(20);
        let all_answered = |group: &Group| group.threads.iter().all(|t| t.pulse.answered_now());
        while !all_answered(&group) {
            assert!(Instant::now() < deadline, "no answer");
            std::thread::yield_now();
        }
        workers.post(1, move |_| {
            stuck.send(()).unwrap();
            let _ = held.recv();
        });
        is_stuck.recv_timeout(Duration::from_secs(20)).unwrap();
        let before = counters(&store);
        look(&mut group);
        assert_eq!(counters(&store), before, "the answers of before count");
        while !group.threads[0].pulse.answered_now() {
            assert!(Instant::now() < deadline, "no answer");
            std::thread::yield_now();
        }
        look(&mut group);
        drop(release);
        let of = |name: &str| {
            let difference = |all: &[(String, u64)]| all.iter().find(|(n, _)| n == name).unwrap().1;
            difference(&counters(&store)) - difference(&before)
        };
        assert_eq!(of("server.worker_1.watchdog_miss"), 1);
        assert_eq!(of("server.worker_0.watchdog_miss"), 0);
        assert_eq!((of("workers.watchdog_miss"), of("workers.watchdog_mega_miss")), (1, 0));
    }

    #[test]
    fn the_process_is_to_end_when_a_thread_is_silent_for_too_long() {
        let store = Store::new();
        let silent = |count| {
            let threads = (0..count).map(|n| (format!("worker_{n}"), Arc::<Pulse>::default())).collect();
            let limits = Limits { multi_kill: Some(Duration::from_secs(5)), ..Limits::default() };
            Group::new("workers", limits, threads, &store)
        };
        let later = Instant::now() + Duration::from_secs(10);
        assert_eq!(silent(1).look(later), None);
        assert_eq!(silent(2).look(later), Some(vec!["worker_0", "worker_1"]));
        let mut group = silent(1);
        group.kill = Some(Duration::from_secs(5));
        assert_eq!(group.look(later), Some(vec!["worker_0"]));
    }
}
