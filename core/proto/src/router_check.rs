//! `envoy.RouterCheckToolSchema`: the tests that Envoy's router check tool reads.
//!
//! Field numbers matter to binary and text files of tests only. Three fields have left Envoy's schema and are still read here:
//! `additional_headers`, `header_fields` and `custom_header_fields`, which are about requests.

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::config::route::v3::HeaderMatcher;
use envoy_types::pb::envoy::extensions::filters::http::set_metadata::v3::Metadata;
use envoy_types::pb::google::protobuf::Duration;
use prost::{Message, Name};

/// A file of tests.
#[derive(Clone, PartialEq, Message)]
pub struct Validation {
    /// At least one.
    #[prost(message, repeated, tag = "1")]
    pub tests: Vec<ValidationItem>,
}

impl Name for Validation {
    const NAME: &'static str = "Validation";
    const PACKAGE: &'static str = "envoy.RouterCheckToolSchema";
}

/// One test.
#[derive(Clone, PartialEq, Message)]
pub struct ValidationItem {
    /// Its name; several may have the same.
    #[prost(string, tag = "1")]
    pub test_name: String,
    /// The request; required.
    #[prost(message, optional, tag = "2")]
    pub input: Option<ValidationInput>,
    /// What is expected of it; required.
    #[prost(message, optional, tag = "3")]
    pub validate: Option<ValidationAssert>,
}

/// A request, and what else decides about its route.
#[derive(Clone, PartialEq, Message)]
pub struct ValidationInput {
    /// `:authority`.
    #[prost(string, tag = "1")]
    pub authority: String,
    /// `:path`, with the query.
    #[prost(string, tag = "2")]
    pub path: String,
    /// `:method`, of at least three characters.
    #[prost(string, tag = "4")]
    pub method: String,
    /// The stream's random value, for weights and fractions.
    #[prost(uint64, tag = "5")]
    pub random_value: u64,
    /// Whether `:scheme` and `x-forwarded-proto` are `https`.
    #[prost(bool, tag = "6")]
    pub ssl: bool,
    /// Whether there is `x-envoy-internal: true`.
    #[prost(bool, tag = "7")]
    pub internal: bool,
    /// The older name of `additional_request_headers`.
    #[prost(message, repeated, tag = "8")]
    pub additional_headers: Vec<HeaderValue>,
    /// The runtime key that is on; routes with another key or with an empty one do not match.
    #[prost(string, tag = "9")]
    pub runtime: String,
    /// Further headers of the request.
    #[prost(message, repeated, tag = "10")]
    pub additional_request_headers: Vec<HeaderValue>,
    /// Headers that the upstream answers with.
    #[prost(message, repeated, tag = "11")]
    pub additional_response_headers: Vec<HeaderValue>,
    /// Metadata that filters have set before the route was selected.
    #[prost(message, repeated, tag = "12")]
    pub dynamic_metadata: Vec<Metadata>,
}

/// What is expected; what is not given is not looked at.
#[derive(Clone, PartialEq, Message)]
pub struct ValidationAssert {
    /// The cluster; empty for none.
    #[prost(message, optional, tag = "1")]
    pub cluster_name: Option<String>,
    /// The virtual cluster; `other` when the virtual host has some and none of them matches.
    #[prost(message, optional, tag = "2")]
    pub virtual_cluster_name: Option<String>,
    /// The virtual host.
    #[prost(message, optional, tag = "3")]
    pub virtual_host_name: Option<String>,
    /// `:authority` as it goes upstream.
    #[prost(message, optional, tag = "4")]
    pub host_rewrite: Option<String>,
    /// `:path` as it goes upstream.
    #[prost(message, optional, tag = "5")]
    pub path_rewrite: Option<String>,
    /// The location of a redirect; for a direct response the URI of the request.
    #[prost(message, optional, tag = "6")]
    pub path_redirect: Option<String>,
    /// The first name of `request_header_fields`.
    #[prost(message, repeated, tag = "7")]
    pub header_fields: Vec<HeaderValue>,
    /// Once those fields that the route adds; now as `request_header_fields`.
    #[prost(message, repeated, tag = "8")]
    pub custom_header_fields: Vec<HeaderValue>,
    /// Headers of the request as it goes upstream.
    #[prost(message, repeated, tag = "9")]
    pub request_header_fields: Vec<HeaderValue>,
    /// Headers of the response as it goes to the client.
    #[prost(message, repeated, tag = "10")]
    pub response_header_fields: Vec<HeaderValue>,
    /// Matchers of the request as it goes upstream.
    #[prost(message, repeated, tag = "11")]
    pub request_header_matches: Vec<HeaderMatcher>,
    /// Matchers of the response as it goes to the client.
    #[prost(message, repeated, tag = "12")]
    pub response_header_matches: Vec<HeaderMatcher>,
    /// The status of a redirect or direct response.
    #[prost(message, optional, tag = "13")]
    pub code_redirect: Option<u32>,
    /// The route's time-out, compared in milliseconds.
    #[prost(message, optional, tag = "14")]
    pub timeout: Option<Duration>,
}
