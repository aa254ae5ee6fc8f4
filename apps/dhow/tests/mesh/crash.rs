//! Workloads that end by themselves, or do not want to.

use std::process::Command;

use dhow_testkit::{TempDir, poll_until};

use crate::running::{Mesh, PATIENCE};

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: alone
spec:
  containers:
  - {name: main, image: main}
";

#[test]
fn a_crashed_workload_is_started_again_and_said_to_be() {
    let manifests = TempDir::new("crash").unwrap();
    manifests.write("pod.yaml", POD).unwrap();
    let mut mesh = Mesh::start(manifests.path(), &["--image", "main=sh -c 'echo out of cheese >&2; exit 3'"]);
    mesh.wait_for("the crash is reported", |log| {
        log.contains("alone main exited with code 3; it is started again in 1 s: out of cheese").then_some(())
    });
    mesh.wait_for("the second crash is reported", |log| log.contains("started again in 2 s").then_some(()));
    assert_eq!(mesh.process.terminate(PATIENCE).unwrap().code(), Some(0));
    mesh.assert_gone();
}

#[test]
fn what_a_workload_started_ends_with_the_mesh_even_in_another_session() {
    let manifests = TempDir::new("setsid").unwrap();
    manifests.write("pod.yaml", POD).unwrap();
    let mut mesh = Mesh::start(manifests.path(), &["--image", "main=sh -c 'setsid sleep 3600 & sleep 3601'"]);
    let both = poll_until(PATIENCE, || {
        let processes = mesh.processes();
        let runs = |command: &str| processes.iter().any(|(_, line)| line.trim() == command);
        (runs("sleep 3600") && runs("sleep 3601")).then_some(())
    });
    assert!(both.is_ok(), "{:?}\n{}", mesh.processes(), mesh.process.log());
    assert!(Command::new("kill").args(["-9", &mesh.process.id().to_string()]).status().unwrap().success());
    assert!(mesh.process.wait(PATIENCE).is_some());
    mesh.assert_gone();
}
