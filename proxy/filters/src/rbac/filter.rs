//! Refuses what the rules do not allow.

use std::sync::Arc;

use dhow_http::HeaderMap;
use dhow_proto::google::protobuf::{Value, value::Kind};
use dhow_proxy_api::{FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply, StreamInfo};
use dhow_routing::FilterOverride;
use dhow_stats::{Counter, Scope};

use super::config::Rules;
use super::engine::{Decision, Engine};
use super::rule::Facts;
use crate::route_config::route_configs;

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    rules: Arc<Rules>,
    counters: Arc<Counters>,
    scope: Scope,
}

/// What the filter counts under `http.<stat_prefix>.rbac`, with the prefixes of its rules.
#[derive(Debug)]
struct Counters {
    allowed: Counter,
    denied: Counter,
    shadow_allowed: Counter,
    shadow_denied: Counter,
}

impl Factory {
    /// The filter of a configuration.
    pub(super) fn new(rules: Rules, scope: Scope) -> Self {
        let counter = |prefix: &str, name: &str| scope.counter(under(prefix, name));
        let counters = Counters {
            allowed: counter(&rules.stat_prefix, "allowed"),
            denied: counter(&rules.stat_prefix, "denied"),
            shadow_allowed: counter(&rules.shadow_stat_prefix, "shadow_allowed"),
            shadow_denied: counter(&rules.shadow_stat_prefix, "shadow_denied"),
        };
        Self { rules: Arc::new(rules), counters: Arc::new(counters), scope }
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let rules: Arc<Rules> = route_configs(levels).next().unwrap_or_else(|| self.rules.clone());
        if rules.enforced.is_none() && rules.shadow.is_none() {
            return None;
        }
        Some(Box::new(Filter { rules, counters: self.counters.clone(), scope: self.scope.clone() }))
    }
}

/// The filter of one stream.
struct Filter {
    rules: Arc<Rules>,
    counters: Arc<Counters>,
    scope: Scope,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let rules = self.rules.clone();
        if let Some(engine) = &rules.shadow {
            let decision = engine.decide(&Facts { headers: request, info: stream.info });
            let counters = &self.counters;
            let counter = if decision.allowed { &counters.shadow_allowed } else { &counters.shadow_denied };
            counter.inc();
            self.count_policy(&decision, &rules.shadow_stat_prefix, "shadow_");
            rules.shadow_notes.note(&mut stream.info.dynamic_metadata, &decision);
        }
        let Some(engine) = &rules.enforced else { return HeadersVerdict::Continue };
        self.enforce(engine, &rules, request, stream.info)
    }

    fn renew(&mut self) -> bool {
        true
    }
}

impl Filter {
    fn enforce(
        &self,
        engine: &Engine,
        rules: &Rules,
        request: &HeaderMap,
        info: &mut StreamInfo,
    ) -> HeadersVerdict {
        let decision = engine.decide(&Facts { headers: request, info });
        if let Some(log) = decision.log {
            info.dynamic_metadata.set(
                "envoy.common",
                "access_log_hint",
                Value { kind: Some(Kind::BoolValue(log)) },
            );
        }
        let counter = if decision.allowed { &self.counters.allowed } else { &self.counters.denied };
        counter.inc();
        self.count_policy(&decision, &rules.stat_prefix, "");
        rules.notes.note(&mut info.dynamic_metadata, &decision);
        if decision.allowed {
            return HeadersVerdict::Continue;
        }
        let details = denial(&decision);
        HeadersVerdict::LocalReply(LocalReply::new(403, &b"RBAC: access denied"[..], details))
    }

    /// Counts a decision under the name of the policy that made it.
    fn count_policy(&self, decision: &Decision<'_>, prefix: &str, kind: &str) {
        let named = decision.policy.filter(|policy| !policy.is_empty());
        if let (true, Some(policy)) = (self.rules.counts_policies, named) {
            let result = if decision.allowed { "allowed" } else { "denied" };
            self.scope.counter(under(prefix, &format!("policy.{policy}.{kind}{result}"))).inc();
        }
    }
}

/// The details of a refusal, without blanks: they would break the lines of access logs.
pub(crate) fn denial(decision: &Decision<'_>) -> String {
    let policy: String = decision
        .policy
        .unwrap_or("none")
        .chars()
        .map(|c| if c.is_ascii_whitespace() { '_' } else { c })
        .collect();
    format!("rbac_access_denied_matched_policy[{policy}]")
}

/// The name of a stat of rules that have a prefix, or none.
pub(crate) fn under(prefix: &str, name: &str) -> String {
    match prefix.trim_end_matches('.') {
        "" => name.to_owned(),
        prefix => format!("{prefix}.{name}"),
    }
}
