//! The proxy behind an Envoy node: Istio's node id and metadata.

use std::net::IpAddr;

use dhow_control_model::Labels;
use dhow_control_model::push::{Interception, Locality, Proxy, ProxyType};
use dhow_proto::envoy::config::core::v3::Node;
use dhow_proto::google::protobuf::value::Kind;
use dhow_proto::google::protobuf::{Struct, Value};

/// Reads the node that a proxy introduces itself with. The id is `<type>~<ip>~<pod>.<namespace>~<domain>`.
///
/// # Errors
/// In words, for the proxy's log, when the id or a metadata field cannot be understood.
pub fn proxy_of_node(node: &Node) -> Result<Proxy, String> {
    let parts: Vec<&str> = node.id.split('~').collect();
    let [kind, ip, id, dns_domain] = parts.as_slice() else {
        return Err(format!("node id {:?} is not TYPE~IP~ID~DOMAIN", node.id));
    };
    let proxy_type = match *kind {
        "sidecar" => ProxyType::Sidecar,
        "router" => ProxyType::Router,
        "waypoint" | "ztunnel" | "agentgateway" => {
            return Err(format!("proxies of type {kind} are not supported yet"));
        }
        _ => return Err(format!("node id {:?} has an unknown proxy type", node.id)),
    };
    let metadata = Fields(node.metadata.as_ref());
    let mut ips = Vec::new();
    for address in std::iter::once(*ip).chain(metadata.text("INSTANCE_IPS").unwrap_or_default().split(',')) {
        let address = address.trim();
        if address.is_empty() {
            continue;
        }
        let parsed: IpAddr =
            address.parse().map_err(|_| format!("node id {:?} has a bad address {address:?}", node.id))?;
        if !ips.contains(&parsed) {
            ips.push(parsed);
        }
    }
    if ips.is_empty() {
        return Err(format!("node id {:?} has no address", node.id));
    }
    let interception = match metadata.text("INTERCEPTION_MODE").unwrap_or_default() {
        "" | "REDIRECT" => Interception::Redirect,
        "TPROXY" => Interception::Tproxy,
        "NONE" => Interception::None,
        other => return Err(format!("INTERCEPTION_MODE {other:?} is not REDIRECT, TPROXY or NONE")),
    };
    let namespace = metadata.text("NAMESPACE").filter(|text| !text.is_empty()).map(str::to_owned);
    let namespace = namespace
        .or_else(|| id.rsplit_once('.').map(|(_, namespace)| namespace.to_owned()))
        .or_else(|| dns_domain.split('.').next().map(str::to_owned))
        .unwrap_or_default();
    let locality = node.locality.as_ref().map(|locality| Locality {
        region: locality.region.clone(),
        zone: locality.zone.clone(),
        sub_zone: locality.sub_zone.clone(),
    });
    Ok(Proxy {
        proxy_type,
        ips,
        id: (*id).to_owned(),
        namespace,
        dns_domain: (*dns_domain).to_owned(),
        labels: metadata.map("LABELS"),
        annotations: metadata.map("ANNOTATIONS"),
        cluster_id: metadata.text("CLUSTER_ID").unwrap_or_default().to_owned(),
        interception,
        http_proxy_port: metadata.port("HTTP_PROXY_PORT")?,
        locality: locality.unwrap_or_default(),
    })
}

struct Fields<'a>(Option<&'a Struct>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Kind> {
        self.0?.fields.get(name)?.kind.as_ref()
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Kind::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn map(&self, name: &str) -> Labels {
        let Some(Kind::StructValue(fields)) = self.get(name) else { return Labels::new() };
        fields.fields.iter().filter_map(|(name, value)| Some((name.clone(), scalar(value)?))).collect()
    }

    fn port(&self, name: &str) -> Result<Option<u16>, String> {
        let port = match self.get(name) {
            None => return Ok(None),
            Some(Kind::NumberValue(port)) if port.fract() == 0.0 && (0.0..=65535.0).contains(port) => {
                *port as u16
            }
            Some(Kind::StringValue(port)) if port.is_empty() => return Ok(None),
            Some(Kind::StringValue(port)) => {
                port.parse().map_err(|_| format!("{name} {port:?} is not a port"))?
            }
            Some(_) => return Err(format!("{name} is not a port")),
        };
        Ok((port != 0).then_some(port))
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value.kind.as_ref()? {
        Kind::StringValue(text) => Some(text.clone()),
        Kind::BoolValue(value) => Some(value.to_string()),
        Kind::NumberValue(value) => Some(value.to_string()),
        _ => None,
    }
}
