//! Making the clusters that requests of a dynamic forward proxy ask for, and removing those that nobody asks for any more.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use dhow_proto::Message;
use dhow_proto::envoy::config::cluster::v3::Cluster;
use tokio::sync::mpsc;

use super::ClusterManager;
use super::state::Inner;
use crate::managed_cluster::Origin;
use crate::snapshot::ActiveCluster;
use crate::sub_clusters::RequestedHost;

/// Makes a cluster for each host that arrives, after the example of `message`, until the parent goes; then all of them go.
pub(super) async fn make_on_request(
    inner: Weak<Inner>,
    parent: Arc<ActiveCluster>,
    message: Bytes,
    mut requests: mpsc::UnboundedReceiver<RequestedHost>,
) {
    let Some(clusters) = parent.sub_clusters() else {
        return;
    };
    let Ok(message) = Cluster::decode(message) else {
        return;
    };
    let mut sweep = tokio::time::interval(clusters.settings.ttl);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    sweep.tick().await;
    loop {
        let request = tokio::select! {
            request = requests.recv() => Some(request),
            _ = sweep.tick() => None,
        };
        let Some(manager) = inner.upgrade().map(|inner| ClusterManager { inner }) else {
            return;
        };
        match request {
            Some(Some(host)) => {
                let cluster = clusters.settings.message(&message, &host);
                let name = cluster.name.clone();
                if let Err(error) = manager.add_or_update(cluster, "", Origin::Requested) {
                    tracing::warn!(cluster = name, %error, "cannot make the cluster of a requested host");
                }
            }
            Some(None) => {
                for name in clusters.forget_all() {
                    manager.remove_requested(&name);
                }
                return;
            }
            None => {
                let last_used = |name: &str| manager.find(name).map(|cluster| cluster.last_used());
                for name in clusters.forget_unused(last_used) {
                    manager.remove_requested(&name);
                }
            }
        }
    }
}
