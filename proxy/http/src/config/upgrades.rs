//! `upgrade_configs` of the connection manager.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use dhow_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;

use super::{HttpFilterChain, UpgradeRule};

/// Lowers the upgrades; `lower_chain` lowers the filters of those that have filters of their own.
pub(super) fn lower_upgrades(
    upgrades: Vec<hcm::UpgradeConfig>,
    path: &FieldPath,
    mut lower_chain: impl FnMut(Vec<HttpFilter>, &FieldPath) -> Result<HttpFilterChain, ConfigError>,
) -> Result<Vec<UpgradeRule>, ConfigError> {
    let mut rules: Vec<UpgradeRule> = Vec::new();
    for (i, upgrade) in upgrades.into_iter().enumerate() {
        let path = path.index(i);
        let hcm::UpgradeConfig { upgrade_type, filters, enabled } = upgrade;
        let kind = upgrade_type.to_ascii_lowercase();
        if rules.iter().any(|rule| *rule.kind == *kind) {
            let reason = format!("Error: multiple upgrade configs with the same name: '{upgrade_type}'");
            return Err(ConfigError::new(path, reason));
        }
        if kind == "connect-udp" {
            return Err(ConfigError::unsupported(path.field("upgrade_type")));
        }
        let chain = match filters.is_empty() {
            true => None,
            false => Some(lower_chain(filters, &path.field("filters"))?),
        };
        rules.push(UpgradeRule { kind: kind.into(), enabled: enabled.is_none_or(|b| b.value), chain });
    }
    Ok(rules)
}
