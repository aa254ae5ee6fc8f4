//! Names that Istio gives to what it generates. Dashboards, patches and scripts rely on each of them.

use dhow_control_model::Host;

pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
pub(crate) const HTTP_PROXY_ROUTE: &str = "http_proxy";
pub(crate) const DEFAULT_ROUTE: &str = "default";

/// `outbound|9080|v1|reviews.default.svc.cluster.local`
pub(crate) fn outbound_cluster(port: u32, subset: &str, host: &Host) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `inbound|9080||`
pub(crate) fn inbound_cluster(port: u32) -> String {
    format!("inbound|{port}||")
}

/// Port, subset and host of an outbound cluster's name.
pub(crate) fn parse_outbound(name: &str) -> Option<(u32, &str, Host)> {
    let mut parts = name.split('|');
    let direction = parts.next()?;
    let (port, subset, host) = (parts.next()?, parts.next()?, parts.next()?);
    if direction != "outbound" || parts.next().is_some() || host.is_empty() {
        return None;
    }
    Some((port.parse().ok()?, subset, Host::new(host)))
}

/// The text that ends a name in statistics: the rules that take tags out of names stop there.
pub(crate) fn stat_name(name: &str) -> String {
    format!("{name};")
}
