//! What a client wants of a resource type.

use std::collections::BTreeSet;

/// What is wanted of a resource type now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Interest {
    /// Nothing: no request is sent for the type, or what was asked for is given up.
    #[default]
    None,
    /// Everything the server has for this node (CDS, LDS).
    Wildcard,
    /// These names (EDS, RDS, SDS). An empty set counts as `None`.
    Names(BTreeSet<String>),
    /// Everything, and these names besides (clusters on demand). The wildcard is then an explicit `*`.
    WildcardAnd(BTreeSet<String>),
}

impl Interest {
    /// Interest in names.
    pub fn names<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Names(names.into_iter().map(Into::into).collect())
    }

    pub(crate) fn into_parts(self) -> (bool, BTreeSet<String>) {
        match self {
            Self::None => (false, BTreeSet::new()),
            Self::Wildcard => (true, BTreeSet::new()),
            Self::Names(names) => (false, names),
            Self::WildcardAnd(names) => (true, names),
        }
    }
}
