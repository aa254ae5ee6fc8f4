//! State-of-the-world ADS: every response holds all resources of its type that were asked for.

use std::collections::BTreeMap;

use dhow_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use tokio::sync::watch;

use super::grpc::Channel;
use super::resources::short_name;
use super::{Shared, Signal};

/// What one stream asked for of one type, and what it was sent.
#[derive(Default)]
struct Subscription {
    names: Vec<String>,
    /// Names and versions of the resources in the latest response.
    sent: Option<Vec<(String, u64)>>,
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
            request = channel.next::<DiscoveryRequest>() => {
                let Some(request) = request else { return Ok(()) };
                take(request, &mut subscriptions, shared);
            }
            changed = signal.changed() => if changed.is_err() { return Ok(()) },
        }
        for (type_url, subscription) in &mut subscriptions {
            if let Some(mut response) = state(type_url, subscription, shared) {
                nonce += 1;
                response.nonce = nonce.to_string();
                channel.send(&response).await?;
            }
        }
    }
}

fn take(request: DiscoveryRequest, subscriptions: &mut BTreeMap<String, Subscription>, shared: &Shared) {
    let subscription = subscriptions.entry(request.type_url.clone()).or_default();
    let short = short_name(&request.type_url).to_owned();
    if request.error_detail.is_some() {
        shared.facts().refused.push(short.clone());
    }
    let mut names = request.resource_names;
    names.sort();
    if names != subscription.names {
        // A changed set of names asks for an answer, whether or not the resources changed.
        subscription.sent = None;
        subscription.names.clone_from(&names);
    }
    if names.is_empty() {
        names.push("*".to_owned());
    }
    shared.facts().subscribed.insert(short, names);
}

fn state(type_url: &str, subscription: &mut Subscription, shared: &Shared) -> Option<DiscoveryResponse> {
    let resources = shared.resources();
    let mut wanted = resources.of(type_url);
    let everything = subscription.names.is_empty() || subscription.names.iter().any(|n| n == "*");
    wanted.retain(|name, _| everything || subscription.names.contains(name));
    let now: Vec<(String, u64)> =
        wanted.iter().map(|(name, resource)| (name.clone(), resource.version)).collect();
    if subscription.sent.as_ref() == Some(&now)
        || (subscription.sent.is_none() && now.is_empty() && !everything)
    {
        return None;
    }
    subscription.sent = Some(now);
    Some(DiscoveryResponse {
        version_info: resources.version().to_string(),
        resources: wanted.into_values().map(|resource| resource.any).collect(),
        type_url: type_url.to_owned(),
        ..DiscoveryResponse::default()
    })
}
