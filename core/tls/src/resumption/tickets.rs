//! Tickets: state of a session that the client keeps, encrypted so that only servers can read it.

use std::sync::Arc;

use rustls::Error;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::ProducesTickets;

use super::stamp::Stamp;
use super::ticket_keys::TicketKeys;

/// Bytes that say for which context a ticket is.
const CONTEXT_LEN: usize = 32;

/// Tickets that are good for a time, and only where they were given.
#[derive(Clone, Debug)]
pub(crate) struct Tickets {
    sealed: Arc<dyn ProducesTickets>,
    stamp: Stamp,
    /// Servers share configured keys, and may demand different things of clients: what the context demands, digested.
    context: [u8; CONTEXT_LEN],
}

impl Tickets {
    /// Tickets under keys of the configuration, for servers that demand the same of clients.
    pub(crate) fn under(keys: TicketKeys, context: [u8; CONTEXT_LEN], lifetime: u32) -> Self {
        Self { sealed: Arc::new(keys), stamp: Stamp::new(lifetime), context }
    }

    /// Tickets under keys that nobody else knows, and that are changed now and then.
    pub(crate) fn under_own_keys(lifetime: u32) -> Result<Self, Error> {
        Ok(Self { sealed: Ticketer::new()?, stamp: Stamp::new(lifetime), context: [0; CONTEXT_LEN] })
    }

    /// The same tickets, good for another time.
    pub(crate) fn lasting(&self, lifetime: u32) -> Self {
        Self { stamp: Stamp::new(lifetime), ..self.clone() }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.stamp.lifetime
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.sealed.encrypt(&self.stamp.put_on(&[&self.context, plain].concat())?)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let plain = self.stamp.take_off(self.sealed.decrypt(cipher)?)?;
        plain.strip_prefix(&self.context[..]).map(<[u8]>::to_vec)
    }
}

#[cfg(test)]
mod tests {
    use super::super::stamp::tests::Clock;
    use super::super::ticket_keys::tests::key;
    use super::*;

    #[test]
    fn tickets_end_and_are_for_one_kind_of_context() {
        let of = |context: u8| Tickets::under(key(1), [context; CONTEXT_LEN], 60);
        let ticket = of(1).encrypt(b"state").unwrap();
        assert_eq!(of(1).decrypt(&ticket), Some(b"state".to_vec()));
        assert_eq!(of(2).decrypt(&ticket), None);
        assert_eq!(of(1).lasting(5).lifetime(), 5);
        assert_eq!(of(1).lasting(5).decrypt(&ticket), Some(b"state".to_vec()));

        let clock = Clock::at(100);
        let timed = Tickets { stamp: Stamp::timed(60, clock.clone()), ..of(1) };
        let ticket = timed.encrypt(b"state").unwrap();
        clock.set(160);
        assert_eq!(timed.decrypt(&ticket), None);
    }
}
