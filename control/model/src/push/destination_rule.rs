//! DestinationRules: merged by host within a namespace, and looked up in Istio's order.

use std::collections::BTreeMap;

use dhow_base::{ConfigWarning, FieldPath};

use super::{Notice, Proxy, Service};
use crate::istio::{DestinationRule, Subset, TrafficPolicy};
use crate::{Config, Host, Labels, MeshConfig, Meta, Visibility, most_specific, selects};

/// The rules of one namespace for one host, as one.
#[derive(Debug, Clone)]
pub struct ConsolidatedRule {
    /// The first of the objects that it is made of.
    pub meta: Meta,
    /// Policy of the first object that has one.
    pub traffic_policy: Option<TrafficPolicy>,
    /// Subsets of all objects; of two with one name the first.
    pub subsets: Vec<Subset>,
    selector: Labels,
    visibility: Visibility,
}

impl ConsolidatedRule {
    /// The subset of the name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets.iter().find(|subset| subset.name == name)
    }
}

/// All DestinationRules.
#[derive(Debug, Default)]
pub struct DestinationRules {
    by_namespace: BTreeMap<String, BTreeMap<Host, Vec<ConsolidatedRule>>>,
    root_namespace: String,
}

impl DestinationRules {
    /// Merges rules that are given in order of precedence.
    pub(super) fn new(
        rules: Vec<Config<DestinationRule>>,
        mesh: &MeshConfig,
        domain: &str,
        notices: &mut Vec<Notice>,
    ) -> Self {
        let mut all = Self { by_namespace: BTreeMap::new(), root_namespace: mesh.root_namespace.clone() };
        for Config { meta, spec } in rules {
            let DestinationRule { host, traffic_policy, subsets, export_to, workload_selector } = spec;
            let host = Host::resolve(&host, &meta.namespace, domain);
            let rule = ConsolidatedRule {
                visibility: Visibility::read(
                    &export_to,
                    &meta.namespace,
                    &mesh.default_destination_rule_export_to,
                ),
                selector: workload_selector.map(|selector| selector.labels).unwrap_or_default(),
                traffic_policy,
                subsets,
                meta,
            };
            let same_host =
                all.by_namespace.entry(rule.meta.namespace.clone()).or_default().entry(host).or_default();
            let mergeable = same_host
                .iter_mut()
                .find(|known| known.selector == rule.selector && known.visibility == rule.visibility);
            match mergeable {
                Some(known) => merge(known, rule, notices),
                None => same_host.push(rule),
            }
        }
        all
    }

    /// The rule for a service as the proxy sees it: of the proxy's namespace, then of the service's, then of the root
    /// namespace; within a namespace the most specific host. A rule for selected workloads comes before one for all.
    pub fn find(&self, proxy: &Proxy, service: &Service) -> Option<&ConsolidatedRule> {
        self.find_host(proxy, &service.host, &service.namespace)
    }

    /// The rule for a host that belongs to `namespace`.
    pub fn find_host(&self, proxy: &Proxy, host: &Host, namespace: &str) -> Option<&ConsolidatedRule> {
        let own = (proxy.namespace != self.root_namespace).then_some(proxy.namespace.as_str());
        let searched = [own, Some(namespace), Some(self.root_namespace.as_str())];
        searched.into_iter().flatten().find_map(|searched| self.in_namespace(searched, proxy, host))
    }

    fn in_namespace(&self, namespace: &str, proxy: &Proxy, host: &Host) -> Option<&ConsolidatedRule> {
        let hosts = self.by_namespace.get(namespace)?;
        let applies = |rule: &&ConsolidatedRule| {
            (namespace == proxy.namespace || rule.visibility.includes(&proxy.namespace))
                && selects(&rule.selector, &proxy.labels)
        };
        let usable =
            hosts.iter().filter(|(_, rules)| rules.iter().any(|rule| applies(&rule))).map(|(host, _)| host);
        let rules = hosts.get(most_specific(host, usable)?)?;
        let for_workload = rules.iter().filter(|rule| !rule.selector.is_empty()).find(applies);
        for_workload.or_else(|| rules.iter().find(applies))
    }

    /// Number of subsets in all rules.
    pub fn subset_count(&self) -> usize {
        self.iter().map(|(_, rule)| rule.subsets.len()).sum()
    }

    /// Every rule with its host.
    pub fn iter(&self) -> impl Iterator<Item = (&Host, &ConsolidatedRule)> {
        let hosts = self.by_namespace.values().flatten();
        hosts.flat_map(|(host, rules)| rules.iter().map(move |rule| (host, rule)))
    }
}

fn merge(known: &mut ConsolidatedRule, rule: ConsolidatedRule, notices: &mut Vec<Notice>) {
    let key = rule.meta.key();
    let first = known.meta.key();
    for subset in rule.subsets {
        if known.subset(&subset.name).is_some() {
            let message = format!("subset {:?} is already defined by {first}, which came first", subset.name);
            let warning = ConfigWarning::new(FieldPath::from("spec.subsets"), message);
            notices.push(Notice { object: key.clone(), warning });
        } else {
            known.subsets.push(subset);
        }
    }
    match (&known.traffic_policy, rule.traffic_policy) {
        (Some(_), Some(_)) => {
            let message = format!("{first} came first for this host and its policy applies");
            let warning = ConfigWarning::new(FieldPath::from("spec.trafficPolicy"), message);
            notices.push(Notice { object: key, warning });
        }
        (None, Some(policy)) => known.traffic_policy = Some(policy),
        (_, None) => {}
    }
}
