//! How a request changes what a server knows about a client.
//!
//! Rules followed. Both variants: the first request of the stream carries the node, later ones need not; an answer to a
//! response other than the outstanding one is stale. State of the world: a stale request is ignored as a whole, since
//! the answer to the outstanding response will list the names again; each request lists all names; no names mean
//! everything until the stream listed some, for types that are not fetched by name, and nothing otherwise; `*` means
//! everything; a name that is new in the list is answered even if the client had it before; a shorter list is not
//! answered. Delta: subscriptions count even in a stale request, since they are not repeated; a first request without
//! names means everything, for types that are not fetched by name; `*` is subscribed to and unsubscribed from like a
//! name; a name that is subscribed to (again) is answered even if it did not change or does not exist, except that the
//! first request says what the client holds (`initial_resource_versions`); a name that is unsubscribed from while
//! everything is subscribed to is answered too, as the client cannot know whether everything includes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::watch::Watch;
use super::{RequestError, ServerEvent, ServerSession};
use crate::messages::{DeltaDiscoveryRequest, DiscoveryRequest, Node, ResourceLocator, Status};
use crate::{Request, Variant, type_url};

const STAR: &str = "*";

impl ServerSession {
    /// Takes a request in. An error ends the stream.
    pub fn handle_request(&mut self, request: Request) -> Result<(), RequestError> {
        match (request, self.config.variant) {
            (Request::StateOfTheWorld(request), Variant::StateOfTheWorld) => self.handle_sotw(request),
            (Request::Delta(request), Variant::Delta) => self.handle_delta(request),
            _ => Err(RequestError::WrongVariant),
        }
    }

    fn handle_sotw(&mut self, request: DiscoveryRequest) -> Result<(), RequestError> {
        let DiscoveryRequest {
            version_info: _, // the nonce says the same
            node,
            resource_names,
            resource_locators,
            type_url,
            response_nonce,
            error_detail,
        } = request;
        self.introduce(node)?;
        let type_url = self.resolve_type(type_url)?;
        self.warn_of_locators(&type_url, &resource_locators);
        let (index, is_first) = self.watch(&type_url);
        if is_first {
            self.note_early_refusal(index, error_detail);
        } else if !self.take_answer(index, &response_nonce, error_detail) {
            return Ok(());
        }
        let watch = &mut self.watches[index];
        let named: BTreeSet<String> = resource_names.into_iter().collect();
        let wildcard = if named.is_empty() {
            !watch.listed_names && type_url::has_implicit_wildcard(&type_url)
        } else {
            watch.listed_names = true;
            named.contains(STAR)
        };
        let names: BTreeSet<String> = named.into_iter().filter(|name| name != STAR).collect();
        let new: Vec<String> = names.difference(&watch.names).cloned().collect();
        if wildcard && !watch.wildcard {
            watch.due = true;
        }
        watch.wildcard = wildcard;
        if *watch.names != names {
            watch.names = Arc::new(names);
        }
        watch.forget_unwanted();
        for name in new {
            watch.force(&name);
        }
        Ok(())
    }

    fn handle_delta(&mut self, request: DeltaDiscoveryRequest) -> Result<(), RequestError> {
        let DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe,
            resource_names_unsubscribe,
            resource_locators_subscribe,
            resource_locators_unsubscribe,
            initial_resource_versions,
            response_nonce,
            error_detail,
        } = request;
        self.introduce(node)?;
        let type_url = self.resolve_type(type_url)?;
        self.warn_of_locators(&type_url, &resource_locators_subscribe);
        self.warn_of_locators(&type_url, &resource_locators_unsubscribe);
        let (index, is_first) = self.watch(&type_url);
        if is_first {
            self.note_early_refusal(index, error_detail);
            let watch = &mut self.watches[index];
            watch.wildcard =
                resource_names_subscribe.is_empty() && type_url::has_implicit_wildcard(&type_url);
            subscribe(watch, resource_names_subscribe, false);
            watch.holds(initial_resource_versions);
            // Names that the client does not hold are answered even if they do not exist.
            let names = Arc::clone(&watch.names);
            for name in
                names.iter().filter(|name| !self.watches[index].has_version_of(name)).collect::<Vec<_>>()
            {
                self.watches[index].force(name);
            }
            return Ok(());
        }
        if !response_nonce.is_empty() {
            self.take_answer(index, &response_nonce, error_detail);
        }
        let watch = &mut self.watches[index];
        subscribe(watch, resource_names_subscribe, true);
        unsubscribe(watch, &resource_names_unsubscribe);
        Ok(())
    }

    fn introduce(&mut self, node: Option<Node>) -> Result<(), RequestError> {
        match (&self.node, node) {
            (None, Some(node)) if !node.id.is_empty() => self.node = Some(node),
            (None, _) => return Err(RequestError::NoNode),
            (Some(_), _) => {}
        }
        Ok(())
    }

    fn resolve_type(&self, type_url: String) -> Result<String, RequestError> {
        match &self.config.only_type {
            None if type_url.is_empty() => Err(RequestError::NoType),
            Some(only) if type_url.is_empty() => Ok(only.as_ref().to_owned()),
            Some(only) if **only != *type_url => Err(RequestError::WrongType(type_url)),
            _ => Ok(type_url),
        }
    }

    /// The watch of a type, and whether it was just started.
    fn watch(&mut self, type_url: &str) -> (usize, bool) {
        match self.position(type_url) {
            Ok(index) => (index, false),
            Err(index) => {
                self.watches.insert(index, Watch::new(type_url));
                (index, true)
            }
        }
    }

    /// Reads the nonce of a later request. False when it is stale.
    fn take_answer(&mut self, index: usize, nonce: &str, error_detail: Option<Status>) -> bool {
        let watch = &mut self.watches[index];
        let type_url = Arc::clone(&watch.type_url);
        match &watch.outstanding {
            Some(outstanding) if outstanding.nonce == nonce => {
                let message = error_detail.map(|status| status.message);
                watch.answered(message.clone());
                let nonce = nonce.to_owned();
                self.events.push_back(match message {
                    None => ServerEvent::Acked { type_url, nonce },
                    Some(message) => ServerEvent::Nacked { type_url, nonce, message },
                });
                true
            }
            // Repeats the nonce that was answered before, or none was sent yet: a change of interest.
            None if nonce == watch.nonce_sent => true,
            _ => {
                self.events.push_back(ServerEvent::StaleNonce { type_url });
                false
            }
        }
    }

    /// A refusal in the first request of a stream is about a response of an earlier stream: worth knowing, no more.
    fn note_early_refusal(&mut self, index: usize, error_detail: Option<Status>) {
        if let Some(status) = error_detail {
            let watch = &mut self.watches[index];
            watch.refusal = Some(status.message.clone());
            let type_url = Arc::clone(&watch.type_url);
            self.events.push_back(ServerEvent::Nacked {
                type_url,
                nonce: String::new(),
                message: status.message,
            });
        }
    }

    fn warn_of_locators(&mut self, type_url: &str, locators: &[ResourceLocator]) {
        if !locators.is_empty() {
            let text = format!("{type_url}: resource locators are not supported and ignored");
            self.events.push_back(ServerEvent::Warning(text));
        }
    }
}

fn subscribe(watch: &mut Watch, names: Vec<String>, answer_each: bool) {
    for name in names {
        if name == STAR {
            watch.wildcard = true;
            watch.due = true;
            continue;
        }
        if answer_each {
            watch.force(&name);
        }
        Arc::make_mut(&mut watch.names).insert(name);
    }
}

fn unsubscribe(watch: &mut Watch, names: &[String]) {
    for name in names {
        if name == STAR {
            watch.wildcard = false;
        } else if Arc::make_mut(&mut watch.names).remove(name) && watch.wildcard {
            watch.force(name);
        }
    }
    watch.forget_unwanted();
}
