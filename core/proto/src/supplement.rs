//! Message types that Envoy's configuration may contain and `envoy-types` lacks.

use envoy_types::pb::google::protobuf::Struct;
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
