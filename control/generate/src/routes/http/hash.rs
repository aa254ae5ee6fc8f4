//! What a consistent hash is computed from, which Envoy keeps on the route.

use dhow_control_model::istio::HashKey;
use dhow_control_model::push::EffectivePolicy;
use dhow_proto::envoy::config::route::v3::route_action::HashPolicy;
use dhow_proto::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
};

use crate::messages::go_duration;

pub(super) fn policy(policy: &EffectivePolicy) -> Option<HashPolicy> {
    let hash = policy.load_balancer.as_ref()?.consistent_hash.as_ref()?;
    let specifier = match hash.key()? {
        HashKey::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.to_owned(), ..Header::default() })
        }
        HashKey::Cookie(cookie) => PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(go_duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| CookieAttribute {
                    name: attribute.name.clone(),
                    value: attribute.value.clone(),
                })
                .collect(),
        }),
        HashKey::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashKey::QueryParameter(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.to_owned() })
        }
    };
    Some(HashPolicy { terminal: false, policy_specifier: Some(specifier) })
}
