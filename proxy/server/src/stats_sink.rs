//! Sends statistics to statsd at every flush.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::rc::Rc;

use dhow_proxy_xds::{ByteStream, Connector};
use dhow_stats::{HistogramValue, Snapshot, SnapshotValue, Store, Tagged, Unit};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

use crate::stats_config::{StatsdConfig, StatsdTarget};

/// A statsd sink with what it has sent.
pub(crate) struct StatsdSink {
    config: StatsdConfig,
    transport: Transport,
    /// Counters as they were at the last flush.
    sent: HashMap<String, u64>,
}

enum Transport {
    Udp(UdpSocket, SocketAddr),
    Tcp { cluster: String, connector: Rc<dyn Connector>, stream: Rc<Mutex<Option<Box<dyn ByteStream>>>> },
}

impl StatsdSink {
    /// Opens the socket; a connection is opened at the first flush.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub(crate) fn new(config: StatsdConfig, connector: Rc<dyn Connector>) -> io::Result<Self> {
        let transport = match &config.target {
            StatsdTarget::Udp(address) => {
                let any: IpAddr = if address.is_ipv4() {
                    Ipv4Addr::UNSPECIFIED.into()
                } else {
                    Ipv6Addr::UNSPECIFIED.into()
                };
                let socket = UdpSocket::bind((any, 0))?;
                socket.set_nonblocking(true)?;
                Transport::Udp(socket, *address)
            }
            StatsdTarget::Tcp(cluster) => {
                Transport::Tcp { cluster: cluster.clone(), connector, stream: Rc::default() }
            }
        };
        Ok(Self { config, transport, sent: HashMap::new() })
    }

    /// Sends what changed since the last flush, gauges as they are.
    pub(crate) fn flush(&mut self, store: &Store, snapshot: &Snapshot) {
        let lines = self.lines(store, snapshot);
        match &self.transport {
            Transport::Udp(socket, address) => {
                for datagram in datagrams(&lines, self.config.datagram) {
                    // Nobody may be listening; the next flush tries again.
                    let _ = socket.send_to(datagram.as_bytes(), address);
                }
            }
            Transport::Tcp { cluster, connector, stream } => {
                let mut text = lines.join("\n");
                text.push('\n');
                let (cluster, connector, stream) = (cluster.clone(), connector.clone(), stream.clone());
                tokio::task::spawn_local(async move {
                    let mut stream = stream.lock().await;
                    if stream.is_none() {
                        *stream = connector.connect(&cluster).await.ok();
                    }
                    let Some(open) = &mut *stream else { return };
                    if open.write_all(text.as_bytes()).await.is_err() {
                        *stream = None;
                    }
                });
            }
        }
    }

    fn lines(&mut self, store: &Store, snapshot: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        let stored = snapshot.stats.iter().map(|(full, value)| (full, None, value));
        let unstored = snapshot.unstored.iter().map(|stat| (&stat.name, Some(&stat.tagged), &stat.value));
        for (full, tagged, value) in stored.chain(unstored) {
            let (name, tags) = self.name(store, full, tagged);
            match value {
                SnapshotValue::Counter(total) => {
                    let before = self.sent.insert(full.clone(), *total).unwrap_or(0);
                    // A counter that was reset begins again at zero.
                    let delta = total.checked_sub(before).unwrap_or(*total);
                    lines.push(format!("{name}:{delta}|c{tags}"));
                }
                SnapshotValue::Gauge(now) => lines.push(format!("{name}:{now}|g{tags}")),
                SnapshotValue::Histogram(histogram) => samples(&name, &tags, histogram, &mut lines),
                SnapshotValue::Text(_) => {}
            }
        }
        lines
    }

    /// The name with its prefix, and what follows the type: tags.
    fn name(&self, store: &Store, full: &str, tagged: Option<&Tagged>) -> (String, String) {
        let prefix = &self.config.prefix;
        if !self.config.tagged {
            return (format!("{prefix}.{full}"), String::new());
        }
        let tagged = tagged.cloned().unwrap_or_else(|| store.with_tag_rules(|rules| rules.extract(full)));
        let mut tags = String::new();
        for (at, (name, value)) in tagged.tags.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(tags, "{}{name}:{value}", if at == 0 { "|#" } else { "," });
        }
        (format!("{prefix}.{}", tagged.name), tags)
    }
}

/// The interval of a histogram: one line per bin, with a sample rate that stands for its count. Envoy sends each sample on its own; what a
/// server makes of it is the same.
fn samples(name: &str, tags: &str, histogram: &HistogramValue, lines: &mut Vec<String>) {
    for (low, _, count) in histogram.interval.iter() {
        let (value, kind) = match histogram.unit {
            Some(Unit::Microseconds) => (low / 1000.0, "ms"),
            Some(Unit::Percent) => (low / Unit::Percent.scale(), "h"),
            _ => (low, "ms"),
        };
        let rate = if count == 1 { String::new() } else { format!("|@{}", 1.0 / count as f64) };
        lines.push(format!("{name}:{value}|{kind}{rate}{tags}"));
    }
}

/// Lines as datagrams of at most `size` bytes, or each on its own.
fn datagrams(lines: &[String], size: Option<usize>) -> Vec<String> {
    let Some(size) = size else { return lines.to_vec() };
    let mut datagrams: Vec<String> = Vec::new();
    for line in lines {
        match datagrams.last_mut() {
            Some(last) if last.len() + 1 + line.len() <= size => {
                last.push('\n');
                last.push_str(line);
            }
            _ => datagrams.push(line.clone()),
        }
    }
    datagrams
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhow_proxy_xds::Connecting;
    use dhow_stats::Query;

    struct Nowhere;

    impl Connector for Nowhere {
        fn connect<'a>(&'a self, _cluster: &'a str) -> Connecting<'a> {
            Box::pin(async { Err(io::Error::other("nowhere")) })
        }
    }

    fn sink(tagged: bool) -> StatsdSink {
        let target = StatsdTarget::Udp((Ipv4Addr::LOCALHOST, 1).into());
        let config = StatsdConfig { prefix: "p".into(), target, tagged, datagram: None };
        StatsdSink::new(config, Rc::new(Nowhere)).unwrap()
    }

    #[test]
    fn counters_are_sent_as_differences() {
        let store = Store::new();
        let scope = store.scope("cluster.a.");
        let (total, active) = (scope.counter("upstream_rq_200"), scope.gauge("active"));
        let (mut plain, mut tagged) = (sink(false), sink(true));
        total.add(3);
        active.set(7);
        let used = Query { used_only: true, ..Query::default() };
        let first = store.snapshot(&used);
        assert_eq!(
            plain.lines(&store, &first),
            ["p.cluster.a.active:7|g", "p.cluster.a.upstream_rq_200:3|c"]
        );
        let tags = "envoy.response_code:200,envoy.cluster_name:a";
        let lines = [
            "p.cluster.active:7|g|#envoy.cluster_name:a".to_owned(),
            format!("p.cluster.upstream_rq:3|c|#{tags}"),
        ];
        assert_eq!(tagged.lines(&store, &first), lines);
        total.add(2);
        assert_eq!(plain.lines(&store, &store.snapshot(&used))[1], "p.cluster.a.upstream_rq_200:2|c");
    }

    #[test]
    fn samples_of_the_interval_are_sent_with_their_rate() {
        let store = Store::new();
        let scope = store.scope("a.");
        let time = scope.histogram("time", Unit::Milliseconds);
        for value in [5, 5, 70] {
            time.record(value);
        }
        store.merge_histograms();
        let lines = sink(false).lines(&store, &store.snapshot(&Query::default()));
        assert_eq!(lines, ["p.a.time:5|ms|@0.5", "p.a.time:70|ms"]);
    }

    #[test]
    fn datagrams_are_filled_up_to_their_size() {
        let lines = ["aaaa".to_owned(), "bbbb".to_owned(), "cccccccccccc".to_owned()];
        assert_eq!(datagrams(&lines, Some(9)), ["aaaa\nbbbb", "cccccccccccc"]);
        assert_eq!(datagrams(&lines, None).len(), 3);
    }
}
