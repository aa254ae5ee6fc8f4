//! Answers checks.

use std::sync::Arc;
use std::time::Instant;

use dhow_base::ResponseFlag;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_matching::all_match;
use dhow_proxy_api::{
    BodyPart, Clusters, DataVerdict, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory, LocalReply,
    TrailersVerdict, Watches,
};
use dhow_routing::FilterOverride;

use super::cache::Answer;
use super::config::Settings;

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    settings: Arc<Settings>,
    node_cluster: Arc<str>,
    start: Instant,
}

impl Factory {
    /// The filter of a configuration, in a node of the cluster `node_cluster`.
    pub(super) fn new(settings: Settings, node_cluster: &str) -> Self {
        Self { settings: Arc::new(settings), node_cluster: node_cluster.into(), start: Instant::now() }
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, _levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            settings: self.settings.clone(),
            node_cluster: self.node_cluster.clone(),
            start: self.start,
            check: Check::None,
        }))
    }
}

/// What the request is to the filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// No check.
    None,
    /// A check that somebody behind the filter answers.
    Passed,
    /// A check that the filter answers.
    Answered,
}

/// The filter of one stream.
struct Filter {
    settings: Arc<Settings>,
    node_cluster: Arc<str>,
    start: Instant,
    check: Check,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let settings = &*self.settings;
        if !all_match(&settings.headers, request) {
            return HeadersVerdict::Continue;
        }
        stream.info.health_check = true;
        let cached = settings.cache.as_ref().and_then(|cache| cache.get(self.start.elapsed()));
        if settings.passes_through && cached.is_none() {
            self.check = Check::Passed;
            return HeadersVerdict::Continue;
        }
        self.check = Check::Answered;
        if end_stream {
            return HeadersVerdict::LocalReply(self.answer(stream.clusters));
        }
        HeadersVerdict::Hold
    }

    fn watches(&self) -> Watches {
        if self.check == Check::Answered { Watches::REQUEST } else { Watches::NOTHING }
    }

    fn decode_data(
        &mut self,
        _request: &mut HeaderMap,
        part: BodyPart<'_>,
        stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        part.data.clear();
        if part.end_stream {
            return DataVerdict::LocalReply(self.answer(stream.clusters));
        }
        DataVerdict::StopAndBuffer
    }

    fn decode_trailers(
        &mut self,
        _request: &mut HeaderMap,
        _trailers: &mut HeaderMap,
        stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        TrailersVerdict::LocalReply(self.answer(stream.clusters))
    }

    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        if stream.clusters.is_failing_health_checks() {
            response.set(&KnownHeader::XEnvoyImmediateHealthCheckFail.into(), b"true");
        }
        if self.check == Check::None {
            return HeadersVerdict::Continue;
        }
        if let (Check::Passed, Some(cache)) = (self.check, &self.settings.cache) {
            let degraded = response.contains_known(KnownHeader::XEnvoyDegraded);
            let status = response.status().unwrap_or(503);
            cache.set(Answer { status, degraded }, self.start.elapsed());
        }
        let name = KnownHeader::XEnvoyUpstreamHealthcheckedCluster;
        response.set(&name.into(), self.node_cluster.as_bytes());
        HeadersVerdict::Continue
    }
}

impl Filter {
    fn answer(&self, clusters: &dyn Clusters) -> LocalReply {
        let failed = |details: &'static str| {
            LocalReply::new(503, &b""[..], details).flag(ResponseFlag::FailedLocalHealthCheck)
        };
        if clusters.is_failing_health_checks() {
            return failed("health_check_failed");
        }
        if let Some(cache) = &self.settings.cache {
            return match cache.get(self.start.elapsed()) {
                Some(Answer { status, degraded }) => {
                    let mut reply = LocalReply::new(status, &b""[..], "health_check_cached");
                    if !(200..300).contains(&status) {
                        reply = reply.flag(ResponseFlag::FailedLocalHealthCheck);
                    }
                    if degraded { reply.header(KnownHeader::XEnvoyDegraded, &b""[..]) } else { reply }
                }
                // The answer ran out while the body of the check came.
                None => LocalReply::new(200, &b""[..], "health_check_cached"),
            };
        }
        for (name, wanted) in &self.settings.clusters {
            let Some(hosts) = clusters.membership(name) else {
                return failed("health_check_failed_no_cluster_found");
            };
            if hosts.total == 0 {
                if *wanted > 0 {
                    return failed("health_check_failed_cluster_empty");
                }
                continue;
            }
            if 100 * (hosts.healthy + hosts.degraded) < hosts.total * wanted {
                return failed("health_check_failed_cluster_unhealthy");
            }
        }
        LocalReply::new(200, &b""[..], "health_check_ok")
    }
}
