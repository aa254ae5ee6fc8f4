//! `MetadataMatcher` and `ValueMatcher`.

use dhow_base::{ConfigError, FieldPath};

use crate::pb::matcher::{
    DoubleMatcher, ListMatcher, MetadataMatcher as Message, OrMatcher, ValueMatcher as ValueMessage,
    double_matcher, list_matcher, metadata_matcher::PathSegment, metadata_matcher::path_segment::Segment,
    value_matcher::MatchPattern,
};
use crate::pb::protobuf::{Struct, Value, value::Kind};
use crate::string::StringMatcher;

/// A compiled `envoy.type.matcher.v3.MetadataMatcher`.
#[derive(Clone, Debug)]
pub struct MetadataMatcher {
    namespace: Box<str>,
    path: Box<[Box<str>]>,
    value: ValueMatcher,
    invert: bool,
}

impl MetadataMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the filter, the path or the value is missing or not valid.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message { filter, path: segments, value, invert } = message;
        if filter.is_empty() {
            return Err(ConfigError::new(path.field("filter"), "value length must be at least 1 characters"));
        }
        let segments_path = path.field("path");
        if segments.is_empty() {
            return Err(ConfigError::new(segments_path, "value must contain at least 1 item(s)"));
        }
        let key = |(at, segment): (usize, &PathSegment)| match segment {
            PathSegment { segment: Some(Segment::Key(key)) } => Ok(Box::from(key.as_str())),
            PathSegment { segment: None } => {
                Err(ConfigError::new(segments_path.index(at).field("segment"), "is required"))
            }
        };
        let field = path.field("value");
        let value = value.as_ref().ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
        Ok(Self {
            namespace: filter.as_str().into(),
            path: segments.iter().enumerate().map(key).collect::<Result<_, _>>()?,
            value: ValueMatcher::compile(value, &field)?,
            invert: *invert,
        })
    }

    /// The namespace whose fields are looked at.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the namespace's fields match; `None` when there is no such namespace.
    pub fn matches(&self, fields: Option<&Struct>) -> bool {
        self.value.matches(fields.and_then(|fields| find(fields, &self.path))) != self.invert
    }
}

fn find<'a>(fields: &'a Struct, path: &[Box<str>]) -> Option<&'a Value> {
    let (last, parents) = path.split_last()?;
    let mut fields = fields;
    for key in parents {
        match fields.fields.get(&**key) {
            Some(Value { kind: Some(Kind::StructValue(inner)) }) => fields = inner,
            _ => return None,
        }
    }
    fields.fields.get(&**last)
}

/// A compiled `envoy.type.matcher.v3.ValueMatcher`.
#[derive(Clone, Debug)]
pub enum ValueMatcher {
    /// The value is null.
    Null,
    /// The value is this number.
    Number(f64),
    /// The value is a number in this half-open range.
    NumberIn(f64, f64),
    /// The value is a text that matches.
    Text(StringMatcher),
    /// The value is this boolean.
    Bool(bool),
    /// The value is there, or not.
    Present(bool),
    /// The value is a list of which one element matches.
    OneOf(Box<ValueMatcher>),
    /// One of the matchers matches.
    Or(Box<[ValueMatcher]>),
}

impl ValueMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When a pattern is missing or not valid.
    pub fn compile(message: &ValueMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        let ValueMessage { match_pattern } = message;
        let missing = |path: &FieldPath| ConfigError::new(path.field("match_pattern"), "is required");
        Ok(match match_pattern.as_ref().ok_or_else(|| missing(path))? {
            MatchPattern::NullMatch(_) => Self::Null,
            MatchPattern::DoubleMatch(DoubleMatcher { match_pattern }) => match match_pattern {
                Some(double_matcher::MatchPattern::Range(range)) => Self::NumberIn(range.start, range.end),
                Some(double_matcher::MatchPattern::Exact(number)) => Self::Number(*number),
                None => return Err(missing(&path.field("double_match"))),
            },
            MatchPattern::StringMatch(text) => {
                Self::Text(StringMatcher::compile(text, &path.field("string_match"))?)
            }
            MatchPattern::BoolMatch(wanted) => Self::Bool(*wanted),
            MatchPattern::PresentMatch(wanted) => Self::Present(*wanted),
            MatchPattern::ListMatch(list) => {
                let ListMatcher { match_pattern } = &**list;
                let path = path.field("list_match");
                match match_pattern {
                    Some(list_matcher::MatchPattern::OneOf(one)) => {
                        Self::OneOf(Box::new(Self::compile(one, &path.field("one_of"))?))
                    }
                    None => return Err(missing(&path)),
                }
            }
            MatchPattern::OrMatch(OrMatcher { value_matchers }) => {
                let path = path.field("or_match").field("value_matchers");
                let each = value_matchers.iter().enumerate().map(|(at, m)| Self::compile(m, &path.index(at)));
                Self::Or(each.collect::<Result<_, _>>()?)
            }
        })
    }

    /// Whether a value, or its absence, matches.
    pub fn matches(&self, value: Option<&Value>) -> bool {
        let kind = value.and_then(|value| value.kind.as_ref());
        match (self, kind) {
            (Self::Present(wanted), kind) => kind.is_some() == *wanted,
            (Self::Or(any), _) => any.iter().any(|matcher| matcher.matches(value)),
            (Self::Null, Some(Kind::NullValue(_))) => true,
            (Self::Number(wanted), Some(Kind::NumberValue(number))) => number == wanted,
            (Self::NumberIn(start, end), Some(Kind::NumberValue(number))) => start <= number && number < end,
            (Self::Text(matcher), Some(Kind::StringValue(text))) => matcher.matches(text.as_bytes()),
            (Self::Bool(wanted), Some(Kind::BoolValue(value))) => value == wanted,
            (Self::OneOf(matcher), Some(Kind::ListValue(list))) => {
                list.values.iter().any(|value| matcher.matches(Some(value)))
            }
            _ => false,
        }
    }
}
