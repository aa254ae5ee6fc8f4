//! The Bookinfo mesh: it comes up, its rules change under load, and it goes without leaving anything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dhow_testkit::client::Http1Client;

use crate::running::{Mesh, PATIENCE, Stars, block_on, page, sample};

/// How long a rule may take to be in force.
const IN_FORCE: Duration = Duration::from_secs(1);

/// Pages asked for to see whether a rule holds.
const PAGES: usize = 30;

/// Requests without a pause, on kept-alive connections, until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(gateway: SocketAddr) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let run = || {
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            std::thread::spawn(move || {
                block_on(async {
                    let mut client = Http1Client::connect(gateway, None).await.unwrap();
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        if let Err(failure) = page(&mut client, None).await {
                            failures.push(failure);
                            client = Http1Client::connect(gateway, None).await.unwrap();
                        }
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                    failures
                })
            })
        };
        let threads = vec![run(), run()];
        Self { stop, asked, threads }
    }

    /// Stops; no request may have failed, and there must have been some.
    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<_> = self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(failures.is_empty(), "{} of {:?} failed: {}", failures.len(), self.asked, failures[0]);
        assert!(self.asked.load(Ordering::Relaxed) > 10);
    }
}

/// The kinds of stars on a number of pages that are asked for one after the other.
fn seen(gateway: SocketAddr, user: Option<&str>) -> BTreeSet<Stars> {
    block_on(async {
        let mut client = Http1Client::connect(gateway, None).await.unwrap();
        let mut seen = BTreeSet::new();
        for _ in 0..PAGES {
            seen.insert(page(&mut client, user).await.unwrap());
        }
        seen
    })
}

/// Asks for pages until the time is over in which a rule that came into being at `since` has to be in force.
fn let_it_come_into_force(gateway: SocketAddr, since: Instant) {
    block_on(async {
        let mut client = Http1Client::connect(gateway, None).await.unwrap();
        while since.elapsed() < IN_FORCE {
            page(&mut client, None).await.unwrap();
        }
    });
}

#[test]
fn bookinfo_comes_up_follows_its_rules_without_a_failed_request_and_leaves_nothing() {
    let mut mesh = Mesh::start(&sample(""), &[]);
    let gateway = mesh.gateway();
    let all = BTreeSet::from([Stars::None, Stars::Black, Stars::Red]);
    assert_eq!(seen(gateway, None), all, "without a rule the versions take turns");

    let load = Load::start(gateway);
    mesh.apply(&["destination-rule-all.yaml", "virtual-service-all-v1.yaml"]);
    let_it_come_into_force(gateway, Instant::now());
    assert_eq!(seen(gateway, None), BTreeSet::from([Stars::None]), "all requests go to v1");

    mesh.apply(&["virtual-service-reviews-50-v3.yaml"]);
    let_it_come_into_force(gateway, Instant::now());
    assert_eq!(
        seen(gateway, None),
        BTreeSet::from([Stars::None, Stars::Red]),
        "half of the requests go to v3"
    );

    let rule = "virtual-service-reviews-test-v2.yaml";
    std::fs::copy(sample(&format!("networking/{rule}")), mesh.config().join(rule)).unwrap();
    let_it_come_into_force(gateway, Instant::now());
    assert_eq!(seen(gateway, Some("jason")), BTreeSet::from([Stars::Black]), "jason's requests go to v2");
    assert_eq!(seen(gateway, Some("mary")), BTreeSet::from([Stars::None]), "the others go to v1");
    load.finish();

    assert_eq!(mesh.process.terminate(PATIENCE).unwrap().code(), Some(0));
    mesh.assert_gone();
}

#[test]
fn nothing_survives_a_killed_mesh() {
    let mut mesh = Mesh::start(&sample(""), &[]);
    let gateway = mesh.gateway();
    // The control plane, a gateway, and an application with its sidecar for each of six pods, besides the process that sweeps up.
    assert_eq!(mesh.processes().len(), 15, "{:?}", mesh.processes());
    let killed =
        std::process::Command::new("sh").args(["-c", &format!("kill -9 {}", mesh.process.id())]).status();
    assert!(killed.unwrap().success());
    assert!(mesh.process.wait(PATIENCE).is_some());
    mesh.assert_gone();
    assert!(std::net::TcpStream::connect(gateway).is_err());
}
