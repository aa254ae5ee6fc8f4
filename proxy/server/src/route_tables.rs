//! Route configurations by name, and the connection managers that use them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_proto::envoy::config::route::v3::RouteConfiguration;
use dhow_proto::open_typed_structs;
use dhow_proxy_api::RouteFilterContext;
use dhow_proxy_http::{FilterRegistry, HttpConnectionManager, compile_routes};
use dhow_proxy_xds::PathSource;
use dhow_stats::Store;

use crate::subscription_stats::SubscriptionStats;

/// A route configuration that came by RDS.
#[derive(Clone, Debug)]
pub(crate) struct DynamicRoutes {
    /// The message.
    pub(crate) message: RouteConfiguration,
    /// Version from the management server.
    pub(crate) version: String,
    /// When it came.
    pub(crate) last_updated: SystemTime,
}

/// The subscription to one name, shared by all connection managers that name it.
#[derive(Debug)]
struct Subscription {
    managers: Vec<Weak<HttpConnectionManager>>,
    /// The file that the routes come from; none for the aggregated stream.
    file: Option<PathSource>,
    /// Under the stat prefix of the first connection manager.
    stats: SubscriptionStats,
    initial_fetch_timeout: Duration,
    current: Option<DynamicRoutes>,
}

impl Subscription {
    fn managers(&self) -> impl Iterator<Item = Arc<HttpConnectionManager>> + '_ {
        self.managers.iter().filter_map(Weak::upgrade)
    }

    fn is_wanted(&self) -> bool {
        self.managers.iter().any(|manager| manager.strong_count() > 0)
    }
}

/// Routes that are part of a connection manager's configuration.
#[derive(Debug)]
struct InlineRoutes {
    manager: Weak<HttpConnectionManager>,
    /// The message, encoded.
    message: Bytes,
    since: SystemTime,
}

/// All route configurations.
#[derive(Debug, Default)]
pub(crate) struct RouteTables {
    subscriptions: BTreeMap<Arc<str>, Subscription>,
    inline: Vec<InlineRoutes>,
    store: Store,
    local_cluster: Arc<str>,
}

impl RouteTables {
    /// Of a proxy that counts in `store` and is a host of this cluster (`cluster_manager.local_cluster_name`, may be empty).
    pub(crate) fn new(store: &Store, local_cluster: &str) -> Self {
        Self { store: store.clone(), local_cluster: local_cluster.into(), ..Self::default() }
    }

    /// Notes a connection manager with inline routes (encoded), for `/config_dump`.
    pub(crate) fn add_static(&mut self, manager: &Arc<HttpConnectionManager>, message: Bytes) {
        self.inline.retain(|other| other.manager.strong_count() > 0);
        let manager = Arc::downgrade(manager);
        self.inline.push(InlineRoutes { manager, message, since: SystemTime::now() });
    }

    /// Inline routes, and since when they are in force.
    pub(crate) fn inline(&self) -> impl Iterator<Item = (&[u8], SystemTime)> {
        let used = self.inline.iter().filter(|inline| inline.manager.strong_count() > 0);
        used.map(|inline| (&*inline.message, inline.since))
    }

    /// Adds a connection manager that wants the routes of this name; it gets them at once when they are known.
    pub(crate) fn subscribe(
        &mut self,
        name: Arc<str>,
        file: Option<PathSource>,
        initial_fetch_timeout: Duration,
        manager: &Arc<HttpConnectionManager>,
    ) {
        let context = RouteFilterContext { stats: &self.store, local_cluster: &self.local_cluster };
        let stats = || SubscriptionStats::of_routes(&self.store, &manager.config().stat_prefix, &name);
        let subscription = self.subscriptions.entry(name.clone()).or_insert_with(|| Subscription {
            managers: Vec::new(),
            file,
            stats: stats(),
            initial_fetch_timeout,
            current: None,
        });
        subscription.managers.retain(|other| other.strong_count() > 0);
        subscription.managers.push(Arc::downgrade(manager));
        if let Some(current) = &subscription.current {
            // It was accepted for other filters; what these filters refuse leaves the listener warming.
            if let Err(error) = publish(&current.message, &context, manager, &mut Vec::new()) {
                tracing::warn!("route configuration '{}': {error}", current.message.name);
            }
        }
    }

    /// Names wanted from the aggregated stream.
    pub(crate) fn wanted(&mut self) -> BTreeSet<String> {
        self.subscriptions.retain(|_, subscription| subscription.is_wanted());
        let from_stream = self.subscriptions.iter().filter(|(_, subscription)| subscription.file.is_none());
        from_stream.map(|(name, _)| name.to_string()).collect()
    }

    /// Files that routes come from.
    pub(crate) fn files(&self) -> Vec<PathSource> {
        self.subscriptions.values().filter_map(|subscription| subscription.file.clone()).collect()
    }

    /// Names that come from a file.
    pub(crate) fn names_from(&self, file: &Path) -> Vec<String> {
        let of_file = self
            .subscriptions
            .iter()
            .filter(|(_, s)| s.file.as_ref().is_some_and(|source| source.path == file));
        of_file.map(|(name, _)| name.to_string()).collect()
    }

    /// What is counted about the subscription to a name.
    pub(crate) fn stats(&self, name: &str) -> Option<&SubscriptionStats> {
        self.subscriptions.get(name).map(|subscription| &subscription.stats)
    }

    /// The shortest `initial_fetch_timeout` of the subscriptions; zero waits for ever.
    pub(crate) fn initial_fetch_timeout(&self) -> Option<Duration> {
        let timeouts = self.subscriptions.values().map(|subscription| subscription.initial_fetch_timeout);
        timeouts.filter(|timeout| !timeout.is_zero()).min()
    }

    /// Applies a route configuration for all who want it, or for nobody.
    ///
    /// # Errors
    /// What one of the connection managers cannot accept; the routes before stay in force.
    pub(crate) fn apply(
        &mut self,
        message: RouteConfiguration,
        version: &str,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<(), ConfigError> {
        let Some(subscription) = self.subscriptions.get_mut(message.name.as_str()) else { return Ok(()) };
        if subscription.current.as_ref().is_some_and(|current| current.message == message) {
            return Ok(());
        }
        let context = RouteFilterContext { stats: &self.store, local_cluster: &self.local_cluster };
        let table = compile(&message, &context, warnings)?;
        for manager in subscription.managers() {
            manager.routes().publish(table.clone());
        }
        subscription.stats.reloaded();
        subscription.current =
            Some(DynamicRoutes { message, version: version.to_owned(), last_updated: SystemTime::now() });
        Ok(())
    }

    /// The route configurations that came by RDS, ordered by name.
    pub(crate) fn dynamic(&self) -> impl Iterator<Item = &DynamicRoutes> {
        self.subscriptions.values().filter_map(|subscription| subscription.current.as_ref())
    }
}

fn compile(
    message: &RouteConfiguration,
    context: &RouteFilterContext<'_>,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<dhow_proxy_http::RouteTable>, ConfigError> {
    let registry = FilterRegistry { filters: dhow_proxy_filters::all() };
    let message = open_typed_structs(message.clone())?;
    // By RDS, clusters may come after the routes that name them.
    compile_routes(&message, registry, context, &|_| true, false, &FieldPath::root(), warnings)
}

fn publish(
    message: &RouteConfiguration,
    context: &RouteFilterContext<'_>,
    manager: &HttpConnectionManager,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<(), ConfigError> {
    manager.routes().publish(compile(message, context, warnings)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_wants_what_was_never_subscribed() {
        let mut tables = RouteTables::default();
        let message = RouteConfiguration { name: "a".into(), ..Default::default() };
        tables.apply(message, "1", &mut Vec::new()).unwrap();
        assert!(tables.wanted().is_empty());
        assert_eq!(tables.dynamic().count(), 0);
    }
}
