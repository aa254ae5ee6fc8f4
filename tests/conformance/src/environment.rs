//! Everything around the target for one run: folder, ports, certificates, upstreams; and the placeholders that name them.
//!
//! | placeholder | stands for |
//! |---|---|
//! | `{{port.NAME}}` | a free port, made on first use |
//! | `{{next.NAME}}` | the number after that of `{{port.NAME}}`, where a range of ports ends |
//! | `{{port.dns}}` | the port of the name server, where the scenario has one |
//! | `{{upstream.NAME}}` | the port of an upstream |
//! | `{{session.NAME}}` | the address of an upstream as a header of a stateful session has it |
//! | `{{session.cookie.NAME}}` | ... as a cookie of a stateful session that never ends has it |
//! | `{{dir}}` | the scenario's folder |
//! | `{{cert.ca}}` | the CA that issued the certificates below (PEM file) |
//! | `{{cert.server}}`, `{{key.server}}` | certificate for `localhost`, `*.example.test`, `127.0.0.1` |
//! | `{{cert.client}}`, `{{key.client}}` | certificate for `spiffe://cluster.local/ns/default/sa/client` |
//! | `{{cert.NAME}}`, `{{key.NAME}}` | the certificate of NAME in `certificates.rs` |
//! | `{{hash.NAME}}`, `{{spki.NAME}}` | what pins it: SHA-256 of the certificate, of its key |
//! | `{{crl}}` | the revocation list of the CA (PEM file) |
//! | `{{cert.stranger}}` | a CA that issued none of them but that of `foreign` |

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow, bail};
use dhow_testkit::certs::{ClientConfig, TlsVersions, client_config, fingerprint, trusting_client_config};
use dhow_testkit::client::TlsOptions;
use dhow_testkit::dns::{DnsAnswer, DnsServer};
use dhow_testkit::ports::UnansweredPort;
use dhow_testkit::upstream::{Record, Speaks, Upstream};
use dhow_testkit::{HeldPort, TempDir};
use indexmap::IndexMap;
use serde_json::Value;

use crate::ads::{AdsChange, AdsFacts, AdsServer};
use crate::certificates::Certificates;
use crate::normalise::Normaliser;
use crate::scenario::{Protocol, Scenario, UpstreamSpec};
use crate::steps::TlsStep;

/// The surroundings of one run. Dropping it stops the upstreams and removes the folder.
#[derive(Debug)]
pub struct Environment {
    dir: TempDir,
    ports: Mutex<BTreeMap<String, HeldPort>>,
    upstreams: IndexMap<String, Backend>,
    ads: Option<AdsServer>,
    dns: Option<DnsServer>,
    /// Clients that keep sessions, by name.
    clients: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

#[derive(Debug)]
enum Backend {
    Server(Upstream),
    Refused(HeldPort),
    Unanswered(UnansweredPort),
}

impl Backend {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Server(upstream) => upstream.address(),
            Self::Refused(port) => port.address(),
            Self::Unanswered(port) => port.address(),
        }
    }
}

impl Environment {
    /// Starts the upstreams of `scenario` and writes its files.
    pub fn new(scenario: &Scenario) -> Result<Self> {
        let mut environment = Self {
            dir: TempDir::new("conformance")?,
            ports: Mutex::default(),
            upstreams: IndexMap::new(),
            ads: None,
            dns: None,
            clients: Mutex::default(),
        };
        for (name, spec) in &scenario.upstreams {
            let backend = environment.backend(name, spec).with_context(|| format!("upstream {name}"))?;
            environment.upstreams.insert(name.clone(), backend);
        }
        if let Some(spec) = &scenario.ads {
            environment.ads = Some(AdsServer::start(HeldPort::new()?.listen()?)?);
            let first = AdsChange { set: spec.set.clone(), ..AdsChange::default() };
            environment.change_resources(&first)?;
        }
        if let Some(names) = &scenario.dns {
            environment.dns = Some(DnsServer::start()?);
            environment.change_names(names)?;
        }
        for (name, contents) in &scenario.files {
            environment.put(name, contents)?;
        }
        for (name, target) in &scenario.links {
            environment.link(name, target)?;
        }
        Ok(environment)
    }

    fn backend(&self, name: &str, spec: &UpstreamSpec) -> Result<Backend> {
        let port = match (spec.ip, &spec.port_of) {
            (ip, Some(other)) => {
                let other =
                    self.upstreams.get(other).with_context(|| format!("no upstream `{other}` before"))?;
                HeldPort::at(SocketAddr::new(ip.unwrap_or(other.address().ip()), other.address().port()))?
            }
            (Some(ip), None) => HeldPort::on(ip)?,
            (None, None) => HeldPort::new()?,
        };
        let tls = match spec.protocol {
            Protocol::Refused => return Ok(Backend::Refused(port)),
            Protocol::Unanswered => return Ok(Backend::Unanswered(UnansweredPort::new()?)),
            Protocol::TcpTls => Some([].as_slice()),
            Protocol::H1Tls => Some(["http/1.1"].as_slice()),
            Protocol::H2Tls => Some(["h2"].as_slice()),
            Protocol::AnyTls => Some(["h2", "http/1.1"].as_slice()),
            Protocol::H1 | Protocol::H2c | Protocol::Frames | Protocol::Tcp => None,
        };
        let speaks = match spec.protocol {
            Protocol::Tcp | Protocol::TcpTls => Speaks::Tcp(spec.tcp.clone()),
            Protocol::Frames => Speaks::Frames(spec.frames.clone()),
            _ => Speaks::Http(spec.script(name)),
        };
        let tls = match tls {
            Some(alpn) => {
                let certs = Certificates::shared()?;
                let client_ca = spec.client_cert.then_some(certs.ca.cert_pem.as_str());
                let server = certs.identity(spec.certificate.as_deref().unwrap_or("server"))?;
                Some(server.server_config_of(alpn, client_ca, versions(spec.tls_version.as_deref())?)?)
            }
            None => None,
        };
        let upstream = Upstream::start(port.listen()?, speaks, tls)?;
        if spec.wire {
            upstream.record().keep_wire();
        }
        Ok(Backend::Server(upstream))
    }

    /// The scenario's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Puts a file into the folder by renaming it into place; a mapping is written as JSON. Placeholders are resolved.
    pub fn put(&self, name: &str, contents: &Value) -> Result<()> {
        let text = match contents {
            Value::String(text) => self.resolve(text)?,
            value => serde_json::to_string_pretty(&self.resolve_all(value)?)?,
        };
        if let Some((folder, _)) = name.rsplit_once('/') {
            std::fs::create_dir_all(self.dir.path().join(folder))?;
        }
        self.dir.replace(name, text)?;
        Ok(())
    }

    /// Puts a symbolic link into the folder by moving it into place.
    pub fn link(&self, name: &str, target: &str) -> Result<()> {
        let staged = self.dir.path().join(format!("{name}.staged"));
        std::os::unix::fs::symlink(target, &staged)?;
        std::fs::rename(staged, self.dir.path().join(name))?;
        Ok(())
    }

    /// The address of the port called `name`, made on first use.
    pub fn port(&self, name: &str) -> Result<SocketAddr> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        if !ports.contains_key(name) {
            ports.insert(name.to_owned(), HeldPort::new()?);
        }
        Ok(ports[name].address())
    }

    /// Changes the resources of the management server.
    pub fn change_resources(&self, change: &AdsChange) -> Result<()> {
        let server = self.ads.as_ref().context("the scenario has no management server (`ads`)")?;
        let set = change.set.iter().map(|resource| self.resolve_all(resource)).collect::<Result<_>>()?;
        server.apply(&AdsChange { set, ..change.clone() })
    }

    /// Gives names other answers at the name server.
    pub fn change_names(&self, names: &IndexMap<String, DnsAnswer>) -> Result<()> {
        let server = self.dns.as_ref().context("the scenario has no name server (`dns`)")?;
        names.iter().for_each(|(name, answer)| server.set(name, answer.clone()));
        Ok(())
    }

    /// What the target asked of the management server, where there is one.
    pub fn ads_facts(&self) -> Option<AdsFacts> {
        self.ads.as_ref().map(AdsServer::facts)
    }

    /// What the upstreams recorded, by name; those that never answer have no record.
    pub fn records(&self) -> impl Iterator<Item = (&String, &Record)> {
        self.upstreams.iter().filter_map(|(name, backend)| match backend {
            Backend::Server(upstream) => Some((name, upstream.record())),
            Backend::Refused(_) | Backend::Unanswered(_) => None,
        })
    }

    /// The record of one upstream.
    pub fn record(&self, name: &str) -> Result<&Record> {
        let found = self.records().find(|(n, _)| *n == name);
        found.map(|(_, record)| record).with_context(|| format!("no upstream `{name}` that records"))
    }

    /// Knows everything volatile that has a name here.
    pub fn normaliser(&self) -> Normaliser {
        let ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: HashMap<u16, String> = HashMap::new();
        names.extend(ports.iter().map(|(name, port)| (port.port(), format!("port.{name}"))));
        names.extend(self.upstreams.iter().map(|(name, b)| (b.address().port(), format!("upstream.{name}"))));
        names.extend(self.ads.iter().map(|ads| (ads.address().port(), "port.ads".to_owned())));
        names.extend(self.dns.iter().map(|dns| (dns.address().port(), "port.dns".to_owned())));
        Normaliser::new(names, self.dir.path().display().to_string())
    }

    /// TLS options of a client of the target.
    pub fn client_tls(&self, tls: &TlsStep) -> Result<TlsOptions> {
        let certs = Certificates::shared()?;
        let alpn: Vec<&str> = tls.alpn.iter().map(String::as_str).collect();
        let name = tls.certificate.as_deref().or(tls.client_cert.then_some("client"));
        let identity = name.map(|name| certs.identity(name)).transpose()?;
        let versions = versions(tls.version.as_deref())?;
        let config = match tls.trusting {
            true => trusting_client_config(&alpn, identity, versions)?,
            false => client_config(&certs.ca.cert_pem, &alpn, identity, versions)?,
        };
        let config = match &tls.sessions {
            Some(name) => {
                let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(clients.entry(name.clone()).or_insert(config))
            }
            None => config,
        };
        Ok(TlsOptions { config, server_name: tls.sni.clone().unwrap_or_else(|| "localhost".to_owned()) })
    }

    /// Whose certificate a server has shown, or `?`.
    pub fn shown(&self, certificate: &[u8]) -> Result<&'static str> {
        Ok(Certificates::shared()?.whose(&fingerprint(certificate)).unwrap_or("?"))
    }

    fn certificate(&self, name: &str) -> Result<String> {
        let certs = Certificates::shared()?;
        let pem = match name.split_once('.') {
            Some(("cert", "ca")) => &certs.ca.cert_pem,
            Some(("cert", "stranger")) => &certs.stranger.cert_pem,
            Some(("cert", name)) => &certs.identity(name)?.cert_pem,
            Some(("key", name)) => &certs.identity(name)?.key_pem,
            Some(("hash", name)) => return Ok(hexadecimal(&certs.identity(name)?.fingerprint)),
            Some(("spki", name)) => {
                return Ok(dhow_base::base64::encode(&certs.identity(name)?.key_fingerprint));
            }
            _ if name == "crl" => &certs.revocation_list,
            _ => bail!("no placeholder `{{{{{name}}}}}`"),
        };
        let path = self.dir.path().join(format!("{name}.pem"));
        if !path.exists() {
            std::fs::write(&path, pem)?;
        }
        Ok(path.display().to_string())
    }

    fn placeholder(&self, name: &str) -> Result<String> {
        if name == "dir" {
            return Ok(self.dir.path().display().to_string());
        }
        if let (Some(server), "port.ads") = (&self.ads, name) {
            return Ok(server.address().port().to_string());
        }
        if let (Some(server), "port.dns") = (&self.dns, name) {
            return Ok(server.address().port().to_string());
        }
        if let Some(port) = name.strip_prefix("port.") {
            return Ok(self.port(port)?.port().to_string());
        }
        if let Some(port) = name.strip_prefix("next.") {
            return Ok((u32::from(self.port(port)?.port()) + 1).to_string());
        }
        let address = |upstream: &str| {
            let backend = self.upstreams.get(upstream).ok_or_else(|| anyhow!("no upstream `{upstream}`"))?;
            Ok::<_, anyhow::Error>(backend.address())
        };
        if let Some(upstream) = name.strip_prefix("upstream.") {
            return Ok(address(upstream)?.port().to_string());
        }
        if let Some(upstream) = name.strip_prefix("session.cookie.") {
            // `envoy.Cookie`: field 1 is the address.
            let address = address(upstream)?.to_string();
            let message = [&[0x0a, address.len() as u8], address.as_bytes()].concat();
            return Ok(dhow_base::base64::encode(&message));
        }
        if let Some(upstream) = name.strip_prefix("session.") {
            return Ok(dhow_base::base64::encode(address(upstream)?.to_string().as_bytes()));
        }
        self.certificate(name)
    }

    /// Resolves the placeholders in a text.
    pub fn resolve(&self, text: &str) -> Result<String> {
        let mut resolved = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let (name, after) =
                after.split_once("}}").with_context(|| format!("`{{{{` without end in {text:?}"))?;
            resolved.push_str(before);
            resolved.push_str(&self.placeholder(name)?);
            rest = after;
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    /// Resolves the placeholders in every text of a value. A text that is nothing but a port becomes a number.
    pub fn resolve_all(&self, value: &Value) -> Result<Value> {
        Ok(match value {
            Value::String(text) => {
                let resolved = self.resolve(text)?;
                let port = ["{{port.", "{{next.", "{{upstream."].iter().any(|start| text.starts_with(start));
                match resolved.parse::<u32>() {
                    Ok(number) if port => number.into(),
                    _ => Value::String(resolved),
                }
            }
            Value::Array(items) => items.iter().map(|item| self.resolve_all(item)).collect::<Result<_>>()?,
            Value::Object(fields) => {
                let mut resolved = serde_json::Map::new();
                for (key, value) in fields {
                    resolved.insert(key.clone(), self.resolve_all(value)?);
                }
                Value::Object(resolved)
            }
            other => other.clone(),
        })
    }
}

/// The versions of TLS that a scenario names.
fn versions(name: Option<&str>) -> Result<TlsVersions> {
    Ok(match name {
        None => TlsVersions::All,
        Some("1.2") => TlsVersions::Tls12,
        Some("1.3") => TlsVersions::Tls13,
        Some(other) => bail!("`{other}` is no version of TLS that can be offered alone"),
    })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
