//! The certificates in use, as `/certs` lists them.

use std::sync::Arc;

use crate::certificate::CertificateFacts;

/// A certificate in use.
#[derive(Clone, Debug)]
pub struct ListedCertificate {
    /// The file that it was read from, or `<inline>`.
    pub path: String,
    /// What it says.
    pub facts: Arc<CertificateFacts>,
}

/// The certificates of one context.
#[derive(Clone, Debug, Default)]
pub struct ListedContext {
    /// The first trusted authority.
    pub authority: Option<ListedCertificate>,
    /// The context's own certificates.
    pub chain: Vec<ListedCertificate>,
}

/// Whole days from `now` until `end`, both in seconds since 1970; 0 when that is over.
pub fn days_until(end: i64, now: i64) -> u64 {
    u64::try_from(end.saturating_sub(now)).unwrap_or(0) / (24 * 60 * 60)
}

/// A context that says which certificates it uses.
pub(crate) trait Listed {
    /// The certificates.
    fn listed(&self) -> ListedContext;

    /// When each of them expires, in seconds since 1970, by the name under which statistics have it.
    fn expiries(&self) -> Vec<(String, i64)>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_whole_and_never_negative() {
        let day = 24 * 60 * 60;
        assert_eq!([0, 5, 6, 20 * day].map(|now| days_until(3 * day + 5, now)), [3, 3, 2, 0]);
    }
}
