//! Merging of the Gateways that select one workload, by listening port.

use std::sync::Arc;

use super::{Proxy, PushContext};
use crate::istio::{Gateway, Server, ServerTlsMode};
use crate::{Config, Host, Protocol, selects};

/// A server of a Gateway, as part of a listener.
#[derive(Debug, Clone)]
pub struct MergedServer {
    /// The object that it is from.
    pub gateway: Arc<Config<Gateway>>,
    /// Its index in the object.
    pub index: usize,
    /// Its hosts: the namespace whose VirtualServices may use it (`*` for all), and the host.
    pub hosts: Vec<(String, Host)>,
}

impl MergedServer {
    /// The server itself.
    pub fn server(&self) -> &Server {
        &self.gateway.spec.servers[self.index]
    }

    /// `namespace/name` of the object, as VirtualServices name it.
    pub fn gateway_name(&self) -> String {
        format!("{}/{}", self.gateway.meta.namespace, self.gateway.meta.name)
    }

    /// The protocol of its port.
    pub fn protocol(&self) -> Protocol {
        Protocol::parse(&self.server().port.protocol)
    }

    /// Whether TLS ends at the gateway.
    pub fn terminates_tls(&self) -> bool {
        self.protocol().is_tls()
            && self.server().tls.as_ref().is_some_and(|tls| {
                matches!(
                    tls.mode,
                    ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual
                )
            })
    }

    /// Whether requests are routed, after TLS if there is any.
    pub fn routes_http(&self) -> bool {
        self.protocol().is_http() || (self.protocol() == Protocol::Https && self.terminates_tls())
    }

    /// The name of its route configuration, when it routes requests on `port`.
    pub fn route_name(&self, port: u32) -> Option<String> {
        let server = self.server();
        if self.protocol().is_http() {
            let bind = if server.bind.is_empty() { String::new() } else { format!(".{}", server.bind) };
            return Some(format!("http.{port}{bind}"));
        }
        self.routes_http().then(|| {
            let meta = &self.gateway.meta;
            format!("https.{port}.{}.{}.{}", server.port.name, meta.name, meta.namespace)
        })
    }
}

/// The servers of one listener.
#[derive(Debug, Clone)]
pub struct ServerGroup {
    /// Address that the servers ask for; empty for the proxy's choice.
    pub bind: String,
    /// Port to listen on, after mapping.
    pub port: u32,
    /// Whether the listener looks at TLS.
    pub tls: bool,
    /// The servers, in order of precedence; they agree on `tls`, and plaintext ones on HTTP or TCP.
    pub servers: Vec<MergedServer>,
}

/// All listeners of a gateway workload.
#[derive(Debug, Clone, Default)]
pub struct MergedGateway {
    /// By port and address.
    pub groups: Vec<ServerGroup>,
    /// Servers that could not be merged: the object, the index of the server, and why.
    pub conflicts: Vec<(Arc<Config<Gateway>>, usize, String)>,
}

impl PushContext {
    /// Merges the Gateways that select the proxy.
    pub fn merged_gateway(&self, proxy: &Proxy) -> MergedGateway {
        let targets = proxy.service_targets(&self.services);
        let mut merged = MergedGateway::default();
        for gateway in self.gateways.iter().filter(|gateway| selects(&gateway.spec.selector, &proxy.labels)) {
            for (index, server) in gateway.spec.servers.iter().enumerate() {
                let unsupported = server.tls.as_ref().is_some_and(|tls| {
                    matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough)
                });
                if unsupported && Protocol::parse(&server.port.protocol).is_tls() {
                    let reason = "its TLS mode is not supported yet".to_owned();
                    merged.conflicts.push((gateway.clone(), index, reason));
                    continue;
                }
                let number = server.port.number;
                let mut ports: Vec<u32> = targets
                    .iter()
                    .filter(|target| target.port.number == number)
                    .map(|target| target.target_port)
                    .collect();
                ports.sort_unstable();
                ports.dedup();
                if ports.is_empty() {
                    ports.push(number);
                }
                for port in ports {
                    let merged_server = MergedServer {
                        gateway: gateway.clone(),
                        index,
                        hosts: hosts(server, gateway, &self.domain),
                    };
                    merged.add(port, merged_server);
                }
            }
        }
        merged.groups.sort_by(|a, b| (a.port, &a.bind).cmp(&(b.port, &b.bind)));
        merged
    }
}

impl MergedGateway {
    fn add(&mut self, port: u32, server: MergedServer) {
        let bind = server.server().bind.clone();
        let tls = server.protocol().is_tls();
        let Some(group) = self.groups.iter_mut().find(|group| group.port == port && group.bind == bind)
        else {
            self.groups.push(ServerGroup { bind, port, tls, servers: vec![server] });
            return;
        };
        // Plaintext servers share a listener only when all are HTTP; several TCP servers on one port cannot be told apart.
        let first = &group.servers[0];
        let conflict =
            if group.tls != tls || (!tls && first.protocol().is_http() != server.protocol().is_http()) {
                Some("its port is taken by a server of another protocol")
            } else if !tls && !server.protocol().is_http() {
                Some("its port is taken by another TCP server")
            } else if tls && duplicate_hosts(&group.servers, &server) {
                Some("another server of the port has the same hosts")
            } else {
                None
            };
        match conflict {
            Some(reason) => self.conflicts.push((server.gateway.clone(), server.index, reason.to_owned())),
            None => group.servers.push(server),
        }
    }
}

/// Two TLS servers of one port need different server names, or the first is always chosen.
fn duplicate_hosts(known: &[MergedServer], server: &MergedServer) -> bool {
    known
        .iter()
        .any(|known| known.hosts.iter().any(|(_, host)| server.hosts.iter().any(|(_, own)| own == host)))
}

fn hosts(server: &Server, gateway: &Config<Gateway>, domain: &str) -> Vec<(String, Host)> {
    let namespace = &gateway.meta.namespace;
    let split = |text: &String| match text.split_once('/') {
        Some((".", name)) => (namespace.clone(), Host::resolve(name, namespace, domain)),
        Some((other, name)) => (other.to_owned(), Host::resolve(name, namespace, domain)),
        None => ("*".to_owned(), Host::resolve(text, namespace, domain)),
    };
    server.hosts.iter().map(split).collect()
}
