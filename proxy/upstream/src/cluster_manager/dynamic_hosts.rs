//! Resolving the names that requests of a dynamic forward proxy ask for, for as long as somebody does.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use dhow_base::{Backoff, Rng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::state::Inner;
use crate::dns::{Answer, LookupError, LookupFailure};
use crate::dns_cache::{DnsCache, split_port};
use crate::snapshot::ActiveCluster;

/// Serves the names that arrive until the cluster goes; each has a task of its own.
pub(super) async fn resolve_on_request(
    inner: Weak<Inner>,
    active: Arc<ActiveCluster>,
    id: u64,
    mut requests: mpsc::UnboundedReceiver<String>,
) {
    let mut names = JoinSet::new();
    loop {
        tokio::select! {
            name = requests.recv() => match name {
                Some(name) => {
                    names.spawn_local(keep_resolved(inner.clone(), active.clone(), id, name));
                }
                None => return,
            },
            _ = names.join_next(), if !names.is_empty() => {}
        }
    }
}

/// Resolves a name, again whenever the answer is old, until nobody asks for it.
async fn keep_resolved(inner: Weak<Inner>, active: Arc<ActiveCluster>, id: u64, name: String) {
    let Some(cache) = active.dns_cache().cloned() else {
        return;
    };
    let mut rng = Rng::from_entropy();
    let mut backoff = cache.settings.failure_refresh.map(|(base, maximum)| Backoff::new(base, maximum));
    loop {
        let Some(answer) = look_up(&inner, &cache, &name).await else {
            return;
        };
        let delay = next_refresh(&cache, &answer, &mut backoff, &mut rng);
        let (_, port) = split_port(&name);
        let addresses = |answer: Answer| {
            let at = |ip| SocketAddr::new(ip, port.unwrap_or(80));
            answer.addresses.into_iter().map(at).collect::<Vec<_>>()
        };
        let failed = answer.is_err();
        let answer = answer.map(addresses).map_err(|error| error.text);
        if cache.take_answer(&name, answer, active.info()) && !publish(&inner, &active, id) {
            return;
        }
        if failed && !cache.settings.refreshes_failures {
            tokio::time::sleep(cache.settings.host_ttl).await;
        } else {
            tokio::time::sleep(delay).await;
        }
        if cache.drop_unused(&name) {
            publish(&inner, &active, id);
            return;
        }
    }
}

/// Asks once; nothing when the manager is gone.
async fn look_up(inner: &Weak<Inner>, cache: &DnsCache, name: &str) -> Option<Result<Answer, LookupError>> {
    let (settings, stats) = (&cache.settings, &cache.stats);
    let resolver = inner.upgrade()?.resolvers.get(&settings.resolver, settings.family);
    stats.dns_query_attempt().inc();
    let (host, _) = split_port(name);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let answer = match resolver {
        Ok(resolver) => tokio::time::timeout(settings.query_timeout, resolver.lookup(host)).await,
        Err(text) => Ok(Err(LookupError::other(text))),
    };
    let answer = answer.unwrap_or_else(|_| {
        stats.dns_query_timeout().inc();
        Err(LookupError { kind: LookupFailure::Timeout, text: "resolve_timeout".to_owned() })
    });
    match &answer {
        // An answer that there is nothing is an answer.
        Ok(_) | Err(LookupError { kind: LookupFailure::NoRecords, .. }) => stats.dns_query_success().inc(),
        Err(_) => stats.dns_query_failure().inc(),
    }
    Some(answer.and_then(|answer| without_denied(cache, answer)))
}

/// The answer without addresses that are denied; where none is left the name did not resolve.
fn without_denied(cache: &DnsCache, mut answer: Answer) -> Result<Answer, LookupError> {
    if let Some(denied) = &cache.settings.denied {
        let count = denied.leave_out(&mut answer.addresses);
        cache.stats.dns_address_filter_out().add(count);
        if answer.addresses.is_empty() {
            return Err(LookupError::other("address_denied".to_owned()));
        }
    }
    Ok(answer)
}

fn next_refresh(
    cache: &DnsCache,
    answer: &Result<Answer, LookupError>,
    backoff: &mut Option<Backoff>,
    rng: &mut Rng,
) -> Duration {
    let settings = &cache.settings;
    match (answer, backoff) {
        (Err(_), Some(backoff)) => backoff.next(rng),
        (Err(_), None) => settings.refresh_rate.max(settings.min_refresh_rate),
        (Ok(answer), backoff) => {
            if let Some(backoff) = backoff {
                backoff.reset();
            }
            answer.ttl.max(settings.min_refresh_rate)
        }
    }
}

/// Makes the hosts of the cluster those that are resolved; false when it is gone.
fn publish(inner: &Weak<Inner>, active: &ActiveCluster, id: u64) -> bool {
    inner.upgrade().is_some_and(|inner| {
        inner.with_cluster(&active.info().name, id, |inner, cluster| {
            cluster.follow_requested_hosts();
            inner.publisher.wake();
        })
    })
}
