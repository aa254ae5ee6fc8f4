//! Hosts of an `ORIGINAL_DST` cluster: made by the first request to their address, forgotten when nobody asks for them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::Notify;

use dhow_net::StreamAddress;

use crate::cluster_info::ClusterInfo;
use crate::host::{Host, HostSpec};

/// The hosts that requests asked for, shared by all workers.
#[derive(Debug, Default)]
pub(crate) struct OriginalHosts {
    hosts: Mutex<HashMap<SocketAddr, Arc<Host>>>,
    changed: Notify,
}

impl OriginalHosts {
    /// The host at an address, made now if need be.
    pub(crate) fn at(&self, address: SocketAddr, info: &ClusterInfo) -> Arc<Host> {
        let mut hosts = self.hosts.lock();
        if let Some(host) = hosts.get(&address) {
            return host.clone();
        }
        let spec = HostSpec {
            hostname: format!("{}{address}", info.name).into(),
            transport_socket: info.transport_socket().clone(),
            ..HostSpec::at(StreamAddress::Ip(address))
        };
        let host = Arc::new(Host::new(spec));
        hosts.insert(address, host.clone());
        self.changed.notify_one();
        host
    }

    /// Waits until there is a new host.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// All hosts.
    pub(crate) fn all(&self) -> Vec<Arc<Host>> {
        self.hosts.lock().values().cloned().collect()
    }

    /// Forgets the hosts that no request asked for since the last time and no connection leads to; true when there were
    /// some.
    pub(crate) fn forget_unused(&self) -> bool {
        let mut hosts = self.hosts.lock();
        let before = hosts.len();
        let is_connected = |host: &Host| host.stats().cx_active.load(Ordering::Relaxed) > 0;
        hosts.retain(|_, host| host.take_touched() || is_connected(host));
        hosts.len() < before
    }
}
