//! The matchers on the cases that Envoy 1.40 was asked.

use dhow_base::FieldPath;
use dhow_http::HeaderMap;

use crate::pb::core::CidrRange;
use crate::pb::matcher::{
    RegexMatchAndSubstitute, RegexMatcher, StringMatcher as StringMessage, string_matcher::MatchPattern,
};
use crate::pb::protobuf::UInt32Value;
use crate::pb::route::{
    CookieMatcher as CookieMessage, HeaderMatcher as HeaderMessage, QueryParameterMatcher as QueryMessage,
    header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier,
};
use crate::{
    CidrSet, CookieMatcher, DomainIndex, HeaderMatcher, PathMatcher, QueryParameterMatcher, RegexRewrite,
    StringMatcher, path_without_query,
};

fn root() -> FieldPath {
    FieldPath::root()
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(name.as_bytes(), value.as_bytes());
    }
    map
}

fn text(pattern: MatchPattern, ignore_case: bool) -> StringMessage {
    StringMessage { ignore_case, match_pattern: Some(pattern) }
}

fn regex(expression: &str) -> RegexMatcher {
    RegexMatcher { regex: expression.to_owned(), engine_type: None }
}

#[test]
fn strings() {
    let check = |pattern: MatchPattern, ignore_case, yes: &[&str], no: &[&str]| {
        let matcher = StringMatcher::compile(&text(pattern.clone(), ignore_case), &root()).unwrap();
        yes.iter().for_each(|yes| assert!(matcher.matches(yes.as_bytes()), "{pattern:?} {yes}"));
        no.iter().for_each(|no| assert!(!matcher.matches(no.as_bytes()), "{pattern:?} {no}"));
    };
    check(MatchPattern::Exact("Ab".to_owned()), false, &["Ab"], &["ab", "Abc", ""]);
    check(MatchPattern::Exact("Ab".to_owned()), true, &["aB"], &["abc"]);
    check(MatchPattern::Prefix("Ab".to_owned()), true, &["ABc", "ab"], &["a", "cab"]);
    check(MatchPattern::Suffix("Ab".to_owned()), false, &["xAb", "Ab"], &["Abx", "b"]);
    check(MatchPattern::Contains("b".to_owned()), false, &["abc"], &["aBc", ""]);
    check(MatchPattern::Contains("B".to_owned()), true, &["abc", "aBc"], &["ac"]);
    check(MatchPattern::SafeRegex(regex("a|b.*")), false, &["a", "bcd"], &["ab", "xa"]);
}

#[test]
fn strings_that_are_refused() {
    let error = |pattern, ignore_case| {
        StringMatcher::compile(&text(pattern, ignore_case), &FieldPath::from("m")).unwrap_err().to_string()
    };
    assert_eq!(
        error(MatchPattern::Prefix(String::new()), false),
        "m.prefix: value length must be at least 1 characters"
    );
    assert_eq!(
        error(MatchPattern::SafeRegex(regex("a")), true),
        "m.ignore_case: ignore_case has no effect for safe_regex."
    );
    assert_eq!(error(MatchPattern::SafeRegex(regex("a(")), false), "m.safe_regex.regex: missing ): a(");
    let missing = StringMessage { ignore_case: false, match_pattern: None };
    assert!(StringMatcher::compile(&missing, &root()).is_err());
}

/// Columns: missing, `a`, empty, `b`, `a` and `b`, `5`, `10`, `-5`, `5x`; as Envoy answered.
#[test]
fn header_matchers_are_envoys() {
    let requests: [&[(&str, &str)]; 9] = [
        &[],
        &[("x", "a")],
        &[("x", "")],
        &[("x", "b")],
        &[("x", "a"), ("X", "b")],
        &[("x", "5")],
        &[("x", "10")],
        &[("x", "-5")],
        &[("x", "5x")],
    ];
    let exact = |value: &str| {
        Some(HeaderMatchSpecifier::StringMatch(text(MatchPattern::Exact(value.to_owned()), false)))
    };
    let range = dhow_proto::envoy_types::pb::envoy::r#type::v3::Int64Range { start: -5, end: 10 };
    let present = |wanted| Some(HeaderMatchSpecifier::PresentMatch(wanted));
    for (specifier, invert, empty, expected) in [
        (exact("a"), false, false, "NYNNYNNNN"),
        (exact("a"), true, false, "NNYYNYYYY"),
        (exact(""), false, true, "YNYNNNNNN"),
        (exact("a"), true, true, "YNYYNYYYY"),
        (present(true), false, false, "NYYYYYYYY"),
        (present(false), false, false, "YNNNNNNNN"),
        (present(true), true, false, "YNNNNNNNN"),
        (present(true), false, true, "YYYYYYYYY"),
        (Some(HeaderMatchSpecifier::RangeMatch(range)), false, false, "NNNNNYNYN"),
        (None, false, false, "NYYYYYYYY"),
    ] {
        let message = HeaderMessage {
            name: "X".to_owned(),
            invert_match: invert,
            treat_missing_header_as_empty: empty,
            header_match_specifier: specifier,
        };
        let matcher = HeaderMatcher::compile(&message, &root()).unwrap();
        let answers: String =
            requests.iter().map(|lines| if matcher.matches(&headers(lines)) { 'Y' } else { 'N' }).collect();
        assert_eq!(answers, expected, "{message:?}");
    }
}

#[test]
fn query_parameters_are_envoys() {
    let matcher = |specifier| {
        let message = QueryMessage { name: "k".to_owned(), query_parameter_match_specifier: specifier };
        QueryParameterMatcher::compile(&message, &root()).unwrap()
    };
    let exact = matcher(Some(QueryParameterMatchSpecifier::StringMatch(text(
        MatchPattern::Exact("v".to_owned()),
        false,
    ))));
    for (path, expected) in [
        ("/?k=v", true),
        ("/?k=", false),
        ("/?k", false),
        ("/?a&k=v", true),
        ("/?k=x&k=v", false),
        ("/?K=v", false),
        ("/?k=%76", false),
        ("/", false),
    ] {
        assert_eq!(exact.matches(path.as_bytes()), expected, "{path}");
    }
    let absent = matcher(Some(QueryParameterMatchSpecifier::PresentMatch(false)));
    assert_eq!(["/", "/?k", "/?a"].map(|path| absent.matches(path.as_bytes())), [true, false, true]);
    assert_eq!(["/", "/?k", "/?k=1"].map(|path| matcher(None).matches(path.as_bytes())), [false, true, true]);
}

#[test]
fn cookies_are_envoys() {
    let matcher = |invert_match| {
        let string_match = Some(text(MatchPattern::Exact("v".to_owned()), false));
        let message = CookieMessage { name: "k".to_owned(), string_match, invert_match };
        CookieMatcher::compile(&message, &root()).unwrap()
    };
    for (lines, expected) in [
        (vec![], false),
        (vec![("cookie", "k=v")], true),
        (vec![("cookie", "a=1; k=v")], true),
        (vec![("cookie", "a=1"), ("cookie", "k=v")], true),
        (vec![("cookie", "k=\"v\"")], true),
        (vec![("cookie", "k=x; k=v")], false),
    ] {
        let map = headers(&lines);
        assert_eq!(
            (matcher(false).matches(&map), matcher(true).matches(&map)),
            (expected, !expected),
            "{lines:?}"
        );
    }
}

#[test]
fn paths() {
    let separated = PathMatcher::SeparatedPrefix { prefix: b"/a"[..].into(), ignore_case: false };
    let answers = ["/a", "/a/", "/a/b", "/a?x", "/ab"]
        .map(|path| separated.matches(path_without_query(path.as_bytes())));
    assert_eq!(answers, [true, true, true, true, false]);
    let prefix = PathMatcher::Prefix { prefix: b"/AbC"[..].into(), ignore_case: true };
    assert!(prefix.matches(b"/abcd") && !prefix.matches(b"/ab"));
    assert_eq!(prefix.replaced_length(b"/abcd"), Some(4));
    assert_eq!(prefix.replaced_length(b"/a;1/bcd"), None);
    let exact = PathMatcher::Exact { path: b"/a"[..].into(), ignore_case: false };
    assert!(exact.matches(b"/a") && !exact.matches(b"/A"));
    assert_eq!(path_without_query(b"/a#x?y"), b"/a");
}

#[test]
fn domains_are_searched_in_envoys_order() {
    let mut index = DomainIndex::default();
    for domain in ["a.foo.com", "*.foo.com", "*-bar.foo.com", "foo.*", "foo-*", "port:80", "*"] {
        assert!(index.insert(domain, domain), "{domain}");
    }
    assert!(!index.insert("A.foo.com", ""), "duplicates are found whatever their case");
    assert!(!index.insert("*", ""));
    for (host, expected) in [
        ("a.foo.com", "a.foo.com"),
        ("b.foo.com", "*.foo.com"),
        (".foo.com", "*"),
        ("x-bar.foo.com", "*-bar.foo.com"),
        ("-bar.foo.com", "*.foo.com"),
        ("foo.com", "foo.*"),
        ("foo.", "*"),
        ("foo-x", "foo-*"),
        ("port:80", "port:80"),
        ("port", "*"),
    ] {
        assert_eq!(*index.find(host.as_bytes()).unwrap().0, expected, "{host}");
    }
    assert_eq!(index.only_any(), None);
}

#[test]
fn address_ranges() {
    let range = |address: &str, length: u32| CidrRange {
        address_prefix: address.to_owned(),
        prefix_len: Some(UInt32Value { value: length }),
    };
    let set = CidrSet::compile(&[range("10.1.2.3", 16), range("::1", 128)], &root()).unwrap();
    let inside = |ip: &str| set.contains(ip.parse().unwrap());
    assert!(inside("10.1.255.255") && inside("::1"));
    assert!(!inside("10.2.0.0") && !inside("::2") && !inside("::ffff:10.1.0.1"));
    let all = CidrSet::compile(&[range("0.0.0.0", 0)], &root()).unwrap();
    assert!(all.contains("255.255.255.255".parse().unwrap()) && !all.contains("::".parse().unwrap()));
    let cut = CidrSet::compile(&[range("10.0.0.1", 128)], &root()).unwrap();
    assert!(cut.contains("10.0.0.1".parse().unwrap()) && !cut.contains("10.0.0.2".parse().unwrap()));
    let error = CidrSet::compile(&[range("nope", 8)], &root()).unwrap_err();
    assert_eq!(error.reason, "invalid ip/mask combo 'nope/8' (format is <ip>/<# mask bits>)");
    let error = crate::Cidr::compile(&range("nope", 8), &root()).unwrap_err();
    assert_eq!(error.reason, "malformed IP address: nope");
}

#[test]
fn rewrites_replace_all_occurrences() {
    let rewrite = |expression: &str, substitution: &str| {
        let message = RegexMatchAndSubstitute {
            pattern: Some(regex(expression)),
            substitution: substitution.to_owned(),
        };
        RegexRewrite::compile(&message, &root()).unwrap()
    };
    assert_eq!(rewrite("a", "<\\0>").apply(b"/abca"), b"/<a>bc<a>");
    assert_eq!(rewrite("^/(.+)/.+$", "\\1").apply(b"/a/b/c"), b"a/b");
    assert_eq!(rewrite("(a)(b)?", "\\2\\1\\\\").apply(b"ab a"), b"ba\\ a\\");
    // Not valid, accepted, and without effect.
    assert_eq!(rewrite("a", "\\2").apply(b"/abc"), b"/abc");
    assert_eq!(rewrite("a", "\\x").apply(b"/abc"), b"/abc");
}

/// The precedence of domains, said the plain way: exact, longest `*suffix`, longest `prefix*`, `*`.
fn domain_in_order(domains: &[String], host: &str) -> Option<usize> {
    let longest = |fits: &dyn Fn(&str) -> Option<usize>| {
        let found = domains.iter().enumerate().filter_map(|(at, domain)| Some((fits(domain)?, at)));
        found.max_by_key(|(length, _)| *length).map(|(_, at)| at)
    };
    let suffix = |domain: &str| {
        let text = domain.strip_prefix('*').filter(|text| !text.is_empty())?;
        (host.len() > text.len() && host.ends_with(text)).then_some(text.len())
    };
    let prefix = |domain: &str| {
        let text = domain.strip_suffix('*').filter(|text| !text.is_empty())?;
        (host.len() > text.len() && host.starts_with(text)).then_some(text.len())
    };
    let named = |wanted: &str| domains.iter().position(|domain| domain == wanted);
    named(host).or_else(|| longest(&suffix)).or_else(|| longest(&prefix)).or_else(|| named("*"))
}

#[test]
fn domains_are_found_as_by_a_search_in_order() {
    for seed in 1..=50 {
        let mut rng = dhow_base::Rng::seeded(seed);
        let mut name = |longest: u64| {
            let length = 1 + rng.below(longest);
            (0..length).map(|_| ["a", "b", ".", "c"][rng.index(4)]).collect::<String>()
        };
        let mut domains: Vec<String> = (0..300)
            .map(|at| match at % 3 {
                0 => name(6),
                1 => format!("*{}", name(5)),
                _ => format!("{}*", name(5)),
            })
            .chain(["*".to_owned()].into_iter().filter(|_| seed % 2 == 0))
            .collect();
        domains.sort();
        domains.dedup();
        let mut index = DomainIndex::default();
        for (at, domain) in domains.iter().enumerate() {
            assert!(index.insert(domain, at), "seed {seed}: {domain} is there once");
        }
        for _ in 0..500 {
            let host = name(8);
            let found = index.find(host.as_bytes()).map(|(at, _)| *at);
            assert_eq!(found, domain_in_order(&domains, &host), "seed {seed}, host {host}");
        }
    }
}
