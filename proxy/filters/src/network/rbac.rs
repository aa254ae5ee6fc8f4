//! `envoy.filters.network.rbac`: closes connections that no policy allows, once the client sends something.
//!
//! Shadow rules are evaluated first, and only counted and noted in the connection's dynamic metadata. Counted in
//! `<stat_prefix>rbac.*`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_http::HeaderMap;
use dhow_matching::generic::InputFamily;
use dhow_proto::envoy::config::rbac::v3::{Permission, Principal, Rbac as Rules, permission, principal};
use dhow_proto::envoy::extensions::filters::network::rbac::v3::{Rbac, rbac::EnforcementType};
use dhow_proto::google::protobuf::{Any, Value, value::Kind};
use dhow_proto::xds::r#type::matcher::v3::Matcher;
use dhow_proxy_api::{ConnectionInfo, ReadFilter, ReadFilterFactory, ReadVerdict, StreamInfo};
use dhow_stats::{Counter, Scope, Store};

use super::NetworkFilterDescriptor;
use crate::rbac::{Engine, Facts, Notes, compile_tree, denial, read_rules, under};

pub(super) const DESCRIPTOR: NetworkFilterDescriptor =
    NetworkFilterDescriptor { type_name: "envoy.extensions.filters.network.rbac.v3.RBAC", configure };

/// Namespace of the metadata about decisions.
const NAMESPACE: &str = "envoy.filters.network.rbac";

#[derive(Debug)]
struct Config {
    enforced: Option<Engine>,
    shadow: Option<Engine>,
    shadow_notes: Notes,
    /// Whether each part of what the client sends is asked about, or the first alone.
    continuous: bool,
    delay: Duration,
    allowed: Counter,
    denied: Counter,
    shadow_allowed: Counter,
    shadow_denied: Counter,
    /// Keeps the counters registered.
    _scope: Scope,
}

#[derive(Debug)]
struct Factory(Arc<Config>);

fn configure(
    config: &Any,
    store: &Store,
    path: &FieldPath,
    warnings: &mut Vec<ConfigWarning>,
) -> Result<Arc<dyn ReadFilterFactory>, ConfigError> {
    let Rbac {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
    let mut engine = |rules: Option<Rules>, matcher: Option<Matcher>, fields: [&str; 2]| {
        if let Some(matcher) = &matcher {
            if rules.is_some() {
                warnings.push(ConfigWarning::new(path.field(fields[0]), "ignored beside a matcher"));
            }
            let path = path.field(fields[1]);
            return compile_tree(matcher, InputFamily::Network, &path).map(Engine::Tree).map(Some);
        }
        let path = path.field(fields[0]);
        if let Some(rules) = &rules {
            refuse_http(rules, &path)?;
        }
        rules.map(|rules| read_rules(rules, &path, warnings)).transpose()
    };
    let enforced = engine(rules, matcher, ["rules", "matcher"])?;
    let shadow = engine(shadow_rules, shadow_matcher, ["shadow_rules", "shadow_matcher"])?;
    let scope = store.scope(&format!("{stat_prefix}rbac."));
    let shadow_counter = |name: &str| scope.counter(under(&shadow_rules_stat_prefix, name));
    Ok(Arc::new(Factory(Arc::new(Config {
        shadow_notes: Notes::of(NAMESPACE, shadow.as_ref(), &shadow_rules_stat_prefix, "shadow"),
        enforced,
        continuous: enforcement_type == EnforcementType::Continuous as i32,
        delay: delay_deny.as_ref().map_or(Duration::ZERO, dhow_proto::whole_millis),
        allowed: scope.counter("allowed"),
        denied: scope.counter("denied"),
        shadow_allowed: shadow_counter("shadow_allowed"),
        shadow_denied: shadow_counter("shadow_denied"),
        shadow,
        _scope: scope,
    }))))
}

/// There are no headers to look at.
fn refuse_http(rules: &Rules, path: &FieldPath) -> Result<(), ConfigError> {
    let path = path.field("policies");
    for (name, policy) in &rules.policies {
        let of_permission = |rule: &Permission| matches!(rule.rule, Some(permission::Rule::Header(_)));
        let of_principal =
            |rule: &Principal| matches!(rule.identifier, Some(principal::Identifier::Header(_)));
        if policy.permissions.iter().any(of_permission) || policy.principals.iter().any(of_principal) {
            let reason = "Found header rule,not supported by RBAC network filter";
            return Err(ConfigError::new(path.key(name), reason));
        }
    }
    Ok(())
}

impl ReadFilterFactory for Factory {
    fn create(&self) -> Box<dyn ReadFilter> {
        Box::new(Filter { config: self.0.clone(), decided: false })
    }
}

struct Filter {
    config: Arc<Config>,
    decided: bool,
}

impl ReadFilter for Filter {
    fn watches_data(&self) -> bool {
        !self.decided && (self.config.enforced.is_some() || self.config.shadow.is_some())
    }

    fn on_data(&mut self, connection: &Rc<ConnectionInfo>) -> ReadVerdict {
        let config = &*self.config;
        self.decided = !config.continuous;
        let info = StreamInfo::of_connection(connection.clone(), connection.id);
        let facts = Facts { headers: &HeaderMap::default(), info: &info };
        let record = connection.record_mut();
        if let Some(engine) = &config.shadow {
            let decision = engine.decide(&facts);
            let counter = if decision.allowed { &config.shadow_allowed } else { &config.shadow_denied };
            counter.inc();
            config.shadow_notes.note(&mut record.borrow_mut().dynamic_metadata, &decision);
        }
        let Some(engine) = &config.enforced else { return ReadVerdict::Continue };
        let decision = engine.decide(&facts);
        let mut record = record.borrow_mut();
        if let Some(log) = decision.log {
            let hint = Value { kind: Some(Kind::BoolValue(log)) };
            record.dynamic_metadata.set("envoy.common", "access_log_hint", hint);
        }
        if decision.allowed {
            config.allowed.inc();
            return ReadVerdict::Continue;
        }
        config.denied.inc();
        record.termination_details = Some(denial(&decision).into());
        record.local_close_reason = Some("rbac_deny_close".into());
        ReadVerdict::Close(config.delay)
    }
}
