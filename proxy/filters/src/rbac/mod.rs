//! `envoy.filters.http.rbac`: who may do what, by policies over the request and its connection or by a matching tree.
//!
//! Shadow rules are evaluated first and only counted and noted in the dynamic metadata `envoy.filters.http.rbac`; the rules then
//! decide. A route's configuration replaces the filter's. Counted in `http.<stat_prefix>.rbac.*`.

mod config;
mod engine;
mod filter;
mod notes;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub(crate) use config::read_rules;
use dhow_proxy_api::HttpFilterDescriptor;
pub(crate) use engine::{Engine, compile_tree};
pub(crate) use filter::{denial, under};
pub(crate) use notes::Notes;
pub(crate) use rule::Facts;

/// Registers the filter.
pub(crate) fn descriptor() -> HttpFilterDescriptor {
    HttpFilterDescriptor {
        name: "envoy.filters.http.rbac",
        type_name: "envoy.extensions.filters.http.rbac.v3.RBAC",
        route_type_name: Some("envoy.extensions.filters.http.rbac.v3.RBACPerRoute"),
        configure: |config, context, path| {
            let rules = config::Rules::read(config, path, context.warnings)?;
            Ok(Arc::new(filter::Factory::new(rules, context.scope("rbac"))))
        },
        configure_route: |config, _, path| Ok(Arc::new(config::Rules::read_route(config, path)?)),
    }
}
