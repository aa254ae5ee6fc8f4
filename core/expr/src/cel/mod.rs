//! The Common Expression Language as Envoy lets configurations use it.
//!
//! An expression is compiled once, from its text (`%CEL(...)%`, the access-log filter) or from the message into which a
//! control plane parsed it (`Policy.condition` of RBAC), and then evaluated over the attributes of a stream, each of which
//! is looked up when the expression asks for it. Envoy leaves parts of the language out, and so does this: macros that
//! iterate are refused, lists do not add up, and what makes new strings is there only where the configuration says so.

mod ast;
mod attributes;
mod evaluation;
mod format;
mod functions;
mod lexer;
mod message;
mod parser;
mod strings;
#[cfg(test)]
mod tests;
mod time;
mod value;

use dhow_matching::generic::Expression;
use dhow_proto::Message as _;
use dhow_proto::xds::r#type::v3 as xds;
use dhow_proto::xds::r#type::v3::cel_expression::ExprSpecifier;

use crate::context::FormatContext;
use crate::pb::expr;
use ast::Node;
pub use strings::CelOptions;
use value::Value;

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct CelExpression {
    root: std::sync::Arc<Node>,
    /// The same without a value for `response`, when it occurs.
    before_response: Option<std::sync::Arc<Node>>,
}

impl CelExpression {
    /// Compiles the text of an expression.
    ///
    /// # Errors
    /// In Envoy's words: `Not able to parse expression: ...` for what is not one, `failed to create an expression: ...` for
    /// functions and macros that there are not, and for expressions that are none; attributes that are not provided are
    /// named.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_with(text, CelOptions::default())
    }

    /// Compiles the text of an expression that may do more than others.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_with(text: &str, options: CelOptions) -> Result<Self, String> {
        Self::checked(parser::parse(text)?, options)
    }

    /// Compiles an expression that was parsed already.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), without those of syntax.
    pub fn from_message(message: &expr::Expr) -> Result<Self, String> {
        Self::from_message_with(message, CelOptions::default())
    }

    /// Compiles an expression that was parsed already and may do more than others.
    ///
    /// # Errors
    /// As [`from_message`](Self::from_message).
    pub fn from_message_with(message: &expr::Expr, options: CelOptions) -> Result<Self, String> {
        Self::checked(message::node(message)?, options)
    }

    fn checked(mut root: Node, options: CelOptions) -> Result<Self, String> {
        strings::permit(&mut root, options)?;
        attributes::check(&root)?;
        let mut early = root.clone();
        let before_response = attributes::forget(&mut early, "response").then(|| early.into());
        Ok(Self { root: root.into(), before_response })
    }

    /// Compiles the expression of a `CelMatcher`, for [`MatchOptions`](dhow_matching::generic::MatchOptions).
    ///
    /// # Errors
    /// As [`from_message`](Self::from_message); also when there is no more than the text of one, which Envoy does not take here.
    #[allow(deprecated, reason = "the older fields are still in use")]
    pub fn for_matcher(message: &xds::CelExpression) -> Result<Expression, String> {
        let xds::CelExpression { cel_expr_parsed, cel_expr_checked, cel_expr_string: _, expr_specifier } =
            message;
        let parsed = || cel_expr_parsed.as_ref().and_then(|parsed| parsed.expr.as_ref());
        let newer = cel_expr_checked.as_ref().and_then(|checked| checked.expr.as_ref()).or_else(parsed);
        // The newer message differs from the older one in nothing but its name.
        let newer = newer.map(|newer| expr::Expr::decode(newer.encode_to_vec().as_slice()));
        let newer = newer.transpose().map_err(|error| error.to_string())?;
        let older = expr_specifier.as_ref().and_then(|older| match older {
            ExprSpecifier::ParsedExpr(parsed) => parsed.expr.as_ref(),
            ExprSpecifier::CheckedExpr(checked) => checked.expr.as_ref(),
        });
        match newer.as_ref().or(older) {
            Some(message) => Ok(std::sync::Arc::new(Self::from_message(message)?)),
            None => Err("failed to create an expression: CEL expression not set.".to_owned()),
        }
    }

    /// Whether the expression is true. It is not when it has no value, such as when it asks for a header that is not there.
    pub fn holds(&self, context: &dyn FormatContext) -> bool {
        matches!(evaluation::evaluate(&self.root, context), Ok(Value::Bool(true)))
    }

    /// Whether the expression is true while there is no response; `None` when that depends on the response.
    pub fn holds_already(&self, context: &dyn FormatContext) -> Option<bool> {
        let Some(early) = &self.before_response else { return Some(self.holds(context)) };
        evaluation::evaluate(early, context).ok().map(|value| matches!(value, Value::Bool(true)))
    }

    /// Whether the expression can be printed: messages (`metadata` as a whole) cannot.
    pub(crate) fn is_printable(&self) -> bool {
        !attributes::is_message(&self.root)
    }

    /// Appends the value as `%CEL(...)%` prints it; false when there is none.
    pub fn append(&self, context: &dyn FormatContext, out: &mut Vec<u8>) -> bool {
        match evaluation::evaluate(&self.root, context) {
            Ok(value) => {
                value.append(out);
                true
            }
            Err(_) => false,
        }
    }
}
