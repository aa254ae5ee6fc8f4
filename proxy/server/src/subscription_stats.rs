//! What is counted about subscriptions, and under whose name.

use std::hash::Hasher as _;
use std::path::Path;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_proxy_upstream::ClusterStats;
use dhow_proxy_xds::{SubscriptionObserver, type_url};
use dhow_stats::{Scope, Store, TextReadout, stat_group};
use twox_hash::XxHash64;

use crate::bootstrap::Bootstrap;
use crate::subscriptions::Subscriptions;

stat_group! {
    /// `cluster_manager.cds.*`, `listener_manager.lds.*` and `http.<prefix>.rds.<name>.*`.
    struct UpdateStats {
        counters { init_fetch_timeout, update_attempt, update_failure, update_rejected, update_success }
        gauges { update_time, version }
        histograms { update_duration: Milliseconds }
    }
}

stat_group! {
    /// What routes have besides.
    struct ReloadStats {
        counters { config_reload, update_empty }
        gauges { config_reload_time_ms }
    }
}

stat_group! {
    /// `control_plane.*`.
    struct ControlPlaneStats {
        counters { rate_limit_enforced }
        gauges { connected_state, pending_requests }
    }
}

/// What happened to a subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    Attempt,
    Success(&'a str),
    Failure,
    Rejected,
    Timeout,
}

/// The stats of one subscription.
#[derive(Clone, Debug)]
pub(crate) struct SubscriptionStats {
    updates: UpdateStats,
    version_text: TextReadout,
    reloads: Option<ReloadStats>,
}

impl SubscriptionStats {
    /// Counts in `scope`.
    pub(crate) fn new(scope: &Scope) -> Self {
        Self { updates: scope.group(), version_text: scope.text_readout("version_text"), reloads: None }
    }

    /// Counts the routes `name` of the connection manager with this stat prefix.
    pub(crate) fn of_routes(store: &Store, stat_prefix: &str, name: &str) -> Self {
        let scope = store.scope(&format!("http.{stat_prefix}.rds.{}.", name.replace(':', "_")));
        Self { reloads: Some(scope.group()), ..Self::new(&scope) }
    }

    /// Routes other than those before are in force.
    pub(crate) fn reloaded(&self) {
        if let Some(reloads) = &self.reloads {
            reloads.config_reload().inc();
            reloads.config_reload_time_ms().set(now_ms());
        }
    }

    /// Counts what happened.
    pub(crate) fn count(&self, event: Event<'_>) {
        let stats = &self.updates;
        match event {
            Event::Attempt => stats.update_attempt().inc(),
            Event::Success(version) => {
                stats.update_success().inc();
                stats.update_time().set(now_ms());
                stats.version().set(version_number(version));
                self.version_text.set(version);
            }
            Event::Failure => stats.update_failure().inc(),
            Event::Rejected => stats.update_rejected().inc(),
            Event::Timeout => stats.init_fetch_timeout().inc(),
        }
    }
}

/// Counts what happens to the assignment of a cluster.
fn count_assignment(stats: &ClusterStats, event: Event<'_>) {
    let Some((eds, version_text)) = stats.eds() else { return };
    let stats = &stats.discovery;
    match event {
        Event::Attempt => stats.update_attempt().inc(),
        Event::Success(version) => {
            stats.update_success().inc();
            eds.update_time().set(now_ms());
            stats.version().set(version_number(version));
            version_text.set(version);
        }
        Event::Failure => stats.update_failure().inc(),
        Event::Rejected => eds.update_rejected().inc(),
        Event::Timeout => eds.init_fetch_timeout().inc(),
    }
}

/// The number that Envoy makes of a version's text.
fn version_number(version: &str) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    hasher.write(version.as_bytes());
    hasher.finish()
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The stats of what is fetched whole, and of the stream; each is there when the bootstrap asks for it.
pub(crate) struct SharedStats {
    cds: Option<SubscriptionStats>,
    lds: Option<SubscriptionStats>,
    stream: Option<(ControlPlaneStats, TextReadout)>,
}

impl SharedStats {
    pub(crate) fn new(store: &Store, bootstrap: &Bootstrap) -> Self {
        let subscription =
            |wanted: bool, scope: &str| wanted.then(|| SubscriptionStats::new(&store.scope(scope)));
        let stream = || {
            let scope = store.scope("control_plane.");
            (scope.group(), scope.text_readout("identifier"))
        };
        Self {
            cds: subscription(bootstrap.cds.is_some(), "cluster_manager.cds."),
            lds: subscription(bootstrap.lds.is_some(), "listener_manager.lds."),
            stream: bootstrap.ads.is_some().then(stream),
        }
    }
}

/// Counts what happens to the subscriptions of the stream, or of one file.
pub(crate) struct Observer {
    shared: Rc<Subscriptions>,
    file: Option<Rc<Path>>,
}

impl Observer {
    pub(crate) fn new(shared: Rc<Subscriptions>, file: Option<Rc<Path>>) -> Self {
        Self { shared, file }
    }

    fn source(&self) -> &'static str {
        if self.file.is_some() { "Filesystem" } else { "gRPC" }
    }

    /// Counts for the subscription to `name`; without a name, for all that the source serves.
    fn count(&self, type_url: &str, name: Option<&str>, event: Event<'_>) {
        let stats = self.shared.stats();
        match type_url {
            type_url::CLUSTER => stats.cds.iter().for_each(|cds| cds.count(event)),
            type_url::LISTENER => stats.lds.iter().for_each(|lds| lds.count(event)),
            type_url::ENDPOINT | type_url::ROUTE => {
                let names = match (name, &self.file) {
                    (Some(name), _) => vec![name.to_owned()],
                    (None, Some(file)) => self.shared.names_from(type_url, file),
                    (None, None) => Vec::new(),
                };
                for name in names {
                    self.count_named(type_url, &name, event);
                }
            }
            _ => {}
        }
    }

    fn count_named(&self, type_url: &str, name: &str, event: Event<'_>) {
        let configuration = self.shared.configuration().borrow();
        if type_url == type_url::ENDPOINT {
            for cluster in configuration.clusters.clusters_of_service(name) {
                count_assignment(&cluster.info().stats, event);
            }
        } else if let Some(stats) = configuration.routes.borrow().stats(name) {
            stats.count(event);
        }
    }
}

impl SubscriptionObserver for Observer {
    fn update_attempt(&mut self, type_url: &str, name: Option<&str>) {
        self.count(type_url, name, Event::Attempt);
    }

    fn update_success(&mut self, type_url: &str, name: Option<&str>, version: &str) {
        self.count(type_url, name, Event::Success(version));
    }

    fn update_failure(&mut self, type_url: &str, name: Option<&str>) {
        self.count(type_url, name, Event::Failure);
    }

    fn update_rejected(&mut self, type_url: &str, name: Option<&str>, _message: &str) {
        self.count(type_url, name, Event::Rejected);
    }

    fn init_fetch_timeout(&mut self, type_url: &str, name: Option<&str>) {
        self.count(type_url, name, Event::Timeout);
        let source = self.source();
        tracing::warn!("{source} config: initial fetch timed out for {type_url}");
    }

    fn connected(&mut self, connected: bool) {
        if let Some((stats, _)) = &self.shared.stats().stream {
            stats.connected_state().set(connected.into());
        }
    }

    fn control_plane(&mut self, identifier: &str) {
        if let Some((_, name)) = &self.shared.stats().stream {
            name.set(identifier);
        }
    }

    fn warning(&mut self, message: &str) {
        tracing::warn!("{message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbered_as_in_envoy() {
        // What Envoy shows as `cluster_manager.cds.version` for the version "1".
        assert_eq!(version_number("1"), 13_237_225_503_670_494_420);
    }
}
