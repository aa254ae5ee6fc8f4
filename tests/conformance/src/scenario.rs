//! The scenario file: its fields, and reading it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use dhow_testkit::dns::DnsAnswer;
use dhow_testkit::upstream::{FramesScript, Reply, Rule, Script, TcpScript};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use crate::ads::AdsSpec;
use crate::steps::Step;

/// One scenario file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// `area/name`, from where the file lies.
    #[serde(skip)]
    pub name: String,
    /// One sentence: what is shown.
    pub about: String,
    /// Why ours and Envoy do not agree here, on purpose. Expectations then describe ours alone, and the scenario fails once the
    /// difference is gone.
    #[serde(default)]
    pub differs: Option<String>,
    /// Servers behind the proxy, by name.
    #[serde(default)]
    pub upstreams: IndexMap<String, UpstreamSpec>,
    /// Files written to the scenario's folder (`{{dir}}`) before the target starts. A mapping is written as JSON.
    #[serde(default)]
    pub files: IndexMap<String, Value>,
    /// Symbolic links made in the scenario's folder, with what each points to, relative to the folder.
    #[serde(default)]
    pub links: IndexMap<String, String>,
    /// Short form of an HTTP listener on `{{port.http}}`.
    #[serde(default)]
    pub http: Option<HttpListener>,
    /// Fields merged over the cluster that every upstream gets by default; a new name adds a cluster, `null` removes one.
    #[serde(default)]
    pub clusters: IndexMap<String, Value>,
    /// Listeners in full, after the HTTP one.
    #[serde(default)]
    pub listeners: Vec<Value>,
    /// Fields merged over the bootstrap that the short forms make.
    #[serde(default)]
    pub bootstrap: Value,
    /// The whole bootstrap as text, instead of all the forms above.
    #[serde(default)]
    pub bootstrap_text: Option<String>,
    /// Name of the file that `bootstrap_text` is written to, whose end tells its format; `config.yaml` unless given.
    #[serde(default)]
    pub bootstrap_file: Option<String>,
    /// More command-line arguments for the target.
    #[serde(default)]
    pub args: Vec<String>,
    /// Run `--mode validate` instead of serving.
    #[serde(default)]
    pub validate: Option<Validate>,
    /// Run a management server on `{{port.ads}}` with these resources, and point listeners and clusters of the target at it
    /// (cluster `ads`).
    #[serde(default)]
    pub ads: Option<AdsSpec>,
    /// Run a name server on `{{port.dns}}`, over UDP and TCP, with these answers; what is not here does not exist (NXDOMAIN).
    #[serde(default)]
    pub dns: Option<IndexMap<String, DnsAnswer>>,
    /// The traffic.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Statistics to record after the traffic, with the value they must reach, if that is given.
    #[serde(default)]
    pub stats: IndexMap<String, Option<u64>>,
    /// Compare every counter and gauge under these prefixes after the traffic, whether or not `stats` names it.
    #[serde(default)]
    pub all_stats: Option<AllStats>,
    /// Expected lines of `{{dir}}/access.log`. Recorded, and compared, whenever the file exists.
    #[serde(default)]
    pub access_log: Option<Vec<String>>,
    /// Texts that the target's own log must contain.
    #[serde(default)]
    pub log: Vec<String>,
    /// Compare the order of headers too.
    #[serde(default)]
    pub header_order: bool,
}

/// Which statistics to compare as a whole. What counts bytes or time is left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllStats {
    /// Prefixes of names, such as `cluster.` or `http.ingress.`.
    pub of: Vec<String>,
    /// Names, or their ends, that may differ, each with the reason.
    #[serde(default)]
    pub except: IndexMap<String, String>,
}

/// The short form of an HTTP listener.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpListener {
    /// Routes of one virtual host for every domain.
    pub routes: Option<Value>,
    /// Virtual hosts in full, instead of `routes`.
    pub virtual_hosts: Option<Value>,
    /// Fields merged over the route configuration.
    pub route_config: Value,
    /// Fields merged over the HTTP connection manager.
    pub hcm: Value,
    /// Fields merged over the listener.
    pub listener: Value,
    /// Terminate TLS with the certificate for `localhost` and offer `h2` and `http/1.1`.
    pub tls: bool,
    /// Demand a client certificate of the scenario's CA; implies `tls`.
    pub require_client_cert: bool,
    /// Write an access log in the default format to `{{dir}}/access.log`.
    pub access_log: bool,
}

/// One server behind the proxy.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSpec {
    /// What it speaks.
    pub protocol: Protocol,
    /// The address of this machine to listen on; 127.0.0.1 unless given.
    pub ip: Option<IpAddr>,
    /// Listen on the port of this upstream, which comes before and is on another address.
    pub port_of: Option<String>,
    /// Its answers in turn, the last repeated. One 200 with the upstream's name as body unless given.
    pub replies: Vec<Reply>,
    /// Answers by path and method, before `replies`.
    pub rules: Vec<Rule>,
    /// Behaviour of a `tcp` or `tcp_tls` upstream.
    pub tcp: TcpScript,
    /// Behaviour of a `frames` upstream.
    pub frames: FramesScript,
    /// Keep the bytes that arrive, for `wire` steps.
    pub wire: bool,
    /// Over TLS: demand a client certificate of the scenario's CA.
    pub client_cert: bool,
    /// Over TLS: whose certificate it shows; `server` unless given.
    pub certificate: Option<String>,
    /// Over TLS: speak this version only, `1.2` or `1.3`.
    pub tls_version: Option<String>,
}

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    H1,
    /// HTTP/2 with prior knowledge.
    H2c,
    /// HTTP/1.1 over TLS.
    H1Tls,
    /// HTTP/2 over TLS.
    H2Tls,
    /// HTTP/1.1 or HTTP/2 over TLS, as the client offers.
    AnyTls,
    /// HTTP/2 with prior knowledge, frame by frame.
    Frames,
    /// Bytes.
    Tcp,
    /// Bytes over TLS.
    TcpTls,
    /// Nobody listens.
    Refused,
    /// Connection attempts are neither accepted nor refused.
    Unanswered,
}

impl Protocol {
    /// Whether its connections are over TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::H1Tls | Self::H2Tls | Self::AnyTls | Self::TcpTls)
    }

    /// Whether a cluster for it has to speak HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::H2c | Self::H2Tls | Self::Frames)
    }
}

impl UpstreamSpec {
    /// The script of an HTTP upstream called `name`.
    pub fn script(&self, name: &str) -> Script {
        let mut rules = self.rules.clone();
        let replies = if self.replies.is_empty() { vec![Reply::ok(name)] } else { self.replies.clone() };
        rules.push(Rule { replies, ..Rule::default() });
        Script { rules }
    }
}

/// What `--mode validate` must say.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Validate {
    /// The exit code.
    pub exit: i32,
    /// Texts that the output must contain, on both targets.
    #[serde(default)]
    pub says: Vec<String>,
}

impl Scenario {
    /// Reads the file at `path`, which lies in `root`.
    pub fn read(root: &Path, path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut scenario: Self =
            serde_saphyr::from_str(&text).map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?;
        scenario.name = name_of(root, path);
        scenario.check().with_context(|| scenario.name.clone())?;
        Ok(scenario)
    }

    /// Every scenario under `root`, sorted by name.
    pub fn read_all(root: &Path) -> Result<Vec<Self>> {
        Self::read_matching(root, "")
    }

    /// The scenarios under `root` whose `area/name` contains `filter`, sorted by name; the others are not even read.
    pub fn read_matching(root: &Path, filter: &str) -> Result<Vec<Self>> {
        let mut files = files(root)?;
        files.retain(|path| name_of(root, path).contains(filter));
        files.iter().map(|path| Self::read(root, path)).collect()
    }

    /// Fails when parts of it contradict each other or are missing.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.about.trim().is_empty(), "`about` is empty");
        if self.bootstrap_text.is_some() && (self.http.is_some() || !self.listeners.is_empty()) {
            bail!("`bootstrap_text` is the whole configuration; `http` and `listeners` would be ignored");
        }
        if self.validate.is_some() {
            ensure!(self.steps.is_empty(), "a `validate` scenario has no traffic");
        } else {
            ensure!(!self.steps.is_empty(), "no `steps`");
        }
        for step in &self.steps {
            step.check()?;
        }
        Ok(())
    }
}

/// The `area/name` of the file at `path` below `root`.
pub fn name_of(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).with_extension("").to_string_lossy().into_owned()
}

/// Every YAML file under `root`, in order.
pub fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(root, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "yaml") {
            files.push(path);
        }
    }
    Ok(())
}
