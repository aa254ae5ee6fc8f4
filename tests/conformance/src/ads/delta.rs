//! Incremental ADS: only what changed is sent.

use std::collections::{BTreeMap, BTreeSet};

use dhow_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use tokio::sync::watch;

use super::grpc::Channel;
use super::resources::short_name;
use super::{Shared, Signal};

/// What one stream asked for of one type, and what it has.
#[derive(Default)]
struct Subscription {
    wildcard: bool,
    names: BTreeSet<String>,
    has: BTreeMap<String, u64>,
}

/// Serves a stream until it ends.
pub(super) async fn serve(
    mut channel: Channel,
    shared: &Shared,
    mut signal: watch::Receiver<Signal>,
) -> Result<(), h2::Error> {
    shared.facts().subscribed.clear();
    let mut subscriptions: BTreeMap<String, Subscription> = BTreeMap::new();
    let mut nonce = 0;
    loop {
        tokio::select! {
            request = channel.next::<DeltaDiscoveryRequest>() => {
                let Some(request) = request else { return Ok(()) };
                take(request, &mut subscriptions, shared);
            }
            changed = signal.changed() => if changed.is_err() { return Ok(()) },
        }
        for (type_url, subscription) in &mut subscriptions {
            if let Some(mut response) = difference(type_url, subscription, shared) {
                nonce += 1;
                response.nonce = nonce.to_string();
                channel.send(&response).await?;
            }
        }
    }
}

fn take(request: DeltaDiscoveryRequest, subscriptions: &mut BTreeMap<String, Subscription>, shared: &Shared) {
    let type_url = request.type_url;
    let first = !subscriptions.contains_key(&type_url);
    let subscription = subscriptions.entry(type_url.clone()).or_default();
    if request.error_detail.is_some() {
        shared.facts().refused.push(short_name(&type_url).to_owned());
    }
    // A first request without names, which no answer has preceded, asks for everything.
    subscription.wildcard |= first && request.resource_names_subscribe.is_empty();
    for (name, version) in request.initial_resource_versions {
        subscription.has.insert(name, version.parse().unwrap_or(0));
    }
    for name in request.resource_names_subscribe {
        // Asking again for a name asks for it to be sent again.
        subscription.has.remove(&name);
        subscription.wildcard |= name == "*";
        subscription.names.insert(name);
    }
    for name in request.resource_names_unsubscribe {
        subscription.wildcard &= name != "*";
        subscription.names.remove(&name);
        subscription.has.remove(&name);
    }
    let mut names: Vec<String> = subscription.names.iter().filter(|n| *n != "*").cloned().collect();
    if subscription.wildcard {
        names.insert(0, "*".to_owned());
    }
    shared.facts().subscribed.insert(short_name(&type_url).to_owned(), names);
}

/// What has to be sent for the stream to have what it asked for.
fn difference(
    type_url: &str,
    subscription: &mut Subscription,
    shared: &Shared,
) -> Option<DeltaDiscoveryResponse> {
    let resources = shared.resources();
    let mut wanted = resources.of(type_url);
    wanted.retain(|name, _| subscription.wildcard || subscription.names.contains(name));
    let removed: Vec<String> =
        subscription.has.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
    for name in &removed {
        subscription.has.remove(name);
    }
    let mut sent = Vec::new();
    for (name, resource) in wanted {
        if subscription.has.insert(name.clone(), resource.version) != Some(resource.version) {
            let version = resource.version.to_string();
            sent.push(Resource { name, version, resource: Some(resource.any), ..Resource::default() });
        }
    }
    if sent.is_empty() && removed.is_empty() {
        return None;
    }
    Some(DeltaDiscoveryResponse {
        system_version_info: resources.version().to_string(),
        resources: sent,
        type_url: type_url.to_owned(),
        removed_resources: removed,
        ..DeltaDiscoveryResponse::default()
    })
}
