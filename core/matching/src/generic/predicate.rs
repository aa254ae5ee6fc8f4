//! Predicates of matcher lists.

use dhow_base::{ConfigError, FieldPath};

use super::compile::CompileExpression;
use super::custom::ValueRule;
use super::data::MatchData;
use super::input::{Input, InputFamily, InputValue};
use crate::pb::xds::r#type::matcher::v3::matcher::matcher_list::Predicate as Message;
use crate::pb::xds::r#type::matcher::v3::matcher::matcher_list::predicate::{
    MatchType, PredicateList, SinglePredicate, single_predicate,
};

/// What predicates may be made of.
pub(super) struct Allowed<'a> {
    pub(super) inputs: InputFamily,
    pub(super) admit: &'a dyn Fn(&str) -> Result<(), String>,
    pub(super) expressions: Option<CompileExpression>,
}

/// A condition on the data.
#[derive(Clone, Debug)]
pub(super) enum Predicate {
    Single { input: Input, rule: ValueRule },
    Any(Box<[Predicate]>),
    All(Box<[Predicate]>),
    Not(Box<Predicate>),
}

impl Predicate {
    pub(super) fn compile(
        message: &Message,
        path: &FieldPath,
        allowed: &Allowed<'_>,
    ) -> Result<Self, ConfigError> {
        let Message { match_type } = message;
        let list = |list: &PredicateList, field: &str| -> Result<Box<[Self]>, ConfigError> {
            let PredicateList { predicate } = list;
            let path = path.field(field).field("predicate");
            if predicate.len() < 2 {
                return Err(ConfigError::new(path, "value must contain at least 2 item(s)"));
            }
            let each = predicate.iter().enumerate().map(|(at, m)| Self::compile(m, &path.index(at), allowed));
            each.collect()
        };
        Ok(match match_type {
            None => return Err(ConfigError::new(path.field("match_type"), "is required")),
            Some(MatchType::OrMatcher(any)) => Self::Any(list(any, "or_matcher")?),
            Some(MatchType::AndMatcher(all)) => Self::All(list(all, "and_matcher")?),
            Some(MatchType::NotMatcher(inner)) => {
                Self::Not(Box::new(Self::compile(inner, &path.field("not_matcher"), allowed)?))
            }
            Some(MatchType::SinglePredicate(single)) => {
                let path = path.field("single_predicate");
                let SinglePredicate { input, matcher } = single;
                let input =
                    Input::compile(input.as_ref(), &path.field("input"), allowed.inputs, allowed.admit)?;
                let rule = match matcher {
                    None => return Err(ConfigError::new(path.field("matcher"), "is required")),
                    Some(single_predicate::Matcher::ValueMatch(text)) => {
                        ValueRule::of_string(text, &path.field("value_match"))?
                    }
                    Some(single_predicate::Matcher::CustomMatch(custom)) => {
                        ValueRule::of_extension(custom, &path.field("custom_match"), allowed.expressions)?
                    }
                };
                if !rule.suits(&input) {
                    let reason = format!("Unsupported data input type: {}", input.kind());
                    return Err(ConfigError::new(path.field("input"), reason));
                }
                Self::Single { input, rule }
            }
        })
    }

    /// Whether it holds; `None` when data is missing that decides it.
    pub(super) fn holds(&self, data: &dyn MatchData) -> Option<bool> {
        match self {
            Self::Single { input, rule } => match input.read(data) {
                InputValue::Unavailable => None,
                InputValue::Attributes => match rule {
                    ValueRule::Expression(expression) => data.expression_holds(&**expression),
                    _ => Some(false),
                },
                value => Some(rule.matches(&value, data.runtime())),
            },
            // What is missing does not matter once one holds.
            Self::Any(predicates) => {
                let mut missing = false;
                for predicate in predicates {
                    match predicate.holds(data) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => missing = true,
                    }
                }
                (!missing).then_some(false)
            }
            Self::All(predicates) => {
                for predicate in predicates {
                    match predicate.holds(data) {
                        Some(true) => {}
                        other => return other,
                    }
                }
                Some(true)
            }
            Self::Not(predicate) => predicate.holds(data).map(|holds| !holds),
        }
    }
}
