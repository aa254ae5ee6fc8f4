//! `HeaderMatcher`.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName};

use crate::pb::matcher::StringMatcher as StringMessage;
use crate::pb::matcher::string_matcher::MatchPattern;
use crate::pb::route::{HeaderMatcher as Message, header_matcher::HeaderMatchSpecifier};
use crate::string::StringMatcher;

/// A compiled `envoy.config.route.v3.HeaderMatcher`.
///
/// A header that occurs several times matches when one of its values does.
#[derive(Clone, Debug)]
pub struct HeaderMatcher {
    name: HeaderName,
    want: Want,
    invert: bool,
    missing_is_empty: bool,
}

#[derive(Clone, Debug)]
enum Want {
    Present(bool),
    Range { start: i64, end: i64 },
    Text(StringMatcher),
}

impl HeaderMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the name is empty or the pattern is not valid.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message { name, invert_match, treat_missing_header_as_empty, header_match_specifier } = message;
        if name.is_empty() {
            return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
        }
        Ok(Self {
            name: HeaderName::new(name),
            want: want(header_match_specifier.as_ref(), path)?,
            invert: *invert_match,
            missing_is_empty: *treat_missing_header_as_empty,
        })
    }

    /// Compiles a list; all of its matchers are required to match by [`all_match`].
    ///
    /// # Errors
    /// As [`HeaderMatcher::compile`], with the index in the path.
    pub fn compile_all(messages: &[Message], path: &FieldPath) -> Result<Box<[Self]>, ConfigError> {
        messages.iter().enumerate().map(|(at, message)| Self::compile(message, &path.index(at))).collect()
    }

    /// Name of the header that is looked at.
    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// Whether the headers match.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        if let Want::Present(wanted) = self.want {
            let present = self.missing_is_empty || headers.contains(&self.name);
            return (present == wanted) != self.invert;
        }
        let mut present = false;
        for value in headers.get_all(&self.name) {
            present = true;
            if self.value_matches(value) {
                return !self.invert;
            }
        }
        if present {
            return self.invert;
        }
        // Without the header there is nothing to match, inverted or not, unless its absence counts as an empty value.
        self.missing_is_empty && self.value_matches(b"") != self.invert
    }

    fn value_matches(&self, value: &[u8]) -> bool {
        match &self.want {
            Want::Present(wanted) => *wanted,
            Want::Range { start, end } => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.trim().parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
            Want::Text(matcher) => matcher.matches(value),
        }
    }
}

#[allow(deprecated, reason = "the older fields are still accepted, as in Envoy")]
fn want(specifier: Option<&HeaderMatchSpecifier>, path: &FieldPath) -> Result<Want, ConfigError> {
    let text = |pattern: MatchPattern, field: &str| {
        let message = StringMessage { ignore_case: false, match_pattern: Some(pattern) };
        StringMatcher::compile(&message, &path.field(field)).map(Want::Text)
    };
    match specifier {
        None => Ok(Want::Present(true)),
        Some(HeaderMatchSpecifier::PresentMatch(wanted)) => Ok(Want::Present(*wanted)),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => {
            Ok(Want::Range { start: range.start, end: range.end })
        }
        Some(HeaderMatchSpecifier::StringMatch(message)) => {
            StringMatcher::compile(message, &path.field("string_match")).map(Want::Text)
        }
        Some(HeaderMatchSpecifier::ExactMatch(exact)) => {
            text(MatchPattern::Exact(exact.clone()), "exact_match")
        }
        Some(HeaderMatchSpecifier::PrefixMatch(part)) => {
            text(MatchPattern::Prefix(part.clone()), "prefix_match")
        }
        Some(HeaderMatchSpecifier::SuffixMatch(part)) => {
            text(MatchPattern::Suffix(part.clone()), "suffix_match")
        }
        Some(HeaderMatchSpecifier::ContainsMatch(part)) => {
            text(MatchPattern::Contains(part.clone()), "contains_match")
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => {
            text(MatchPattern::SafeRegex(regex.clone()), "safe_regex_match")
        }
    }
}

/// Whether all matchers match; true for none.
pub fn all_match(matchers: &[HeaderMatcher], headers: &HeaderMap) -> bool {
    matchers.iter().all(|matcher| matcher.matches(headers))
}
