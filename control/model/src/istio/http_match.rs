//! `HTTPMatchRequest`: one alternative of an HTTP route's condition.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::StringMatch;

/// All conditions of one entry must hold; several entries are alternatives.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HttpMatchRequest {
    /// Appended to the route's name with a dot, for logs.
    pub name: String,
    /// Path, without the query string.
    pub uri: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// HTTP method.
    pub method: Option<StringMatch>,
    /// `:authority` or `Host`.
    pub authority: Option<StringMatch>,
    /// Request headers; an empty match means the header is present.
    pub headers: BTreeMap<String, StringMatch>,
    /// Port of the host that is being addressed (outbound) or of the gateway's server.
    pub port: Option<u32>,
    /// Labels of the workload that sends the request.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways to which the entry applies, instead of those of the object.
    pub gateways: Vec<String>,
    /// Query parameters.
    pub query_params: BTreeMap<String, StringMatch>,
    /// Whether `uri` exact and prefix matches ignore letter case.
    pub ignore_uri_case: bool,
    /// Headers that must be absent or must not match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Namespace of the workload that sends the request.
    pub source_namespace: String,
    /// Envoy's per-route statistics prefix.
    pub stat_prefix: String,
}
