//! The differences that a random run passes over, each with its reason. There should be few: what can be mended is mended.

use super::compare::Difference;

/// Differences of one kind.
struct Accepted {
    /// A text that the difference contains.
    says: &'static str,
    /// Why it stays.
    why: &'static str,
}

const ACCEPTED: &[Accepted] = &[];

/// Why `difference` is accepted, if it is.
pub fn reason(difference: &Difference) -> Option<&'static str> {
    ACCEPTED.iter().find(|accepted| difference.text.contains(accepted.says)).map(|accepted| accepted.why)
}
