//! What was wrong with certificates that were accepted all the same (`trust_chain_verification: ACCEPT_UNTRUSTED`).

use std::sync::atomic::{AtomicU32, Ordering};

/// What verifiers found since it was last taken. They know no connection and connections know no verifier, so that one
/// may be counted with the connection that ended its handshake next.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    chains: AtomicU32,
    names: AtomicU32,
    pins: AtomicU32,
}

/// Numbers of faults that were overlooked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlooked {
    pub(crate) chains: u32,
    pub(crate) names: u32,
    pub(crate) pins: u32,
}

impl Faults {
    /// The chain leads to no trusted certificate, or not at this time.
    pub(crate) fn chain(&self) {
        self.chains.fetch_add(1, Ordering::Relaxed);
    }

    /// The names are not those that are wanted.
    pub(crate) fn name(&self) {
        self.names.fetch_add(1, Ordering::Relaxed);
    }

    /// No pin fits.
    pub(crate) fn pin(&self) {
        self.pins.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Overlooked {
        let take = |count: &AtomicU32| count.swap(0, Ordering::Relaxed);
        Overlooked { chains: take(&self.chains), names: take(&self.names), pins: take(&self.pins) }
    }
}
