//! Tables from YAML, for tests whose messages are deep.

use super::*;
use dhow_proto::load_yaml;

/// A table of `virtual_hosts`; clusters are not validated.
pub(super) fn table(yaml: &str) -> Result<RouteTable, ConfigError> {
    let yaml = format!("{{name: rc, validate_clusters: false, virtual_hosts: {yaml}}}");
    let message: RouteConfiguration =
        load_yaml(&yaml, &Default::default()).unwrap_or_else(|error| panic!("{error}\n{yaml}")).message;
    try_compile(&message).map(|(table, _)| table)
}

/// A table of one virtual host for all domains with these routes.
pub(super) fn routes(yaml: &str) -> Result<RouteTable, ConfigError> {
    table(&format!("[{{name: v, domains: ['*'], routes: {yaml}}}]"))
}
