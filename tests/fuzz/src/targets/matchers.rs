//! Matchers of strings beside what they mean.

use dhow_base::{FieldPath, Rng};
use dhow_matching::{FullRegex, StringMatcher, UriTemplate, UriTemplateRewrite};
use dhow_proto::envoy::r#type::matcher::v3::StringMatcher as Message;
use dhow_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use super::Target;
use crate::input::{Input, assemble};

/// Regular expressions, path templates and string matchers.
pub const MATCHERS: Target = Target {
    name: "matchers",
    about: "string matchers mean what they say; expressions and templates are refused or searched, never worse",
    run,
    generate,
};

const PARTS: &[&[u8]] = &[
    b"a",
    b"b",
    b"A",
    b"/",
    b"*",
    b"**",
    b"{x}",
    b"{x=*}",
    b"{y=a/**}",
    b".",
    b".*",
    b"(a|b)",
    b"[a-c]",
    b"[^/]+",
    b"\\d",
    b"\\pL",
    b"(?i)",
    b"a{1,3}",
    b"(",
    b")",
    b"\\Q",
    b"\\1",
    b"^",
    b"$",
    b"%41",
    b"\xc3\xa9",
    b"(?P<n>a)",
    b"?",
];

fn generate(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![rng.next_u32() as u8];
    let pattern = assemble(rng, PARTS, 8);
    bytes.push(pattern.len().min(255) as u8);
    bytes.extend(&pattern[..pattern.len().min(255)]);
    bytes.extend(assemble(rng, PARTS, 8));
    bytes
}

fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let kind = input.byte();
    let pattern = String::from_utf8_lossy(input.bytes()).into_owned();
    let text = input.rest();
    match kind % 3 {
        0 => plain(kind, &pattern, text),
        1 => expression(&pattern, text),
        _ => template(&pattern, text),
    }
}

fn plain(kind: u8, pattern: &str, text: &[u8]) {
    let ignore_case = kind & 8 != 0;
    let lower = |bytes: &[u8]| if ignore_case { bytes.to_ascii_lowercase() } else { bytes.to_vec() };
    let (wanted, given) = (lower(pattern.as_bytes()), lower(text));
    let (match_pattern, meaning) = match (kind / 16) % 4 {
        0 => (MatchPattern::Exact(pattern.to_owned()), wanted == given),
        1 => (MatchPattern::Prefix(pattern.to_owned()), given.starts_with(&wanted)),
        2 => (MatchPattern::Suffix(pattern.to_owned()), given.ends_with(&wanted)),
        _ => {
            let within = wanted.is_empty() || given.windows(wanted.len()).any(|part| part == wanted);
            (MatchPattern::Contains(pattern.to_owned()), within)
        }
    };
    let message = Message { ignore_case, match_pattern: Some(match_pattern) };
    if let Ok(matcher) = StringMatcher::compile(&message, &FieldPath::root()) {
        assert_eq!(matcher.matches(text), meaning, "{message:?}");
    }
}

fn expression(pattern: &str, text: &[u8]) {
    let root = FieldPath::root();
    let Ok(regex) = FullRegex::from_expression(pattern, &root) else { return };
    let whole = regex.is_match(text);
    // In a group an expression means the same.
    if let Ok(grouped) = FullRegex::from_expression(&format!("(?:{pattern})"), &root) {
        assert_eq!(grouped.is_match(text), whole, "{pattern:?} and in a group");
    }
}

fn template(pattern: &str, text: &[u8]) {
    let Ok(template) = UriTemplate::compile(pattern) else { return };
    let matches = template.is_match(text);
    assert!(!matches || text.starts_with(b"/"), "a match without a slash at the start");
    if let Ok(rewrite) = UriTemplateRewrite::compile("/new/{x}", &template) {
        let mut out = b"before ".to_vec();
        let rewritten = rewrite.append(&template, text, &mut out);
        assert!(out.starts_with(b"before "));
        assert_eq!(rewritten, matches, "rewritten, but not matched, or the other way round");
    }
}
