//! Locality load balancing: explicit shares, or failover to localities further away.

use dhow_control_model::istio::{LocalityFailover, LocalityLb};
use dhow_control_model::push::{EffectivePolicy, Locality};
use dhow_proto::envoy::config::endpoint::v3::LocalityLbEndpoints;

use crate::ProxyContext;
use crate::messages::number;

pub(super) fn apply(
    context: &ProxyContext<'_>,
    policy: &EffectivePolicy,
    groups: &mut Vec<LocalityLbEndpoints>,
) {
    let own = policy.load_balancer.as_ref().and_then(|balancer| balancer.locality_lb_setting.as_ref());
    let Some(setting) = own.or(context.push.mesh.locality_lb_setting.as_ref()) else {
        // Istio prefers near endpoints by default once it can see that they fail.
        if policy.outlier_detection.is_some() {
            failover(&context.proxy.locality, &[], groups);
        }
        return;
    };
    if setting.enabled == Some(false) || context.proxy.locality.is_empty() {
        return;
    }
    if !setting.distribute.is_empty() {
        distribute(&context.proxy.locality, setting, groups);
    } else if policy.outlier_detection.is_some() {
        failover(&context.proxy.locality, &setting.failover, groups);
    }
}

fn locality_of(group: &LocalityLbEndpoints) -> Locality {
    let locality = group.locality.clone().unwrap_or_default();
    Locality { region: locality.region, zone: locality.zone, sub_zone: locality.sub_zone }
}

/// The first entry for the caller's locality decides; localities without a share get nothing. Endpoints of several
/// localities that share one entry divide its weight by their own weights.
fn distribute(caller: &Locality, setting: &LocalityLb, groups: &mut Vec<LocalityLbEndpoints>) {
    let Some(entry) = setting.distribute.iter().find(|entry| caller.is_covered_by(&entry.from)) else {
        return;
    };
    let share_of = |locality: &Locality| {
        // The most specific pattern that covers the locality.
        entry
            .to
            .iter()
            .filter(|(pattern, _)| locality.is_covered_by(pattern))
            .max_by_key(|(pattern, _)| pattern.len())
    };
    let shares: Vec<_> = groups.iter().map(|group| share_of(&locality_of(group))).collect();
    let weights: Vec<u64> = groups
        .iter()
        .map(|group| group.load_balancing_weight.map_or(1, |weight| u64::from(weight.value)))
        .collect();
    let mut weighted = Vec::new();
    for (index, mut group) in std::mem::take(groups).into_iter().enumerate() {
        let Some((pattern, share)) = shares[index] else { continue };
        let total: u64 = (0..shares.len())
            .filter(|other| shares[*other].is_some_and(|(known, _)| known == pattern))
            .map(|other| weights[other])
            .sum();
        let part = (u64::from(*share) * weights[index]).div_ceil(total.max(1));
        group.load_balancing_weight = number(u32::try_from(part.max(1)).unwrap_or(u32::MAX));
        weighted.push(group);
    }
    *groups = weighted;
}

/// Priorities by distance, without gaps.
fn failover(caller: &Locality, explicit: &[LocalityFailover], groups: &mut [LocalityLbEndpoints]) {
    if caller.is_empty() {
        return;
    }
    let distance = |group: &LocalityLbEndpoints| {
        let locality = locality_of(group);
        let distance = caller.distance(&locality);
        let target = explicit.iter().find(|entry| entry.from == caller.region);
        // Behind an explicit target every other region comes last.
        if distance == 3 && target.is_some_and(|entry| entry.to != locality.region) { 4 } else { distance }
    };
    let distances: Vec<u32> = groups.iter().map(distance).collect();
    let mut ranks = distances.clone();
    ranks.sort_unstable();
    ranks.dedup();
    for (group, distance) in groups.iter_mut().zip(distances) {
        let rank = ranks.iter().position(|rank| *rank == distance).unwrap_or_default();
        group.priority = u32::try_from(rank).unwrap_or_default();
    }
}
