//! Retry policies: Istio's default, the mesh's, or the rule's.

use dhow_control_model::istio::RetryPolicy;
use dhow_proto::envoy::config::route::v3 as envoy;
use dhow_proto::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, retry_host_predicate,
};
use dhow_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;

use crate::ProxyContext;
use crate::messages::{any, duration, go_duration, number};

const DEFAULT_RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const DEFAULT_ATTEMPTS: u32 = 2;
/// How often another host is drawn to avoid one that was tried.
const HOST_ATTEMPTS: i64 = 5;
const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
/// Envoy's longest wait is ten times the shortest.
const BACK_OFF_SPAN: u32 = 10;

/// The policy of a route; `None` when retries are disabled. With consistent hashing a retry stays with its host.
pub(super) fn policy(
    context: &ProxyContext<'_>,
    own: Option<&RetryPolicy>,
    hashed: bool,
) -> Option<envoy::RetryPolicy> {
    let given = own.or(context.push.mesh.default_http_retry_policy.as_ref());
    let mut policy = envoy::RetryPolicy {
        retry_on: DEFAULT_RETRY_ON.to_owned(),
        num_retries: number(DEFAULT_ATTEMPTS),
        ..envoy::RetryPolicy::default()
    };
    let mut avoids_previous = true;
    if let Some(given) = given {
        let attempts = u32::try_from(given.attempts).ok().filter(|attempts| *attempts > 0)?;
        policy.num_retries = number(attempts);
        if !given.retry_on.is_empty() {
            (policy.retry_on, policy.retriable_status_codes) = conditions(&given.retry_on);
        }
        policy.per_try_timeout = given.per_try_timeout.map(go_duration);
        policy.retry_back_off = given.backoff.map(|backoff| RetryBackOff {
            base_interval: Some(go_duration(backoff)),
            max_interval: Some(duration(backoff.0 * BACK_OFF_SPAN)),
        });
        avoids_previous = given.retry_ignore_previous_hosts.unwrap_or(true);
    }
    if avoids_previous && !hashed {
        policy.host_selection_retry_max_attempts = HOST_ATTEMPTS;
        policy.retry_host_predicate = vec![RetryHostPredicate {
            name: PREVIOUS_HOSTS.to_owned(),
            config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
        }];
    }
    Some(policy)
}

/// Bare status codes become a list of their own, which needs one more condition to have an effect.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let (mut names, mut codes) = (Vec::new(), Vec::new());
    for condition in retry_on.split(',').map(str::trim).filter(|condition| !condition.is_empty()) {
        match condition.parse() {
            Ok(code) => codes.push(code),
            Err(_) => names.push(condition),
        }
    }
    if !codes.is_empty() && !names.contains(&"retriable-status-codes") {
        names.push("retriable-status-codes");
    }
    (names.join(","), codes)
}
