//! Host names: resolution of short names, wildcards, and which of several patterns is the most specific.

use std::cmp::Ordering;
use std::fmt;

/// A host name or a wildcard (`*`, `*.example.com`, `*x` as Istio tolerates it), in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

impl Host {
    /// Takes a complete name as it is.
    pub fn new(name: &str) -> Self {
        Self(name.to_ascii_lowercase())
    }

    /// Istio's resolution of a host in an object of `namespace`: a name without a dot gets
    /// `.<namespace>.svc.<domain>`; wildcards and dotted names stay as they are.
    pub fn resolve(name: &str, namespace: &str, domain: &str) -> Self {
        let short = !name.contains('.') && !name.contains('*') && !namespace.is_empty();
        if short { Self::new(&format!("{name}.{namespace}.svc.{domain}")) } else { Self::new(name) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name begins with `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// Whether the two have a name in common: equal, or one is a wildcard that covers the other.
    pub fn matches(&self, other: &Self) -> bool {
        match (self.0.strip_prefix('*'), other.0.strip_prefix('*')) {
            (None, None) => self.0 == other.0,
            (Some(suffix), None) => covers(suffix, &other.0),
            (None, Some(suffix)) => covers(suffix, &self.0),
            (Some(ours), Some(theirs)) => ours.ends_with(theirs) || theirs.ends_with(ours),
        }
    }

    /// Whether every name that `other` stands for is one that this stands for.
    pub fn subset_contains(&self, other: &Self) -> bool {
        match (self.0.strip_prefix('*'), other.0.strip_prefix('*')) {
            (None, None) => self.0 == other.0,
            (Some(suffix), None) => covers(suffix, &other.0),
            (None, Some(_)) => false,
            (Some(ours), Some(theirs)) => theirs.ends_with(ours),
        }
    }

    /// Order from the most specific to the least: names before wildcards, longer wildcards first.
    pub fn specificity(&self, other: &Self) -> Ordering {
        self.is_wildcard()
            .cmp(&other.is_wildcard())
            .then_with(|| other.0.len().cmp(&self.0.len()))
            .then_with(|| self.0.cmp(&other.0))
    }
}

/// A wildcard stands for at least one character in place of the star.
fn covers(suffix: &str, name: &str) -> bool {
    name.len() > suffix.len() && name.ends_with(suffix)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The most specific of the patterns that cover the host.
pub fn most_specific<'a>(host: &Host, patterns: impl Iterator<Item = &'a Host>) -> Option<&'a Host> {
    patterns.filter(|pattern| pattern.subset_contains(host)).min_by(|a, b| a.specificity(b))
}

#[cfg(test)]
mod tests {
    use super::{Host, most_specific};

    #[test]
    fn short_names_belong_to_the_namespace_of_the_object() {
        let resolve = |name| Host::resolve(name, "prod", "cluster.local").as_str().to_owned();
        assert_eq!(resolve("reviews"), "reviews.prod.svc.cluster.local");
        assert_eq!(resolve("reviews.prod"), "reviews.prod");
        assert_eq!(resolve("*"), "*");
        assert_eq!(resolve("Example.COM"), "example.com");
    }

    #[test]
    fn a_wildcard_covers_names_below_it_only() {
        let wildcard = Host::new("*.example.com");
        assert!(wildcard.matches(&Host::new("a.example.com")));
        assert!(wildcard.matches(&Host::new("*.b.example.com")));
        assert!(!wildcard.matches(&Host::new("example.com")));
        assert!(!wildcard.subset_contains(&Host::new("*.com")));
        assert!(wildcard.matches(&Host::new("*.com")));
    }

    #[test]
    fn the_longest_pattern_wins_and_a_name_beats_every_wildcard() {
        let patterns: Vec<Host> =
            ["*", "*.com", "a.example.com", "*.example.com"].iter().map(|name| Host::new(name)).collect();
        let pick = |name| most_specific(&Host::new(name), patterns.iter()).map(Host::as_str);
        assert_eq!(pick("a.example.com"), Some("a.example.com"));
        assert_eq!(pick("b.example.com"), Some("*.example.com"));
        assert_eq!(pick("other.com"), Some("*.com"));
        assert_eq!(pick("other.org"), Some("*"));
    }
}
