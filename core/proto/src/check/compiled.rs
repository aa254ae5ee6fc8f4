//! Validation rules, decoded at their first use and kept.

use std::collections::HashMap;
use std::sync::{OnceLock, PoisonError, RwLock};

use envoy_types::pb::validate::FieldRules;
use prost::Message;
use regex::Regex;

use crate::tables::RuleId;

/// The rules of a field.
pub(super) fn rules(id: RuleId) -> &'static FieldRules {
    static DECODED: OnceLock<Box<[OnceLock<FieldRules>]>> = OnceLock::new();
    let slots = DECODED.get_or_init(|| (0..RuleId::count()).map(|_| OnceLock::new()).collect());
    // The descriptor set was produced by the protobuf compiler, and a test decodes every entry.
    slots[id.index()].get_or_init(|| FieldRules::decode(id.encoded()).unwrap_or_default())
}

/// True when `text` contains a match of `pattern`, which is one of the dozen in the rules; `None` when the pattern is
/// outside of the syntax that `regex` shares with RE2.
pub(super) fn matches(pattern: &str, text: &str) -> Option<bool> {
    static PATTERNS: OnceLock<RwLock<HashMap<String, Option<Regex>>>> = OnceLock::new();
    let patterns = PATTERNS.get_or_init(RwLock::default);
    if let Some(known) = patterns.read().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return known.as_ref().map(|regex| regex.is_match(text));
    }
    let regex = Regex::new(pattern).ok();
    let outcome = regex.as_ref().map(|regex| regex.is_match(text));
    patterns.write().unwrap_or_else(PoisonError::into_inner).insert(pattern.to_owned(), regex);
    outcome
}
