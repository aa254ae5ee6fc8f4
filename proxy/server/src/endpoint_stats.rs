//! `cluster.<name>.endpoint.<address>.*`: what is counted for hosts, of clusters with `track_cluster_stats.per_endpoint_stats`. Nothing
//! is stored for it: the counters of `/clusters` are read again.

use dhow_proxy_admin::HostStatus;
use dhow_proxy_upstream::{ActiveCluster, Health};
use dhow_stats::{SnapshotValue, Tagged, UnstoredStat};

use crate::admin_state::host_status;

/// The stats of a cluster's hosts in the order of `/stats`.
pub(crate) fn of_cluster(cluster: &ActiveCluster) -> Vec<UnstoredStat> {
    if !cluster.info().per_endpoint_stats() {
        return Vec::new();
    }
    let name = &cluster.info().observability_name;
    let hosts = cluster.hosts();
    let stats = hosts.hosts().map(|host| of_host(name, &host_status(host), host.health() == Health::Healthy));
    stats.flatten().collect()
}

fn of_host(cluster: &str, host: &HostStatus, healthy: bool) -> Vec<UnstoredStat> {
    let mut tags = vec![
        ("envoy.cluster_name".to_owned(), cluster.to_owned()),
        ("envoy.endpoint_address".to_owned(), host.address_text.clone()),
    ];
    if !host.hostname.is_empty() {
        tags.push(("envoy.endpoint_hostname".to_owned(), host.hostname.clone()));
    }
    let address = host.address_text.replace(':', "_");
    let stat = |name: &str, value| UnstoredStat {
        name: format!("cluster.{cluster}.endpoint.{address}.{name}"),
        tagged: Tagged { name: format!("cluster.endpoint.{name}"), tags: tags.clone() },
        value,
    };
    let counters = host.counters.iter().map(|&(name, value)| stat(name, SnapshotValue::Counter(value)));
    let gauges = host.gauges.iter().map(|&(name, value)| stat(name, SnapshotValue::Gauge(value)));
    let health = stat("healthy", SnapshotValue::Gauge(healthy.into()));
    counters.chain(gauges).chain([health]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_first_and_names_have_no_colons() {
        let host = HostStatus {
            address_text: "[::1]:80".into(),
            hostname: "a.test".into(),
            counters: vec![("cx_total", 3)],
            gauges: vec![("cx_active", 1)],
            ..HostStatus::default()
        };
        let stats = of_host("one", &host, false);
        let names: Vec<_> = stats.iter().map(|stat| stat.name.as_str()).collect();
        let prefix = "cluster.one.endpoint.[__1]_80.";
        assert_eq!(names, ["cx_total", "cx_active", "healthy"].map(|name| format!("{prefix}{name}")));
        let tagged = &stats[2].tagged;
        assert_eq!(tagged.name, "cluster.endpoint.healthy");
        let values: Vec<_> = tagged.tags.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["one", "[::1]:80", "a.test"]);
    }
}
