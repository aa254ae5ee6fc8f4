//! `upstream_log` and `track_cluster_stats`: what is logged and recorded of each attempt alone.

use std::sync::Arc;
use std::time::Instant;

use dhow_base::ResponseFlag;
use dhow_http::HeaderMap;
use dhow_proxy_access_log::Logged;
use dhow_proxy_api::{LogMoment, StreamFormat, StreamInfo, UpstreamInfo};
use dhow_proxy_runtime::clock;
use dhow_proxy_upstream::{AttemptSizes, HeadSize};

use super::{Forwarding, Outcome};
use crate::config::UpstreamLogs;
use crate::reset::Reset;
use crate::stream::Exchange;
use crate::upstream::UpstreamStream;

/// The facts of an attempt that will be logged or recorded.
#[derive(Debug)]
pub(crate) struct AttemptLog {
    info: StreamInfo,
    /// Where it is logged, if it is.
    logs: Option<Arc<UpstreamLogs>>,
    /// Bytes of the stream's request and response bodies when the attempt began.
    before: (u64, u64),
    /// The head of its response as it came.
    response: Option<HeadSize>,
}

impl AttemptLog {
    /// Writes an entry of the attempt as it is by now, whose stream has these facts; gives the time of the next one.
    pub(crate) fn write_periodic(
        &mut self,
        stream: &StreamInfo,
        request: &HeaderMap,
        response: &HeaderMap,
        now: Instant,
    ) -> Option<Instant> {
        let response = Some(response).filter(|_| self.response.is_some());
        self.note_progress(stream, response);
        self.info.response_code = response.and_then(HeaderMap::status);
        self.write(LogMoment::UpstreamPeriodic, request, response, now);
        Some(now + self.logs.as_ref()?.interval?)
    }

    /// Takes over what the stream knows of the attempt. Seen from the attempt, the request is what was sent.
    fn note_progress(&mut self, stream: &StreamInfo, response: Option<&HeaderMap>) {
        let (info, (received, sent)) = (&mut self.info, self.before);
        info.bytes_sent = stream.bytes_received - received;
        info.bytes_received = stream.bytes_sent - sent;
        info.upstream.first_tx = stream.upstream.first_tx;
        info.upstream.last_tx = stream.upstream.last_tx;
        info.upstream.first_rx = stream.upstream.first_rx.filter(|_| response.is_some());
        info.upstream.last_rx = stream.upstream.last_rx.filter(|_| response.is_some());
    }

    fn write(&mut self, moment: LogMoment, request: &HeaderMap, response: Option<&HeaderMap>, now: Instant) {
        let Some(logs) = &self.logs else { return };
        let info = &mut self.info;
        info.log_moment = moment;
        info.end = Some(now);
        let request = Some(request);
        let context = StreamFormat { request, response, ..StreamFormat::new(info) };
        for log in &logs.logs {
            log.log(&context, &Logged { info, request });
        }
    }
}

impl Exchange {
    fn upstream_logs(&self) -> Option<&Arc<UpstreamLogs>> {
        self.chain().router.as_ref()?.upstream_logs.as_ref()
    }

    /// Begins the entry of an attempt whose host is chosen.
    pub(super) fn begin_attempt_log(&mut self, forwarding: &mut Forwarding) {
        if self.upstream_logs().is_none() && forwarding.cluster.info().stats.tracked().is_none() {
            return;
        }
        let stream = &self.info;
        let now = clock::now();
        let mut info = StreamInfo::new(stream.connection.clone(), None, now, stream.stream_id);
        info.client_address = stream.client_address.clone();
        info.route = stream.route.clone();
        info.downstream_bytes = stream.downstream_bytes.clone();
        info.upstream_bytes = stream.upstream_bytes.clone();
        info.upstream = UpstreamInfo {
            cluster: stream.upstream.cluster.clone(),
            host: stream.upstream.host.clone(),
            hostname: stream.upstream.hostname.clone(),
            ..UpstreamInfo::default()
        };
        let before = (stream.bytes_received, stream.bytes_sent);
        let logs = self.upstream_logs().cloned();
        self.deadlines.attempt_log = logs.as_ref().and_then(|logs| Some(now + logs.interval?));
        forwarding.log = Some(Box::new(AttemptLog { info, logs, before, response: None }));
    }

    /// The attempt has its stream.
    pub(super) fn log_attempt_stream(&self, forwarding: &mut Forwarding, upstream: &UpstreamStream) {
        let Some(log) = &mut forwarding.log else { return };
        log.info.protocol = self.info.protocol;
        log.info.upstream.protocol = upstream.protocol();
        log.info.upstream.local_address = upstream.connection().local_address();
        log.info.upstream.connection_id = Some(upstream.connection().id());
        if log.logs.as_ref().is_some_and(|logs| logs.on_stream) {
            log.write(LogMoment::UpstreamStream, &self.request, None, clock::now());
        }
    }

    /// The attempt ended without a response, by a reset or in another way, which may have a flag.
    pub(super) fn log_attempt_failure(
        &self,
        forwarding: &mut Forwarding,
        reset: Option<&Reset>,
        flag: Option<ResponseFlag>,
    ) {
        let Some(mut log) = forwarding.log.take() else { return };
        log.info.upstream.transport_failure =
            reset.and_then(|reset| reset.transport.as_deref()).map(Into::into);
        let flag = reset.map(|reset| reset.kind.flag()).or(flag);
        if let Some(flag) = flag {
            log.info.flag(flag);
        }
        // An attempt whose end came from elsewhere used none of its time.
        self.end_attempt_log(forwarding, log, None, flag.is_some());
    }

    /// What came of an attempt that brought no response, told by its outcome.
    pub(super) fn log_outcome(&self, forwarding: &mut Forwarding, outcome: &Outcome) {
        if forwarding.log.is_none() {
            return;
        }
        match outcome {
            Outcome::Reset(reset) => self.log_attempt_failure(forwarding, Some(reset), None),
            Outcome::PerTryTimeout { .. } => {
                self.log_attempt_failure(forwarding, None, Some(ResponseFlag::UpstreamRequestTimeout));
            }
            Outcome::TooLong => {
                let flag = ResponseFlag::UpstreamMaxStreamDurationReached;
                self.log_attempt_failure(forwarding, None, Some(flag));
            }
            Outcome::Final(_) | Outcome::Interrupted(_) => self.log_attempt_failure(forwarding, None, None),
            Outcome::Response(..) => {
                if let Some(log) = &mut forwarding.log {
                    log.response = Some(HeadSize::of(&self.response));
                }
            }
            Outcome::SoftTimeout(_) => {}
        }
    }

    /// The attempt whose response head is here ended, before or after the response was passed on.
    pub(super) fn log_attempt_end(&self, forwarding: &mut Forwarding, status: u16, broken: Option<&Reset>) {
        let Some(mut log) = forwarding.log.take() else { return };
        log.info.response_code = Some(status);
        if let Some(reset) = broken {
            log.info.flag(reset.kind.flag());
        }
        self.end_attempt_log(forwarding, log, Some(&self.response), true);
    }

    fn end_attempt_log(
        &self,
        forwarding: &Forwarding,
        mut log: Box<AttemptLog>,
        response: Option<&HeaderMap>,
        used_time: bool,
    ) {
        log.note_progress(&self.info, response);
        if let Some(stats) = forwarding.cluster.info().stats.tracked() {
            stats.record_sizes(&AttemptSizes {
                request: HeadSize::of(&self.request),
                request_body: log.info.bytes_sent,
                response: log.response,
                response_body: log.info.bytes_received,
            });
            if used_time {
                let elapsed = clock::now().saturating_duration_since(log.info.start);
                stats.record_attempt_time(elapsed, forwarding.timeouts.per_try);
            }
        }
        log.write(LogMoment::UpstreamEnd, &self.request, response, clock::now());
    }
}
