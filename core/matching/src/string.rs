//! `StringMatcher`.

use dhow_base::{ConfigError, FieldPath};
use memchr::memmem::Finder;

use crate::pb::matcher::{StringMatcher as Message, string_matcher::MatchPattern};
use crate::regex_matcher::FullRegex;

/// A compiled `envoy.type.matcher.v3.StringMatcher`.
#[derive(Clone, Debug)]
pub struct StringMatcher {
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Clone, Debug)]
enum Pattern {
    Exact(Box<[u8]>),
    Prefix(Box<[u8]>),
    Suffix(Box<[u8]>),
    Contains(Box<Finder<'static>>),
    Regex(FullRegex),
}

impl StringMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When no pattern is given, a prefix, suffix or substring is empty, or an expression is not one.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let Message { ignore_case, match_pattern } = message;
        let folded = |text: &str| -> Box<[u8]> {
            if *ignore_case { text.to_ascii_lowercase().into_bytes().into() } else { text.as_bytes().into() }
        };
        let at_least_one = |text: &str, field: &str| {
            if text.is_empty() {
                return Err(ConfigError::new(
                    path.field(field),
                    "value length must be at least 1 characters",
                ));
            }
            Ok(folded(text))
        };
        let pattern = match match_pattern {
            Some(MatchPattern::Exact(text)) => Pattern::Exact(folded(text)),
            Some(MatchPattern::Prefix(text)) => Pattern::Prefix(at_least_one(text, "prefix")?),
            Some(MatchPattern::Suffix(text)) => Pattern::Suffix(at_least_one(text, "suffix")?),
            Some(MatchPattern::Contains(text)) => {
                let text = at_least_one(text, "contains")?;
                Pattern::Contains(Box::new(Finder::new(&*text).into_owned()))
            }
            Some(MatchPattern::SafeRegex(regex)) => {
                if *ignore_case {
                    return Err(ConfigError::new(
                        path.field("ignore_case"),
                        "ignore_case has no effect for safe_regex.",
                    ));
                }
                Pattern::Regex(FullRegex::compile(regex, &path.field("safe_regex"))?)
            }
            Some(MatchPattern::Custom(_)) => return Err(ConfigError::unsupported(path.field("custom"))),
            None => return Err(ConfigError::new(path.field("match_pattern"), "is required")),
        };
        Ok(Self { pattern, ignore_case: *ignore_case })
    }

    /// A matcher of one exact text.
    pub fn exact(text: &str) -> Self {
        Self { pattern: Pattern::Exact(text.as_bytes().into()), ignore_case: false }
    }

    /// A matcher of texts that begin with `text`.
    pub fn prefix(text: &str) -> Self {
        Self { pattern: Pattern::Prefix(text.as_bytes().into()), ignore_case: false }
    }

    /// A matcher of texts that end with `text`.
    pub fn suffix(text: &str) -> Self {
        Self { pattern: Pattern::Suffix(text.as_bytes().into()), ignore_case: false }
    }

    /// A matcher of texts in which `text` occurs.
    pub fn contains(text: &str) -> Self {
        Self { pattern: Pattern::Contains(Box::new(Finder::new(text).into_owned())), ignore_case: false }
    }

    /// A matcher of texts that an expression matches from end to end.
    pub fn regex(regex: FullRegex) -> Self {
        Self { pattern: Pattern::Regex(regex), ignore_case: false }
    }

    /// Whether the text matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let same = |a: &[u8], b: &[u8]| if self.ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
        match &self.pattern {
            Pattern::Exact(wanted) => same(text, wanted),
            Pattern::Prefix(wanted) => text.len() >= wanted.len() && same(&text[..wanted.len()], wanted),
            Pattern::Suffix(wanted) => {
                text.len() >= wanted.len() && same(&text[text.len() - wanted.len()..], wanted)
            }
            Pattern::Contains(finder) if self.ignore_case => {
                text.windows(finder.needle().len()).any(|window| window.eq_ignore_ascii_case(finder.needle()))
            }
            Pattern::Contains(finder) => finder.find(text).is_some(),
            Pattern::Regex(regex) => regex.is_match(text),
        }
    }
}
