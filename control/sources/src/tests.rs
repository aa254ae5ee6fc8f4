//! Files on disk become objects, and changes are noticed however they are made.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::{Directory, Severity, watch};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("dhow-sources-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn virtual_service(name: &str, host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec:\n  hosts: [{host}]\n  http:\n  - route:\n    - destination: {{host: {host}}}\n"
    )
}

fn names(directory: &Directory) -> Vec<String> {
    directory.objects().map(|object| object.meta.name.clone()).collect()
}

fn hosts(directory: &Directory, name: &str) -> Vec<String> {
    let object = directory.objects().find(|object| object.meta.name == name).unwrap();
    match &object.spec {
        dhow_control_model::Spec::VirtualService(spec) => spec.hosts.clone(),
        other => panic!("{other:?}"),
    }
}

fn scanned(path: &Path) -> Directory {
    let mut directory = Directory::new(path, "default");
    directory.scan().unwrap();
    directory
}

#[test]
fn files_are_read_recursively_and_hidden_ones_are_not() {
    let folder = Folder::new("recursive");
    folder.write("a.yaml", &format!("{}---\n{}", virtual_service("a", "x"), virtual_service("b", "x")));
    folder.write("deep/er/c.yml", &virtual_service("c", "x"));
    folder.write("deep/notes.txt", "not: [yaml");
    folder.write(".hidden.yaml", &virtual_service("h", "x"));
    folder.write("..2026/d.yaml", &virtual_service("d", "x"));
    assert_eq!(names(&scanned(&folder.0)), ["a", "b", "c"]);
}

#[test]
fn a_problem_names_file_line_object_field_and_reason() {
    let folder = Folder::new("problem");
    folder.write("bad.yaml", "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: bad\nspec:\n  hosts: [a]\n  http:\n  - route:\n    - destination:\n        hots: a\n");
    let directory = scanned(&folder.0);
    let [problem] = directory.problems() else { panic!("{:?}", directory.problems()) };
    assert_eq!(problem.severity, Severity::Error);
    assert_eq!(problem.line, 10);
    assert_eq!(problem.object.as_deref(), Some("VirtualService bad"));
    assert_eq!(problem.path, "spec.http[0].route[0].destination.hots");
    assert!(problem.reason.contains("unknown field"), "{}", problem.reason);
}

#[test]
fn the_last_good_version_of_an_invalid_object_stays_while_its_neighbours_change() {
    let folder = Folder::new("last-good");
    folder.write("two.yaml", &format!("{}---\n{}", virtual_service("one", "x"), virtual_service("two", "x")));
    let mut directory = scanned(&folder.0);
    let broken = virtual_service("one", "x").replace("route", "rout");
    folder.write("two.yaml", &format!("{broken}---\n{}", virtual_service("two", "w")));
    assert!(directory.scan().unwrap());
    assert_eq!(hosts(&directory, "one"), ["x"]);
    assert_eq!(hosts(&directory, "two"), ["w"]);
    assert!(directory.has_errors());
    folder.write("two.yaml", "{ not yaml\n");
    assert!(directory.scan().unwrap());
    assert_eq!(names(&directory), ["one", "two"]);
    folder.write("two.yaml", &virtual_service("two", "z"));
    assert!(directory.scan().unwrap());
    assert_eq!(names(&directory), ["two"]);
    assert!(!directory.has_errors());
}

#[test]
fn removing_a_file_removes_its_objects() {
    let folder = Folder::new("removal");
    folder.write("a.yaml", &virtual_service("a", "x"));
    let mut directory = scanned(&folder.0);
    fs::remove_file(folder.0.join("a.yaml")).unwrap();
    assert!(directory.scan().unwrap());
    assert_eq!(directory.objects().count(), 0);
    assert!(!directory.scan().unwrap());
}

#[test]
fn of_two_equal_objects_the_file_written_last_is_live_and_the_other_is_reported() {
    let folder = Folder::new("duplicate");
    folder.write("z.yaml", &virtual_service("same", "old"));
    folder.write("a.yaml", &virtual_service("same", "new"));
    let earlier = fs::File::options().write(true).open(folder.0.join("z.yaml")).unwrap();
    earlier.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).unwrap();
    let mut directory = scanned(&folder.0);
    assert_eq!(hosts(&directory, "same"), ["new"]);
    let [problem] = directory.problems() else { panic!("{:?}", directory.problems()) };
    assert!(
        problem.to_string().contains("z.yaml:1: VirtualService default/same: is also defined in"),
        "{problem}"
    );
    fs::remove_file(folder.0.join("a.yaml")).unwrap();
    directory.scan().unwrap();
    assert_eq!(hosts(&directory, "same"), ["old"]);
    assert!(directory.problems().is_empty());
}

#[test]
fn lists_and_foreign_kinds() {
    let folder = Folder::new("list");
    folder.write(
        "list.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ServiceAccount, metadata: {name: one}}\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: two}}\n- {apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: three}, spec: {}}\n",
    );
    let directory = scanned(&folder.0);
    assert_eq!(names(&directory), ["one"]);
    let [problem] = directory.problems() else { panic!("{:?}", directory.problems()) };
    assert_eq!((problem.severity, problem.line), (Severity::Warning, 6));
}

/// Waits until the watch has published a directory that satisfies the condition.
fn expect(received: &mpsc::Receiver<Vec<String>>, wanted: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match received.recv_timeout(left) {
            Ok(names) if names == wanted => return,
            Ok(_) => {}
            Err(_) => panic!("{wanted:?} was never published"),
        }
    }
}

fn watched(folder: &Folder) -> (crate::Watcher, mpsc::Receiver<Vec<String>>) {
    let (send, received) = mpsc::channel();
    let watcher = watch(scanned(&folder.0), move |directory| _ = send.send(names(directory))).unwrap();
    (watcher, received)
}

#[test]
fn writes_in_place_renames_new_folders_and_removals_are_noticed() {
    let folder = Folder::new("watch");
    folder.write("a.yaml", &virtual_service("a", "x"));
    let (_watcher, received) = watched(&folder);
    folder.write("a.yaml", &virtual_service("b", "x"));
    expect(&received, &["b"]);
    folder.write("new.tmp", &virtual_service("c", "x"));
    fs::rename(folder.0.join("new.tmp"), folder.0.join("a.yaml")).unwrap();
    expect(&received, &["c"]);
    folder.write("sub/sub/d.yaml", &virtual_service("d", "x"));
    expect(&received, &["c", "d"]);
    folder.write("sub/sub/d.yaml", &virtual_service("e", "x"));
    expect(&received, &["c", "e"]);
    fs::remove_dir_all(folder.0.join("sub")).unwrap();
    expect(&received, &["c"]);
}

#[test]
fn the_symlink_swap_of_a_mounted_config_map_is_noticed() {
    let folder = Folder::new("swap");
    folder.write("..1/vs.yaml", &virtual_service("first", "x"));
    folder.write("..2/vs.yaml", &virtual_service("second", "x"));
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.0.join(name)).unwrap();
    link("..1", "..data");
    link("..data/vs.yaml", "vs.yaml");
    let (_watcher, received) = watched(&folder);
    link("..2", "..data_tmp");
    fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).unwrap();
    expect(&received, &["second"]);
}
