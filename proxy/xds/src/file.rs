//! Configuration from a file: `path_config_source`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use dhow_proto::envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use dhow_proto::{Format, LoadOptions};
use dhow_xds::{Interest, NamedResource, Update, name_in_body, type_url};

use crate::subscriptions::refusal_text;
use crate::watch::{MoveWatch, WatchTarget};
use crate::{ConfigSink, InterestChanged, Refusal, SubscriptionObserver};

/// `envoy.config.core.v3.PathConfigSource`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSource {
    /// `path`: a file that holds a `DiscoveryResponse`, in the form that its extension says (`.yaml`, `.json`, `.pb`,
    /// `.pb_text`; JSON otherwise).
    pub path: PathBuf,
    /// `watched_directory.path`: a directory in which any move means that the file changed; without it the file itself
    /// has to be moved to its name.
    pub watched_directory: Option<PathBuf>,
}

/// Why a file cannot be subscribed to.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file; Envoy refuses the configuration that names it.
    #[error("paths must refer to an existing path in the system: '{0}' does not exist")]
    Missing(String),
    /// The kernel cannot watch it.
    #[error("cannot watch '{0}' for changes: {1}")]
    Watch(String, std::io::Error),
}

/// Why a file is not applied.
enum ReadError {
    /// It cannot be read or holds no discovery response.
    Unreadable(String),
    /// It holds resources that cannot be meant.
    Refused(String),
}

/// One resource type, from one file.
///
/// Rules followed: the file is read at the start and whenever it, or something in the watched directory, was moved into
/// place; writing into the file does nothing. What cannot be read counts as `update_failure`, what the sink refuses as
/// `update_rejected`; either way the last good configuration stays. Absence deletes for the types that are fetched
/// whole, as in the state-of-the-world protocol. Resources that the sink did not ask for are ignored.
pub struct FileSubscription<S, O> {
    type_url: String,
    source: PathSource,
    watch: MoveWatch,
    sink: S,
    observer: O,
    /// What the sink holds of a type that is fetched whole.
    known: BTreeSet<String>,
    interest_changed: InterestChanged,
}

impl<S: ConfigSink, O: SubscriptionObserver> FileSubscription<S, O> {
    /// Starts watching. Needs a tokio runtime.
    ///
    /// # Errors
    /// A missing file, or one that cannot be watched.
    pub fn new(
        type_url: impl Into<String>,
        source: PathSource,
        sink: S,
        observer: O,
    ) -> Result<Self, FileError> {
        if !source.path.exists() {
            return Err(FileError::Missing(source.path.display().to_string()));
        }
        let target = match &source.watched_directory {
            Some(directory) => WatchTarget::Directory(directory.clone()),
            None => WatchTarget::File(source.path.clone()),
        };
        let watch = MoveWatch::new(&target)
            .map_err(|error| FileError::Watch(source.path.display().to_string(), error))?;
        Ok(Self {
            type_url: type_url.into(),
            source,
            watch,
            sink,
            observer,
            known: BTreeSet::new(),
            interest_changed: InterestChanged::default(),
        })
    }

    /// Has the file read again because the sink wants other names than before.
    pub fn interest_changed(&self) -> InterestChanged {
        self.interest_changed.clone()
    }

    /// Reads the file and has the sink apply it.
    pub fn load(&mut self) {
        let type_url = self.type_url.clone();
        self.observer.update_attempt(&type_url, None);
        let (update, warnings) = match self.read() {
            Ok(read) => read,
            Err(ReadError::Refused(reason)) => {
                self.rejected(&[(String::new(), reason)]);
                if self.known.is_empty() {
                    self.sink.fetch_failed(&type_url, None);
                }
                return;
            }
            Err(ReadError::Unreadable(reason)) => {
                self.observer.warning(&format!("Filesystem config update failure: {reason}"));
                self.observer.update_failure(&type_url, None);
                if self.known.is_empty() {
                    self.sink.fetch_failed(&type_url, None);
                }
                return;
            }
        };
        for warning in warnings {
            self.observer.warning(&format!("{}: {warning}", self.source.path.display()));
        }
        let version = update.system_version.clone();
        let added: Vec<String> = update.added.iter().map(|resource| resource.name.clone()).collect();
        let removed = update.removed.clone();
        match self.sink.apply(&type_url, update) {
            Ok(()) => {
                for name in &removed {
                    self.known.remove(name);
                }
                self.known.extend(added);
                self.observer.update_success(&type_url, None, &version);
            }
            Err(refusals) => {
                // The good ones of them may be in force.
                self.known.extend(added);
                self.rejected(&refusals);
            }
        }
    }

    /// Loads the file, and again whenever it changes. Never returns: drop it to end it.
    pub async fn run(mut self) -> std::convert::Infallible {
        self.load();
        self.follow().await
    }

    /// Loads the file, which was [loaded](Self::load) before, whenever it changes. Never returns: drop it to end it.
    pub async fn follow(mut self) -> std::convert::Infallible {
        loop {
            let moved = tokio::select! {
                moved = self.watch.moved() => moved,
                () = self.interest_changed.notified() => Ok(()),
            };
            match moved {
                Ok(()) => self.load(),
                Err(error) => {
                    let text = format!("cannot watch '{}' any longer: {error}", self.source.path.display());
                    self.observer.warning(&text);
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    fn rejected(&mut self, refusals: &[Refusal]) {
        let message = refusal_text(&self.type_url, refusals);
        self.observer.warning(&format!("Filesystem config update rejected: {message}"));
        self.observer.update_rejected(&self.type_url, None, &message);
    }

    fn read(&self) -> Result<(Update, Vec<String>), ReadError> {
        let path = &self.source.path;
        let unreadable = |reason: String| ReadError::Unreadable(reason);
        let bytes = fs::read(path)
            .map_err(|error| unreadable(format!("unable to read file: {}: {error}", path.display())))?;
        let format = Format::of_file_name(&path.to_string_lossy()).unwrap_or(Format::Json);
        // The resources are checked one by one when they are applied; what is not known of them is a warning, as in all
        // dynamic configuration.
        let options = LoadOptions { allow_unknown_fields: true, ..LoadOptions::default() };
        let loaded = dhow_proto::parse::<DiscoveryResponse>(format, &bytes, &options)
            .map_err(|error| unreadable(format!("{}: {error}", path.display())))?;
        let warnings = loaded.warnings.iter().map(ToString::to_string).collect();
        let DiscoveryResponse {
            version_info,
            resources,
            canary: _,          // about streams, as are the others
            type_url: _,        // each resource has its own
            nonce: _,           // nothing is answered
            control_plane: _,   // there is none
            resource_errors: _, // a file has no server to report any
        } = loaded.message;
        let interest = self.sink.subscriptions(&self.type_url);
        let wanted = |name: &str| match &interest {
            Interest::Names(names) => names.contains(name),
            Interest::None | Interest::Wildcard | Interest::WildcardAnd(_) => true,
        };
        let mut present = BTreeSet::new();
        let mut added = Vec::new();
        for body in resources {
            if body.type_url != self.type_url {
                return Err(ReadError::Refused(format!(
                    "{}: the type URL {} of a resource does not match {}",
                    path.display(),
                    body.type_url,
                    self.type_url
                )));
            }
            let name = name_in_body(&body.value)
                .ok_or_else(|| ReadError::Refused(format!("{}: a resource has no name", path.display())))?
                .to_owned();
            if !present.insert(name.clone()) {
                return Err(ReadError::Refused(format!("{}: duplicate resource {name}", path.display())));
            }
            if wanted(&name) {
                added.push(NamedResource { name, version: version_info.clone(), body });
            }
        }
        let removed = if type_url::is_full_set(&self.type_url) {
            self.known.difference(&present).cloned().collect()
        } else {
            Vec::new()
        };
        Ok((Update { added, removed, system_version: version_info, is_state_of_the_world: true }, warnings))
    }
}
