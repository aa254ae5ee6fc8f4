//! The steps of a scenario's traffic, as they are written in its file.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use dhow_testkit::dns::DnsAnswer;
use dhow_testkit::raw_http2::FrameScript;
use dhow_testkit::upstream::{Body, Headers, Reply, Rule, header_lines};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use crate::ads::AdsChange;
use crate::expect::Expect;

/// One step. Exactly one of the fields that say what to do is set; the others qualify it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Step {
    /// Send a request: `METHOD target`.
    pub request: Option<String>,
    /// Send these bytes.
    pub raw: Option<String>,
    /// Send these HTTP/2 frames on a connection of their own, after the preface and SETTINGS unless `bare`.
    pub frames: Option<Vec<FrameScript>>,
    /// Record the frames that this upstream (of protocol `frames`) has seen on its last connection.
    pub observed: Option<String>,
    /// Record the bytes that this upstream (with `wire: true`) has received.
    pub wire: Option<String>,
    /// Record all connections that this upstream (of protocol `tcp` or `tcp_tls`) has had: what arrived, and how the sender ended.
    pub connections: Option<String>,
    /// Ask the admin interface: `METHOD target`.
    pub admin: Option<String>,
    /// Rename new contents over files of the scenario's folder. A mapping is written as JSON.
    pub replace: Option<IndexMap<String, Value>>,
    /// Move new symbolic links over those of the scenario's folder, as volumes of Kubernetes are swapped.
    pub link: Option<IndexMap<String, String>>,
    /// Give upstreams new answers.
    pub answer: Option<IndexMap<String, Vec<Reply>>>,
    /// Give upstreams new answers to the requests of one rule: the one with the same path and method.
    pub rule: Option<IndexMap<String, Rule>>,
    /// Change the resources of the management server.
    pub ads: Option<AdsChange>,
    /// Give names other answers at the name server.
    pub dns: Option<IndexMap<String, DnsAnswer>>,
    /// Wait until each named upstream has seen that many new requests, and record them here.
    pub arrived: Option<IndexMap<String, usize>>,
    /// Wait until these statistics have these values.
    pub reach: Option<IndexMap<String, u64>>,
    /// Wait until these statistics have at least these values: for what happens a number of times that is a matter of the moment.
    pub reach_at_least: Option<IndexMap<String, u64>>,
    /// Wait for the result of a background step.
    pub join: Option<String>,
    /// Close a named connection.
    pub close: Option<String>,
    /// Run these steps at the same time.
    pub together: Option<Vec<Step>>,

    /// `Host` or `:authority`; `example.test` unless given.
    pub host: Option<String>,
    /// More request headers, as `name: value` lines in order.
    #[serde(deserialize_with = "header_lines")]
    pub headers: Headers,
    /// The request body.
    pub body: Option<Body>,
    /// HTTP/1: send the body in chunks instead of with a length.
    pub chunked: bool,
    /// Trailers of the request.
    #[serde(deserialize_with = "header_lines")]
    pub trailers: Headers,
    /// Speak HTTP/2.
    pub http2: bool,
    /// Use TLS.
    pub tls: Option<TlsStep>,
    /// The port to connect to, as in `{{port.NAME}}`; `http` unless given.
    pub to: Option<String>,
    /// Use the connection with this name, opening it if there is none, and keep it open.
    pub connection: Option<String>,
    /// Send the request this often and record only which different answers came.
    pub repeat: Option<usize>,
    /// Repeat the step until its expectations hold.
    pub until: bool,
    /// Do not wait; a later `join` with this name records the result.
    pub background: Option<String>,
    /// Raw: finish sending (FIN) after the bytes.
    pub finish: bool,
    /// Raw: connect from this IPv4 address of this machine.
    pub from: Option<IpAddr>,
    /// Raw: leave with a reset instead of an orderly close; needs `from`.
    pub reset: bool,
    /// Raw: what to read.
    pub read: Reading,
    /// Raw: the method that the response belongs to.
    pub method: Option<String>,
    /// Leave out what upstreams got of requests that broke off: whether a head was forwarded before the fault in its body was read
    /// is a matter of the moment.
    pub broken: bool,
    /// Frames: send neither preface nor SETTINGS before them.
    pub bare: bool,
    /// Frames: do not acknowledge SETTINGS.
    pub impolite: bool,
    /// Give up after this long.
    pub limit_ms: Option<u64>,
    /// The target must end by itself after this step, with exit code 0.
    pub ends: bool,
    /// Admin: parts of a JSON body to record, as pointers in which `*` stands for any element.
    pub pick: Vec<String>,
    /// Admin: record the lines of the body that match this expression, sorted.
    pub lines: Option<String>,

    /// What must have happened.
    pub expect: Expect,
    /// Where both are right and yet not the same.
    pub differs: Option<StepDifference>,
}

/// A difference that both sides are free to make, such as which of two error codes names a fault. What each of them does is
/// asserted instead of compared; the scenario fails when the difference is gone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepDifference {
    /// Why both are right.
    pub why: String,
    /// What must have happened on ours.
    pub ours: Expect,
    /// What must have happened on Envoy.
    pub envoy: Expect,
}

/// TLS of a client connection.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsStep {
    /// The server name; `localhost` unless given.
    pub sni: Option<String>,
    /// Protocols offered.
    pub alpn: Vec<String>,
    /// Present the scenario's client certificate.
    pub client_cert: bool,
    /// Present the certificate of somebody else: a name in `certificates.rs`.
    pub certificate: Option<String>,
    /// Take whatever certificate the target shows, and record whose it is behind the session.
    pub trusting: bool,
    /// Keep sessions under this name, and resume one that is there.
    pub sessions: Option<String>,
    /// Offer this version only: `1.2` or `1.3`.
    pub version: Option<String>,
}

/// What a raw step reads after it has sent its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reading {
    /// This many HTTP/1 responses.
    Responses(usize),
    /// One response, then everything until the connection ends.
    ThenEnd,
    /// One response, then whether the connection ends at once, unless the response announces that.
    ThenGlance,
    /// Bytes until the connection ends.
    End,
    /// This many bytes.
    Bytes(usize),
}

impl Default for Reading {
    fn default() -> Self {
        Self::Responses(1)
    }
}

impl Step {
    /// A line that names the step in reports.
    pub fn title(&self) -> String {
        if let Some(request) = &self.request {
            let host = self.host.as_ref().map(|h| format!(" @{h}")).unwrap_or_default();
            return format!("{request}{host}{}", if self.http2 { " (HTTP/2)" } else { "" });
        }
        if let Some(raw) = &self.raw {
            let first = raw.lines().next().unwrap_or_default();
            return format!("raw {first:?}");
        }
        if self.frames.is_some() {
            return "frames".to_owned();
        }
        let named = [
            ("observed", self.observed.clone()),
            ("wire", self.wire.clone()),
            ("connections", self.connections.clone()),
            ("admin", self.admin.clone()),
            ("replace", self.replace.as_ref().map(|m| joined(m.keys()))),
            ("link", self.link.as_ref().map(|m| joined(m.keys()))),
            ("answer", self.answer.as_ref().map(|m| joined(m.keys()))),
            ("rule", self.rule.as_ref().map(|m| joined(m.keys()))),
            ("dns", self.dns.as_ref().map(|m| joined(m.keys()))),
            ("ads", self.ads.as_ref().map(|_| String::new())),
            ("arrived", self.arrived.as_ref().map(|m| joined(m.keys()))),
            ("reach", self.reach.as_ref().map(|m| joined(m.keys()))),
            ("reach_at_least", self.reach_at_least.as_ref().map(|m| joined(m.keys()))),
            ("join", self.join.clone()),
            ("close", self.close.clone()),
            ("together", self.together.as_ref().map(|s| format!("{} steps", s.len()))),
        ];
        let found = named.into_iter().find_map(|(verb, what)| what.map(|w| format!("{verb} {w}")));
        found.unwrap_or_default()
    }

    /// Refuses a step that says nothing, or several things at once.
    pub fn check(&self) -> Result<()> {
        let verbs = [
            self.request.is_some(),
            self.raw.is_some(),
            self.frames.is_some(),
            self.observed.is_some(),
            self.wire.is_some(),
            self.connections.is_some(),
            self.admin.is_some(),
            self.replace.is_some(),
            self.link.is_some(),
            self.answer.is_some(),
            self.rule.is_some(),
            self.dns.is_some(),
            self.ads.is_some(),
            self.arrived.is_some(),
            self.reach.is_some(),
            self.reach_at_least.is_some(),
            self.join.is_some(),
            self.close.is_some(),
            self.together.is_some(),
        ];
        let count = verbs.iter().filter(|set| **set).count();
        ensure!(self.differs.as_ref().is_none_or(|d| !d.why.trim().is_empty()), "`differs` has no reason");
        ensure!(count == 1, "a step does exactly one thing, `{}` does {count}", self.title());
        ensure!(self.request.is_some() || self.repeat.is_none(), "only a `request` can be repeated");
        ensure!(self.from.is_some() || !self.reset, "`reset` needs `from`");
        for step in self.together.iter().flatten() {
            step.check()?;
        }
        Ok(())
    }
}

fn joined<'a>(names: impl Iterator<Item = &'a String>) -> String {
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}
