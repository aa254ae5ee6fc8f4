//! Secrets that come from files: each is followed, and so are the files that it names.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use dhow_proto::Message;
use dhow_proto::envoy::config::core::v3::{DataSource, WatchedDirectory, data_source::Specifier};
use dhow_proto::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
use dhow_proxy_xds::{
    ConfigSink, FileSubscription, Interest, MoveWatch, PathSource, Refusal, SubscriptionObserver, Update,
    WatchTarget, type_url,
};
use dhow_stats::{Counter, Scope, Store};
use dhow_tls::{SecretPlace, Secrets};
use tokio::task::AbortHandle;

use crate::subscription_stats::{Event, SubscriptionStats};

/// Has the secrets that contexts name by file followed from now on, counted in `sds.<name>.*`.
pub(crate) fn follow(secrets: &Arc<Secrets>, store: &Arc<Store>) {
    let (weak, store) = (Arc::downgrade(secrets), store.clone());
    secrets.set_follower(move |place| {
        let scope = store.scope(&format!("sds.{}.", place.name));
        let observer = Observer { stats: SubscriptionStats::new(&scope) };
        let rotation_failed = scope.counter("key_rotation_failed");
        let followed = Followed {
            secrets: weak.clone(),
            place: place.clone(),
            rotation_failed,
            watches: RefCell::default(),
            _scope: scope,
        };
        let source =
            PathSource { path: place.path.clone(), watched_directory: place.watched_directory.clone() };
        let sink = Sink(Rc::new(followed));
        let mut subscription = FileSubscription::new(type_url::SECRET, source, sink, observer)
            .map_err(|error| error.to_string())?;
        subscription.load();
        tokio::task::spawn_local(async move { subscription.follow().await });
        Ok(())
    });
}

/// A place that is followed.
struct Followed {
    secrets: Weak<Secrets>,
    place: SecretPlace,
    /// `key_rotation_failed`: files that a secret names changed, and cannot be used.
    rotation_failed: Counter,
    /// Tasks that look at these files.
    watches: RefCell<Vec<AbortHandle>>,
    _scope: Scope,
}

impl Followed {
    /// Follows the files that the secret names, or the directory that it says is moved in when they change.
    fn watch_files(self: &Rc<Self>, secret: &Secret) {
        self.watches.take().into_iter().for_each(|watch| watch.abort());
        for target in files_of(secret) {
            let watch = match MoveWatch::new(&target) {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::warn!("sds: secret '{}': cannot watch {target:?}: {error}", self.place.name);
                    continue;
                }
            };
            let task = tokio::task::spawn_local(reload_on_moves(Rc::downgrade(self), watch));
            self.watches.borrow_mut().push(task.abort_handle());
        }
    }

    fn reload(&self) {
        let Some(secrets) = self.secrets.upgrade() else { return };
        if let Err(reason) = secrets.reload(&self.place) {
            tracing::warn!("sds: secret '{}': key rotation failed: {reason}", self.place.name);
            self.rotation_failed.inc();
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.watches.take().into_iter().for_each(|watch| watch.abort());
    }
}

async fn reload_on_moves(followed: std::rc::Weak<Followed>, mut watch: MoveWatch) {
    while watch.moved().await.is_ok() {
        let Some(followed) = followed.upgrade() else { return };
        followed.reload();
    }
}

/// What moves when the files of a secret change.
fn files_of(secret: &Secret) -> Vec<WatchTarget> {
    let (directory, sources): (&Option<WatchedDirectory>, Vec<&Option<DataSource>>) = match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => (
            &certificate.watched_directory,
            vec![&certificate.certificate_chain, &certificate.private_key, &certificate.ocsp_staple],
        ),
        Some(Type::ValidationContext(context)) => {
            (&context.watched_directory, vec![&context.trusted_ca, &context.crl])
        }
        Some(Type::SessionTicketKeys(_) | Type::GenericSecret(_)) | None => return Vec::new(),
    };
    if let Some(WatchedDirectory { path, watch_modify }) = directory {
        if *watch_modify {
            tracing::warn!("sds: secret '{}': watch_modify is without effect: only moves count", secret.name);
        }
        return vec![WatchTarget::Directory(PathBuf::from(path))];
    }
    let files: BTreeSet<&str> = sources
        .into_iter()
        .filter_map(|source| match source.as_ref()?.specifier.as_ref()? {
            Specifier::Filename(name) => Some(name.as_str()),
            Specifier::InlineBytes(_) | Specifier::InlineString(_) | Specifier::EnvironmentVariable(_) => {
                None
            }
        })
        .collect();
    files.into_iter().map(|file| WatchTarget::File(PathBuf::from(file))).collect()
}

/// Where the secret of one file is applied.
struct Sink(Rc<Followed>);

impl ConfigSink for Sink {
    fn apply(&mut self, _type_url: &str, update: Update) -> Result<(), Vec<Refusal>> {
        let name = &self.0.place.name;
        let outcome = match &update.added[..] {
            [] => Err(format!("Missing SDS resources for {name} in onConfigUpdate()")),
            [secret] if secret.name != *name => {
                Err(format!("Unexpected SDS secret (expecting {name}): {}", secret.name))
            }
            [secret] => Secret::decode(&*secret.body.value).map_err(|error| error.to_string()),
            several => Err(format!("Unexpected SDS secrets length: {}", several.len())),
        };
        let delivered = outcome.and_then(|secret| {
            let Some(secrets) = self.0.secrets.upgrade() else { return Ok(()) };
            secrets.deliver(&self.0.place, secret.clone())?;
            self.0.watch_files(&secret);
            Ok(())
        });
        delivered.map_err(|reason| vec![(String::new(), reason)])
    }

    fn subscriptions(&self, _type_url: &str) -> Interest {
        Interest::Wildcard
    }
}

/// Counts what becomes of the file.
struct Observer {
    stats: SubscriptionStats,
}

impl SubscriptionObserver for Observer {
    fn update_attempt(&mut self, _type_url: &str, _name: Option<&str>) {
        self.stats.count(Event::Attempt);
    }

    fn update_success(&mut self, _type_url: &str, _name: Option<&str>, version: &str) {
        self.stats.count(Event::Success(version));
    }

    fn update_failure(&mut self, _type_url: &str, _name: Option<&str>) {
        self.stats.count(Event::Failure);
    }

    fn update_rejected(&mut self, _type_url: &str, _name: Option<&str>, _message: &str) {
        self.stats.count(Event::Rejected);
    }

    fn warning(&mut self, text: &str) {
        tracing::warn!("{text}");
    }
}
