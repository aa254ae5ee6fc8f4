//! A running `dhow up`, and the pages that its gateway serves.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use dhow_testkit::client::{Http1Client, Http1Response};
use dhow_testkit::{ChildGuard, ChildSpec, TempDir, poll_until};

/// How long a mesh may take to start on a busy machine, unoptimised.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const DHOW: &str = env!("CARGO_BIN_EXE_dhow");

/// Variable with a program that shall be the proxy instead of our own, to see whether a failure is the mesh's or the proxy's.
const OTHER_PROXY: &str = "DHOW_TEST_PROXY";

/// A file or folder of the sample.
pub fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/bookinfo").join(path)
}

/// A mesh whose files are in a folder of this test.
pub struct Mesh {
    pub process: ChildGuard,
    folder: TempDir,
}

impl Mesh {
    /// Starts `dhow up` with `arguments`, on a free gateway port.
    pub fn start(manifests: &Path, arguments: &[&str]) -> Self {
        let folder = TempDir::new("dhow-up").unwrap();
        let other = std::env::var(OTHER_PROXY).ok();
        let process = ChildSpec::new(DHOW, folder.path().join("log"))
            .arg("up")
            .arg(manifests)
            .args(["--gateway-port", "0"])
            .args(arguments)
            .args(other.iter().flat_map(|program| ["--proxy", program]))
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("TMPDIR", folder.path())
            .spawn()
            .unwrap();
        Self { process, folder }
    }

    /// Waits until `find` finds something in the output.
    pub fn wait_for<T>(&mut self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let found = poll_until(PATIENCE, || match find(&self.process.log()) {
            Some(found) => Some(Ok(found)),
            None => self.process.exited().map(Err),
        });
        match found {
            Ok(Ok(found)) => found,
            Ok(Err(status)) => panic!("dhow up ended with {status} before {what}:\n{}", self.process.log()),
            Err(error) => panic!("{what}: {error}:\n{}", self.process.log()),
        }
    }

    /// Waits until the mesh can be used; the gateway's address.
    pub fn gateway(&mut self) -> SocketAddr {
        self.wait_for("it is open", |log| {
            let line = log.lines().find_map(|line| line.strip_prefix("Open"))?;
            line.trim().strip_prefix("http://")?.split('/').next()?.parse().ok()
        })
    }

    /// The folder that the control plane watches.
    pub fn config(&self) -> PathBuf {
        let log = self.process.log();
        let folder =
            log.lines().find_map(|line| line.split_once(" pods in ")).expect("it says where its files are").1;
        Path::new(folder).join("config")
    }

    /// Runs another command of `dhow` on this mesh.
    pub fn dhow(&self, arguments: &[&str]) -> Output {
        // Both are searched for meshes; others may run in the usual places.
        let folder = self.folder.path();
        Command::new(DHOW)
            .args(arguments)
            .env("XDG_RUNTIME_DIR", folder)
            .env("TMPDIR", folder)
            .output()
            .unwrap()
    }

    /// Applies files of the sample's rules, all of which must be accepted.
    pub fn apply(&self, files: &[&str]) {
        let files: Vec<_> = files.iter().map(|file| sample(&format!("networking/{file}"))).collect();
        let mut arguments = vec!["apply"];
        for file in &files {
            arguments.extend(["-f", file.to_str().unwrap()]);
        }
        let output = self.dhow(&arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Numbers of the processes that were started by this mesh, or by those, and are not zombies.
    pub fn processes(&self) -> Vec<(i32, String)> {
        let mark = format!("XDG_RUNTIME_DIR={}", self.folder.path().display());
        let own = i32::try_from(self.process.id()).unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if id != own && environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes()) {
                let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                found.push((id, String::from_utf8_lossy(&command).replace('\0', " ")));
            }
        }
        found
    }

    /// Checks that no process and no folder of the mesh is left, within a few seconds.
    pub fn assert_gone(&self) {
        let left = || {
            let folders =
                std::fs::read_dir(self.folder.path()).unwrap().flatten().map(|entry| entry.file_name());
            let folders: Vec<_> = folders.filter(|name| name != "log").collect();
            (self.processes(), folders)
        };
        let gone = poll_until(Duration::from_secs(10), || (left() == (Vec::new(), Vec::new())).then_some(()));
        assert!(gone.is_ok(), "left over: {:?}", left());
    }
}

/// What of the product page shows which rules are in force.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Stars {
    None,
    Black,
    Red,
}

/// Asks for the product page once, over an open connection.
pub async fn page(client: &mut Http1Client, user: Option<&str>) -> Result<Stars, String> {
    let cookie = user.map(|user| format!("cookie: session={user}\r\n")).unwrap_or_default();
    let request = format!("GET /productpage HTTP/1.1\r\nhost: bookinfo.example\r\n{cookie}\r\n");
    client.send(request).await.map_err(|error| error.to_string())?;
    let response = client.response("GET", PATIENCE).await.map_err(|error| error.to_string())?;
    stars(&response)
}

fn stars(response: &Http1Response) -> Result<Stars, String> {
    let text = String::from_utf8_lossy(&response.body);
    if response.status != 200 || !text.contains("<title>Simple Bookstore App</title>") {
        return Err(format!("{} {text}", response.status));
    }
    if text.contains("unavailable") {
        return Err(text.into_owned());
    }
    Ok(match (text.contains("color=\"black\""), text.contains("color=\"red\"")) {
        (true, _) => Stars::Black,
        (_, true) => Stars::Red,
        _ => Stars::None,
    })
}

/// Runs a future on a runtime of its own.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
