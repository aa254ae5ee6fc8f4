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

dhow_stats::stat_group! {
    /// What is counted of the checks that the filter answers, `http.<stat_prefix>.health_check.*`.
    pub(super) struct AnswerStats {
        counters {
            cached_response, degraded, failed, failed_cluster_empty, failed_cluster_not_found,
            failed_cluster_unhealthy, ok, request_total,
        }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    settings: Arc<Settings>,
    stats: AnswerStats,
    node_cluster: Arc<str>,
    start: Instant,
}

impl Factory {
    /// The filter of a configuration, in a node of the cluster `node_cluster`.
    pub(super) fn new(settings: Settings, stats: AnswerStats, node_cluster: &str) -> Self {
        Self { settings: Arc::new(settings), stats, node_cluster: node_cluster.into(), start: Instant::now() }
    }
}

impl HttpFilterFactory for Factory {
    fn create(&self, _levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter {
            settings: self.settings.clone(),
            stats: self.stats.clone(),
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
    stats: AnswerStats,
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
        let has_answer = || settings.cache.as_ref().is_some_and(|cache| cache.is_valid(self.start.elapsed()));
        if settings.passes_through && !stream.clusters.is_failing_health_checks() && !has_answer() {
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
        if self.check != Check::None {
            // The filter's own answers are kept too, as in Envoy: a failure that the operator asked for is repeated
            // until the end of the period, even after it was called off.
            if let Some(cache) = &self.settings.cache {
                let degraded = response.contains_known(KnownHeader::XEnvoyDegraded);
                let status = response.status().unwrap_or(503);
                cache.set(Answer { status, degraded }, self.start.elapsed());
            }
            let name = KnownHeader::XEnvoyUpstreamHealthcheckedCluster;
            response.set(&name.into(), self.node_cluster.as_bytes());
        }
        if stream.clusters.is_failing_health_checks() {
            response.set(&KnownHeader::XEnvoyImmediateHealthCheckFail.into(), b"true");
        }
        HeadersVerdict::Continue
    }
}

impl Filter {
    /// Answers the check, and counts it.
    fn answer(&self, clusters: &dyn Clusters) -> LocalReply {
        let stats = &self.stats;
        stats.request_total().inc();
        let (answer, details) = self.judge(clusters);
        let Answer { status, degraded } = answer;
        let mut reply = LocalReply::new(status, &b""[..], details);
        if (200..300).contains(&status) {
            stats.ok().inc();
        } else {
            stats.failed().inc();
            reply = reply.flag(ResponseFlag::FailedLocalHealthCheck);
        }
        if !degraded {
            return reply;
        }
        stats.degraded().inc();
        reply.header(KnownHeader::XEnvoyDegraded, &b""[..])
    }

    /// The answer, with its reason.
    fn judge(&self, clusters: &dyn Clusters) -> (Answer, &'static str) {
        let failed = |details| (Answer { status: 503, degraded: false }, details);
        let stats = &self.stats;
        if clusters.is_failing_health_checks() {
            return failed("health_check_failed");
        }
        if let Some(cache) = &self.settings.cache {
            stats.cached_response().inc();
            return (cache.last(), "health_check_cached");
        }
        for (name, wanted) in &self.settings.clusters {
            let Some(hosts) = clusters.membership(name) else {
                stats.failed_cluster_not_found().inc();
                return failed("health_check_failed_no_cluster_found");
            };
            if hosts.total == 0 {
                if *wanted > 0 {
                    stats.failed_cluster_empty().inc();
                    return failed("health_check_failed_cluster_empty");
                }
                continue;
            }
            if 100 * (hosts.healthy + hosts.degraded) < hosts.total * wanted {
                stats.failed_cluster_unhealthy().inc();
                return failed("health_check_failed_cluster_unhealthy");
            }
        }
        let of_clusters = !self.settings.clusters.is_empty();
        let details = if of_clusters { "health_check_ok_cluster_healthy" } else { "health_check_ok" };
        (Answer { status: 200, degraded: false }, details)
    }
}
