//! The set of worker threads and how the main thread talks to them.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use dhow_base::Rng;
use tokio::runtime::{LocalOptions, LocalRuntime};
use tokio::sync::mpsc;

use crate::clock;
use crate::turn;
use crate::worker::Worker;

/// Work posted to a worker thread.
type Job = Box<dyn FnOnce(&Rc<Worker>) + Send>;

/// The worker threads. Dropping it [stops](Workers::stop) them.
#[derive(Debug)]
pub struct Workers {
    /// None any more once they were stopped.
    threads: RefCell<Vec<Thread>>,
    count: usize,
}

#[derive(Debug)]
struct Thread {
    jobs: mpsc::UnboundedSender<Job>,
    join: JoinHandle<()>,
}

impl Workers {
    /// Starts `count` threads (0 is treated as 1, as Envoy does). `init` runs on each thread before anything else, `end` when
    /// the connections of the thread are closed and nothing runs there any more.
    ///
    /// # Errors
    /// When a thread or its event loop cannot be made; threads that were started end again.
    pub fn start(
        count: usize,
        init: impl Fn(&Rc<Worker>) + Send + Sync + 'static,
        end: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (init, end) = (Arc::new(init), Arc::new(end));
        let count = count.max(1);
        let workers = Self { threads: RefCell::default(), count };
        for index in 0..count {
            let (jobs, queue) = mpsc::unbounded_channel::<Job>();
            let (init, end) = (init.clone(), end.clone());
            let (started, start) = std::sync::mpsc::sync_channel(1);
            let join = std::thread::Builder::new().name(format!("wrk:worker_{index}")).spawn(move || {
                // An event loop whose tasks never leave their thread has to be made there.
                match event_loop() {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        run(&runtime, index, &*init, queue);
                        drop(runtime);
                        end();
                    }
                    Err(error) => _ = started.send(Err(error)),
                }
            })?;
            workers.threads.borrow_mut().push(Thread { jobs, join });
            start.recv().map_err(io::Error::other)??;
        }
        Ok(workers)
    }

    /// Number of workers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Posts a job to every worker; each runs it on its own thread, in the order of posting.
    pub fn post_all(&self, job: impl Fn(&Rc<Worker>) + Send + Sync + 'static) {
        let job = Arc::new(job);
        for thread in self.threads.borrow().iter() {
            let job = job.clone();
            // A worker that has ended takes no more work; that happens only while the process shuts down.
            let _ = thread.jobs.send(Box::new(move |worker| job(worker)));
        }
    }

    /// Ends the threads and waits for that: their event loops stop and open connections are closed.
    pub fn stop(&self) {
        // They all end at the same time: a thread does so once nobody can send it work any more.
        let joins: Vec<_> = self.threads.take().into_iter().map(|Thread { join, .. }| join).collect();
        for join in joins {
            if join.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }

    /// Posts a job to the worker with this index. Indices beyond the count are ignored.
    pub fn post(&self, index: usize, job: impl FnOnce(&Rc<Worker>) + Send + 'static) {
        if let Some(thread) = self.threads.borrow().get(index) {
            let _ = thread.jobs.send(Box::new(job));
        }
    }
}

fn event_loop() -> io::Result<LocalRuntime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(|| {
            clock::forget();
            turn::begin();
        })
        .build_local(LocalOptions::default())
}

/// What a worker thread does until nobody has work for it any more.
fn run(
    runtime: &LocalRuntime,
    index: usize,
    init: &dyn Fn(&Rc<Worker>),
    mut queue: mpsc::UnboundedReceiver<Job>,
) {
    clock::share_readings();
    let worker = Worker::new(index, Rng::from_entropy());
    runtime.block_on(async {
        init(&worker);
        while let Some(job) = queue.recv().await {
            job(&worker);
        }
    });
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn jobs_run_on_every_worker_in_order() {
        let (sent, received) = channel();
        let at_start = sent.clone();
        let workers = Workers::start(2, move |w| at_start.send((w.stat_name(), 0)).unwrap(), || {}).unwrap();
        for step in 1..3 {
            let sent = sent.clone();
            workers.post_all(move |w| sent.send((w.stat_name(), step)).unwrap());
        }
        let seen: Vec<_> = (0..6).map(|_| received.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
        for index in 0..2 {
            let name = format!("worker_{index}");
            let steps: Vec<_> = seen.iter().filter(|(worker, _)| *worker == name).map(|(_, s)| *s).collect();
            assert_eq!(steps, [0, 1, 2]);
        }
    }

    #[test]
    fn dropping_ends_the_threads_after_what_they_did() {
        let (sent, received) = channel();
        let at_end = sent.clone();
        let workers = Workers::start(1, |_| {}, move || at_end.send("end").unwrap()).unwrap();
        workers.post(0, move |_| {
            let told = Told(sent);
            tokio::task::spawn_local(async move {
                std::future::pending::<()>().await;
                drop(told);
            });
        });
        drop(workers);
        assert_eq!(received.iter().collect::<Vec<_>>(), ["closed", "end"]);
    }

    /// Tells when it is dropped.
    struct Told(std::sync::mpsc::Sender<&'static str>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send("closed").unwrap();
        }
    }
}
