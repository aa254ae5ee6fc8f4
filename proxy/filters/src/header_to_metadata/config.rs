//! `Config` validated.

use std::sync::OnceLock;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderName;
use dhow_matching::RegexRewrite;
use dhow_proto::envoy::extensions::filters::http::header_to_metadata::v3::Config;
use dhow_proto::envoy::extensions::filters::http::header_to_metadata::v3::config::{
    KeyValuePair, Rule as RuleMessage, ValueEncode, ValueType,
};
use dhow_proto::google::protobuf::Any;

use super::filter::HeaderToMetadataStats;

/// The namespace of rules that name none.
const NAMESPACE: &str = "envoy.filters.http.header_to_metadata";

/// The rules of the filter or of a route.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) request: Box<[Rule]>,
    pub(super) response: Box<[Rule]>,
    /// `stat_prefix`; empty counts nothing.
    pub(super) stat_prefix: Box<str>,
    /// Registered with the filter, or on the first request of a route.
    pub(super) stats: OnceLock<HeaderToMetadataStats>,
}

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) source: Source,
    pub(super) on_present: Option<Target>,
    pub(super) on_missing: Option<Target>,
    pub(super) removes: bool,
}

/// Where a value comes from.
#[derive(Debug)]
pub(super) enum Source {
    Header(HeaderName),
    Cookie(Box<str>),
}

/// Where a value goes, and what becomes of it on its way.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) namespace: Box<str>,
    pub(super) key: Box<str>,
    /// What is set instead of the header's value.
    pub(super) value: Box<str>,
    pub(super) rewrite: Option<RegexRewrite>,
    pub(super) kind: ValueType,
    pub(super) is_base64: bool,
}

impl Rules {
    /// Reads the message.
    pub(super) fn read(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let Config { request_rules, response_rules, stat_prefix } =
            dhow_proto::any::unpack(config).map_err(|error| error.under(path))?;
        let list = |rules: Vec<RuleMessage>, field| {
            let path = path.field(field);
            let rules = rules.into_iter().enumerate();
            rules.map(|(at, rule)| Rule::read(rule, &path.index(at))).collect::<Result<_, _>>()
        };
        Ok(Self {
            request: list(request_rules, "request_rules")?,
            response: list(response_rules, "response_rules")?,
            stat_prefix: stat_prefix.into(),
            stats: OnceLock::new(),
        })
    }

    /// Reads what a route says.
    pub(super) fn read_route(config: &Any, path: &FieldPath) -> Result<Self, ConfigError> {
        let rules = Self::read(config, path)?;
        if rules.request.is_empty() && rules.response.is_empty() {
            let reason = "header_to_metadata_filter: Per filter configs must at least specify either request or response rules";
            return Err(ConfigError::new(path.clone(), reason));
        }
        Ok(rules)
    }
}

impl Rule {
    fn read(message: RuleMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        let RuleMessage { header, cookie, on_header_present, on_header_missing, remove } = message;
        let error = |reason: &str| Err(ConfigError::new(path.clone(), reason));
        let source = match (header.is_empty(), cookie.is_empty()) {
            (false, false) => return error("Cannot specify both header and cookie in the same rule"),
            (true, true) => return error("One of Cookie or Header option needs to be specified"),
            (false, true) => Source::Header(HeaderName::new(&header)),
            (true, false) => Source::Cookie(cookie.into()),
        };
        if remove && matches!(source, Source::Cookie(_)) {
            return error("Cannot specify remove for cookie");
        }
        if on_header_present.is_none() && on_header_missing.is_none() {
            let (kind, name) = match &source {
                Source::Header(_) => ("header", &*header),
                Source::Cookie(name) => ("cookie", &**name),
            };
            return error(&format!(
                "header to metadata filter: rule for {kind} '{name}' has neither `on_header_present` nor \
                 `on_header_missing` set"
            ));
        }
        if on_header_missing.as_ref().is_some_and(|target| target.value.is_empty()) {
            return error("Cannot specify on_header_missing rule with an empty value");
        }
        let target = |target: Option<KeyValuePair>, field| {
            target.map(|target| Target::read(target, &path.field(field))).transpose()
        };
        Ok(Self {
            source,
            on_present: target(on_header_present, "on_header_present")?,
            on_missing: target(on_header_missing, "on_header_missing")?,
            removes: remove,
        })
    }
}

impl Target {
    fn read(message: KeyValuePair, path: &FieldPath) -> Result<Self, ConfigError> {
        let KeyValuePair { metadata_namespace, key, value, regex_value_rewrite, r#type, encode } = message;
        if key.is_empty() {
            return Err(ConfigError::new(path.field("key"), "value length must be at least 1 characters"));
        }
        if regex_value_rewrite.is_some() && !value.is_empty() {
            let reason = "Cannot specify both value and regex_value_rewrite";
            return Err(ConfigError::new(path.clone(), reason));
        }
        let rewrite = regex_value_rewrite
            .map(|regex| RegexRewrite::compile(&regex, &path.field("regex_value_rewrite")));
        let undefined =
            |field| ConfigError::new(path.field(field), "value must be one of the defined enum values");
        Ok(Self {
            namespace: if metadata_namespace.is_empty() {
                NAMESPACE.into()
            } else {
                metadata_namespace.into()
            },
            key: key.into(),
            value: value.into(),
            rewrite: rewrite.transpose()?,
            kind: ValueType::try_from(r#type).map_err(|_| undefined("type"))?,
            // A value that nothing stands for is no encoding.
            is_base64: encode == ValueEncode::Base64 as i32,
        })
    }
}
