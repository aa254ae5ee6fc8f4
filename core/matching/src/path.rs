//! The path specifiers of a route match.

use crate::regex_matcher::FullRegex;

/// How a path is compared. Prefixes and paths are compared without regard to case when `ignore_case` is set.
#[derive(Clone, Debug)]
pub enum PathMatcher {
    /// The path begins with this text.
    Prefix {
        /// The text; `/` or empty matches every path.
        prefix: Box<[u8]>,
        /// `case_sensitive: false`.
        ignore_case: bool,
    },
    /// The path is this text.
    Exact {
        /// The text.
        path: Box<[u8]>,
        /// `case_sensitive: false`.
        ignore_case: bool,
    },
    /// The path is this text or continues after it with a slash.
    SeparatedPrefix {
        /// The text, without a slash at its end.
        prefix: Box<[u8]>,
        /// `case_sensitive: false`.
        ignore_case: bool,
    },
    /// The expression matches all of the path.
    Regex(FullRegex),
}

/// What is before a path's query or fragment.
pub fn path_without_query(path: &[u8]) -> &[u8] {
    &path[..memchr::memchr2(b'?', b'#', path).unwrap_or(path.len())]
}

fn same(a: &[u8], b: &[u8], ignore_case: bool) -> bool {
    if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b }
}

fn starts(path: &[u8], prefix: &[u8], ignore_case: bool) -> bool {
    path.len() >= prefix.len() && same(&path[..prefix.len()], prefix, ignore_case)
}

impl PathMatcher {
    /// Whether a path without query matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Prefix { prefix, ignore_case } => starts(path, prefix, *ignore_case),
            Self::Exact { path: wanted, ignore_case } => same(path, wanted, *ignore_case),
            Self::SeparatedPrefix { prefix, ignore_case } => {
                starts(path, prefix, *ignore_case) && matches!(path.get(prefix.len()), None | Some(b'/'))
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// How many bytes of a matched path `prefix_rewrite` replaces: the text that it begins with, or all that an expression
    /// matched. None if the path does not begin so, because it was compared in another form than its own.
    pub fn replaced_length(&self, path_without_query: &[u8]) -> Option<usize> {
        match self {
            Self::Prefix { prefix: text, ignore_case }
            | Self::SeparatedPrefix { prefix: text, ignore_case }
            | Self::Exact { path: text, ignore_case } => {
                starts(path_without_query, text, *ignore_case).then_some(text.len())
            }
            Self::Regex(_) => Some(path_without_query.len()),
        }
    }
}
