//! Keeps a session's interest in step with the sink's, and tells the observer what became of each subscription.

use std::time::Instant;

use dhow_xds::{ClientEvent, ClientSession, Delivery, Interest, type_url};

use crate::{ConfigSink, Refusal, SubscriptionObserver};

/// A session with the sink and the observer that it works for.
pub(crate) struct Subscriptions<S, O> {
    pub(crate) session: ClientSession,
    pub(crate) sink: S,
    pub(crate) observer: O,
    /// The types that the sink may be interested in.
    types: Vec<String>,
}

impl<S: ConfigSink, O: SubscriptionObserver> Subscriptions<S, O> {
    pub(crate) fn new(session: ClientSession, types: Vec<String>, sink: S, observer: O) -> Self {
        Self { session, sink, observer, types }
    }

    /// Asks the sink what it wants of every type.
    pub(crate) fn sync_interest(&mut self) {
        let now = Instant::now();
        for type_url in &self.types {
            let wanted = match self.sink.subscriptions(type_url) {
                Interest::Names(names) if names.is_empty() => Interest::None,
                wanted => wanted,
            };
            let before = self.session.interest(type_url);
            let timeout = self.sink.initial_fetch_timeout(type_url);
            if wanted != before {
                for name in new_subscriptions(&before, &wanted) {
                    self.observer.update_attempt(type_url, name);
                }
                self.session.set_interest(type_url, wanted, timeout, now);
            }
            for name in self.sink.take_refreshes(type_url) {
                self.session.refresh(type_url, &name, timeout, now);
            }
        }
    }

    /// Has the sink apply an update, and answers the server.
    pub(crate) fn deliver(&mut self, delivery: Delivery) {
        let Delivery { update, receipt } = delivery;
        let type_url = receipt.type_url().to_owned();
        let version = update.system_version.clone();
        let mut names: Vec<Option<String>> = Vec::new();
        if matches!(self.session.interest(&type_url), Interest::Wildcard | Interest::WildcardAnd(_)) {
            names.push(None);
        } else {
            let added = update.added.iter().map(|resource| &resource.name);
            names.extend(added.chain(&update.removed).cloned().map(Some));
        }
        let outcome = self.sink.apply(&type_url, update);
        match outcome {
            Ok(()) => {
                self.session.accept(receipt);
                for name in &names {
                    self.observer.update_success(&type_url, name.as_deref(), &version);
                }
            }
            Err(refusals) => {
                let message = refusal_text(&type_url, &refusals);
                self.observer.warning(&format!("gRPC config for {type_url} rejected: {message}"));
                for name in &names {
                    self.observer.update_rejected(&type_url, name.as_deref(), &message);
                }
                self.session.refuse(receipt, message);
            }
        }
        for name in &names {
            self.observer.update_attempt(&type_url, name.as_deref());
        }
        self.sync_interest();
    }

    /// Passes on what the session has to say.
    pub(crate) fn drain_events(&mut self) {
        let mut interest_may_have_changed = false;
        while let Some(event) = self.session.poll_event() {
            match event {
                ClientEvent::FetchTimeout { type_url, name } => {
                    self.observer.init_fetch_timeout(&type_url, name.as_deref());
                    self.observer.update_attempt(&type_url, name.as_deref());
                    self.sink.fetch_failed(&type_url, name.as_deref());
                    interest_may_have_changed = true;
                }
                ClientEvent::Malformed { type_url, message } => {
                    self.observer.warning(&format!("gRPC config for {type_url} rejected: {message}"));
                    self.each_subscription_of(&type_url, |observer, name| {
                        observer.update_rejected(&type_url, name, &message);
                        observer.update_attempt(&type_url, name);
                    });
                    if matches!(
                        self.session.interest(&type_url),
                        Interest::Wildcard | Interest::WildcardAnd(_)
                    ) {
                        self.sink.fetch_failed(&type_url, None);
                        interest_may_have_changed = true;
                    }
                }
                ClientEvent::ControlPlane(identifier) => self.observer.control_plane(&identifier),
                ClientEvent::Warning(text) => self.observer.warning(&text),
            }
        }
        if interest_may_have_changed {
            self.sync_interest();
        }
    }

    /// Counts a failed connection against every subscription.
    pub(crate) fn connection_failed(&mut self) {
        for type_url in self.types.clone() {
            self.each_subscription_of(&type_url, |observer, name| {
                observer.update_failure(&type_url, name);
                observer.update_attempt(&type_url, name);
            });
        }
    }

    fn each_subscription_of(&mut self, type_url: &str, mut tell: impl FnMut(&mut O, Option<&str>)) {
        match self.session.interest(type_url) {
            Interest::None => {}
            Interest::Wildcard | Interest::WildcardAnd(_) => tell(&mut self.observer, None),
            Interest::Names(names) => {
                for name in &names {
                    tell(&mut self.observer, Some(name));
                }
            }
        }
    }
}

/// What is subscribed to in `now` that was not `before`: `None` for everything, and each name.
fn new_subscriptions<'a>(before: &Interest, now: &'a Interest) -> Vec<Option<&'a str>> {
    let is_wildcard = |interest: &Interest| matches!(interest, Interest::Wildcard | Interest::WildcardAnd(_));
    let had = |name: &str| match before {
        Interest::Names(names) | Interest::WildcardAnd(names) => names.contains(name),
        Interest::None | Interest::Wildcard => false,
    };
    let mut new = Vec::new();
    if is_wildcard(now) && !is_wildcard(before) {
        new.push(None);
    }
    if let Interest::Names(names) | Interest::WildcardAnd(names) = now {
        new.extend(names.iter().filter(|name| !had(name)).map(|name| Some(name.as_str())));
    }
    new
}

/// The text of a refusal, as Envoy words it for clusters and listeners.
pub(crate) fn refusal_text(type_url: &str, refusals: &[Refusal]) -> String {
    let each = refusals.iter().map(|(name, reason)| match name.as_str() {
        "" => reason.clone(),
        name => format!("{name}: {reason}"),
    });
    let each: Vec<String> = each.collect();
    match type_url {
        type_url::CLUSTER => format!("Error adding/updating cluster(s) {}", each.join(", ")),
        type_url::LISTENER => format!("Error adding/updating listener(s) {}", each.join("\n")),
        _ => each.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_envoy_words_them() {
        let refusals = [("a".to_owned(), "no".to_owned()), (String::new(), "bad".to_owned())];
        assert_eq!(refusal_text(type_url::CLUSTER, &refusals), "Error adding/updating cluster(s) a: no, bad");
        assert_eq!(refusal_text(type_url::ROUTE, &refusals[..1]), "a: no");
    }

    #[test]
    fn only_new_subscriptions_count_as_attempts() {
        let both = Interest::WildcardAnd(["a".to_owned()].into());
        assert_eq!(new_subscriptions(&Interest::None, &both), [None, Some("a")]);
        assert_eq!(new_subscriptions(&both, &Interest::names(["a", "b"])), [Some("b")]);
        assert!(new_subscriptions(&both, &Interest::Wildcard).is_empty());
    }
}
