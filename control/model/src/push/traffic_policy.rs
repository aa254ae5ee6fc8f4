//! Inheritance of traffic policies: mesh, rule, port of the rule, subset, port of the subset.

use super::ConsolidatedRule;
use crate::MeshConfig;
use crate::istio::{ClientTls, ConnectionPool, LoadBalancer, OutlierDetection, RetryBudget, TrafficPolicy};

/// The policy that applies to one port of one subset.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EffectivePolicy {
    /// How hosts are chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits on connections and requests.
    pub connection_pool: Option<ConnectionPool>,
    /// Passive health checking.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards the destination.
    pub tls: Option<ClientTls>,
    /// Retry budget.
    pub retry_budget: Option<RetryBudget>,
}

impl EffectivePolicy {
    /// Works out the policy for a port, of a subset when one is named.
    pub fn new(mesh: &MeshConfig, rule: Option<&ConsolidatedRule>, subset: Option<&str>, port: u32) -> Self {
        let mut policy = Self::default();
        if let Some(defaults) = &mesh.default_traffic_policy {
            policy.connection_pool.clone_from(&defaults.connection_pool);
            policy.outlier_detection.clone_from(&defaults.outlier_detection);
        }
        let Some(rule) = rule else { return policy };
        if let Some(own) = &rule.traffic_policy {
            policy.apply(own, port);
        }
        if let Some(own) =
            subset.and_then(|name| rule.subset(name)).and_then(|subset| subset.traffic_policy.as_ref())
        {
            policy.apply(own, port);
        }
        policy
    }

    /// Sections that are set replace the inherited ones; settings of the port replace all four sections that a port can
    /// have, set or not.
    fn apply(&mut self, policy: &TrafficPolicy, port: u32) {
        replace(&mut self.load_balancer, policy.load_balancer.as_ref());
        replace(&mut self.connection_pool, policy.connection_pool.as_ref());
        replace(&mut self.outlier_detection, policy.outlier_detection.as_ref());
        replace(&mut self.tls, policy.tls.as_ref());
        replace(&mut self.retry_budget, policy.retry_budget.as_ref());
        if let Some(own) = policy.port_level_settings.iter().find(|own| own.port.number == port) {
            self.load_balancer.clone_from(&own.load_balancer);
            self.connection_pool.clone_from(&own.connection_pool);
            self.outlier_detection.clone_from(&own.outlier_detection);
            self.tls.clone_from(&own.tls);
        }
    }
}

fn replace<T: Clone>(inherited: &mut Option<T>, own: Option<&T>) {
    if let Some(own) = own {
        *inherited = Some(own.clone());
    }
}
