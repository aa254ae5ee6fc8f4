//! What of a request decides about its host.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::MetadataCriteria;
use dhow_proto::google::protobuf::{Struct, value::Kind};
use dhow_proxy_api::{FilterStateValue, LocalReply, StreamInfo};
use dhow_proxy_runtime::DeadlineTimer;
use dhow_proxy_upstream::{ChosenHost, Host, LB_FILTER, LbContext, LbRequest, Resolution, WorkerCluster};
use dhow_routing::RetryPolicy;

use super::retry::RetryState;
use super::{Forwarding, poll_deadlines};
use crate::downstream::Downstream;
use crate::stream::{Exchange, Interruption};

/// A request as load balancing reads it.
struct RequestView<'a> {
    headers: &'a HeaderMap,
    info: &'a StreamInfo,
}

impl LbRequest for RequestView<'_> {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get_str(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    fn metadata(&self, namespace: &str) -> Option<&Struct> {
        self.info.dynamic_metadata.get(namespace)
    }

    fn wanted_address(&self) -> Option<SocketAddr> {
        match self.info.filter_state.get("envoy.network.transport_socket.original_dst_address")? {
            FilterStateValue::Address(address) => Some(*address),
            _ => None,
        }
    }

    fn wanted_host(&self) -> Option<&str> {
        self.info.filter_state.dynamic_host()
    }

    fn wanted_port(&self) -> Option<u16> {
        self.info.filter_state.dynamic_port()
    }
}

impl Exchange {
    /// The reply to a request that the cluster turns away because it is overloaded (`drop_overloads`).
    pub(super) fn dropped(&self, cluster: &WorkerCluster) -> Option<LocalReply> {
        const ALL: u32 = 1_000_000;
        let share = cluster.drop_overload();
        if share == ALL {
            let reply =
                LocalReply::new(503, &b"unconditional drop overload"[..], "unconditional_drop_overload");
            return Some(
                reply
                    .flag(ResponseFlag::UnconditionalDropOverload)
                    .header(HeaderName::control("unconditional-drop-overload"), "true"),
            );
        }
        (share > 0 && self.manager.worker.random() % u64::from(ALL) < u64::from(share)).then(|| {
            LocalReply::new(503, &b"drop overload"[..], "drop_overload")
                .flag(ResponseFlag::DropOverload)
                .header(HeaderName::control("drop-overload"), "true")
        })
    }

    /// Waits until the name of the host is resolved, where that is what is missing: a dynamic forward proxy whose filter has not
    /// asked for it.
    pub(super) async fn await_name<D: Downstream>(
        &mut self,
        down: &mut D,
        timer: &mut DeadlineTimer,
        forwarding: &Forwarding,
    ) -> Result<Option<ChosenHost>, Interruption> {
        let request = RequestView { headers: &self.request, info: &self.info };
        let Some(Resolution::Wait(mut answer)) = forwarding.cluster.resolve_requested(&request) else {
            return Ok(self.choose_host(forwarding));
        };
        poll_fn(|cx| {
            if answer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            if let Poll::Ready(reset) = down.poll_closed(cx) {
                return Poll::Ready(Err(Interruption::Downstream(reset)));
            }
            poll_deadlines(cx, timer, &self.deadlines).map(Err)
        })
        .await?;
        Ok(self.choose_host(forwarding))
    }

    /// The host for the next attempt; `None` when there is none.
    pub(super) fn choose_host(&self, forwarding: &Forwarding) -> Option<ChosenHost> {
        let policy = forwarding.retry.as_ref().and_then(RetryState::policy);
        let tried = |host: &Host| forwarding.tried.iter().any(|other| std::ptr::eq(&**other, host));
        let previous = policy.is_some_and(|policy| policy.avoid_previous_hosts);
        let avoided =
            |host: &Host| (previous && tried(host)) || policy.is_some_and(|policy| is_omitted(policy, host));
        let avoids = policy.is_some_and(RetryPolicy::has_host_predicates) && !forwarding.tried.is_empty();
        let criteria = forwarding.route.metadata_match();
        // What filters said goes over what the route says.
        let merged = self.info.dynamic_metadata.get(LB_FILTER).map(|own| match criteria {
            Some(criteria) => criteria.merged(own),
            None => MetadataCriteria::of_struct(own),
        });
        forwarding.cluster.choose_host(&LbContext {
            hash: forwarding.hash,
            avoid: if avoids { Some(&avoided) } else { None },
            reselections: policy.map_or(0, |policy| policy.host_selection_attempts),
            original_destination: self.info.connection.original_destination(),
            criteria: merged.as_ref().or(criteria),
            override_host: self.info.override_host.as_ref().map(|host| (&*host.address, host.strict)),
            request: Some(&RequestView { headers: &self.request, info: &self.info }),
            attempts: self.info.upstream.attempts,
            previous_priorities: forwarding.previous_priorities.as_ref(),
        })
    }
}

/// The reply when there is no host, or no connection pool may be made for it.
pub(super) fn no_healthy_upstream() -> LocalReply {
    LocalReply::new(503, &b"no healthy upstream"[..], "no_healthy_upstream")
        .flag(ResponseFlag::NoHealthyUpstream)
}

/// Whether the metadata of a host says that it is a canary.
pub(super) fn is_canary(host: &Host) -> bool {
    let canary = host.metadata().endpoint_struct(LB_FILTER).and_then(|fields| fields.fields.get("canary"));
    matches!(canary.and_then(|value| value.kind.as_ref()), Some(Kind::BoolValue(true)))
}

/// Whether a retry is not to go to hosts like this one.
fn is_omitted(policy: &RetryPolicy, host: &Host) -> bool {
    let Some(fields) = host.metadata().endpoint_struct(LB_FILTER) else {
        return false;
    };
    let has =
        |omitted: &Struct| omitted.fields.iter().all(|(key, value)| fields.fields.get(key) == Some(value));
    (policy.omit_canary_hosts && is_canary(host)) || policy.omit_host_metadata.iter().any(has)
}
