//! What a set of rules says about a request.

use dhow_base::{ConfigError, FieldPath};
use dhow_expr::CelExpression;
use dhow_matching::generic::{InputFamily, MatchOptions, MatchTree};
use dhow_proto::Name;
use dhow_proto::envoy::config::rbac::v3::Action as ActionMessage;
use dhow_proto::envoy::config::rbac::v3::rbac::Action as ActionKind;
use dhow_proto::xds::core::v3::TypedExtensionConfig;
use dhow_proto::xds::r#type::matcher::v3::Matcher;
use dhow_proxy_api::StreamFormat;

use super::rule::{Facts, Permission, Principal};

/// What becomes of a request that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It is allowed, and all others are not.
    Allow,
    /// It is not allowed, and all others are.
    Deny,
    /// It is noted for access logs; everything is allowed.
    Log,
}

/// Who (one of the principals) may do what (one of the permissions).
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) name: Box<str>,
    pub(crate) permissions: Box<[Permission]>,
    pub(crate) principals: Box<[Principal]>,
    /// What must be true as well.
    pub(crate) condition: Option<CelExpression>,
}

/// The action of a matching tree, and the name that it is reported by.
#[derive(Debug)]
pub(crate) struct NamedAction {
    name: Box<str>,
    action: Action,
}

/// A set of rules.
#[derive(Debug)]
pub(crate) enum Engine {
    /// `rules`.
    Policies {
        action: Action,
        /// In the order of their names.
        policies: Box<[Policy]>,
    },
    /// `matcher`.
    Tree(MatchTree<NamedAction>),
}

/// What a set of rules says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision<'a> {
    /// Whether the request may go on.
    pub(crate) allowed: bool,
    /// The policy that matched.
    pub(crate) policy: Option<&'a str>,
    /// Whether the request is to be logged, when the rules are about that.
    pub(crate) log: Option<bool>,
}

impl<'a> Decision<'a> {
    /// What the action of all policies makes of the one that matched.
    fn by_policy(action: Action, policy: Option<&'a Policy>) -> Self {
        let matched = policy.is_some();
        Self {
            allowed: match action {
                Action::Allow => matched,
                Action::Deny => !matched,
                Action::Log => true,
            },
            policy: policy.map(|policy| &*policy.name),
            log: (action == Action::Log).then_some(matched),
        }
    }
}

impl Engine {
    /// Every decision that policies can come to, in the order of their names. None for a tree, which has too many.
    pub(crate) fn foreseen(&self) -> Vec<Decision<'_>> {
        match self {
            Self::Policies { action, policies } => {
                let matched = policies.iter().map(Some).chain([None]);
                matched.map(|policy| Decision::by_policy(*action, policy)).collect()
            }
            Self::Tree(_) => Vec::new(),
        }
    }

    /// Decides about a request.
    pub(crate) fn decide(&self, facts: &Facts<'_>) -> Decision<'_> {
        match self {
            Self::Policies { action, policies } => {
                Decision::by_policy(*action, policies.iter().find(|policy| policy.matches(facts)))
            }
            Self::Tree(tree) => {
                let data = StreamFormat { request: Some(facts.headers), ..StreamFormat::new(facts.info) };
                match tree.evaluate(&data).action() {
                    Some(NamedAction { name, action }) => Decision {
                        allowed: *action != Action::Deny,
                        policy: Some(name),
                        log: (*action == Action::Log).then_some(true),
                    },
                    // What nothing says anything about is denied.
                    None => Decision { allowed: false, policy: None, log: None },
                }
            }
        }
    }
}

impl Policy {
    fn matches(&self, facts: &Facts<'_>) -> bool {
        self.permissions.iter().any(|permission| permission.matches(facts))
            && self.principals.iter().any(|principal| principal.matches(facts))
            && self.condition.as_ref().is_none_or(|condition| {
                condition
                    .holds(&StreamFormat { request: Some(facts.headers), ..StreamFormat::new(facts.info) })
            })
    }
}

/// Compiles a matching tree over requests or connections.
pub(crate) fn compile_tree(
    message: &Matcher,
    inputs: InputFamily,
    path: &FieldPath,
) -> Result<MatchTree<NamedAction>, ConfigError> {
    MatchTree::compile(
        message,
        path,
        &mut MatchOptions {
            inputs,
            admit: &|_| Ok(()),
            keep_matching: true,
            expressions: Some(CelExpression::for_matcher),
            action: &mut read_action,
        },
    )
}

fn read_action(config: &TypedExtensionConfig, path: &FieldPath) -> Result<NamedAction, ConfigError> {
    let TypedExtensionConfig { name, typed_config } = config;
    let path = path.field("typed_config");
    let config = typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
    let type_name = dhow_proto::any::type_name(&config.type_url);
    if type_name != ActionMessage::full_name() {
        let reason =
            format!("Didn't find a registered implementation for '{name}' with type URL: '{type_name}'");
        return Err(ConfigError::new(path, reason));
    }
    let ActionMessage { name, action } =
        dhow_proto::any::unpack(config).map_err(|error| error.under(&path))?;
    let action = match ActionKind::try_from(action) {
        Ok(ActionKind::Allow) => Action::Allow,
        Ok(ActionKind::Deny) => Action::Deny,
        Ok(ActionKind::Log) => Action::Log,
        Err(_) => {
            let reason = "value must be one of the defined enum values";
            return Err(ConfigError::new(path.field("action"), reason));
        }
    };
    Ok(NamedAction { name: name.into(), action })
}
