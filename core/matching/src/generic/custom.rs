//! What a value must be: a string matcher, or one of the matchers of addresses, hashes, fractions, metadata.

use dhow_base::{ConfigError, FieldPath};
use dhow_proto::any;
use dhow_proto::envoy::extensions::matching::input_matchers::consistent_hashing::v3::ConsistentHashing;
use dhow_proto::envoy::extensions::matching::input_matchers::ip::v3::Ip;
use dhow_proto::envoy::extensions::matching::input_matchers::metadata::v3::Metadata;
use dhow_proto::envoy::extensions::matching::input_matchers::runtime_fraction::v3::RuntimeFraction as FractionMessage;
use dhow_proto::supplement::CelMatcher;
use dhow_proto::{Message, Name};
use dhow_runtime_config::{RuntimeFraction, RuntimeValues};
use twox_hash::XxHash64;

use super::compile::{CompileExpression, Expression};
use super::input::{Input, InputValue};
use crate::cidr::CidrSet;
use crate::metadata::ValueMatcher;
use crate::pb::matcher::{self as envoy, StringMatcher as StringMessage};
use crate::pb::xds::core::v3::TypedExtensionConfig;
use crate::pb::xds::r#type::matcher::v3::{self as xds, string_matcher::MatchPattern};
use crate::string::StringMatcher;

/// What a value must be.
#[derive(Clone, Debug)]
pub(super) enum ValueRule {
    Text(StringMatcher),
    /// An address in one of the ranges.
    Address(CidrSet),
    /// The hash of the value modulo `modulo` is at least `threshold`.
    Hash {
        threshold: u32,
        modulo: u32,
        seed: u64,
    },
    /// The hash of the value falls into the fraction.
    Fraction {
        fraction: RuntimeFraction,
        seed: u64,
    },
    Metadata {
        value: ValueMatcher,
        invert: bool,
    },
    /// An expression that has to be true, as its language compiled it.
    Expression(Expression),
}

impl ValueRule {
    pub(super) fn of_string(message: &xds::StringMatcher, path: &FieldPath) -> Result<Self, ConfigError> {
        StringMatcher::compile(&as_envoys(message), path).map(Self::Text)
    }

    pub(super) fn of_extension(
        message: &TypedExtensionConfig,
        path: &FieldPath,
        expressions: Option<CompileExpression>,
    ) -> Result<Self, ConfigError> {
        let TypedExtensionConfig { name, typed_config } = message;
        let path = path.field("typed_config");
        let config =
            typed_config.as_ref().ok_or_else(|| ConfigError::new(path.clone(), "value is required"))?;
        let resolved = any::resolve(config).map_err(|error| error.under(&path))?;
        let malformed =
            |error: dhow_proto::prost::DecodeError| ConfigError::new(path.clone(), error.to_string());
        let bytes = &*resolved.value;
        let kind = resolved.type_name.strip_prefix("envoy.extensions.matching.input_matchers.");
        Ok(match kind {
            Some("ip.v3.Ip") => {
                // The prefix is of a counter of texts that are no addresses, which is not kept.
                let Ip { cidr_ranges, stat_prefix: _ } = Ip::decode(bytes).map_err(malformed)?;
                Self::Address(CidrSet::compile(&cidr_ranges, &path.field("cidr_ranges"))?)
            }
            Some("consistent_hashing.v3.ConsistentHashing") => {
                let ConsistentHashing { threshold, modulo, seed } =
                    ConsistentHashing::decode(bytes).map_err(malformed)?;
                if threshold > modulo {
                    let reason = format!("threshold cannot be greater than modulo: {threshold} > {modulo}");
                    return Err(ConfigError::new(path, reason));
                }
                if modulo == 0 {
                    return Err(ConfigError::new(path.field("modulo"), "value must be greater than 0"));
                }
                Self::Hash { threshold, modulo, seed }
            }
            Some("runtime_fraction.v3.RuntimeFraction") => {
                let FractionMessage { runtime_fraction, seed } =
                    FractionMessage::decode(bytes).map_err(malformed)?;
                let field = path.field("runtime_fraction");
                let message =
                    runtime_fraction.ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
                Self::Fraction { fraction: RuntimeFraction::compile(&message, &field)?, seed }
            }
            Some("metadata.v3.Metadata") => {
                let Metadata { value, invert } = Metadata::decode(bytes).map_err(malformed)?;
                let field = path.field("value");
                let value = value.ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
                Self::Metadata { value: ValueMatcher::compile(&value, &field)?, invert }
            }
            _ if resolved.type_name == CelMatcher::full_name() => {
                let CelMatcher { expr_match, description: _ } =
                    CelMatcher::decode(bytes).map_err(malformed)?;
                let field = path.field("expr_match");
                let message =
                    expr_match.ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
                let compile = expressions.ok_or_else(|| ConfigError::unsupported(path.clone()))?;
                Self::Expression(compile(&message).map_err(|reason| ConfigError::new(field, reason))?)
            }
            _ => {
                let url = resolved.type_name;
                let reason =
                    format!("Didn't find a registered implementation for '{name}' with type URL: '{url}'");
                return Err(ConfigError::new(path, reason));
            }
        })
    }

    /// Whether values of an input are what it compares.
    pub(super) fn suits(&self, input: &Input) -> bool {
        match self {
            Self::Text(_) => input.is_text(),
            Self::Expression(_) => matches!(input, Input::Attributes),
            _ => !matches!(input, Input::Attributes),
        }
    }

    pub(super) fn matches(&self, value: &InputValue<'_>, runtime: &dyn RuntimeValues) -> bool {
        if let (Self::Metadata { value: matcher, invert }, InputValue::Metadata(value)) = (self, value) {
            return matcher.matches(Some(value)) != *invert;
        }
        let InputValue::Text(text) = value else { return false };
        match self {
            Self::Text(matcher) => matcher.matches(text),
            Self::Address(ranges) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.parse().ok())
                .is_some_and(|address| ranges.contains(address)),
            Self::Hash { threshold, modulo, seed } => {
                XxHash64::oneshot(*seed, text) % u64::from(*modulo) >= u64::from(*threshold)
            }
            Self::Fraction { fraction, seed } => fraction.contains(XxHash64::oneshot(*seed, text), runtime),
            Self::Metadata { .. } | Self::Expression(_) => false,
        }
    }
}

/// The two messages have the same fields under different names.
fn as_envoys(message: &xds::StringMatcher) -> StringMessage {
    let xds::StringMatcher { ignore_case, match_pattern } = message;
    let pattern = match_pattern.clone().map(|pattern| match pattern {
        MatchPattern::Exact(text) => envoy::string_matcher::MatchPattern::Exact(text),
        MatchPattern::Prefix(text) => envoy::string_matcher::MatchPattern::Prefix(text),
        MatchPattern::Suffix(text) => envoy::string_matcher::MatchPattern::Suffix(text),
        MatchPattern::Contains(text) => envoy::string_matcher::MatchPattern::Contains(text),
        MatchPattern::SafeRegex(xds::RegexMatcher { regex, engine_type: _ }) => {
            envoy::string_matcher::MatchPattern::SafeRegex(envoy::RegexMatcher { regex, engine_type: None })
        }
        MatchPattern::Custom(custom) => envoy::string_matcher::MatchPattern::Custom(custom),
    });
    StringMessage { ignore_case: *ignore_case, match_pattern: pattern }
}
