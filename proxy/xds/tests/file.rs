//! Configuration from files in a temporary folder.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dhow_proxy_xds::type_url::CLUSTER;
use dhow_proxy_xds::{
    ConfigSink, FileError, FileSubscription, Interest, PathSource, Refusal, SubscriptionObserver, Update,
};
use dhow_testkit::TempDir;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Applied {
    names: BTreeSet<String>,
    versions: Vec<String>,
    attempts: u32,
    failures: u32,
    rejections: Vec<String>,
}

impl ConfigSink for Applied {
    fn apply(&mut self, type_url: &str, update: Update) -> Result<(), Vec<Refusal>> {
        assert_eq!(type_url, CLUSTER);
        assert!(update.is_state_of_the_world);
        if update.system_version == "refused" {
            return Err(vec![("a".to_owned(), "no good".to_owned())]);
        }
        self.versions.push(update.system_version);
        self.names.extend(update.added.into_iter().map(|resource| resource.name));
        for name in &update.removed {
            assert!(self.names.remove(name), "{name} was not there");
        }
        Ok(())
    }

    fn subscriptions(&self, _: &str) -> Interest {
        Interest::Wildcard
    }
}

struct Counted(Rc<RefCell<Applied>>);

impl SubscriptionObserver for Counted {
    fn update_attempt(&mut self, _: &str, _: Option<&str>) {
        self.0.borrow_mut().attempts += 1;
    }
    fn update_failure(&mut self, _: &str, _: Option<&str>) {
        self.0.borrow_mut().failures += 1;
    }
    fn update_rejected(&mut self, _: &str, _: Option<&str>, message: &str) {
        self.0.borrow_mut().rejections.push(message.to_owned());
    }
}

struct Running {
    applied: Rc<RefCell<Applied>>,
    task: JoinHandle<std::convert::Infallible>,
}

impl Running {
    fn start(source: PathSource) -> Self {
        let applied = Rc::new(RefCell::new(Applied::default()));
        let observer = Counted(Rc::clone(&applied));
        let subscription =
            FileSubscription::new(CLUSTER, source, Rc::clone(&applied), observer).expect("a file");
        Self { applied, task: spawn_local(subscription.run()) }
    }

    async fn until(&self, expected: impl Fn(&Applied) -> bool) {
        let start = Instant::now();
        while !expected(&self.applied.borrow()) {
            let applied = self.applied.borrow();
            assert!(start.elapsed() < PATIENCE, "{:?} {} attempts", applied.versions, applied.attempts);
            drop(applied);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn clusters(version: &str, names: &[&str]) -> String {
    let mut text = format!("version_info: \"{version}\"\nresources:\n");
    for name in names {
        text += &format!("- \"@type\": {CLUSTER}\n  name: {name}\n  connect_timeout: 1s\n");
    }
    text
}

fn source(folder: &TempDir) -> PathSource {
    PathSource { path: folder.path().join("cds.yaml"), watched_directory: None }
}

#[tokio::test]
async fn only_a_file_moved_into_place_is_loaded() {
    let test = async {
        let folder = TempDir::new("path-config").expect("a folder");
        folder.write("cds.yaml", clusters("1", &["a", "b"])).expect("written");
        let running = Running::start(source(&folder));
        running.until(|applied| applied.versions == ["1"]).await;

        folder.write("cds.yaml", clusters("written in place", &["a"])).expect("written");
        folder.replace("other.yaml", "of no interest").expect("moved");
        folder.replace("cds.yaml", clusters("2", &["b", "c"])).expect("moved");
        running.until(|applied| applied.versions.len() > 1).await;
        let applied = running.applied.borrow();
        assert_eq!(applied.versions, ["1", "2"], "neither the write nor the other file was looked at");
        assert_eq!(applied.names, ["b", "c"].map(str::to_owned).into(), "absence deletes");
        assert_eq!(applied.attempts, 2);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_swapped_link_in_the_watched_directory_is_followed() {
    let test = async {
        let folder = TempDir::new("path-config").expect("a folder");
        let at = |name: &str| folder.path().join(name);
        for (version, name) in [("1", "first"), ("2", "second")] {
            fs::create_dir(at(name)).expect("made");
            fs::write(at(name).join("cds.yaml"), clusters(version, &[name])).expect("written");
        }
        symlink("first", at("..data")).expect("linked");
        symlink("..data/cds.yaml", at("cds.yaml")).expect("linked");
        let watched_directory = Some(folder.path().to_owned());
        let running = Running::start(PathSource { watched_directory, ..source(&folder) });
        running.until(|applied| applied.versions == ["1"]).await;
        symlink("second", at("..data_tmp")).expect("linked");
        fs::rename(at("..data_tmp"), at("..data")).expect("moved");
        running.until(|applied| applied.versions == ["1", "2"]).await;
        assert_eq!(running.applied.borrow().names, ["second".to_owned()].into());
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn what_cannot_be_read_or_is_refused_leaves_the_last_good_configuration() {
    let test = async {
        let folder = TempDir::new("path-config").expect("a folder");
        folder.write("cds.yaml", clusters("1", &["a"])).expect("written");
        let running = Running::start(source(&folder));
        running.until(|applied| applied.versions == ["1"]).await;
        folder.replace("cds.yaml", "resources: [").expect("moved");
        running.until(|applied| applied.failures == 1).await;
        // Envoy counts as rejected what it could read.
        let rejected = [
            clusters("x", &["a"]).replace("name: a", "nom: a"),
            clusters("x", &["a", "a"]),
            clusters("x", &["a"])
                .replace("cluster.v3.Cluster", "listener.v3.Listener")
                .replace("connect_timeout: 1s", ""),
        ];
        for (number, text) in rejected.into_iter().enumerate() {
            folder.replace("cds.yaml", text).expect("moved");
            running.until(|applied| applied.rejections.len() == number + 1).await;
        }
        folder.replace("cds.yaml", clusters("refused", &["a"])).expect("moved");
        running.until(|applied| applied.rejections.len() == 4).await;
        folder.replace("cds.yaml", clusters("2", &["b"])).expect("moved");
        running.until(|applied| applied.versions == ["1", "2"]).await;
        let applied = running.applied.borrow();
        assert_eq!(applied.rejections[3], "Error adding/updating cluster(s) a: no good");
        assert_eq!(applied.failures, 1);
        assert_eq!(applied.names, ["b".to_owned()].into());
        assert_eq!(applied.attempts, 7);
    };
    LocalSet::new().run_until(test).await;
}

#[tokio::test]
async fn a_missing_file_is_refused() {
    let folder = TempDir::new("path-config").expect("a folder");
    let applied = Rc::new(RefCell::new(Applied::default()));
    let observer = Counted(Rc::clone(&applied));
    let outcome = FileSubscription::new(CLUSTER, source(&folder), applied, observer);
    let error = outcome.err().expect("there is no file");
    assert!(matches!(error, FileError::Missing(_)));
    assert!(
        error.to_string().starts_with("paths must refer to an existing path in the system: '/"),
        "{error}"
    );
}
