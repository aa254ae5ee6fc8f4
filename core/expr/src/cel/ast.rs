//! Expressions as trees.

use dhow_matching::PartialRegex;

use super::functions::Function;
use super::value::TypeName;

/// A literal.
#[derive(Clone, Debug)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Box<str>),
    Bytes(Box<[u8]>),
    /// Nanoseconds.
    Duration(i128),
    /// Nanoseconds since 1970.
    Timestamp(i128),
}

/// An expression.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    Literal(Literal),
    /// The name of a type: `int`.
    Type(TypeName),
    /// A top-level attribute, or a name that means nothing.
    Name(Box<str>),
    /// `of.field`; with `test`, whether it is there (`has(of.field)`).
    Select {
        of: Box<Node>,
        field: Box<str>,
        test: bool,
    },
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    /// Condition, value if true, value if false.
    Choice(Box<[Node; 3]>),
    /// `text.matches(...)` with an expression that is known.
    Matches(Box<Node>, PartialRegex),
    Call(Function, Box<[Node]>),
}
