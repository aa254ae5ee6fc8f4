//! What cannot run: one clear line, exit code 1, nothing left.

use std::process::Command;

use dhow_testkit::{HeldPort, TempDir};

use crate::running::{DHOW, sample};

const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {containers: [{name: web, image: \"registry/web:1\"}]}
";

/// Runs `dhow up` on a folder with one manifest; what it says.
fn refused(manifest: Option<&str>, arguments: &[&str]) -> String {
    let folder = TempDir::new("refused").unwrap();
    if let Some(manifest) = manifest {
        folder.write("a.yaml", manifest).unwrap();
    }
    let run = TempDir::new("refused-run").unwrap();
    let output = Command::new(DHOW)
        .arg("up")
        .arg(folder.path())
        .args(arguments)
        .env("XDG_RUNTIME_DIR", run.path())
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert_eq!(std::fs::read_dir(run.path()).unwrap().count(), 0);
    errors
        .replace(&format!("{}/", folder.path().display()), "")
        .replace(&folder.path().display().to_string(), "DIR")
}

#[test]
fn folders_without_anything_to_run() {
    assert_eq!(
        refused(None, &[]),
        "Error: DIR: nothing to run: the folder has no .yaml, .yml or .json file\n"
    );
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80, name: http}]}\n";
    assert!(refused(Some(service), &[]).contains("no Deployment, StatefulSet or Pod"));
}

#[test]
fn manifests_that_cannot_be_read() {
    let error = refused(Some("kind: [1\n"), &[]);
    assert!(error.starts_with("Error: a.yaml:") && error.contains(':'), "{error}");
    let rule = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  htpp: []\n";
    let error = refused(Some(rule), &[]);
    assert!(error.starts_with("Error: a.yaml:6: VirtualService a: ") && error.contains("htpp"), "{error}");
}

#[test]
fn images_and_commands_that_are_not_there() {
    assert_eq!(
        refused(Some(POD), &[]),
        "Error: a.yaml:1: no command is known for the image registry/web:1 of Pod web; give one with --image web=COMMAND\n"
    );
    assert_eq!(
        refused(Some(POD), &["--image", "web=/no/such/program"]),
        "Error: web web: cannot start /no/such/program: No such file or directory (os error 2)\n"
    );
    assert_eq!(
        refused(Some(POD), &["--image", "web=no-such-program-anywhere"]),
        "Error: web web: cannot start no-such-program-anywhere: no such command in PATH\n"
    );
}

#[test]
fn a_gateway_port_that_is_taken() {
    let held = HeldPort::new().unwrap().listen().unwrap();
    let port = held.local_addr().unwrap().port();
    assert_eq!(
        refused(Some(POD), &["--image", "web=true", "--gateway-port", &port.to_string()]),
        format!("Error: port {port} of 127.0.0.1 is already taken; choose another one with --gateway-port\n")
    );
}

#[test]
fn a_control_plane_that_does_not_start() {
    let folder = TempDir::new("mesh-config").unwrap();
    let config = folder.write("mesh.yaml", "defaultConfig: [\n").unwrap();
    let error = refused(
        Some(POD),
        &["--image", "web=true", "--gateway-port", "0", "--meshConfig", config.to_str().unwrap()],
    );
    assert!(error.starts_with("Error: dhowd did not start: "), "{error}");
}

#[test]
fn rules_without_a_mesh() {
    let run = TempDir::new("no-mesh").unwrap();
    let output = Command::new(DHOW)
        .args(["apply", "-f"])
        .arg(sample("networking/virtual-service-all-v1.yaml"))
        .env("XDG_RUNTIME_DIR", run.path())
        .env("TMPDIR", run.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "Error: no mesh is running; start one with `dhow up DIR`\n");
}
