//! What a connection counts as on its cluster and host: one request, which first waits for a connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dhow_proxy_upstream::{ActiveRequest, ClusterInfo, Host};

/// A connection that waits for one to its host (`upstream_rq_pending_*`).
pub(crate) struct Waiting {
    info: Arc<ClusterInfo>,
    host: Arc<Host>,
    failed: bool,
}

impl Waiting {
    pub(crate) fn begin(info: &Arc<ClusterInfo>, host: &Arc<Host>) -> Self {
        info.stats.upstream_rq_pending_total().inc();
        info.stats.upstream_rq_pending_active().inc();
        host.stats().rq_pending_active.fetch_add(1, Ordering::Relaxed);
        Self { info: info.clone(), host: host.clone(), failed: false }
    }

    /// There is no connection to be had.
    pub(crate) fn fail(mut self) {
        self.failed = true;
    }

    /// There is one, for as long as the answer is kept.
    pub(crate) fn succeed(self) -> Carried {
        let (info, host) = (self.info.clone(), &self.host);
        info.stats.upstream_rq_total().inc();
        info.stats.upstream_rq_active().inc();
        Carried { info, _request: host.begin_request() }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.info.stats.upstream_rq_pending_active().dec();
        self.host.stats().rq_pending_active.fetch_sub(1, Ordering::Relaxed);
        if self.failed {
            self.info.stats.upstream_rq_pending_failure_eject().inc();
        }
    }
}

/// A connection that has one to its host (`upstream_rq_active`).
#[derive(Debug)]
pub(crate) struct Carried {
    info: Arc<ClusterInfo>,
    _request: ActiveRequest,
}

impl Drop for Carried {
    fn drop(&mut self) {
        self.info.stats.upstream_rq_active().dec();
    }
}
