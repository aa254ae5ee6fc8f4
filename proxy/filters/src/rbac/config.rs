//! `RBAC` and `RBACPerRoute` validated.

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_expr::{CelExpression, CelOptions};
use dhow_matching::generic::InputFamily;
use dhow_proto::envoy::config::rbac::v3::rbac::AuditLoggingOptions;
use dhow_proto::envoy::config::rbac::v3::{Policy as PolicyMessage, Rbac as RulesMessage, rbac};
use dhow_proto::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use dhow_proto::google::protobuf::Any;
use dhow_proto::xds::r#type::matcher::v3::Matcher;

use super::engine::{Action, Engine, Policy, compile_tree};
use super::notes::Notes;
use super::rule::{Permission, Principal};

/// Namespace of the metadata about decisions.
const NAMESPACE: &str = "envoy.filters.http.rbac";

/// The rules of the filter or of a route.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) enforced: Option<Engine>,
    pub(crate) shadow: Option<Engine>,
    /// What is noted about decisions of the enforced rules.
    pub(crate) notes: Notes,
    /// The same of the shadow rules.
    pub(crate) shadow_notes: Notes,
    /// `rules_stat_prefix`: in front of the names of the enforced rules' stats and metadata.
    pub(crate) stat_prefix: Box<str>,
    /// `shadow_rules_stat_prefix`.
    pub(crate) shadow_stat_prefix: Box<str>,
    /// `track_per_rule_stats`.
    pub(crate) counts_policies: bool,
}

impl Rules {
    /// Reads the filter's message.
    pub(crate) fn read(
        config: &Any,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let message = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        Self::of_message(message, path, warnings)
    }

    /// Reads a route's message; without rules the route allows everything.
    pub(crate) fn read_route(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let RbacPerRoute { rbac } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        rbac.map_or_else(
            || Ok(Self::default()),
            |rbac| Self::of_message(rbac, &path.field("rbac"), &mut Vec::new()),
        )
    }

    fn of_message(
        message: Rbac,
        path: &FieldPath,
        warnings: &mut Vec<ConfigWarning>,
    ) -> Result<Self, ConfigError> {
        let Rbac {
            rules,
            rules_stat_prefix,
            matcher,
            shadow_rules,
            shadow_matcher,
            shadow_rules_stat_prefix,
            track_per_rule_stats,
        } = message;
        let mut engine = |rules: Option<RulesMessage>, matcher: Option<Matcher>, fields: [&str; 2]| {
            if let Some(matcher) = &matcher {
                if rules.is_some() {
                    let why = "ignored beside a matcher";
                    warnings.push(ConfigWarning::new(path.field(fields[0]), why));
                }
                return compile_tree(matcher, InputFamily::Http, &path.field(fields[1]))
                    .map(Engine::Tree)
                    .map(Some);
            }
            rules.map(|rules| read_rules(rules, &path.field(fields[0]), warnings)).transpose()
        };
        let enforced = engine(rules, matcher, ["rules", "matcher"])?;
        let shadow = engine(shadow_rules, shadow_matcher, ["shadow_rules", "shadow_matcher"])?;
        Ok(Self {
            notes: Notes::of(NAMESPACE, enforced.as_ref(), &rules_stat_prefix, "enforced"),
            shadow_notes: Notes::of(NAMESPACE, shadow.as_ref(), &shadow_rules_stat_prefix, "shadow"),
            enforced,
            shadow,
            stat_prefix: rules_stat_prefix.into(),
            shadow_stat_prefix: shadow_rules_stat_prefix.into(),
            counts_policies: track_per_rule_stats,
        })
    }
}

/// Reads a set of policies.
pub(crate) fn read_rules(
    message: RulesMessage,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Engine, ConfigError> {
    let RulesMessage { action, policies, audit_logging_options } = message;
    if let Some(AuditLoggingOptions { audit_condition, logger_configs }) = audit_logging_options
        && audit_condition != 0
        && !logger_configs.is_empty()
    {
        let path = path.field("audit_logging_options").field("logger_configs");
        warnings.push(ConfigWarning::new(path, "without effect, as in Envoy 1.40"));
    }
    let path_of_policies = path.field("policies");
    let mut compiled = Vec::with_capacity(policies.len());
    for (name, policy) in policies {
        compiled.push(read_policy(name, policy, &path_of_policies, warnings)?);
    }
    // The first match counts, in the order of the names.
    compiled.sort_by(|a: &Policy, b| a.name.cmp(&b.name));
    let action = match rbac::Action::try_from(action) {
        Ok(rbac::Action::Allow) => Action::Allow,
        Ok(rbac::Action::Deny) => Action::Deny,
        Ok(rbac::Action::Log) => Action::Log,
        Err(_) => {
            return Err(ConfigError::new(
                path.field("action"),
                "value must be one of the defined enum values",
            ));
        }
    };
    Ok(Engine::Policies { action, policies: compiled.into() })
}

fn read_policy(
    name: String,
    message: PolicyMessage,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Policy, ConfigError> {
    let path = path.key(&name);
    let PolicyMessage { permissions, principals, condition, checked_condition, cel_config } = message;
    if checked_condition.is_some() {
        let why = "without effect, as in Envoy 1.40";
        warnings.push(ConfigWarning::new(path.field("checked_condition"), why));
    }
    let at_least_one = |is_empty: bool, field: &str| {
        if is_empty {
            return Err(ConfigError::new(path.field(field), "value must contain at least 1 item(s)"));
        }
        Ok(())
    };
    at_least_one(permissions.is_empty(), "permissions")?;
    at_least_one(principals.is_empty(), "principals")?;
    let condition = condition
        .as_ref()
        .map(|message| CelExpression::from_message_with(message, CelOptions::of(cel_config)))
        .transpose();
    let condition = condition.map_err(|reason| ConfigError::new(path.field("condition"), reason))?;
    Ok(Policy {
        condition,
        permissions: Permission::compile_all(&permissions, &path.field("permissions"))?,
        principals: Principal::compile_all(&principals, &path.field("principals"))?,
        name: name.into(),
    })
}
