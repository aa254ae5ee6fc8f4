//! What a context comes to: once, or again whenever one of the secrets that it names changes.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dhow_base::{ConfigError, FieldPath};

use crate::listed::{Listed, ListedContext};
use crate::pb::{CommonTlsContext, SdsSecretConfig};
use crate::secrets::{Renew, SecretPlace, Secrets};
use crate::stats::TlsStats;

/// Makes the value of what is there now; `None` while a secret is missing.
type Build<T> = Box<dyn Fn() -> Result<Option<T>, ConfigError> + Send + Sync>;

/// A value that follows secrets.
pub(crate) struct Renewed<T> {
    current: RwLock<Option<Arc<T>>>,
    followed: Option<Followed<T>>,
}

struct Followed<T> {
    places: Vec<SecretPlace>,
    build: Build<T>,
    updates: Mutex<Updates>,
}

/// Counts renewals: before there is somebody to tell, and then there.
#[derive(Default)]
struct Updates {
    untold: u64,
    stats: Option<TlsStats>,
}

impl<T: Listed + Send + Sync + 'static> Renewed<T> {
    /// Makes the value of a context, and has it made again when one of its secrets changes: those that the context names, and the
    /// one with keys of tickets.
    pub(crate) fn new(
        secrets: &Arc<Secrets>,
        context: Option<&CommonTlsContext>,
        path: &FieldPath,
        keys: Option<(&SdsSecretConfig, FieldPath)>,
        first: impl FnOnce() -> Result<Option<T>, ConfigError>,
        build: impl FnOnce() -> Build<T>,
    ) -> Result<Arc<Self>, ConfigError> {
        let places = secrets.follow(context, path, keys)?;
        let current = first()?.map(Arc::new);
        let untold = u64::from(current.is_some());
        let followed = (!places.is_empty()).then(|| {
            let updates = Mutex::new(Updates { untold, stats: None });
            Followed { places, build: build(), updates }
        });
        let renewed = Arc::new(Self { current: RwLock::new(current), followed });
        let user: Arc<dyn Renew> = renewed.clone();
        secrets.tell(&user);
        Ok(renewed)
    }

    /// The value; `None` while a secret is missing.
    pub(crate) fn get(&self) -> Option<Arc<T>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts renewals in these figures from now on, and those so far, and tells when certificates expire.
    pub(crate) fn count_in(&self, stats: &TlsStats) {
        if let Some(value) = self.get() {
            stats.set_expiries(value.expiries());
        }
        let Some(followed) = &self.followed else { return };
        let mut updates = followed.updates.lock().unwrap_or_else(PoisonError::into_inner);
        stats.count_updates(std::mem::take(&mut updates.untold));
        updates.stats = Some(stats.clone());
    }
}

impl<T: Listed + Send + Sync + 'static> Renew for Renewed<T> {
    fn listed(&self) -> Option<ListedContext> {
        self.get().map(|value| value.listed())
    }

    fn expires(&self) -> Option<i64> {
        self.get()?.expiries().into_iter().map(|(_, end)| end).min()
    }

    fn renew(&self, place: &SecretPlace) -> Result<(), ConfigError> {
        let Some(followed) = self.followed.as_ref().filter(|followed| followed.places.contains(place)) else {
            return Ok(());
        };
        // Without a value another secret is missing still.
        if let Some(value) = (followed.build)()? {
            let expiries = value.expiries();
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(value));
            let mut updates = followed.updates.lock().unwrap_or_else(PoisonError::into_inner);
            match &updates.stats {
                Some(stats) => {
                    stats.count_updates(1);
                    stats.set_expiries(expiries);
                }
                None => updates.untold += 1,
            }
        }
        Ok(())
    }
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").finish_non_exhaustive()
    }
}
