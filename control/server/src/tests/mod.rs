//! The program's parts together, on folders of their own.

mod corpus;
mod dump;
mod publishing;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;
use dhow_control_model::MeshConfig;
use dhow_control_sources::Directory;
use dhow_proto::envoy::config::core::v3::Node;

use crate::args::{Cli, Command, XdsDumpArgs};
use crate::snapshot::{Inputs, Snapshot};

/// A folder that is removed again.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dhow-server-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self::new();
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec: {selector: {app: other}, ports: [{name: http, port: 81}]}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, labels: {app: web}}, status: {podIP: 10.0.0.1}}
";

const NODE: &str = r#"{"id": "sidecar~10.0.0.1~web-1.default~default.svc.cluster.local", "metadata": {"NAMESPACE": "default", "LABELS": {"app": "web"}}}"#;

fn node(text: &str) -> Node {
    dhow_proto::load_json::<Node>(text, &dhow_proto::LoadOptions::default()).unwrap().message
}

fn snapshot(path: &Path) -> Snapshot {
    let mut directory = Directory::new(path, "default");
    directory.scan().unwrap();
    Snapshot::new(Inputs::new(&directory, MeshConfig::default()), "cluster.local")
}

fn xds_dump_args(arguments: &[&str]) -> XdsDumpArgs {
    let command = ["dhowd", "xds-dump"].into_iter().chain(arguments.iter().copied());
    match Cli::try_parse_from(command).unwrap().command {
        Command::XdsDump(args) => args,
        Command::Discovery(_) => unreachable!("xds-dump was asked for"),
    }
}
