//! One type's exchange on state-of-the-world streams.
//!
//! Rules followed: the first request of a stream carries the last accepted version and no nonce; an acknowledgement is
//! the response's nonce with its version, a refusal the response's nonce with the version accepted before and an error;
//! every request lists all names that are wanted; acknowledgements of responses that were overtaken by a newer one are
//! not sent separately, because only the newest nonce means anything to a server; an empty list means everything only
//! as long as no name was ever listed on the stream, afterwards `*` has to say so; a type of which no name is wanted is
//! not requested at all, since its empty list would read as everything.

use std::collections::BTreeSet;

use super::subscription::Wanted;
use super::{Receipt, status};
use crate::messages::{DiscoveryRequest, DiscoveryResponse, WireResource};
use crate::resource::{NamedResource, Update, name_in_body};
use crate::type_url;

#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Of the response accepted last, on whichever stream.
    version: String,
    /// Of the response received last on this stream.
    nonce: String,
    /// The text with which the response received last was refused.
    refusal: Option<String>,
    interest_changed: bool,
    answer_due: bool,
    /// A request went out on this stream.
    requested: bool,
    /// A request of this stream listed names.
    listed_names: bool,
    /// What the owner may hold of a type whose responses are the full set.
    known: BTreeSet<String>,
}

impl Exchange {
    pub(super) fn interest_changed(&mut self) {
        self.interest_changed = true;
    }

    pub(super) fn stream_opened(&mut self, wanted: &Wanted) {
        self.interest_changed = !wanted.is_none();
    }

    pub(super) fn stream_closed(&mut self) {
        self.nonce.clear();
        self.refusal = None;
        self.interest_changed = false;
        self.answer_due = false;
        self.requested = false;
        self.listed_names = false;
    }

    pub(super) fn has_interest_to_send(&self, wanted: &Wanted) -> bool {
        self.interest_changed && (self.requested || !wanted.is_none())
    }

    pub(super) fn has_answer_to_send(&self) -> bool {
        self.answer_due
    }

    pub(super) fn request(&mut self, type_url: &str, wanted: &Wanted) -> DiscoveryRequest {
        let mut resource_names: Vec<String> = wanted.names().map(str::to_owned).collect();
        let needs_star =
            !resource_names.is_empty() || self.listed_names || !type_url::has_implicit_wildcard(type_url);
        if wanted.wildcard && needs_star {
            resource_names.insert(0, "*".to_owned());
        }
        self.listed_names |= !resource_names.is_empty();
        self.requested = true;
        self.interest_changed = false;
        self.answer_due = false;
        DiscoveryRequest {
            version_info: self.version.clone(),
            node: None,
            resource_names,
            resource_locators: Vec::new(),
            type_url: type_url.to_owned(),
            response_nonce: self.nonce.clone(),
            error_detail: self.refusal.take().map(status),
        }
    }

    /// The update that a response asks for, or why it is malformed. Either way the response's nonce is now the newest.
    pub(super) fn read(
        &mut self,
        response: DiscoveryResponse,
        wanted: &Wanted,
        warnings: &mut Vec<String>,
    ) -> Result<(Update, Receipt), String> {
        let DiscoveryResponse {
            version_info,
            resources,
            canary,
            type_url,
            nonce,
            control_plane: _, // read by the session
            resource_errors,
        } = response;
        self.nonce = nonce;
        if canary {
            warnings.push(format!("{type_url}: canary is not supported and ignored"));
        }
        super::warn_of_resource_errors(&type_url, &resource_errors, warnings);
        let mut update =
            Update { system_version: version_info, is_state_of_the_world: true, ..Update::default() };
        let mut present = BTreeSet::new();
        for any in resources {
            let (name, body) = match any.type_url.as_str() {
                type_url::WRAPPER => unwrap(&any.value, &type_url, warnings)?,
                _ => (None, any),
            };
            if body.type_url != type_url {
                return Err(format!(
                    "{} does not match the message-wide type URL {type_url} in DiscoveryResponse {}",
                    body.type_url, update.system_version
                ));
            }
            let name = match name {
                Some(name) => name,
                None => name_in_body(&body.value)
                    .ok_or_else(|| format!("a resource of {type_url} cannot be parsed or has no name"))?
                    .to_owned(),
            };
            if !wanted.covers(&name) {
                continue;
            }
            if !present.insert(name.clone()) {
                return Err(format!(
                    "duplicate resource {name} found in DiscoveryResponse {}",
                    update.system_version
                ));
            }
            update.added.push(NamedResource { name, version: update.system_version.clone(), body });
        }
        if wanted.wildcard && type_url::is_full_set(&type_url) {
            update.removed = self.known.difference(&present).cloned().collect();
        }
        let receipt = Receipt::new(&type_url, self.nonce.clone(), &update);
        Ok((update, receipt))
    }

    pub(super) fn accepted(&mut self, receipt: &Receipt, on_current_stream: bool) {
        self.version.clone_from(&receipt.version);
        for name in &receipt.removed {
            self.known.remove(name);
        }
        self.remember(receipt);
        self.answer(receipt, on_current_stream, None);
    }

    /// The good resources of a refused full set may be in force, so all of it counts as held when absence is worked out.
    pub(super) fn refused(&mut self, receipt: &Receipt, message: String, on_current_stream: bool) {
        self.remember(receipt);
        self.answer(receipt, on_current_stream, Some(message));
    }

    /// Refuses the response read last, which was malformed.
    pub(super) fn refuse_malformed(&mut self, message: String) {
        self.refusal = Some(message);
        self.answer_due = true;
    }

    fn remember(&mut self, receipt: &Receipt) {
        if type_url::is_full_set(&receipt.type_url) {
            self.known.extend(receipt.added.iter().map(|(name, _)| name.clone()));
        }
    }

    fn answer(&mut self, receipt: &Receipt, on_current_stream: bool, refusal: Option<String>) {
        // A newer response makes this one's nonce stale; its own answer will follow.
        if on_current_stream && receipt.nonce == self.nonce {
            self.refusal = refusal;
            self.answer_due = true;
        }
    }
}

/// Takes a resource out of the wrapper in which a server may send it: its name, where the wrapper has one, and its body.
fn unwrap(
    wrapped: &[u8],
    type_url: &str,
    warnings: &mut Vec<String>,
) -> Result<(Option<String>, crate::messages::Any), String> {
    let wrapper: WireResource = prost::Message::decode(wrapped)
        .map_err(|error| format!("a wrapped resource of {type_url} cannot be parsed: {error}"))?;
    super::warn_of_unsupported_fields(type_url, &wrapper, warnings);
    let body = wrapper
        .resource
        .ok_or_else(|| format!("{type_url} {}: the wrapper holds no resource", wrapper.name))?;
    Ok(((!wrapper.name.is_empty()).then_some(wrapper.name), body))
}
