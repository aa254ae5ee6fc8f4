//! `MatchPredicate`, where only the head of a response is looked at.

use dhow_base::{ConfigError, FieldPath};
use dhow_http::HeaderMap;

use crate::header::{HeaderMatcher, all_match};
use crate::pb::common_matcher::MatchPredicate as Message;
use crate::pb::common_matcher::match_predicate::{MatchSet, Rule};

/// A compiled `envoy.config.common.matcher.v3.MatchPredicate` over response headers. What it says of requests, trailers and bodies
/// never matches, as in Envoy where nobody shows them to it.
#[derive(Clone, Debug)]
pub enum ResponsePredicate {
    /// `any_match`.
    Any,
    /// About something else than the head of a response.
    Never,
    /// `http_response_headers_match`: all of them.
    Headers(Box<[HeaderMatcher]>),
    /// `or_match`.
    Or(Box<[Self]>),
    /// `and_match`.
    And(Box<[Self]>),
    /// `not_match`.
    Not(Box<Self>),
}

impl ResponsePredicate {
    /// Compiles the message.
    ///
    /// # Errors
    /// When a rule is missing or a header matcher is not valid.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let all = |set: &MatchSet, field: &str| {
            let path = path.field(field).field("rules");
            let rules = set.rules.iter().enumerate();
            rules.map(|(at, rule)| Self::compile(rule, &path.index(at))).collect::<Result<_, _>>()
        };
        Ok(match &message.rule {
            None => return Err(ConfigError::new(path.field("rule"), "is required")),
            Some(Rule::AnyMatch(_)) => Self::Any,
            Some(Rule::OrMatch(set)) => Self::Or(all(set, "or_match")?),
            Some(Rule::AndMatch(set)) => Self::And(all(set, "and_match")?),
            Some(Rule::NotMatch(rule)) => Self::Not(Self::compile(rule, &path.field("not_match"))?.into()),
            Some(Rule::HttpResponseHeadersMatch(set)) => {
                let path = path.field("http_response_headers_match").field("headers");
                Self::Headers(HeaderMatcher::compile_all(&set.headers, &path)?)
            }
            Some(
                Rule::HttpRequestHeadersMatch(_)
                | Rule::HttpRequestTrailersMatch(_)
                | Rule::HttpResponseTrailersMatch(_)
                | Rule::HttpRequestGenericBodyMatch(_)
                | Rule::HttpResponseGenericBodyMatch(_),
            ) => Self::Never,
        })
    }

    /// Whether the head of a response matches.
    pub fn matches(&self, response: &HeaderMap) -> bool {
        match self {
            Self::Any => true,
            Self::Never => false,
            Self::Headers(matchers) => all_match(matchers, response),
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(response)),
            Self::And(rules) => rules.iter().all(|rule| rule.matches(response)),
            Self::Not(rule) => !rule.matches(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::common_matcher::HttpHeadersMatch;

    fn rule(rule: Rule) -> Message {
        Message { rule: Some(rule) }
    }

    fn matches(message: &Message) -> bool {
        let mut response = HeaderMap::new();
        response.append(b"x-bad", b"1");
        ResponsePredicate::compile(message, &FieldPath::root()).unwrap().matches(&response)
    }

    #[test]
    fn only_response_headers_can_match() {
        let any = || rule(Rule::AnyMatch(true));
        let request = || rule(Rule::HttpRequestHeadersMatch(HttpHeadersMatch::default()));
        let response = rule(Rule::HttpResponseHeadersMatch(HttpHeadersMatch::default()));
        assert!(matches(&any()) && matches(&response) && !matches(&request()));
        assert!(matches(&rule(Rule::NotMatch(request().into()))));
        assert!(matches(&rule(Rule::OrMatch(MatchSet { rules: vec![request(), any()] }))));
        assert!(!matches(&rule(Rule::AndMatch(MatchSet { rules: vec![request(), any()] }))));
        assert!(ResponsePredicate::compile(&Message::default(), &FieldPath::root()).is_err());
    }
}
