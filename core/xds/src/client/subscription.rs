//! What is wanted of one type, and the exchange with the server about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{Receipt, delta, sotw};
use crate::messages::{DeltaDiscoveryResponse, DiscoveryResponse};
use crate::resource::Update;
use crate::{Interest, Request, Variant};

/// What is wanted, with the deadlines of what has not been answered yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) wildcard: bool,
    /// When waiting for the first answer ends; `None` once there was one, or when waiting has no end.
    wildcard_deadline: Option<Instant>,
    names: BTreeMap<String, Option<Instant>>,
}

impl Wanted {
    pub(super) fn is_none(&self) -> bool {
        !self.wildcard && self.names.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    pub(super) fn has_name(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whether a resource of this name was asked for; others are ignored.
    pub(super) fn covers(&self, name: &str) -> bool {
        self.wildcard || self.has_name(name)
    }
}

#[derive(Debug)]
enum Exchange {
    StateOfTheWorld(sotw::Exchange),
    Delta(delta::Exchange),
}

#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) type_url: String,
    pub(super) wanted: Wanted,
    /// How often the owner paused it.
    pub(super) pauses: u32,
    /// Updates handed out that were neither accepted nor refused yet.
    pub(super) being_applied: u32,
    exchange: Exchange,
}

impl Subscription {
    pub(super) fn new(variant: Variant, type_url: &str) -> Self {
        let exchange = match variant {
            Variant::StateOfTheWorld => Exchange::StateOfTheWorld(sotw::Exchange::default()),
            Variant::Delta => Exchange::Delta(delta::Exchange::default()),
        };
        Self {
            type_url: type_url.to_owned(),
            wanted: Wanted::default(),
            pauses: 0,
            being_applied: 0,
            exchange,
        }
    }

    /// Replaces what is wanted; what is new may take `timeout` to be answered.
    pub(super) fn set_interest(&mut self, interest: Interest, timeout: Option<Duration>, now: Instant) {
        let (wildcard, names) = interest.into_parts();
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let before = std::mem::take(&mut self.wanted);
        self.wanted = Wanted {
            wildcard,
            wildcard_deadline: match (before.wildcard, wildcard) {
                (true, true) => before.wildcard_deadline,
                (false, true) => deadline,
                (_, false) => None,
            },
            names: names
                .into_iter()
                .map(|name| {
                    let deadline = before.names.get(&name).copied().unwrap_or(deadline);
                    (name, deadline)
                })
                .collect(),
        };
        let same = before.wildcard == wildcard && before.names.keys().eq(self.wanted.names.keys());
        if !same {
            match &mut self.exchange {
                Exchange::StateOfTheWorld(exchange) => exchange.interest_changed(),
                Exchange::Delta(exchange) => exchange.interest_changed(&before, &self.wanted),
            }
        }
    }

    pub(super) fn refresh(&mut self, name: &str, timeout: Option<Duration>, now: Instant) {
        let Some(deadline) = self.wanted.names.get_mut(name) else { return };
        *deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        match &mut self.exchange {
            Exchange::StateOfTheWorld(exchange) => exchange.interest_changed(),
            Exchange::Delta(exchange) => exchange.refresh(name),
        }
    }

    pub(super) fn stream_opened(&mut self) {
        if let Exchange::StateOfTheWorld(exchange) = &mut self.exchange {
            exchange.stream_opened(&self.wanted);
        }
    }

    pub(super) fn stream_closed(&mut self) {
        match &mut self.exchange {
            Exchange::StateOfTheWorld(exchange) => exchange.stream_closed(),
            Exchange::Delta(exchange) => exchange.stream_closed(),
        }
    }

    pub(super) fn has_interest_to_send(&self) -> bool {
        match &self.exchange {
            Exchange::StateOfTheWorld(exchange) => exchange.has_interest_to_send(&self.wanted),
            Exchange::Delta(exchange) => exchange.has_interest_to_send(&self.wanted),
        }
    }

    pub(super) fn has_answer_to_send(&self) -> bool {
        match &self.exchange {
            Exchange::StateOfTheWorld(exchange) => exchange.has_answer_to_send(),
            Exchange::Delta(exchange) => exchange.has_answer_to_send(),
        }
    }

    pub(super) fn request(&mut self) -> Request {
        match &mut self.exchange {
            Exchange::StateOfTheWorld(exchange) => {
                Request::StateOfTheWorld(exchange.request(&self.type_url, &self.wanted))
            }
            Exchange::Delta(exchange) => Request::Delta(exchange.request(&self.type_url, &self.wanted)),
        }
    }

    /// Reads a state-of-the-world response; a malformed one is refused on the spot and its text returned.
    pub(super) fn read_sotw(
        &mut self,
        response: DiscoveryResponse,
        warnings: &mut Vec<String>,
    ) -> Result<(Update, Receipt), String> {
        let Exchange::StateOfTheWorld(exchange) = &mut self.exchange else {
            return Err("a state-of-the-world response on a delta stream".to_owned());
        };
        exchange.read(response, &self.wanted, warnings).inspect_err(|message| {
            exchange.refuse_malformed(message.clone());
        })
    }

    /// Reads a delta response; a malformed one is refused on the spot and its text returned.
    pub(super) fn read_delta(
        &mut self,
        response: DeltaDiscoveryResponse,
        warnings: &mut Vec<String>,
    ) -> Result<(Update, Receipt), String> {
        let Exchange::Delta(exchange) = &mut self.exchange else {
            return Err("a delta response on a state-of-the-world stream".to_owned());
        };
        exchange.read(response, &self.wanted, warnings).map_err(|(nonce, message)| {
            exchange.answer(nonce, Some(message.clone()), true);
            message
        })
    }

    pub(super) fn accepted(&mut self, receipt: Receipt, on_current_stream: bool) {
        self.answered(&receipt);
        match &mut self.exchange {
            Exchange::StateOfTheWorld(exchange) => exchange.accepted(&receipt, on_current_stream),
            Exchange::Delta(exchange) => exchange.accepted(receipt, &self.wanted, on_current_stream),
        }
    }

    pub(super) fn refused(&mut self, receipt: Receipt, message: String, on_current_stream: bool) {
        self.answered(&receipt);
        match &mut self.exchange {
            Exchange::StateOfTheWorld(exchange) => exchange.refused(&receipt, message, on_current_stream),
            Exchange::Delta(exchange) => exchange.refused(receipt, message, &self.wanted, on_current_stream),
        }
    }

    /// Whoever waits for a first answer has it now, good or bad.
    fn answered(&mut self, receipt: &Receipt) {
        self.wanted.wildcard_deadline = None;
        let names = receipt.added.iter().map(|(name, _)| name).chain(&receipt.removed);
        for name in names {
            if let Some(deadline) = self.wanted.names.get_mut(name) {
                *deadline = None;
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let names = self.wanted.names.values().copied();
        names.chain([self.wanted.wildcard_deadline]).flatten().min()
    }

    /// Ends the waits that are over: `None` for the type as a whole, and each name.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<Option<String>> {
        let mut expired = Vec::new();
        if self.wanted.wildcard_deadline.take_if(|deadline| *deadline <= now).is_some() {
            expired.push(None);
        }
        for (name, deadline) in &mut self.wanted.names {
            if deadline.take_if(|deadline| *deadline <= now).is_some() {
                expired.push(Some(name.clone()));
            }
        }
        expired
    }

    /// Everything that is wanted, for counting per subscription.
    pub(super) fn interest(&self) -> Interest {
        let names: BTreeSet<String> = self.wanted.names.keys().cloned().collect();
        match (self.wanted.wildcard, names.is_empty()) {
            (false, true) => Interest::None,
            (false, false) => Interest::Names(names),
            (true, true) => Interest::Wildcard,
            (true, false) => Interest::WildcardAnd(names),
        }
    }
}
