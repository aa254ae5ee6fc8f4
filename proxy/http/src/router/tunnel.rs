//! CONNECT that ends here (`connect_config`): a connection to the host instead of a request.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use dhow_net::proxy_protocol::{append_v1, append_v2};
use dhow_proxy_api::{LocalReply, StreamInfo};
use dhow_proxy_runtime::DeadlineTimer;
use dhow_proxy_upstream::{Host, Resource, SecureOptions, WorkerCluster, connect};
use dhow_routing::ProxyProtocol;

use super::{Forwarding, poll_deadlines};
use crate::body::{BodySource, BodyState};
use crate::downstream::Downstream;
use crate::reset::{Reset, ResetKind};
use crate::stream::{Direction, Exchange, Interruption};
use crate::traffic::Traffic;
use crate::upstream::{Tunnel, UpstreamStream, connect_failure};
use crate::wire::Wire;

impl Exchange {
    /// Whether the route ends the request's CONNECT, or its POST that is treated like one.
    pub(super) fn terminates_connect(&self) -> bool {
        let post = match self.request.method() {
            b"CONNECT" => false,
            b"POST" => true,
            _ => return false,
        };
        let forward = self.info.route.as_ref().and_then(|route| route.forward());
        let rule = forward.and_then(|action| action.upgrade("connect"));
        rule.is_some_and(|rule| rule.terminate_connect && (rule.allow_post || !post))
    }

    /// Connects to the host.
    pub(super) async fn open_tunnel<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &Forwarding,
        (cluster, host): (&WorkerCluster, &Arc<Host>),
        options: &SecureOptions,
    ) -> Result<UpstreamStream, Interruption> {
        let info = cluster.info();
        let Some(permit) = info.circuit_breakers.try_acquire(forwarding.priority, Resource::Connections)
        else {
            info.stats.upstream_cx_overflow().inc();
            return Err(Interruption::Upstream(Reset::new(ResetKind::Overflow)));
        };
        let rejects_early_data = self.rejects_early_data();
        let mut connecting = Box::pin(connect(info, host, options, Some(permit)));
        let connected = poll_fn(|cx| {
            if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
                return Poll::Ready(
                    result.map_err(|failure| Interruption::Upstream(connect_failure(failure))),
                );
            }
            if let Poll::Ready(reset) = down.poll_closed(cx) {
                return Poll::Ready(Err(Interruption::Downstream(reset)));
            }
            if rejects_early_data && sends_early(cx, down, &mut self.info) {
                return Poll::Ready(Err(early_data()));
            }
            poll_deadlines(cx, timer, &self.deadlines).map(Err)
        });
        let connection = connected.await?;
        let limit = cluster.info().per_connection_buffer_limit;
        let traffic = Traffic::of_hosts(&cluster.info().stats);
        let buffers = self.manager.worker.buffers().clone();
        let wire = Wire::new(connection.transport, buffers, limit, traffic);
        let greeting = self.tunnel_greeting();
        Ok(UpstreamStream::Tunnel(Box::new(Tunnel::new(wire, connection.guard, &greeting))))
    }

    /// Whether data behind the request is to wait for the answer to it.
    pub(super) fn rejects_early_data(&self) -> bool {
        self.chain().router.as_ref().is_some_and(|router| router.rejects_early_data)
            && self.request.method() == b"CONNECT"
    }

    /// The PROXY protocol header that tells the host about the client's connection, where the route wants one.
    fn tunnel_greeting(&self) -> Vec<u8> {
        let mut header = Vec::new();
        let forward = self.info.route.as_ref().and_then(|route| route.forward());
        let version =
            forward.and_then(|action| action.upgrade("connect")).and_then(|rule| rule.proxy_protocol);
        match (version, self.info.connection.ends()) {
            (Some(ProxyProtocol::V1), Some((client, own))) => append_v1(&mut header, client, own),
            (Some(ProxyProtocol::V2), Some((client, own))) => {
                append_v2(&mut header, client, own, &[]);
            }
            (None, _) | (_, None) => {}
        }
        header
    }
}

/// Whether the client sent data already, which counts as received.
pub(crate) fn sends_early<D: BodySource>(cx: &mut Context<'_>, down: &mut D, info: &mut StreamInfo) -> bool {
    let early = matches!(down.poll_body(cx), Poll::Ready(Ok(BodyState::Data)));
    if early {
        info.bytes_received += down.chunk().len() as u64;
    }
    early
}

/// The answer to a client that sends before it may (`reject_connect_request_early_data`).
pub(crate) fn early_data() -> Interruption {
    let reply = LocalReply::new(400, &b""[..], "early_connect_data").closing();
    Interruption::Answered(Box::new(reply), Direction::Request)
}
