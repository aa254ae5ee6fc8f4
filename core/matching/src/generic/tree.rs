//! The compiled tree and its evaluation.

use super::data::MatchData;
use super::input::{Input, InputValue};
use super::map::TextMap;
use super::predicate::Predicate;

/// A compiled `xds.type.matcher.v3.Matcher`; immutable.
#[derive(Clone, Debug)]
pub struct MatchTree<A> {
    pub(super) root: Node<A>,
}

#[derive(Clone, Debug)]
pub(super) struct Node<A> {
    pub(super) kind: NodeKind<A>,
    pub(super) on_no_match: Option<OnMatch<A>>,
}

#[derive(Clone, Debug)]
pub(super) enum NodeKind<A> {
    /// Nothing is looked at.
    Empty,
    List(Box<[(Predicate, OnMatch<A>)]>),
    Tree {
        input: Input,
        map: TextMap<OnMatch<A>>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct OnMatch<A> {
    pub(super) then: Then<A>,
    /// The action is taken note of, and the search goes on as if nothing had matched.
    pub(super) keep_matching: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Then<A> {
    Action(A),
    Nested(Box<Node<A>>),
}

/// What a tree says about some data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a, A> {
    /// This action.
    Matched(&'a A),
    /// No action.
    NoMatch,
    /// Headers or trailers are needed that have not come yet.
    Insufficient,
}

impl<'a, A> Verdict<'a, A> {
    /// The action, if there is one.
    pub fn action(self) -> Option<&'a A> {
        match self {
            Self::Matched(action) => Some(action),
            Self::NoMatch | Self::Insufficient => None,
        }
    }
}

impl<A> MatchTree<A> {
    /// What the tree says about the data.
    pub fn evaluate(&self, data: &dyn MatchData) -> Verdict<'_, A> {
        self.evaluate_all(data, &mut |_| {})
    }

    /// As [`evaluate`](Self::evaluate), and calls `kept` with each action that matched and has `keep_matching`, in order.
    pub fn evaluate_all<'a>(&'a self, data: &dyn MatchData, kept: &mut dyn FnMut(&'a A)) -> Verdict<'a, A> {
        self.root.evaluate(data, kept)
    }

    /// Calls `visit` with every action of the tree, in no particular order where a map leads to them.
    pub fn for_each_action(&self, visit: &mut dyn FnMut(&A)) {
        self.root.for_each_action(visit);
    }
}

impl<A> Node<A> {
    fn evaluate<'a>(&'a self, data: &dyn MatchData, kept: &mut dyn FnMut(&'a A)) -> Verdict<'a, A> {
        let found = match &self.kind {
            NodeKind::Empty => None,
            NodeKind::List(list) => {
                list.iter().find_map(|(predicate, on_match)| match predicate.holds(data) {
                    None => Some(Verdict::Insufficient),
                    Some(false) => None,
                    Some(true) => on_match.decided(data, kept),
                })
            }
            NodeKind::Tree { input, map } => match input.read(data) {
                InputValue::Unavailable => Some(Verdict::Insufficient),
                InputValue::Text(text) => map.find(&text, |on_match| on_match.decided(data, kept)),
                InputValue::Absent | InputValue::Metadata(_) | InputValue::Attributes => None,
            },
        };
        found.unwrap_or_else(|| {
            let otherwise = self.on_no_match.as_ref();
            otherwise.and_then(|on_match| on_match.decided(data, kept)).unwrap_or(Verdict::NoMatch)
        })
    }

    fn for_each_action(&self, visit: &mut dyn FnMut(&A)) {
        match &self.kind {
            NodeKind::Empty => {}
            NodeKind::List(list) => list.iter().for_each(|(_, on_match)| on_match.for_each_action(visit)),
            NodeKind::Tree { input: _, map } => map.for_each(&mut |on_match| on_match.for_each_action(visit)),
        }
        if let Some(on_match) = &self.on_no_match {
            on_match.for_each_action(visit);
        }
    }
}

impl<A> OnMatch<A> {
    /// The verdict; `None` when the search goes on: a nested tree without a match, or an action that keeps matching.
    fn decided<'a>(&'a self, data: &dyn MatchData, kept: &mut dyn FnMut(&'a A)) -> Option<Verdict<'a, A>> {
        let verdict = match &self.then {
            Then::Action(action) => Verdict::Matched(action),
            Then::Nested(node) => node.evaluate(data, kept),
        };
        match verdict {
            Verdict::NoMatch => None,
            Verdict::Matched(action) if self.keep_matching => {
                kept(action);
                None
            }
            verdict => Some(verdict),
        }
    }

    fn for_each_action(&self, visit: &mut dyn FnMut(&A)) {
        match &self.then {
            Then::Action(action) => visit(action),
            Then::Nested(node) => node.for_each_action(visit),
        }
    }
}
