//! From a request's head to its route: normalisation, origin, the route and whether an upgrade is allowed.

use std::time::Duration;

use dhow_http::{HeaderMap, HeaderName, KnownHeader};
use dhow_proxy_api::{LocalReply, LogMoment, StreamFormat};
use dhow_proxy_runtime::{LoadShedPoint, OverloadAction, overload};
use dhow_routing::{ClientCertificate, ForwardAction, RouteInput, RouteTable};
use dhow_runtime_config::Current;

use super::exchange::{Exchange, is_grpc};
use crate::config::HttpFilterChain;
use crate::request_headers;
use crate::router::{parse_grpc_timeout, set_grpc_timeout};
use crate::upgrade::{self, ActiveUpgrade};

impl Exchange {
    /// Normalises the request, decides where it came from and selects its route.
    pub(super) fn admit(&mut self) -> Result<(), Box<LocalReply>> {
        let manager = self.manager.clone();
        let config = &manager.config;
        let random = || manager.worker.random();
        if !self.info.connection.bypass_overload_manager
            && (overload().applies(OverloadAction::StopAcceptingRequests, random)
                || overload().sheds(LoadShedPoint::DecodeHeaders, random))
        {
            return Err(self.refused_by_overload());
        }
        let connection = self.info.connection.clone();
        let port = connection.local_address.port();
        if let Err(reply) = request_headers::normalize(&config.normalization, port, &mut self.request) {
            self.note_refusal(&reply);
            return Err(reply);
        }
        for edit in &config.forwarding.early_mutations {
            edit.apply_to_request(&mut self.request, &StreamFormat::new(&self.info));
        }
        let origin = request_headers::mutate(config, &connection, &mut self.request, self.upgrade, || {
            manager.worker.random()
        })
        .inspect_err(|_| manager.stats.manager.downstream_rq_rejected_via_ip_detection().inc())?;
        self.info.client_address = origin.client_address;
        self.internal = origin.internal;
        if let Some(table) = manager.routes(&self.request) {
            if !origin.internal {
                for name in table.internal_only_headers() {
                    self.request.remove(name);
                }
            }
            self.select_route_of(&table);
        }
        if config.log_moments.start {
            self.log(LogMoment::Start);
        }
        self.check_upgrade()
    }

    /// Counts a request that is refused for its target. Its reply has a route like others, but without x-forwarded-proto,
    /// which only the client can have set so early, Envoy finds none.
    fn note_refusal(&mut self, reply: &LocalReply) {
        let stats = &self.manager.stats.manager;
        match reply.details.as_ref() {
            "path_normalization_failed" if reply.status == 307 => {
                stats.downstream_rq_redirected_with_normalized_path().inc();
            }
            "path_normalization_failed" => stats.downstream_rq_failed_path_normalization().inc(),
            "absolute_path_rejected" => stats.downstream_rq_non_relative_path().inc(),
            _ => {}
        }
        let has_target = !self.request.path().is_empty() && !self.request.authority().is_empty();
        if has_target && self.request.contains_known(KnownHeader::XForwardedProto) {
            self.select_route();
        }
    }

    /// The answer to requests while none are accepted.
    #[cold]
    fn refused_by_overload(&self) -> Box<LocalReply> {
        self.manager.stats.manager.downstream_rq_overload_close().inc();
        let mut reply = LocalReply::overloaded();
        if self.manager.config.append_local_overload {
            reply = reply.header(HeaderName::control("local-overloaded"), *b"true");
        }
        Box::new(reply)
    }

    pub(crate) fn select_route(&mut self) {
        if let Some(table) = self.manager.routes(&self.request) {
            self.select_route_of(&table);
        }
    }

    fn select_route_of(&mut self, table: &RouteTable) {
        let selected = {
            let context = StreamFormat { request: Some(&self.request), ..StreamFormat::new(&self.info) };
            let certificate = self.info.connection.tls.session().map(|tls| {
                if tls.peer_verified {
                    ClientCertificate::Validated
                } else if tls.peer.is_some() {
                    ClientCertificate::Presented
                } else {
                    ClientCertificate::None
                }
            });
            let input = RouteInput {
                client_certificate: certificate,
                context: &context,
                runtime: &Current,
                ..RouteInput::new(self.random)
            };
            table.select(&self.request, &input).selected()
        };
        self.info.route_resolutions += 1;
        let Some(selected) = selected else { return };
        if let Some(action) = selected.forward() {
            if let Some(idle) = action.idle_timeout {
                self.deadlines.set_idle_timeout(Some(idle).filter(|idle| !idle.is_zero()));
            }
            let limit =
                duration_limit(action, self.manager.config.timeouts.max_stream_duration, &mut self.request);
            if let Some(limit) = limit {
                self.deadlines.max_duration = limit.map(|limit| self.info.start + limit);
            }
        }
        self.info.route = Some(selected);
    }

    /// An upgrade that neither the connection manager nor the route allows is refused, once there is a route. The route
    /// has the last word.
    fn check_upgrade(&mut self) -> Result<(), Box<LocalReply>> {
        if !self.upgrade {
            return Ok(());
        }
        let kind = upgrade::kind(&self.request);
        let route = self.info.route.as_ref();
        let by_route = route.and_then(|route| route.forward()?.upgrade(&kind)).map(|upgrade| upgrade.enabled);
        let rules = &self.manager.config.upgrades;
        let rule = rules.iter().position(|rule| *rule.kind == *kind);
        if by_route.unwrap_or_else(|| rule.is_some_and(|at| rules[at].enabled)) {
            self.upgrade_chain = rule.filter(|at| rules[*at].chain.is_some());
            self.active_upgrade = Some(ActiveUpgrade::begin(self.manager.clone()));
            return Ok(());
        }
        if self.info.route.is_none() {
            return Ok(());
        }
        self.manager.stats.manager.downstream_rq_ws_on_non_ws_route().inc();
        Err(Box::new(LocalReply::new(403, &b""[..], "upgrade_failed").closing()))
    }

    /// The filters and the router that serve the stream.
    pub(crate) fn chain(&self) -> &HttpFilterChain {
        self.manager.config.chain_of(self.upgrade_chain)
    }
}

/// How long a stream may last by its route: not at all limited (`Some(None)`), or as the connection manager says (`None`). A
/// call of gRPC may say so itself where the route allows it; upstream learns what came of that, or of the route's own limit.
fn duration_limit(
    action: &ForwardAction,
    default: Option<Duration>,
    request: &mut HeaderMap,
) -> Option<Option<Duration>> {
    if !action.has_stream_duration {
        return None;
    }
    let grpc = is_grpc(request);
    let asked = action.grpc_timeout_header_max.filter(|_| grpc).and_then(|max| {
        let asked = request.get_known(KnownHeader::GrpcTimeout)?;
        Some((max, parse_grpc_timeout(asked)?))
    });
    let Some((max, asked)) = asked else {
        let limit = action.max_stream_duration.or(default)?;
        if limit.is_zero() {
            return Some(None);
        }
        if grpc {
            set_grpc_timeout(request, limit);
        }
        return Some(Some(limit));
    };
    let capped = if max.is_zero() { asked } else { asked.min(max) };
    let limit = capped.saturating_sub(action.grpc_timeout_header_offset.unwrap_or_default());
    set_grpc_timeout(request, limit);
    Some(Some(limit))
}
