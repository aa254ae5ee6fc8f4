//! What runs beside the manager for as long as a cluster lives.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use dhow_base::{Backoff, Rng};

use super::state::Inner;
use crate::config::DnsDiscovery;
use crate::dns::{Answer, LookupError};
use crate::outlier::Moment;
use crate::snapshot::ActiveCluster;

/// Keeps the addresses of one name current until the cluster goes.
pub(super) async fn resolve_again_and_again(
    inner: Weak<Inner>,
    cluster: String,
    id: u64,
    at: usize,
    name: String,
    dns: DnsDiscovery,
) {
    let mut rng = Rng::from_entropy();
    let mut backoff = dns.failure_refresh.map(|(base, maximum)| Backoff::new(base, maximum));
    loop {
        let resolver = match inner.upgrade() {
            Some(inner) => {
                if let Some(active) = inner.state.lock().find(&cluster, id) {
                    active.info().stats.discovery.update_attempt().inc();
                }
                inner.resolvers.get(&dns.resolver, dns.family)
            }
            None => return,
        };
        let answer = match resolver {
            Ok(resolver) => resolver.lookup(&name).await,
            Err(text) => Err(LookupError::other(text)),
        };
        match inner.upgrade() {
            Some(inner) if inner.take_answer(&cluster, id, at, &answer) => {}
            _ => return,
        }
        tokio::time::sleep(next_refresh(&dns, &answer, &mut backoff, &mut rng)).await;
    }
}

/// When to ask again.
pub(super) fn next_refresh(
    dns: &DnsDiscovery,
    answer: &Result<Answer, LookupError>,
    backoff: &mut Option<Backoff>,
    rng: &mut Rng,
) -> Duration {
    let failed = answer.as_ref().is_err_and(|error| dns.is_failure(error));
    let delay = match (answer, &mut *backoff) {
        (Err(_), Some(backoff)) if failed => return backoff.next(rng),
        (Err(_), None) => dns.refresh_rate,
        (Err(_), Some(backoff)) => {
            backoff.reset();
            dns.refresh_rate
        }
        (Ok(answer), backoff) => {
            if let Some(backoff) = backoff {
                backoff.reset();
            }
            if dns.respect_ttl && !answer.ttl.is_zero() {
                answer.ttl.max(dns.min_refresh_rate)
            } else {
                dns.refresh_rate
            }
        }
    };
    let jitter = u64::try_from(dns.jitter.as_millis()).unwrap_or(u64::MAX);
    delay + Duration::from_millis(rng.below(jitter))
}

/// Compares hosts, and looks at ejected ones, at every interval until the cluster goes.
pub(super) async fn sweep_again_and_again(
    inner: Weak<Inner>,
    cluster: String,
    id: u64,
    mut interval: Duration,
) {
    let mut rng = Rng::from_entropy();
    loop {
        tokio::time::sleep(interval.max(Duration::from_millis(1))).await;
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let found = inner.with_cluster(&cluster, id, |inner, cluster| {
            let hosts: Vec<_> = cluster.hosts().cloned().collect();
            let mut moment = Moment { now: Instant::now(), rng: &mut rng };
            let Some(ejections) = &mut cluster.ejections else {
                return;
            };
            interval = ejections.interval();
            if ejections.sweep(&hosts, &mut moment) {
                cluster.rebuild(true);
                inner.publisher.wake();
            }
        });
        if !found {
            return;
        }
    }
}

/// Shows the hosts that workers made for original destinations, and forgets those that are no longer asked for.
pub(super) async fn follow_original_hosts(
    inner: Weak<Inner>,
    active: Arc<ActiveCluster>,
    id: u64,
    interval: Duration,
) {
    let Some(hosts) = active.original_hosts() else {
        return;
    };
    let mut cleanup = tokio::time::interval(interval);
    cleanup.tick().await;
    loop {
        let changed = tokio::select! {
            () = hosts.changed() => true,
            _ = cleanup.tick() => hosts.forget_unused(),
        };
        if !changed {
            continue;
        }
        let Some(inner) = inner.upgrade() else {
            return;
        };
        let found = inner.with_cluster(&active.info().name, id, |inner, cluster| {
            cluster.follow_requested_hosts();
            inner.publisher.wake();
        });
        if !found {
            return;
        }
    }
}

/// Publishes the changes of a cluster that wait, when the time is over.
pub(super) async fn deliver_later(inner: Weak<Inner>, cluster: Arc<str>, id: u64, after: Duration) {
    tokio::time::sleep(after).await;
    if let Some(inner) = inner.upgrade() {
        inner.with_cluster(&cluster, id, |inner, cluster| {
            cluster.deliver_waiting();
            inner.publisher.wake();
        });
    }
}

/// Takes the hosts of a service away unless this is aborted in time.
pub(super) async fn expire_assignment(inner: Weak<Inner>, service: String, after: Duration) {
    tokio::time::sleep(after).await;
    if let Some(inner) = inner.upgrade() {
        inner.drop_stale_assignment(&service);
    }
}
