//! Resources and messages for the tests of this crate.

use std::sync::Arc;
use std::time::Instant;

use prost::Message;
use prost::encoding::string;

use crate::messages::{
    Any, ControlPlane, DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    Node, WireResource,
};
use crate::{Request, Resource, Response, ServerSession, Want};

/// An encoded resource with `name` in field 1 and `content` in field 2.
pub(crate) fn body(type_url: &str, name: &str, content: &str) -> Any {
    let mut value = Vec::new();
    string::encode(1, &name.to_owned(), &mut value);
    string::encode(2, &content.to_owned(), &mut value);
    Any { type_url: type_url.to_owned(), value }
}

/// The content of a resource made by [`body`].
pub(crate) fn content(any: &Any) -> String {
    #[derive(Clone, PartialEq, Message)]
    struct Body {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(string, tag = "2")]
        content: String,
    }
    Body::decode(any.value.as_slice()).expect("made by body()").content
}

pub(crate) fn resource(type_url: &str, name: &str, content: &str) -> Resource {
    Resource { name: name.into(), version: content.into(), body: Arc::new(body(type_url, name, content)) }
}

pub(crate) fn wire(type_url: &str, name: &str, version: &str) -> WireResource {
    WireResource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(body(type_url, name, version)),
        ..WireResource::default()
    }
}

pub(crate) fn node() -> Node {
    Node { id: "sidecar~10.1.1.4~a.default~default.svc.cluster.local".to_owned(), ..Node::default() }
}

pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

pub(crate) fn sotw_response(type_url: &str, version: &str, nonce: &str, names: &[&str]) -> Response {
    Response::StateOfTheWorld(DiscoveryResponse {
        version_info: version.to_owned(),
        resources: names.iter().map(|name| body(type_url, name, version)).collect(),
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        control_plane: Some(ControlPlane { identifier: "test".to_owned() }),
        ..DiscoveryResponse::default()
    })
}

pub(crate) fn delta_response(
    type_url: &str,
    nonce: &str,
    added: &[(&str, &str)],
    removed: &[&str],
) -> Response {
    Response::Delta(DeltaDiscoveryResponse {
        resources: added.iter().map(|(name, version)| wire(type_url, name, version)).collect(),
        type_url: type_url.to_owned(),
        removed_resources: names(removed),
        nonce: nonce.to_owned(),
        ..DeltaDiscoveryResponse::default()
    })
}

#[track_caller]
pub(crate) fn delta_request(request: Option<Request>) -> DeltaDiscoveryRequest {
    match request {
        Some(Request::Delta(request)) => request,
        other => panic!("not a delta request: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn sotw_request(request: Option<Request>) -> DiscoveryRequest {
    match request {
        Some(Request::StateOfTheWorld(request)) => request,
        other => panic!("not a state-of-the-world request: {other:?}"),
    }
}

/// The resources of `world` that a session wants.
pub(crate) fn select(world: &[Resource], want: &Want) -> Vec<Resource> {
    let wanted = |resource: &&Resource| {
        resource.body.type_url == *want.type_url && (want.wildcard || want.names.contains(&*resource.name))
    };
    world.iter().filter(wanted).cloned().collect()
}

/// Everything that a server has to say about `world` now.
pub(crate) fn pushes(server: &mut ServerSession, world: &[Resource], now: Instant) -> Vec<crate::Push> {
    let mut pushes = Vec::new();
    while let Some(want) = server.poll_want(now) {
        pushes.extend(server.supply(&want.type_url, &select(world, &want), "snapshot", now));
    }
    pushes
}
