//! The main thread's view of all listeners: adding, updating, warming, draining, removing.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_matching::StatsMatcher;
use dhow_net::StreamAddress;
use dhow_proto::envoy::config::listener::v3::Listener;
use dhow_proxy_api::Drain;
use dhow_proxy_runtime::{Worker, Workers};
use dhow_stats::Store;

use crate::active::{SharedListener, WorkerListeners};
use crate::config::{NetworkFilters, lower};
use crate::filter_chain::FilterChains;
use crate::sockets::{BindFailure, BoundAddress};
use crate::stats::ManagerStats;

/// Where a listener came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The bootstrap.
    Static,
    /// LDS.
    Dynamic,
}

/// How a listener came.
#[derive(Clone, Debug)]
pub struct Provenance<'a> {
    /// Its message, encoded: kept for `/config_dump`.
    pub encoded: Bytes,
    /// Version from the management server; empty for static listeners.
    pub version: &'a str,
    /// Static or dynamic.
    pub origin: Origin,
}

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The configuration is the one that is there.
    None,
    /// A new listener.
    Added,
    /// Another configuration of a listener.
    Modified,
}

/// A listener as admin output shows it.
#[derive(Clone, Debug)]
pub struct ListenerView {
    /// Name.
    pub name: Arc<str>,
    /// Bound addresses: with port 0 in the configuration, the port that the system chose.
    pub addresses: Vec<StreamAddress>,
    /// The encoded `Listener` message.
    pub encoded: Bytes,
    /// Version from the management server; empty for static listeners.
    pub version: Arc<str>,
    /// When the configuration came.
    pub last_updated: SystemTime,
    /// Static or dynamic.
    pub origin: Origin,
    /// Whether it serves, or waits for its routes.
    pub active: bool,
    /// Names of what it waits for.
    pub waits_for: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    listener: Arc<SharedListener>,
    /// It has a `stats_matcher`, and a store of its own.
    is_narrowed: bool,
    encoded: Bytes,
    version: Arc<str>,
    last_updated: SystemTime,
    origin: Origin,
    bound: Vec<Rc<BoundAddress>>,
}

impl Entry {
    fn is_warm(&self) -> bool {
        self.listener.config.chains.iter().all(|chain| chain.filter.is_warm())
    }

    fn view(&self, name: &Arc<str>, active: bool) -> ListenerView {
        let configured = self.listener.config.addresses.iter().map(|listen| &listen.address);
        let bound = self.bound.iter().map(|bound| &bound.address);
        ListenerView {
            name: name.clone(),
            addresses: if self.bound.is_empty() {
                configured.cloned().collect()
            } else {
                bound.cloned().collect()
            },
            encoded: self.encoded.clone(),
            version: self.version.clone(),
            last_updated: self.last_updated,
            origin: self.origin,
            active,
            waits_for: self
                .listener
                .config
                .chains
                .iter()
                .filter_map(|chain| chain.filter.waits_for())
                .collect(),
        }
    }
}

/// All listeners. Lives on the main thread.
#[derive(Debug)]
pub struct ListenerManager {
    store: Arc<Store>,
    /// None while only validating: nothing is bound then.
    workers: Option<Rc<Workers>>,
    stats: ManagerStats,
    active: HashMap<Arc<str>, Entry>,
    warming: HashMap<Arc<str>, Entry>,
    /// Names in the order in which they were first added.
    order: Vec<Arc<str>>,
    drain_time: Duration,
    drain_at_once: bool,
    connection_ids: Arc<AtomicU64>,
    /// Nothing serves before [`start`](Self::start).
    started: bool,
    stopped: bool,
}

impl ListenerManager {
    /// A manager without listeners. `drain_time` is `--drain-time-s`: how long connections of a removed or changed filter
    /// chain may go on. `drain_at_once` is `--drain-strategy immediate`: draining ends connections with their next response.
    pub fn new(
        store: Arc<Store>,
        workers: Option<Rc<Workers>>,
        drain_time: Duration,
        drain_at_once: bool,
    ) -> Self {
        let stats: ManagerStats = store.scope("listener_manager.").group();
        if workers.is_some() {
            stats.workers_started().set(1);
        }
        Self {
            store,
            workers,
            stats,
            active: HashMap::new(),
            warming: HashMap::new(),
            order: Vec::new(),
            drain_time,
            drain_at_once,
            connection_ids: Arc::default(),
            started: false,
            stopped: false,
        }
    }

    /// Adds a listener or replaces the one of the same name; it serves once its routes are there.
    ///
    /// # Errors
    /// When the configuration is not acceptable or its address cannot be bound; what was there before goes on.
    pub fn add_or_update(
        &mut self,
        message: Listener,
        provenance: Provenance<'_>,
        filters: &dyn NetworkFilters,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Change, ConfigError> {
        let Provenance { encoded, version, origin } = provenance;
        let current = self.warming.get(&*message.name).or_else(|| self.active.get(&*message.name));
        if let Some(current) = current
            && current.encoded == encoded
        {
            return Ok(Change::None);
        }
        let stats = narrowed_store(&message, &self.store, path)?;
        let is_narrowed = stats.is_some();
        // Chains count where they were made.
        let previous: Option<&FilterChains> = current
            .filter(|entry| !is_narrowed && !entry.is_narrowed)
            .map(|entry| &entry.listener.config.chains);
        let of_narrowed = stats.as_ref().map(|store| filters.counting_in(store));
        let filters = of_narrowed.as_deref().unwrap_or(filters);
        let dynamic = origin == Origin::Dynamic;
        let config =
            lower(message, &encoded, previous, filters, dynamic, path, warnings).inspect_err(|_| {
                self.stats.listener_create_failure().inc();
            })?;
        let name = config.name.clone();
        let known = self.active.contains_key(&name) || self.warming.contains_key(&name);
        let entry = Entry {
            listener: Arc::new(SharedListener::new(
                config,
                stats.as_ref().unwrap_or(&self.store),
                self.connection_ids.clone(),
                true,
            )),
            is_narrowed,
            encoded,
            version: version.into(),
            last_updated: SystemTime::now(),
            origin,
            bound: Vec::new(),
        };
        if self.workers.is_none() || !self.started || !entry.is_warm() {
            self.warming.insert(name.clone(), entry);
        } else {
            self.activate(&name, entry).map_err(|error| ConfigError::new(path.field("address"), error))?;
        }
        let change = if known { Change::Modified } else { Change::Added };
        match change {
            Change::Modified => self.stats.listener_modified().inc(),
            _ => {
                self.stats.listener_added().inc();
                self.order.push(name);
            }
        }
        self.count();
        Ok(change)
    }

    /// Lets listeners serve from now on, and starts those whose routes have come. Gives what could not be bound.
    pub fn start(&mut self) -> Vec<String> {
        self.started = true;
        self.start_warm(false)
    }

    /// Starts the listeners whose routes have come; called after routes were applied, and with `give_up` when waiting
    /// for them has timed out. Gives what could not be bound.
    pub fn start_warm(&mut self, give_up: bool) -> Vec<String> {
        if !self.started {
            return Vec::new();
        }
        let ready: Vec<Arc<str>> = self
            .order
            .iter()
            .filter(|name| self.warming.get(*name).is_some_and(|entry| give_up || entry.is_warm()))
            .cloned()
            .collect();
        let mut errors = Vec::new();
        for name in ready {
            if let Some(entry) = self.warming.remove(&name) {
                errors.extend(self.activate(&name, entry).err());
            }
        }
        self.count();
        errors
    }

    /// Opens a listener that is none of the configuration's on the calling thread: that of the admin interface, which nothing drains
    /// or stops. Gives its address.
    ///
    /// # Errors
    /// When the message is not acceptable or its address cannot be bound.
    pub fn open_apart(
        &self,
        message: Listener,
        thread: &Rc<Worker>,
        filters: &dyn NetworkFilters,
        path: &FieldPath,
    ) -> Result<StreamAddress, ConfigError> {
        let config = lower(message, &Bytes::new(), None, filters, false, path, &mut Vec::new())?;
        let failed = |failure: BindFailure| {
            let reason = bind_error(&config.name, &config.addresses[0].address, &failure);
            ConfigError::new(path.field("address"), reason)
        };
        let bound = BoundAddress::bind(&config, 0, 1).map_err(failed)?;
        let socket = bound.for_worker(0).map_err(|error| failed(error.into()))?;
        let listener = SharedListener::new(config, &self.store, self.connection_ids.clone(), false);
        let listeners = WorkerListeners::of(thread);
        listeners.install(thread, Arc::new(listener), vec![socket], self.drain_time);
        Ok(bound.address)
    }

    /// Whether a listener still waits for its routes.
    pub fn is_warming(&self) -> bool {
        !self.warming.is_empty()
    }

    fn activate(&mut self, name: &Arc<str>, mut entry: Entry) -> Result<(), String> {
        let Some(workers) = self.workers.clone() else { return Ok(()) };
        self.warming.remove(name);
        let listener = entry.listener.clone();
        let config = &listener.config;
        let old = self.active.get(name);
        if config.bind_to_port {
            for (i, listen) in config.addresses.iter().enumerate() {
                // The sockets of the same address are kept, and with them the connections in their queues.
                let kept = old.filter(|old| old.listener.config.addresses.get(i) == Some(listen));
                let bound = match kept.and_then(|old| old.bound.get(i)) {
                    Some(bound) => bound.clone(),
                    None => match BoundAddress::bind(config, i, workers.count()) {
                        Ok(bound) => Rc::new(bound),
                        Err(failure) => {
                            self.stats.listener_create_failure().inc();
                            if !matches!(failure, BindFailure::ListeningOptions) {
                                return Err(bind_error(name, &listen.address, &failure));
                            }
                            // The address is good, so that this is no reason to refuse the configuration.
                            let text = failure.text(name, &listen.address);
                            tracing::error!(
                                "final pre-worker listener init for listener '{name}' failed: {text}"
                            );
                            self.active.insert(name.clone(), entry);
                            self.remove(name);
                            return Ok(());
                        }
                    },
                };
                entry.bound.push(bound);
            }
        }
        for worker in 0..workers.count() {
            let sockets: Vec<_> = entry.bound.iter().map(|bound| bound.for_worker(worker)).collect();
            let sockets = match sockets.into_iter().collect::<io::Result<Vec<_>>>() {
                Ok(sockets) if !self.stopped => sockets,
                Ok(_) => Vec::new(),
                Err(error) => return Err(format!("error adding listener '{name}': {error}")),
            };
            let listener = entry.listener.clone();
            let drain_time = self.drain_time;
            workers.post(worker, move |worker| {
                WorkerListeners::of(worker).install(worker, listener, sockets, drain_time);
            });
        }
        self.stats.listener_create_success().inc();
        self.active.insert(name.clone(), entry);
        Ok(())
    }

    /// Removes a listener: it stops accepting at once, its connections drain. False when there was none.
    pub fn remove(&mut self, name: &str) -> bool {
        let warming = self.warming.remove(name).is_some();
        let active = self.active.remove(name);
        if !warming && active.is_none() {
            return false;
        }
        self.order.retain(|n| &**n != name);
        self.stats.listener_removed().inc();
        if let Some(workers) = &self.workers {
            let (name, drain_time): (Arc<str>, _) = (name.into(), self.drain_time);
            let drain = self.drain_from_now();
            workers.post_all(move |worker| WorkerListeners::of(worker).remove(&name, drain, drain_time));
            if let Some(entry) = active {
                self.drain(entry);
            }
        }
        self.count();
        true
    }

    /// Keeps a removed listener until its connections must have ended: they need what it subscribed to.
    fn drain(&self, entry: Entry) {
        let (draining, drain_time) = (self.stats.total_listeners_draining(), self.drain_time);
        draining.inc();
        tokio::task::spawn_local(async move {
            let Entry { listener, bound, .. } = entry;
            drop(bound);
            tokio::time::sleep(drain_time).await;
            draining.dec();
            drop(listener);
        });
    }

    /// Stops accepting on all listeners (or on those of inbound traffic only); their connections go on.
    pub fn stop(&mut self, inbound_only: bool) {
        self.stopped |= !inbound_only;
        for entry in self.active.values_mut().filter(|e| !inbound_only || e.listener.config.inbound) {
            entry.bound.clear();
            self.stats.listener_stopped().inc();
        }
        if let Some(workers) = &self.workers {
            workers.post_all(move |worker| WorkerListeners::of(worker).stop(inbound_only));
        }
    }

    /// Makes the process fail its health checks, or no longer (`/healthcheck/{fail,ok}`): meanwhile every response ends its
    /// connection.
    pub fn set_failing(&self, failing: bool) {
        if let Some(workers) = &self.workers {
            workers.post_all(move |worker| WorkerListeners::of(worker).set_failing(failing));
        }
    }

    /// Begins to tell connections to end, those of all listeners or of inbound traffic only, without stopping to accept.
    pub fn drain_connections(&self, inbound_only: bool) {
        let drain = self.drain_from_now();
        if let Some(workers) = &self.workers {
            workers.post_all(move |worker| WorkerListeners::of(worker).drain(drain, inbound_only));
        }
    }

    fn drain_from_now(&self) -> Drain {
        match self.drain_at_once {
            true => Drain::AtOnce,
            false => Drain::Gradually { until: Instant::now() + self.drain_time, time: self.drain_time },
        }
    }

    /// Names of the dynamic listeners.
    pub fn dynamic_names(&self) -> Vec<String> {
        let entries = self.active.iter().chain(&self.warming);
        let mut names: Vec<String> =
            entries.filter(|(_, e)| e.origin == Origin::Dynamic).map(|(name, _)| name.to_string()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// All listeners in the order in which they were added, active ones and those that wait.
    pub fn views(&self) -> Vec<ListenerView> {
        let mut views = Vec::new();
        for name in &self.order {
            views.extend(self.active.get(name).map(|entry| entry.view(name, true)));
            views.extend(self.warming.get(name).map(|entry| entry.view(name, false)));
        }
        views
    }

    fn count(&self) {
        self.stats.total_listeners_active().set(self.active.len() as u64);
        self.stats.total_listeners_warming().set(self.warming.len() as u64);
    }
}

fn bind_error(name: &str, address: &StreamAddress, failure: &BindFailure) -> String {
    format!("error adding listener '{name}': {}", failure.text(name, address))
}

/// The store of a listener that says which of its stats exist (`stats_matcher`).
fn narrowed_store(message: &Listener, store: &Store, path: &FieldPath) -> Result<Option<Store>, ConfigError> {
    let Some(matcher) = &message.stats_matcher else { return Ok(None) };
    let matcher = StatsMatcher::compile(matcher, &path.field("stats_matcher"))?;
    Ok(Some(store.narrowed(move |name| matcher.accepts(name))))
}
