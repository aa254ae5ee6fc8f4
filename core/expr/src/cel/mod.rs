//! The Common Expression Language as Envoy lets configurations use it.
//!
//! An expression is compiled once, from its text (`%CEL(...)%`, the access-log filter) or from the message into which a
//! control plane parsed it (`Policy.condition` of RBAC), and then evaluated over the attributes of a stream, each of which
//! is looked up when the expression asks for it. Envoy leaves parts of the language out, and so does this: macros that
//! iterate are refused, `string()` does not exist, and strings and lists do not add up.

mod ast;
mod attributes;
mod evaluation;
mod functions;
mod lexer;
mod message;
mod parser;
#[cfg(test)]
mod tests;
mod time;
mod value;

use crate::context::FormatContext;
use crate::pb::expr;
use ast::Node;
use value::Value;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct CelExpression {
    root: std::sync::Arc<Node>,
}

impl CelExpression {
    /// Compiles the text of an expression.
    ///
    /// # Errors
    /// In Envoy's words: `Not able to parse expression: ...` for what is not one, `failed to create an expression: ...` for
    /// functions and macros that there are not, and for expressions that are none; attributes that are not provided are
    /// named.
    pub fn parse(text: &str) -> Result<Self, String> {
        let root = parser::parse(text)?;
        attributes::check(&root)?;
        Ok(Self { root: root.into() })
    }

    /// Compiles an expression that was parsed already.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), without those of syntax.
    pub fn from_message(message: &expr::Expr) -> Result<Self, String> {
        let root = message::node(message)?;
        attributes::check(&root)?;
        Ok(Self { root: root.into() })
    }

    /// Whether the expression is true. It is not when it has no value, such as when it asks for a header that is not there.
    pub fn holds(&self, context: &dyn FormatContext) -> bool {
        matches!(evaluation::evaluate(&self.root, context), Ok(Value::Bool(true)))
    }

    /// Whether the expression can be printed: messages (`metadata` as a whole) cannot.
    pub(crate) fn is_printable(&self) -> bool {
        !attributes::is_message(&self.root)
    }

    /// Appends the value as `%CEL(...)%` prints it; false when there is none.
    pub(crate) fn append(&self, context: &dyn FormatContext, out: &mut Vec<u8>) -> bool {
        match evaluation::evaluate(&self.root, context) {
            Ok(value) => {
                value.append(out);
                true
            }
            Err(_) => false,
        }
    }
}
