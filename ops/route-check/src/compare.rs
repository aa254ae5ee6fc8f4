//! An answer against what the test expects, in the tool's words.

use std::fmt::Display;

use dhow_base::{ConfigError, FieldPath};
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::HeaderMatcher;
use dhow_proto::envoy::config::core::v3::HeaderValue;
use dhow_proto::envoy::config::route::v3::{HeaderMatcher as Matcher, header_matcher::HeaderMatchSpecifier};
use dhow_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use dhow_proto::google::protobuf::Duration;
use dhow_proto::router_check::{ValidationAssert, ValidationItem};

use crate::answer::Answer;
use crate::coverage::{Coverage, Property};
use crate::table::Table;

/// What of a test did not come out as expected; empty when it passes.
///
/// # Errors
/// When one of the test's matchers cannot be compiled.
pub(crate) fn failures_of(
    table: &Table,
    test: &ValidationItem,
    coverage: &mut Coverage,
) -> Result<Vec<String>, ConfigError> {
    let ValidationItem { test_name: _, input, validate } = test; // The name is printed by the caller.
    let answer = Answer::to(&input.clone().unwrap_or_default(), table);
    let mut comparison = Comparison { answer, coverage, failures: Vec::new() };
    comparison.all(&validate.clone().unwrap_or_default())?;
    Ok(comparison.failures)
}

struct Comparison<'a> {
    answer: Answer,
    coverage: &'a mut Coverage,
    failures: Vec<String>,
}

impl Comparison<'_> {
    fn all(&mut self, expected: &ValidationAssert) -> Result<(), ConfigError> {
        let ValidationAssert {
            cluster_name,
            virtual_cluster_name,
            virtual_host_name,
            host_rewrite,
            path_rewrite,
            path_redirect,
            header_fields,
            custom_header_fields,
            request_header_fields,
            response_header_fields,
            request_header_matches,
            response_header_matches,
            code_redirect,
            timeout,
        } = expected;
        let cluster = self.answer.cluster.clone();
        self.forwarding(cluster_name, &cluster, Property::Cluster, "cluster_name");
        let virtual_cluster = self.virtual_cluster();
        self.forwarding(
            virtual_cluster_name,
            &virtual_cluster,
            Property::VirtualCluster,
            "virtual_cluster_name",
        );
        let host = self.answer.forwarding().map(|route| route.virtual_host().name().to_owned());
        self.forwarding(
            virtual_host_name,
            &host.unwrap_or_default(),
            Property::VirtualHost,
            "virtual_host_name",
        );
        let path = self.sent(|request| request.path());
        self.forwarding(path_rewrite, &path, Property::PathRewrite, "path_rewrite");
        let authority = self.sent(|request| request.authority());
        self.forwarding(host_rewrite, &authority, Property::HostRewrite, "host_rewrite");
        let location = self.answer.location.clone();
        self.direct(path_redirect, &location, Property::RedirectPath, "path_redirect");
        let status = u32::from(self.answer.direct_status());
        self.direct(code_redirect, &status, Property::RedirectCode, "code_redirect");
        if let Some(timeout) = timeout {
            self.equal(&milliseconds(timeout), &self.timeout(), "timeout");
        }
        self.matchers(request_header_matches, Side::Request, "request_header_matches")?;
        for (fields, kind) in [
            (header_fields, "header_fields"),
            (custom_header_fields, "custom_header_fields"),
            (request_header_fields, "request_header_fields"),
        ] {
            self.fields(fields, Side::Request, kind);
        }
        self.matchers(response_header_matches, Side::Response, "response_header_matches")?;
        self.fields(response_header_fields, Side::Response, "response_header_fields");
        Ok(())
    }

    /// Compares a property of a route that forwards.
    fn forwarding(&mut self, expected: &Option<String>, actual: &String, property: Property, kind: &str) {
        let Some(expected) = expected else { return };
        if self.equal(expected, actual, kind)
            && let Some(route) = self.answer.forwarding()
        {
            self.coverage.confirm(route, &self.answer.cluster, property);
        }
    }

    /// Compares a property of a route that answers itself.
    fn direct<T: PartialEq + Display>(
        &mut self,
        expected: &Option<T>,
        actual: &T,
        property: Property,
        kind: &str,
    ) {
        let Some(expected) = expected else { return };
        if self.equal(expected, actual, kind)
            && let Some(route) = self.answer.direct()
        {
            self.coverage.confirm(route, "", property);
        }
    }

    fn equal<T: PartialEq + Display>(&mut self, expected: &T, actual: &T, kind: &str) -> bool {
        let equal = expected == actual;
        if !equal {
            self.failures.push(format!("expected: [{expected}], actual: [{actual}], test type: {kind}"));
        }
        equal
    }

    /// A property of the request as it goes upstream; empty when it does not.
    fn sent(&self, property: impl Fn(&HeaderMap) -> &[u8]) -> String {
        let sent = self.answer.forwarding().map(|_| property(&self.answer.request));
        sent.map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    }

    fn virtual_cluster(&self) -> String {
        let Some(route) = self.answer.forwarding() else { return String::new() };
        let host = route.virtual_host();
        let mut names = host.virtual_cluster_names();
        match host.virtual_cluster(&self.answer.request) {
            Some(at) => names.nth(at).unwrap_or_default().to_owned(),
            None => names.next().map(|_| "other".to_owned()).unwrap_or_default(),
        }
    }

    /// The route's time-out in milliseconds, 0 for none.
    fn timeout(&self) -> i64 {
        let action = self.answer.forwarding().and_then(|route| route.forward());
        action.and_then(|action| action.timeout).map_or(0, |timeout| timeout.as_millis() as i64)
    }

    fn head(&self, side: Side) -> &HeaderMap {
        match side {
            Side::Request => &self.answer.request,
            Side::Response => &self.answer.response,
        }
    }

    fn fields(&mut self, fields: &[HeaderValue], side: Side, kind: &str) {
        for HeaderValue { key, value, raw_value: _ } in fields {
            // The tool compares `value` only.
            let actual = first(self.head(side), key).unwrap_or_default();
            self.equal(value, &actual, kind);
        }
    }

    fn matchers(&mut self, matchers: &[Matcher], side: Side, kind: &str) -> Result<(), ConfigError> {
        let path = FieldPath::from(kind.to_owned());
        for (at, matcher) in matchers.iter().enumerate() {
            let compiled = HeaderMatcher::compile(matcher, &path.index(at))?;
            if !compiled.matches(self.head(side)) {
                let actual = first(self.head(side), &matcher.name);
                self.failures.push(mismatch(matcher, actual, kind));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Side {
    Request,
    Response,
}

/// The first value of a header.
fn first(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(&HeaderName::new(name)).map(|value| String::from_utf8_lossy(value).into_owned())
}

fn milliseconds(duration: &Duration) -> i64 {
    duration.seconds * 1000 + i64::from(duration.nanos) / 1_000_000
}

/// Why a header did not match, as far as the sort of matcher allows to say.
fn mismatch(matcher: &Matcher, actual: Option<String>, kind: &str) -> String {
    let (name, invert) = (&matcher.name, matcher.invert_match);
    let kind = format!("{kind}.{}", sort_of(matcher.header_match_specifier.as_ref()));
    let actual = actual.unwrap_or_else(|| "NULL".to_owned());
    match &matcher.header_match_specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(_)) => {
            format!("expected: [has({name}):{}], actual: [has({name}):{invert}], test type: {kind}", !invert)
        }
        Some(HeaderMatchSpecifier::StringMatch(text)) => match &text.match_pattern {
            Some(MatchPattern::Exact(exact)) => {
                let not = if invert { "NOT " } else { "" };
                format!("expected: [{name}: {exact}], actual: {not}[{name}: {actual}], test type: {kind}")
            }
            _ => format!("actual: [{name}: {actual}], test type: {kind}"),
        },
        Some(_) => format!("actual: [{name}: {actual}], test type: {kind}"),
    }
}

#[allow(deprecated, reason = "the older matchers have names as well")]
fn sort_of(specifier: Option<&HeaderMatchSpecifier>) -> &'static str {
    match specifier {
        None | Some(HeaderMatchSpecifier::PresentMatch(_)) => "present_match",
        Some(HeaderMatchSpecifier::ExactMatch(_)) => "exact_match",
        Some(HeaderMatchSpecifier::SafeRegexMatch(_)) => "safe_regex_match",
        Some(HeaderMatchSpecifier::RangeMatch(_)) => "range_match",
        Some(HeaderMatchSpecifier::PrefixMatch(_)) => "prefix_match",
        Some(HeaderMatchSpecifier::SuffixMatch(_)) => "suffix_match",
        Some(HeaderMatchSpecifier::ContainsMatch(_)) => "contains_match",
        Some(HeaderMatchSpecifier::StringMatch(text)) => match &text.match_pattern {
            None => "string_match.match_pattern_not_set",
            Some(MatchPattern::Exact(_)) => "string_match.exact",
            Some(MatchPattern::Prefix(_)) => "string_match.prefix",
            Some(MatchPattern::Suffix(_)) => "string_match.suffix",
            Some(MatchPattern::SafeRegex(_)) => "string_match.safe_regex",
            Some(MatchPattern::Contains(_)) => "string_match.contains",
            Some(MatchPattern::Custom(_)) => "string_match.custom",
        },
    }
}
