//! Message types that Envoy's configuration may contain and `envoy-types` lacks.

use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::xds::core::v3::CidrRange;
use envoy_types::pb::xds::r#type::matcher::v3::matcher::OnMatch;
use envoy_types::pb::xds::r#type::v3::CelExpression;
use prost::{Message, Name};

/// `xds.type.v3.TypedStruct`, and under its older name `udpa.type.v1.TypedStruct`: a message of the type `type_url` in
/// the form of a structure, for those who cannot compile that type in.
#[derive(Clone, PartialEq, Message)]
pub struct TypedStruct {
    /// The type of the message, such as `type.googleapis.com/envoy.extensions.filters.http.router.v3.Router`.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its fields, by JSON mapping.
    #[prost(message, optional, tag = "2")]
    pub value: Option<Struct>,
}

impl Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";

    fn full_name() -> String {
        "xds.type.v3.TypedStruct".to_owned()
    }

    fn type_url() -> String {
        "type.googleapis.com/xds.type.v3.TypedStruct".to_owned()
    }
}

/// `xds.type.matcher.v3.CelMatcher`: matches when an expression is true.
#[derive(Clone, PartialEq, Message)]
pub struct CelMatcher {
    /// The expression.
    #[prost(message, optional, tag = "1")]
    pub expr_match: Option<CelExpression>,
    /// For the reader.
    #[prost(string, tag = "2")]
    pub description: String,
}

impl Name for CelMatcher {
    const NAME: &'static str = "CelMatcher";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn full_name() -> String {
        "xds.type.matcher.v3.CelMatcher".to_owned()
    }

    fn type_url() -> String {
        "type.googleapis.com/xds.type.matcher.v3.CelMatcher".to_owned()
    }
}

/// `xds.type.matcher.v3.HttpAttributesCelMatchInput`: gives a matcher the attributes of the request.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct HttpAttributesCelMatchInput {}

impl Name for HttpAttributesCelMatchInput {
    const NAME: &'static str = "HttpAttributesCelMatchInput";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn full_name() -> String {
        "xds.type.matcher.v3.HttpAttributesCelMatchInput".to_owned()
    }

    fn type_url() -> String {
        "type.googleapis.com/xds.type.matcher.v3.HttpAttributesCelMatchInput".to_owned()
    }
}

/// `xds.type.matcher.v3.IPMatcher`: a matching tree over addresses, in which the longest prefix wins.
#[derive(Clone, PartialEq, Message)]
pub struct IpMatcher {
    /// The ranges, and what is to be done for each.
    #[prost(message, repeated, tag = "1")]
    pub range_matchers: Vec<IpRangeMatcher>,
}

/// `xds.type.matcher.v3.IPMatcher.IPRangeMatcher`.
#[derive(Clone, PartialEq, Message)]
pub struct IpRangeMatcher {
    /// The ranges; at least one.
    #[prost(message, repeated, tag = "1")]
    pub ranges: Vec<CidrRange>,
    /// What an address in one of them leads to.
    #[prost(message, optional, tag = "2")]
    pub on_match: Option<OnMatch>,
    /// Only when no longer prefix has the address.
    #[prost(bool, tag = "3")]
    pub exclusive: bool,
}

impl Name for IpMatcher {
    const NAME: &'static str = "IPMatcher";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn full_name() -> String {
        "xds.type.matcher.v3.IPMatcher".to_owned()
    }

    fn type_url() -> String {
        "type.googleapis.com/xds.type.matcher.v3.IPMatcher".to_owned()
    }
}

/// `xds.type.matcher.v3.ServerNameMatcher`: a matching tree over domains: exact, then the longest `*.suffix`, then `*`.
#[derive(Clone, PartialEq, Message)]
pub struct ServerNameMatcher {
    /// The domains, and what is to be done for each.
    #[prost(message, repeated, tag = "1")]
    pub domain_matchers: Vec<DomainMatcher>,
}

/// `xds.type.matcher.v3.ServerNameMatcher.DomainMatcher`.
#[derive(Clone, PartialEq, Message)]
pub struct DomainMatcher {
    /// The domains; at least one.
    #[prost(string, repeated, tag = "1")]
    pub domains: Vec<String>,
    /// What one of them leads to.
    #[prost(message, optional, tag = "2")]
    pub on_match: Option<OnMatch>,
}

impl Name for ServerNameMatcher {
    const NAME: &'static str = "ServerNameMatcher";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn full_name() -> String {
        "xds.type.matcher.v3.ServerNameMatcher".to_owned()
    }

    fn type_url() -> String {
        "type.googleapis.com/xds.type.matcher.v3.ServerNameMatcher".to_owned()
    }
}
