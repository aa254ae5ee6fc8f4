//! Query parameters and cookies.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, KnownHeader};

use crate::pb::route::{
    CookieMatcher as CookieMessage, QueryParameterMatcher as QueryMessage,
    query_parameter_matcher::QueryParameterMatchSpecifier,
};
use crate::string::StringMatcher;

/// A compiled `envoy.config.route.v3.QueryParameterMatcher`.
#[derive(Clone, Debug)]
pub struct QueryParameterMatcher {
    name: Box<[u8]>,
    want: Want,
}

#[derive(Clone, Debug)]
enum Want {
    Present(bool),
    Text(StringMatcher),
}

impl QueryParameterMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the name is empty or the pattern is not valid.
    pub fn compile(message: &QueryMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        let QueryMessage { name, query_parameter_match_specifier } = message;
        if name.is_empty() {
            return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
        }
        let want = match query_parameter_match_specifier {
            None => Want::Present(true),
            Some(QueryParameterMatchSpecifier::PresentMatch(wanted)) => Want::Present(*wanted),
            Some(QueryParameterMatchSpecifier::StringMatch(message)) => {
                Want::Text(StringMatcher::compile(message, &path.field("string_match"))?)
            }
        };
        Ok(Self { name: name.as_bytes().into(), want })
    }

    /// Whether the path's query matches; the first parameter of the name counts.
    pub fn matches(&self, path: &[u8]) -> bool {
        let value = query_parameter(path, &self.name);
        match &self.want {
            Want::Present(wanted) => value.is_some() == *wanted,
            Want::Text(matcher) => value.is_some_and(|value| matcher.matches(value)),
        }
    }
}

/// The first value of a query parameter of a path, as it is written; empty for a parameter without `=`.
pub fn query_parameter<'a>(path: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let query = &path[memchr::memchr(b'?', path)? + 1..];
    let query = &query[..memchr::memchr(b'#', query).unwrap_or(query.len())];
    query.split(|&b| b == b'&').find_map(|pair| {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        (&pair[..at] == name).then(|| pair.get(at + 1..).unwrap_or_default())
    })
}

/// A compiled `envoy.config.route.v3.CookieMatcher`.
#[derive(Clone, Debug)]
pub struct CookieMatcher {
    name: Box<[u8]>,
    matcher: StringMatcher,
    invert: bool,
}

impl CookieMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the name is empty or there is no valid pattern.
    pub fn compile(message: &CookieMessage, path: &FieldPath) -> Result<Self, ConfigError> {
        let CookieMessage { name, string_match, invert_match } = message;
        if name.is_empty() {
            return Err(ConfigError::new(path.field("name"), "value length must be at least 1 characters"));
        }
        let field = path.field("string_match");
        let message =
            string_match.as_ref().ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
        let matcher = StringMatcher::compile(message, &field)?;
        Ok(Self { name: name.as_bytes().into(), matcher, invert: *invert_match })
    }

    /// Whether the request's cookies match.
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        cookie_value(headers, &self.name).is_some_and(|value| self.matcher.matches(value)) != self.invert
    }
}

/// The value of a request's cookie, without surrounding quotes.
pub fn cookie_value<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let pairs = headers
        .iter()
        .filter(|(known, ..)| *known == Some(KnownHeader::Cookie))
        .flat_map(|(_, _, value)| value.split(|&b| b == b';'));
    for pair in pairs {
        let pair = pair.trim_ascii_start();
        let Some(at) = memchr::memchr(b'=', pair) else { continue };
        if &pair[..at] == name {
            let value = &pair[at + 1..];
            let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
            return Some(unquoted.unwrap_or(value));
        }
    }
    None
}
