//! `upstream_log` and `track_cluster_stats`: what is logged and recorded of each attempt alone.

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
pub(super) struct AttemptLog {
    info: StreamInfo,
    /// Bytes of the stream's request and response bodies when the attempt began.
    before: (u64, u64),
    /// The head of its response as it came.
    response: Option<HeadSize>,
}

impl Exchange {
    fn upstream_logs(&self) -> Option<&UpstreamLogs> {
        self.chain().router.as_ref()?.upstream_logs.as_deref()
    }

    /// Begins the entry of an attempt whose host is chosen.
    pub(super) fn begin_attempt_log(&self, forwarding: &mut Forwarding) {
        if self.upstream_logs().is_none() && forwarding.cluster.info().stats.tracked().is_none() {
            return;
        }
        let stream = &self.info;
        let mut info = StreamInfo::new(stream.connection.clone(), None, clock::now(), stream.stream_id);
        info.client_address = stream.client_address;
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
        forwarding.log = Some(Box::new(AttemptLog { info, before, response: None }));
    }

    /// The attempt has its stream.
    pub(super) fn log_attempt_stream(&self, forwarding: &mut Forwarding, upstream: &UpstreamStream) {
        let Some(log) = &mut forwarding.log else { return };
        log.info.protocol = self.info.protocol;
        log.info.upstream.protocol = upstream.protocol();
        log.info.upstream.local_address = upstream.connection().local_address();
        log.info.upstream.connection_id = Some(upstream.connection().id());
        if self.upstream_logs().is_some_and(|logs| logs.on_stream) {
            log.info.log_moment = LogMoment::UpstreamStream;
            self.write_attempt_log(&mut log.info, None);
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
        log: Box<AttemptLog>,
        response: Option<&HeaderMap>,
        used_time: bool,
    ) {
        let AttemptLog { mut info, before: (received, sent), response: head } = *log;
        // Seen from the attempt, the request is what was sent.
        info.bytes_sent = self.info.bytes_received - received;
        info.bytes_received = self.info.bytes_sent - sent;
        if let Some(stats) = forwarding.cluster.info().stats.tracked() {
            stats.record_sizes(&AttemptSizes {
                request: HeadSize::of(&self.request),
                request_body: info.bytes_sent,
                response: head,
                response_body: info.bytes_received,
            });
            if used_time {
                let elapsed = clock::now().saturating_duration_since(info.start);
                stats.record_attempt_time(elapsed, forwarding.timeouts.per_try);
            }
        }
        info.upstream.first_tx = self.info.upstream.first_tx;
        info.upstream.last_tx = self.info.upstream.last_tx;
        info.upstream.first_rx = self.info.upstream.first_rx.filter(|_| response.is_some());
        info.upstream.last_rx = self.info.upstream.last_rx.filter(|_| response.is_some());
        info.log_moment = LogMoment::UpstreamEnd;
        self.write_attempt_log(&mut info, response);
    }

    fn write_attempt_log(&self, info: &mut StreamInfo, response: Option<&HeaderMap>) {
        let Some(logs) = self.upstream_logs() else { return };
        info.end = Some(clock::now());
        let request = Some(&self.request);
        let context = StreamFormat { request, response, ..StreamFormat::new(info) };
        for log in &logs.logs {
            log.log(&context, &Logged { info, request });
        }
    }
}
