//! Evaluating expressions over a stream.

use super::ast::Node;
use super::attributes::{self, Group};
use super::functions::{self, Function};
use super::value::{NoValue, Value};
use crate::context::FormatContext;

/// The value of an expression.
pub(crate) fn evaluate<'a>(node: &'a Node, context: &'a dyn FormatContext) -> Result<Value<'a>, NoValue> {
    match node {
        Node::Literal(literal) => Ok(Value::literal(literal)),
        Node::Type(name) => Ok(Value::Type(*name)),
        Node::Name(name) => Group::named(name).map(Value::Group).ok_or(NoValue),
        Node::Select { of, field, test } => {
            let of = evaluate(of, context)?;
            let found = member(&of, &Value::text(field), context)?;
            match (test, found) {
                (true, found) => Ok(Value::Bool(found.is_some())),
                (false, found) => found.ok_or(NoValue),
            }
        }
        Node::List(items) => {
            items.iter().map(|item| evaluate(item, context)).collect::<Result<_, _>>().map(Value::List)
        }
        Node::Map(entries) => entries
            .iter()
            .map(|(key, value)| Ok((evaluate(key, context)?, evaluate(value, context)?)))
            .collect::<Result<_, _>>()
            .map(Value::Map),
        Node::And(sides) => decide(sides, context, false),
        Node::Or(sides) => decide(sides, context, true),
        Node::Choice(nodes) => match evaluate(&nodes[0], context)? {
            Value::Bool(true) => evaluate(&nodes[1], context),
            Value::Bool(false) => evaluate(&nodes[2], context),
            _ => Err(NoValue),
        },
        Node::Matches(text, regex) => match evaluate(text, context)? {
            Value::Text(text) => Ok(Value::Bool(regex.is_match(text.as_bytes()))),
            _ => Err(NoValue),
        },
        Node::Call(function, nodes) => {
            let operands = nodes.iter().map(|node| evaluate(node, context)).collect::<Result<Vec<_>, _>>()?;
            match (function, &*operands) {
                (Function::Index, [of, key]) => index(of, key, context),
                (Function::In, [item, of]) => contains(of, item, context),
                (Function::Size, [Value::Group(group)]) => group.size(context).map(Value::Int).ok_or(NoValue),
                _ => functions::apply(*function, operands),
            }
        }
    }
}

/// `&&` and `||`: a side that decides makes it unimportant whether the other one has a value.
fn decide<'a>(
    sides: &'a [Node; 2],
    context: &'a dyn FormatContext,
    decisive: bool,
) -> Result<Value<'a>, NoValue> {
    let truth = |side: &'a Node| match evaluate(side, context) {
        Ok(Value::Bool(value)) => Some(value),
        _ => None,
    };
    let first = truth(&sides[0]);
    if first == Some(decisive) {
        return Ok(Value::Bool(decisive));
    }
    match (first, truth(&sides[1])) {
        (_, Some(second)) if second == decisive => Ok(Value::Bool(decisive)),
        (Some(_), Some(second)) => Ok(Value::Bool(second)),
        _ => Err(NoValue),
    }
}

/// The member of a map by its key; an error when it is no map.
fn member<'a>(
    of: &Value<'a>,
    key: &Value<'_>,
    context: &'a dyn FormatContext,
) -> Result<Option<Value<'a>>, NoValue> {
    match of {
        Value::Map(entries) => {
            Ok(entries.iter().find(|(name, _)| name.equals(key)).map(|(_, value)| value.clone()))
        }
        Value::Struct(fields) => match key {
            Value::Text(name) => Ok(fields.fields.get(&**name).map(Value::json)),
            _ => Ok(None),
        },
        Value::Group(group) => match key {
            Value::Text(name) => Ok(attributes::lookup(*group, name, context)),
            _ => Ok(None),
        },
        _ => Err(NoValue),
    }
}

fn index<'a>(of: &Value<'a>, key: &Value<'_>, context: &'a dyn FormatContext) -> Result<Value<'a>, NoValue> {
    if let Some(elements) = of.elements() {
        let at = match key {
            Value::Int(at) => usize::try_from(*at).ok(),
            Value::Uint(at) => usize::try_from(*at).ok(),
            _ => None,
        };
        return at.and_then(|at| elements.into_iter().nth(at)).ok_or(NoValue);
    }
    member(of, key, context)?.ok_or(NoValue)
}

fn contains<'a>(
    of: &Value<'a>,
    item: &Value<'_>,
    context: &'a dyn FormatContext,
) -> Result<Value<'a>, NoValue> {
    if let Some(elements) = of.elements() {
        return Ok(Value::Bool(elements.iter().any(|element| element.equals(item))));
    }
    Ok(Value::Bool(member(of, item, context)?.is_some()))
}
