//! What is configured now, and how updates are applied to it. Lives on the main thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use dhow_base::{ConfigWarning, FieldPath, WarningTopic};
use dhow_proto::envoy::config::cluster::v3::Cluster;
use dhow_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use dhow_proto::envoy::config::listener::v3::Listener;
use dhow_proto::envoy::config::route::v3::RouteConfiguration;
use dhow_proto::google::protobuf::Any;
use dhow_proto::{Deprecated, Message, any};
use dhow_proxy_listener::{ListenerManager, Origin as ListenerOrigin, Provenance};
use dhow_proxy_upstream::{ClusterManager, Origin as ClusterOrigin};
use dhow_proxy_xds::{NamedResource, Refusal, Update};

use crate::cli::Options;
use crate::deprecation;
use crate::load::Topics;
use crate::network_filters::FilterBuilder;
use crate::route_tables::RouteTables;

/// Clusters, listeners and routes.
pub(crate) struct Configuration {
    pub(crate) clusters: ClusterManager,
    pub(crate) listeners: ListenerManager,
    pub(crate) filters: FilterBuilder,
    pub(crate) routes: Rc<RefCell<RouteTables>>,
    /// Version of the last update of clusters and listeners, for `/config_dump`.
    pub(crate) cds_version: String,
    pub(crate) lds_version: String,
    /// How resources are checked.
    pub(crate) dynamic: DynamicChecks,
}

impl Configuration {
    /// Applies an update of a type.
    pub(crate) fn apply(&mut self, type_url: &str, update: Update) -> Result<(), Vec<Refusal>> {
        let Update { added, removed, system_version, is_state_of_the_world: _ } = update;
        let refusals = match any::type_name(type_url) {
            "envoy.config.cluster.v3.Cluster" => {
                self.cds_version = system_version;
                self.apply_clusters(added, &removed)
            }
            "envoy.config.endpoint.v3.ClusterLoadAssignment" => self.apply_assignments(added, &removed),
            "envoy.config.listener.v3.Listener" => {
                self.lds_version = system_version;
                self.apply_listeners(added, &removed)
            }
            "envoy.config.route.v3.RouteConfiguration" => self.apply_routes(added),
            other => vec![(String::new(), format!("resources of type {other} are not handled"))],
        };
        for error in self.listeners.start_warm(false) {
            tracing::error!("{error}");
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    fn apply_clusters(&mut self, added: Vec<NamedResource>, removed: &[String]) -> Vec<Refusal> {
        let dynamic = self.dynamic.clone();
        let clusters = self.clusters.clone();
        let (count, gone) = (added.len(), removed.len());
        let refusals = clusters.batch(|clusters| {
            for name in removed {
                clusters.remove(name);
            }
            let mut refusals = Vec::new();
            for resource in added {
                let applied = dynamic.check::<Cluster>(&resource.body).and_then(|cluster| {
                    clusters
                        .add_or_update(cluster, &resource.version, ClusterOrigin::Dynamic)
                        .map_err(|error| error.to_string())
                });
                match applied {
                    Ok(accepted) => warn_all(&resource.name, &accepted.warnings),
                    Err(error) => {
                        let text = format!("Error adding/updating cluster(s) {}: {error}", resource.name);
                        refusals.push((resource.name, text));
                    }
                }
            }
            refusals
        });
        tracing::info!("cds: add {count} cluster(s), remove {gone} cluster(s)");
        refusals
    }

    fn apply_assignments(&mut self, added: Vec<NamedResource>, removed: &[String]) -> Vec<Refusal> {
        let dynamic = self.dynamic.clone();
        for name in removed {
            self.clusters.remove_assignment(name);
        }
        let mut refusals = Vec::new();
        let clusters = self.clusters.clone();
        clusters.batch(|clusters| {
            for resource in added {
                let applied = dynamic.check::<ClusterLoadAssignment>(&resource.body).and_then(|assignment| {
                    clusters.apply_assignment(assignment).map_err(|error| error.to_string())
                });
                match applied {
                    Ok(warnings) => warn_all(&resource.name, &warnings),
                    Err(error) => refusals.push((resource.name, error)),
                }
            }
        });
        refusals
    }

    fn apply_listeners(&mut self, added: Vec<NamedResource>, removed: &[String]) -> Vec<Refusal> {
        let dynamic = self.dynamic.clone();
        for name in removed {
            if self.listeners.remove(name) {
                tracing::info!("lds: remove listener '{name}'");
            }
        }
        let mut refusals = Vec::new();
        for resource in added {
            let mut warnings = Vec::new();
            let applied = dynamic.check::<Listener>(&resource.body).and_then(|listener| {
                let provenance = Provenance {
                    encoded: listener.encode_to_vec().into(),
                    version: &resource.version,
                    origin: ListenerOrigin::Dynamic,
                };
                self.listeners
                    .add_or_update(listener, provenance, &self.filters, &FieldPath::root(), &mut warnings)
                    .map_err(|error| error.to_string())
            });
            warn_all(&resource.name, &warnings);
            match applied {
                Ok(_) => tracing::info!("lds: add/update listener '{}'", resource.name),
                Err(error) => {
                    let text = format!("Error adding/updating listener(s) {}: {error}", resource.name);
                    refusals.push((resource.name, text));
                }
            }
        }
        refusals
    }

    fn apply_routes(&mut self, added: Vec<NamedResource>) -> Vec<Refusal> {
        let dynamic = self.dynamic.clone();
        let mut refusals = Vec::new();
        for resource in added {
            let mut warnings = Vec::new();
            let applied = dynamic.check::<RouteConfiguration>(&resource.body).and_then(|routes| {
                let mut tables = self.routes.borrow_mut();
                tables.apply(routes, &resource.version, &mut warnings).map_err(|error| error.to_string())
            });
            warn_all(&resource.name, &warnings);
            if let Err(error) = applied {
                refusals.push((resource.name, error));
            }
        }
        refusals
    }

    /// Names of the assignments wanted from the aggregated stream.
    pub(crate) fn wanted_assignments(&self) -> BTreeSet<String> {
        let subscriptions = self.clusters.eds_subscriptions();
        subscriptions.into_iter().filter(|s| s.file.is_none()).map(|s| s.service_name).collect()
    }

    /// Names of the route configurations wanted from the aggregated stream.
    pub(crate) fn wanted_routes(&self) -> BTreeSet<String> {
        self.routes.borrow_mut().wanted()
    }
}

/// How resources are checked that come while the process runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct DynamicChecks {
    /// `--reject-unknown-dynamic-fields`.
    reject_unknown: bool,
    /// Topics that are counted and not talked about: `--ignore-unknown-dynamic-fields`, `--skip-deprecated-logs`.
    silent: Vec<WarningTopic>,
    /// What was found since somebody last looked.
    found: Rc<Cell<Topics>>,
}

impl DynamicChecks {
    /// What the command line says.
    pub(crate) fn new(options: &Options) -> Self {
        let silent = [
            (options.ignore_unknown_dynamic_fields, WarningTopic::Unknown),
            (options.skip_deprecated_logs, WarningTopic::Deprecated),
        ];
        let silent = silent.into_iter().filter(|(given, _)| *given).map(|(_, topic)| topic);
        let reject_unknown = options.reject_unknown_dynamic_fields;
        Self { reject_unknown, silent: silent.collect(), found: Rc::default() }
    }

    /// What was found since the last call.
    pub(crate) fn take_found(&self) -> Topics {
        self.found.take()
    }

    /// Decodes a resource after checking it against the rules of its type.
    fn check<M: dhow_proto::Name + Default>(&self, body: &Any) -> Result<M, String> {
        let resolved = any::resolve(body).map_err(|error| error.to_string())?;
        let options = dhow_proto::CheckOptions {
            reject_unknown_fields: self.reject_unknown,
            deprecated: Deprecated::Decided(deprecation::may_use),
        };
        let mut warnings = dhow_proto::check_message(&resolved.type_name, &resolved.value, &options)
            .map_err(|error| error.to_string())?;
        self.found.set(self.found.get() + Topics::of(&warnings));
        warnings.retain(|warning| !self.silent.contains(&warning.topic));
        warn_all("", &warnings);
        any::unpack(body).map_err(|error| error.to_string())
    }
}

/// Logs warnings about an accepted resource.
pub(crate) fn warn_all(resource: &str, warnings: &[ConfigWarning]) {
    for warning in warnings {
        if resource.is_empty() {
            tracing::warn!("{warning}");
        } else {
            tracing::warn!("{resource}: {warning}");
        }
    }
}
