//! Regular expressions with RE2's meaning.

use dhow_base::{ConfigError, FieldPath};
use regex::bytes::Regex;

use crate::pb::matcher::{RegexMatchAndSubstitute, RegexMatcher};
use crate::re2;
use crate::re2_error::in_words_of_re2;

/// A `RegexMatcher` that must match the whole text.
#[derive(Clone, Debug)]
pub struct FullRegex {
    regex: Regex,
}

fn expression<'a>(message: &'a RegexMatcher, path: &FieldPath) -> Result<&'a str, ConfigError> {
    // The engine is RE2 whether or not it is named; its program size limit is deprecated and never enforced by default.
    let RegexMatcher { regex, engine_type: _ } = message;
    if regex.is_empty() {
        return Err(ConfigError::new(path.field("regex"), "value length must be at least 1 characters"));
    }
    Ok(regex)
}

/// Compiles an expression in RE2's syntax; the error is in RE2's words.
fn build(expression: &str, whole: bool) -> Result<Regex, String> {
    let inner = re2::translate(expression)?;
    let pattern = if whole { format!(r"\A(?:{inner})\z") } else { inner };
    Regex::new(&pattern).map_err(|error| in_words_of_re2(&error))
}

impl FullRegex {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the expression is empty or not one.
    pub fn compile(message: &RegexMatcher, path: &FieldPath) -> Result<Self, ConfigError> {
        Self::from_expression(expression(message, path)?, path)
    }

    /// Compiles an expression in RE2's syntax.
    ///
    /// # Errors
    /// When it is not one.
    pub fn from_expression(expression: &str, path: &FieldPath) -> Result<Self, ConfigError> {
        let regex =
            build(expression, true).map_err(|reason| ConfigError::new(path.field("regex"), reason))?;
        Ok(Self { regex })
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

/// Compiles an expression in RE2's syntax that may match anywhere in a text.
///
/// # Errors
/// Why it is none, in RE2's words.
pub fn compile_regex(expression: &str) -> Result<regex::Regex, String> {
    regex::Regex::new(&re2::translate(expression)?).map_err(|error| in_words_of_re2(&error))
}

/// An expression that may match anywhere in the text.
#[derive(Clone, Debug)]
pub struct PartialRegex {
    regex: Regex,
}

impl PartialRegex {
    /// Compiles an expression in RE2's syntax.
    ///
    /// # Errors
    /// Why it is not one.
    pub fn from_expression(expression: &str) -> Result<Self, String> {
        Ok(Self { regex: build(expression, false)? })
    }

    /// Whether a part of the text matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.regex.is_match(text)
    }
}

/// A `RegexMatchAndSubstitute`: every occurrence is replaced, `\1` to `\9` are groups and `\0` is all of it.
#[derive(Clone, Debug)]
pub struct RegexRewrite {
    regex: Regex,
    /// `None`: not a valid substitution. Envoy accepts it, and then changes nothing.
    substitution: Option<Box<[Piece]>>,
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Box<[u8]>),
    Group(usize),
}

impl RegexRewrite {
    /// Compiles the message.
    ///
    /// # Errors
    /// When the pattern is missing or not an expression.
    pub fn compile(message: &RegexMatchAndSubstitute, path: &FieldPath) -> Result<Self, ConfigError> {
        let RegexMatchAndSubstitute { pattern, substitution } = message;
        let field = path.field("pattern");
        let pattern = pattern.as_ref().ok_or_else(|| ConfigError::new(field.clone(), "value is required"))?;
        let regex = build(expression(pattern, &field)?, false)
            .map_err(|reason| ConfigError::new(field.field("regex"), reason))?;
        let groups = regex.captures_len() - 1;
        let exists = |piece: &Piece| !matches!(piece, Piece::Group(group) if *group > groups);
        let substitution = pieces(substitution).filter(|pieces| pieces.iter().all(exists));
        Ok(Self { regex, substitution: substitution.map(Vec::into_boxed_slice) })
    }

    /// Appends the text with every occurrence replaced; tells whether there was one.
    pub fn append(&self, text: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(substitution) = &self.substitution else {
            out.extend_from_slice(text);
            return false;
        };
        let mut at = 0;
        let mut any = false;
        for found in self.regex.captures_iter(text) {
            let Some(all) = found.get(0) else { continue };
            any = true;
            out.extend_from_slice(&text[at..all.start()]);
            for piece in substitution {
                match piece {
                    Piece::Text(text) => out.extend_from_slice(text),
                    Piece::Group(group) => {
                        out.extend_from_slice(found.get(*group).map_or(b"", |g| g.as_bytes()))
                    }
                }
            }
            at = all.end();
        }
        out.extend_from_slice(&text[at..]);
        any
    }

    /// The text with every occurrence replaced.
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 16);
        self.append(text, &mut out);
        out
    }
}

/// The parts of a substitution, if it is valid.
fn pieces(substitution: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut text = Vec::new();
    let mut bytes = substitution.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            text.push(byte);
            continue;
        }
        match bytes.next()? {
            digit @ b'0'..=b'9' => {
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text).into()));
                }
                pieces.push(Piece::Group(usize::from(digit - b'0')));
            }
            b'\\' => text.push(b'\\'),
            _ => return None,
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Some(pieces)
}
