//! Generic matching: `xds.type.matcher.v3.Matcher` over inputs of a request or a connection, leading to actions of the user's.
//!
//! Compile with [`MatchTree::compile`], saying which inputs make sense where the tree is used ([`InputFamily`], [`MatchOptions::admit`]) and
//! how an action is compiled. Evaluate with [`MatchTree::evaluate`] over a [`MatchData`], which gives what is known by now: a tree that
//! needs response headers before there are any is [`Verdict::Insufficient`].
//!
//! The older `envoy.config.common.matcher.v3.Matcher` has the same form on the wire: [`from_older`] turns it into the newer.

mod compile;
mod custom;
mod data;
mod input;
mod map;
mod predicate;
#[cfg(test)]
mod tests;
mod tree;

pub use compile::{CompileExpression, Expression, MatchOptions, from_older};
pub use data::{CertificateName, HostPart, MatchData};
pub use input::{InputFamily, MatchInput};
pub use tree::{MatchTree, Verdict};
