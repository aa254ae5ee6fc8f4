//! What access logs and other filters learn about a decision: fields of the stream's dynamic metadata.

use std::sync::Arc;

use dhow_proto::google::protobuf::{Struct, Value, value::Kind};
use dhow_proxy_api::DynamicMetadata;

use super::engine::{Decision, Engine};

/// The fields for the decisions of one set of rules, made once: every request gets some.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    namespace: &'static str,
    /// The prefix of the rules' stats, and `enforced` or `shadow`.
    prefix: String,
    /// By the policy that decides, in the order of their names. Empty for trees, whose actions have a name each.
    of_policies: Box<[(Box<str>, Arc<Struct>)]>,
    /// When no policy matches.
    otherwise: Option<Arc<Struct>>,
}

impl Notes {
    /// The notes of `engine` in the metadata `namespace`; `kind` is `enforced` or `shadow`.
    pub(crate) fn of(
        namespace: &'static str,
        engine: Option<&Engine>,
        stat_prefix: &str,
        kind: &str,
    ) -> Self {
        let prefix = format!("{stat_prefix}{kind}");
        let decisions = engine.map_or_else(Vec::new, Engine::foreseen);
        let fields = |decision: &Decision<'_>| Arc::new(fields(&prefix, decision));
        let named = decisions.iter().filter_map(|decision| Some((decision.policy?, decision)));
        let of_policies = named.map(|(name, decision)| (name.into(), fields(decision))).collect();
        let otherwise = decisions.iter().find(|decision| decision.policy.is_none()).map(fields);
        Self { namespace, of_policies, otherwise, prefix }
    }

    /// Notes a decision in the metadata of its stream or connection.
    pub(crate) fn note(&self, metadata: &mut DynamicMetadata, decision: &Decision<'_>) {
        let foreseen = match decision.policy {
            None => self.otherwise.as_ref(),
            Some(policy) => {
                let at = self.of_policies.binary_search_by(|(name, _)| (**name).cmp(policy));
                at.ok().map(|at| &self.of_policies[at].1)
            }
        };
        match foreseen {
            Some(fields) => metadata.share(self.namespace, fields),
            None => metadata.share(self.namespace, &Arc::new(fields(&self.prefix, decision))),
        }
    }
}

fn fields(prefix: &str, decision: &Decision<'_>) -> Struct {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let mut fields = Struct::default();
    if let Some(policy) = decision.policy.filter(|policy| !policy.is_empty()) {
        fields.fields.insert(format!("{prefix}_effective_policy_id"), text(policy));
    }
    let result = if decision.allowed { "allowed" } else { "denied" };
    fields.fields.insert(format!("{prefix}_engine_result"), text(result));
    fields
}
