//! Expressions that a control plane parsed.

use super::ast::{Literal, Node};
use super::functions::{self, Function};
use super::parser::named;
use crate::pb::expr::constant::ConstantKind;
use crate::pb::expr::expr::create_struct::entry::KeyKind;
use crate::pb::expr::expr::{Call, CreateList, CreateStruct, ExprKind, Ident, Select};
use crate::pb::expr::{Constant, Expr};

/// Deeper expressions are refused before they exhaust the stack.
const DEEPEST: usize = 100;

pub(crate) fn node(message: &Expr) -> Result<Node, String> {
    build(message, 0)
}

fn build(message: &Expr, depth: usize) -> Result<Node, String> {
    if depth > DEEPEST {
        return Err("failed to create an expression: Expression recursion limit exceeded".to_owned());
    }
    // The number only tells parts of one expression apart.
    let Expr { id: _, expr_kind } = message;
    let inner = |message: &Expr| build(message, depth + 1);
    let required = |message: Option<&Expr>| match message {
        Some(message) => inner(message),
        None => Err("failed to create an expression: Invalid empty expression".to_owned()),
    };
    match expr_kind {
        None => Err("failed to create an expression: Invalid empty expression".to_owned()),
        Some(ExprKind::ConstExpr(constant)) => literal(constant).map(Node::Literal),
        Some(ExprKind::IdentExpr(Ident { name })) => Ok(named(name)),
        Some(ExprKind::SelectExpr(select)) => {
            let Select { operand, field, test_only } = &**select;
            let of = Box::new(required(operand.as_deref())?);
            Ok(Node::Select { of, field: field.as_str().into(), test: *test_only })
        }
        Some(ExprKind::CallExpr(call)) => {
            let Call { target, function, args } = &**call;
            let receiver = target.is_some();
            let nodes =
                target.as_deref().into_iter().chain(args).map(inner).collect::<Result<Vec<_>, _>>()?;
            apply(function, receiver, nodes)
        }
        Some(ExprKind::ListExpr(CreateList { elements, optional_indices })) => {
            if !optional_indices.is_empty() {
                return Err("failed to create an expression: optional elements are not supported".to_owned());
            }
            elements.iter().map(inner).collect::<Result<Box<[_]>, _>>().map(Node::List)
        }
        Some(ExprKind::StructExpr(CreateStruct { message_name, entries })) => {
            if !message_name.is_empty() {
                return Err("messages are not supported in expressions".to_owned());
            }
            let entries = entries.iter().map(|entry| {
                let key = match &entry.key_kind {
                    Some(KeyKind::MapKey(key)) => inner(key)?,
                    Some(KeyKind::FieldKey(name)) => Node::Literal(Literal::Text(name.as_str().into())),
                    None => required(None)?,
                };
                Ok((key, required(entry.value.as_ref())?))
            });
            entries.collect::<Result<Box<[_]>, String>>().map(Node::Map)
        }
        Some(ExprKind::ComprehensionExpr(_)) => {
            Err("failed to create an expression: Comprehension support is disabled".to_owned())
        }
    }
}

fn literal(constant: &Constant) -> Result<Literal, String> {
    let Constant { constant_kind } = constant;
    let nanos = |seconds: i64, nanos: i32| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Ok(match constant_kind {
        None => return Err("failed to create an expression: unspecified constant".to_owned()),
        Some(ConstantKind::NullValue(_)) => Literal::Null,
        Some(ConstantKind::BoolValue(value)) => Literal::Bool(*value),
        Some(ConstantKind::Int64Value(value)) => Literal::Int(*value),
        Some(ConstantKind::Uint64Value(value)) => Literal::Uint(*value),
        Some(ConstantKind::DoubleValue(value)) => Literal::Double(*value),
        Some(ConstantKind::StringValue(value)) => Literal::Text(value.as_str().into()),
        Some(ConstantKind::BytesValue(value)) => Literal::Bytes(value.as_slice().into()),
        #[allow(deprecated, reason = "still a kind of constant")]
        Some(ConstantKind::DurationValue(value)) => Literal::Duration(nanos(value.seconds, value.nanos)),
        #[allow(deprecated, reason = "still a kind of constant")]
        Some(ConstantKind::TimestampValue(value)) => Literal::Timestamp(nanos(value.seconds, value.nanos)),
    })
}

/// Operators are functions with names of their own.
fn apply(function: &str, receiver: bool, nodes: Vec<Node>) -> Result<Node, String> {
    let operator = match (function, nodes.len()) {
        ("_==_", 2) => Function::Equal,
        ("_!=_", 2) => Function::NotEqual,
        ("_<_", 2) => Function::Less,
        ("_<=_", 2) => Function::LessOrEqual,
        ("_>_", 2) => Function::Greater,
        ("_>=_", 2) => Function::GreaterOrEqual,
        ("@in" | "_in_" | "in", 2) => Function::In,
        ("_[_]", 2) => Function::Index,
        ("!_", 1) => Function::Not,
        ("-_", 1) => Function::Negate,
        ("_+_", 2) => Function::Add,
        ("_-_", 2) => Function::Subtract,
        ("_*_", 2) => Function::Multiply,
        ("_/_", 2) => Function::Divide,
        ("_%_", 2) => Function::Remainder,
        ("_&&_" | "_||_", 2) => {
            let sides = <[Node; 2]>::try_from(nodes).map(Box::new).map_err(|_| function.to_owned())?;
            return Ok(if function == "_&&_" { Node::And(sides) } else { Node::Or(sides) });
        }
        ("_?_:_", 3) => {
            return <[Node; 3]>::try_from(nodes)
                .map(|n| Node::Choice(Box::new(n)))
                .map_err(|_| function.to_owned());
        }
        _ => {
            return match wrong_count(function) {
                Some(reason) => Err(format!("failed to create an expression: {reason}")),
                None => functions::call(function, receiver, nodes),
            };
        }
    };
    Ok(Node::Call(operator, nodes.into()))
}

/// What is wrong with a call of an operator that is never a function and has too few or too many operands.
fn wrong_count(operator: &str) -> Option<&'static str> {
    Some(match operator {
        "_==_" | "_!=_" => "unexpected number of args for builtin equality operator",
        "!_" => "unexpected number of args for builtin not operator",
        "_[_]" => "unexpected number of args for builtin index operator",
        "@in" | "_in_" | "in" => "unexpected number of args for builtin 'in' operator",
        "_&&_" | "_||_" => "Invalid argument count for a binary function call.",
        "_?_:_" => "Invalid argument count for a ternary function call.",
        _ => return None,
    })
}
