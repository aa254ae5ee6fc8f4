//! The way to a host: which cluster and host, and a connection or a tunnel to it.

use std::rc::Rc;
use std::sync::Arc;

use dhow_base::{Backoff, ResponseFlag, Rng};
use dhow_proxy_api::{StreamFormat, StreamInfo};
use dhow_proxy_upstream::{
    Host, HostResult, HttpTunnels, LbContext, ProxiedConnection, Resource, RoutingPriority, SecureOptions,
    TunnelFailureKind, WorkerCluster, connect,
};
use twox_hash::XxHash64;

use crate::carried::Waiting;
use crate::config::{HashSource, Target};
use crate::copy::{Plain, Upstream};
use crate::filter::Handler;
use crate::tunneling::Tunneling;

/// What became of an attempt to connect.
enum Attempt {
    Connected(Upstream),
    Failed,
    /// Another attempt would end the same.
    Hopeless(Unconnected),
}

/// Why a connection has no host, by the number that Envoy gives the reason.
#[derive(Clone, Copy)]
enum Unconnected {
    /// The attempts to connect failed.
    Failed = 0,
    /// No host can be chosen.
    NoHost = 1,
    /// The cluster has as many connections as it may.
    NoRoom = 2,
    /// There is no such cluster.
    NoCluster = 3,
}

impl Handler {
    /// Connects to a host of the cluster for the connection; none when it fails, with the reason in `stream`.
    pub(crate) async fn connect(&self, stream: &mut StreamInfo) -> Option<Upstream> {
        let reason = match self.try_connect(stream).await {
            Ok(upstream) => return Some(upstream),
            Err(reason) => reason as u8,
        };
        stream.connection.record_mut().borrow_mut().local_close_reason =
            Some(format!("tcp_initializion_failure:{reason}").into());
        None
    }

    async fn try_connect(&self, stream: &mut StreamInfo) -> Result<Upstream, Unconnected> {
        let target = self.config.target(self.worker.random());
        // Filters in front may have chosen the cluster (`sni_cluster`).
        let chosen = stream.filter_state.text("envoy.tcp_proxy.cluster");
        let chosen = chosen.and_then(|name| String::from_utf8(name).ok());
        let Some(cluster) = self.clusters.get(chosen.as_deref().unwrap_or(&target.cluster)) else {
            self.stats.downstream_cx_no_route().inc();
            stream.flag(ResponseFlag::NoClusterFound);
            return Err(Unconnected::NoCluster);
        };
        stream.upstream.cluster = Some(cluster.info().observability_name.clone());
        stream.upstream.cluster_name = Some(cluster.info().name.clone());
        stream.upstream.cluster_metadata = cluster.info().metadata.clone();
        let mut backoff = self.config.backoff.map(|(base, max)| Backoff::new(base, max));
        for attempt in 0..self.config.max_connect_attempts.max(1) {
            if let Some(backoff) = backoff.as_mut().filter(|_| attempt > 0) {
                tokio::time::sleep(backoff.next(&mut Rng::seeded(self.worker.random()))).await;
            }
            match self.connect_once(&cluster, target, stream).await {
                Attempt::Connected(upstream) => return Ok(upstream),
                Attempt::Failed => {}
                Attempt::Hopeless(reason) => return Err(reason),
            }
        }
        cluster.info().stats.upstream_cx_connect_attempts_exceeded().inc();
        stream.flag(ResponseFlag::UpstreamRetryLimitExceeded);
        Err(Unconnected::Failed)
    }

    async fn connect_once(
        &self,
        cluster: &Rc<WorkerCluster>,
        target: &Target,
        stream: &mut StreamInfo,
    ) -> Attempt {
        let breakers = &cluster.info().circuit_breakers;
        if !breakers.has_room(RoutingPriority::Default, Resource::Connections) {
            breakers.count_overflow(Resource::Connections);
            stream.flag(ResponseFlag::UpstreamOverflow);
            return Attempt::Hopeless(Unconnected::NoRoom);
        }
        let context = LbContext {
            original_destination: stream.connection.original_destination(),
            hash: self.config.hash.as_ref().and_then(|source| hash_of(source, stream)),
            criteria: target.criteria.as_ref(),
            ..LbContext::default()
        };
        let Some(chosen) = cluster.choose_host(&context) else {
            cluster.info().stats.upstream_cx_none_healthy().inc();
            stream.flag(ResponseFlag::NoHealthyUpstream);
            return Attempt::Hopeless(Unconnected::NoHost);
        };
        let (cluster, host) = (chosen.cluster(cluster), &chosen.host);
        stream.upstream.attempts += 1;
        stream.upstream.host = Some(host.address().to_string().into());
        stream.upstream.host_metadata = Some(host.metadata().endpoint.clone());
        let socket = (cluster.info().sockets_by_state() && stream.filter_state.shares_any())
            .then(|| cluster.info().socket_by_state(host, &|key| stream.filter_state.shared_text(key)))
            .flatten();
        let names_client =
            socket.as_ref().map_or(host.transport_socket(), |chosen| &chosen.socket).names_client();
        let proxied = names_client.then(|| self.proxied(stream));
        let options = SecureOptions { proxied, socket, ..SecureOptions::default() };
        match (&self.config.tunneling, &self.tunnels) {
            (Some(tunneling), Some(tunnels)) if !Tunneling::is_disabled(stream) => {
                open_tunnel(tunneling, &**tunnels, (cluster, host), options, stream, self.worker.random())
                    .await
            }
            _ => connect_plainly((cluster, host), &options, stream).await,
        }
    }

    /// What a PROXY protocol header tells the host of.
    fn proxied(&self, stream: &StreamInfo) -> Arc<ProxiedConnection> {
        let record = stream.connection.record();
        let own = record.and_then(|record| record.borrow().proxy_extensions.clone());
        Arc::new(ProxiedConnection {
            ends: stream.connection.ends(),
            tlvs: self.config.extensions(own, &StreamFormat::new(stream)),
        })
    }
}

async fn open_tunnel(
    tunneling: &Tunneling,
    tunnels: &dyn HttpTunnels,
    (cluster, host): (&Rc<WorkerCluster>, &Arc<Host>),
    options: SecureOptions,
    stream: &mut StreamInfo,
    random: u64,
) -> Attempt {
    let secure = host.transport_socket().is_secure();
    let request = tunneling.request(stream, secure, random);
    let options = (options != SecureOptions::default()).then(|| Box::new(options));
    let failure = match tunnels.open(cluster, host, options, request).await {
        Ok(tunnel) => {
            cluster.note_result(host, HostResult::ConnectedFinal);
            tunneling.keep_headers(stream, tunnel.response());
            return Attempt::Connected(Upstream::Tunnel(tunnel));
        }
        Err(failure) => failure,
    };
    match failure.kind {
        TunnelFailureKind::NoRoom => stream.upstream.host = None,
        TunnelFailureKind::NoRequest => {}
        TunnelFailureKind::Unreachable => {
            cluster.note_result(host, HostResult::ConnectFailed);
            stream.flag(ResponseFlag::UpstreamConnectionFailure);
        }
        TunnelFailureKind::Declined => stream.flag(ResponseFlag::UpstreamConnectionFailure),
    }
    if let Some(response) = &failure.response {
        tunneling.keep_headers(stream, response);
    }
    stream.upstream.transport_failure = failure.text.map(Into::into);
    Attempt::Failed
}
async fn connect_plainly(
    (cluster, host): (&Rc<WorkerCluster>, &Arc<Host>),
    options: &SecureOptions,
    stream: &mut StreamInfo,
) -> Attempt {
    let info = cluster.info();
    let permit = info.circuit_breakers.acquire(RoutingPriority::Default, Resource::Connections);
    let waiting = Waiting::begin(info, host);
    match connect(info, host, options, Some(permit)).await {
        Ok(connection) => {
            connection.guard.count_request();
            connection.guard.set_requests_active(true);
            cluster.note_result(host, HostResult::ConnectedFinal);
            Attempt::Connected(Upstream::Plain(Box::new(Plain { connection, _carried: waiting.succeed() })))
        }
        Err(failure) => {
            waiting.fail();
            cluster.note_result(host, HostResult::ConnectFailed);
            stream.flag(ResponseFlag::UpstreamConnectionFailure);
            stream.upstream.transport_failure = Some(failure.text.into());
            Attempt::Failed
        }
    }
}

/// The hash of a client for clusters that choose hosts by hash.
fn hash_of(source: &HashSource, stream: &StreamInfo) -> Option<u64> {
    let text = match source {
        HashSource::Address => stream.client_address.ip()?.to_string().into_bytes(),
        HashSource::Object(key) => stream.filter_state.text(key)?,
    };
    Some(XxHash64::oneshot(0, &text))
}
