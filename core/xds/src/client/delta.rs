//! One type's exchange on delta streams.
//!
//! Rules followed: the first request of a stream names everything that is wanted and the versions of what is held; later
//! ones only what changed; everything (without names besides) is asked for by an empty first request where the type
//! allows it and by `*` otherwise; each response is answered on its own, in order, and only an answer carries a nonce;
//! a refused response leaves the recorded versions as they were; a name given up and taken up again before the request
//! left is subscribed to, not unsubscribed; a resource that the server removed stays subscribed to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::subscription::Wanted;
use super::{Receipt, status};
use crate::messages::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, WireResource};
use crate::resource::{NamedResource, Update};
use crate::type_url;

const STAR: &str = "*";

#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// The version of each accepted resource. Empty where it is unknown, which no server takes for current.
    versions: BTreeMap<String, String>,
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    answers: VecDeque<Answer>,
    requested: bool,
}

#[derive(Debug)]
struct Answer {
    nonce: String,
    refusal: Option<String>,
}

impl Exchange {
    /// Notes the difference between what was wanted and what is wanted now.
    pub(super) fn interest_changed(&mut self, before: &Wanted, now: &Wanted) {
        if now.wildcard != before.wildcard {
            self.note(STAR, now.wildcard);
        }
        for name in before.names().filter(|name| !now.has_name(name)) {
            self.note(name, false);
        }
        for name in now.names().filter(|name| !before.has_name(name)) {
            self.note(name, true);
        }
        if !now.wildcard {
            self.versions.retain(|name, _| now.has_name(name));
        }
    }

    pub(super) fn refresh(&mut self, name: &str) {
        self.note(name, true);
    }

    fn note(&mut self, name: &str, wanted: bool) {
        let (to, from) = if wanted {
            (&mut self.subscribe, &mut self.unsubscribe)
        } else {
            (&mut self.unsubscribe, &mut self.subscribe)
        };
        from.remove(name);
        to.insert(name.to_owned());
    }

    pub(super) fn stream_closed(&mut self) {
        // The first request of the next stream says everything from the start.
        self.subscribe.clear();
        self.unsubscribe.clear();
        self.answers.clear();
        self.requested = false;
    }

    pub(super) fn has_interest_to_send(&self, wanted: &Wanted) -> bool {
        if self.requested {
            !self.subscribe.is_empty() || !self.unsubscribe.is_empty()
        } else {
            !wanted.is_none()
        }
    }

    pub(super) fn has_answer_to_send(&self) -> bool {
        !self.answers.is_empty()
    }

    pub(super) fn request(&mut self, type_url: &str, wanted: &Wanted) -> DeltaDiscoveryRequest {
        let mut request =
            DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..DeltaDiscoveryRequest::default() };
        if self.requested {
            request.resource_names_subscribe = std::mem::take(&mut self.subscribe).into_iter().collect();
            request.resource_names_unsubscribe = std::mem::take(&mut self.unsubscribe).into_iter().collect();
        } else {
            self.requested = true;
            self.subscribe.clear();
            self.unsubscribe.clear();
            request.resource_names_subscribe = wanted.names().map(str::to_owned).collect();
            let names = &mut request.resource_names_subscribe;
            if wanted.wildcard && !(names.is_empty() && type_url::has_implicit_wildcard(type_url)) {
                names.insert(0, STAR.to_owned());
            }
            request.initial_resource_versions = self.versions.clone().into_iter().collect();
        }
        if let Some(Answer { nonce, refusal }) = self.answers.pop_front() {
            request.response_nonce = nonce;
            request.error_detail = refusal.map(status);
        }
        request
    }

    /// The update that a response asks for, or its nonce and why it is malformed.
    pub(super) fn read(
        &mut self,
        response: DeltaDiscoveryResponse,
        wanted: &Wanted,
        warnings: &mut Vec<String>,
    ) -> Result<(Update, Receipt), (String, String)> {
        let DeltaDiscoveryResponse {
            system_version_info,
            resources,
            type_url,
            removed_resources,
            removed_resource_names,
            nonce,
            control_plane: _, // read by the session
            resource_errors,
        } = response;
        super::warn_of_resource_errors(&type_url, &resource_errors, warnings);
        if !removed_resource_names.is_empty() {
            warnings.push(format!("{type_url}: removed_resource_names is not supported and ignored"));
        }
        let mut update = Update { system_version: system_version_info, ..Update::default() };
        let mut seen = BTreeSet::new();
        for resource in resources {
            match self.read_resource(resource, &type_url, &mut seen, warnings) {
                Ok(Some(resource)) if wanted.covers(&resource.name) => update.added.push(resource),
                Ok(_) => {}
                Err(message) => return Err((nonce, message)),
            }
        }
        for name in removed_resources {
            if !seen.insert(name.clone()) {
                return Err((
                    nonce,
                    format!("duplicate name {name} found in the union of added+removed resources"),
                ));
            }
            if wanted.covers(&name) {
                update.removed.push(name);
            }
        }
        let receipt = Receipt::new(&type_url, nonce, &update);
        Ok((update, receipt))
    }

    /// One resource of a response; `None` for a sign of life that carries no body.
    fn read_resource(
        &self,
        resource: WireResource,
        type_url: &str,
        seen: &mut BTreeSet<String>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<NamedResource>, String> {
        super::warn_of_unsupported_fields(type_url, &resource, warnings);
        let WireResource { name, version, resource: body, .. } = resource;
        if !seen.insert(name.clone()) {
            return Err(format!("duplicate name {name} found among added/updated resources"));
        }
        let Some(body) = body else {
            // A server keeps a resource with a time to live alive by repeating its version without its body.
            if self.versions.get(&name) == Some(&version) {
                return Ok(None);
            }
            return Err(format!("{type_url} {name}: the resource has no body"));
        };
        if body.type_url != type_url {
            return Err(format!(
                "type URL {} embedded in an individual Any does not match the message-wide type URL {type_url} in \
                 DeltaDiscoveryResponse for {name}",
                body.type_url
            ));
        }
        Ok(Some(NamedResource { name, version, body }))
    }

    pub(super) fn accepted(&mut self, receipt: Receipt, wanted: &Wanted, on_current_stream: bool) {
        for name in &receipt.removed {
            self.versions.remove(name);
        }
        // Interest may have moved on while the update was being applied.
        let still_wanted = receipt.added.into_iter().filter(|(name, _)| wanted.covers(name));
        self.versions.extend(still_wanted);
        self.answer(receipt.nonce, None, on_current_stream);
    }

    /// Refuses an update. Of the types that are applied resource by resource, the good ones may be in force, so what
    /// is held is unknown: said with an empty version, which makes the next stream's server repeat or remove it.
    pub(super) fn refused(
        &mut self,
        receipt: Receipt,
        message: String,
        wanted: &Wanted,
        on_current_stream: bool,
    ) {
        if type_url::is_full_set(&receipt.type_url) {
            let unsure = receipt.added.into_iter().filter(|(name, _)| wanted.covers(name));
            self.versions.extend(unsure.map(|(name, _)| (name, String::new())));
        }
        self.answer(receipt.nonce, Some(message), on_current_stream);
    }

    pub(super) fn answer(&mut self, nonce: String, refusal: Option<String>, on_current_stream: bool) {
        if on_current_stream {
            self.answers.push_back(Answer { nonce, refusal });
        }
    }
}
