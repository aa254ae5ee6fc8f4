//! `StatsMatcher`: which stats exist, by their full names.

use std::sync::Arc;

use dhow_base::{ConfigError, FieldPath};

use crate::pb::matcher::ListStringMatcher;
use crate::pb::metrics::{StatsMatcher as Message, stats_matcher::StatsMatcher as Choice};
use crate::string::StringMatcher;

/// A compiled `envoy.config.metrics.v3.StatsMatcher`.
#[derive(Clone, Debug)]
pub enum StatsMatcher {
    /// `reject_all`.
    RejectAll,
    /// `inclusion_list`: those of which one pattern matches.
    Including(Arc<[StringMatcher]>),
    /// `exclusion_list`: those of which no pattern matches.
    Excluding(Arc<[StringMatcher]>),
}

impl StatsMatcher {
    /// Compiles the message.
    ///
    /// # Errors
    /// When a pattern is not valid or nothing is chosen.
    pub fn compile(message: &Message, path: &FieldPath) -> Result<Self, ConfigError> {
        let list = |list: &ListStringMatcher, field: &str| {
            let path = path.field(field).field("patterns");
            let patterns = list.patterns.iter().enumerate();
            let compiled = patterns.map(|(at, pattern)| StringMatcher::compile(pattern, &path.index(at)));
            compiled.collect::<Result<Arc<[_]>, _>>()
        };
        match &message.stats_matcher {
            Some(Choice::RejectAll(true)) => Ok(Self::RejectAll),
            Some(Choice::RejectAll(false)) => Ok(Self::Excluding(Arc::new([]))),
            Some(Choice::InclusionList(patterns)) => list(patterns, "inclusion_list").map(Self::Including),
            Some(Choice::ExclusionList(patterns)) => list(patterns, "exclusion_list").map(Self::Excluding),
            None => Err(ConfigError::new(path.clone(), "stats_matcher: is required")),
        }
    }

    /// Whether the stat of this name exists.
    pub fn accepts(&self, name: &str) -> bool {
        let any =
            |patterns: &[StringMatcher]| patterns.iter().any(|pattern| pattern.matches(name.as_bytes()));
        match self {
            Self::RejectAll => false,
            Self::Including(patterns) => any(patterns),
            Self::Excluding(patterns) => !any(patterns),
        }
    }
}
