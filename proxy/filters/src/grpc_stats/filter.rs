//! Counts calls.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use dhow_expr::FilterStateObject;
use dhow_http::{HeaderMap, KnownHeader};
use dhow_proxy_api::{
    BodyPart, DataVerdict, FilterStateValue, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory,
    TrailersVerdict, Watches,
};
use dhow_routing::FilterOverride;
use dhow_stats::{Scope, Unit};

use super::config::Settings;
use super::counter::MessageCounter;

/// Key of the numbers of messages in the filter state.
const STATE_KEY: &str = "envoy.filters.http.grpc_stats";

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory(pub(super) Arc<Settings>);

impl HttpFilterFactory for Factory {
    fn create(&self, _levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        Some(Box::new(Filter { settings: self.0.clone(), call: None }))
    }
}

/// The filter of one stream.
struct Filter {
    settings: Arc<Settings>,
    /// The call, when the request is one.
    call: Option<Box<Call>>,
}

/// A gRPC call under way.
struct Call {
    /// Scope of the cluster, and the call's name under `grpc.`; none when it is not counted.
    counted: Option<(Scope, String)>,
    requests: MessageCounter,
    responses: MessageCounter,
    answered: bool,
    begun: Option<Instant>,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        if !is_grpc(request) {
            return HeadersVerdict::Continue;
        }
        let cluster = stream.route().and_then(|route| route.cluster(request));
        let scope = cluster.and_then(|cluster| stream.clusters.stats(cluster));
        let name = self.settings.name_of(request.path());
        self.call = Some(Box::new(Call {
            counted: scope.zip(name),
            requests: MessageCounter::default(),
            responses: MessageCounter::default(),
            answered: false,
            begun: None,
        }));
        HeadersVerdict::Continue
    }

    fn watches(&self) -> Watches {
        if self.call.is_some() { Watches::REQUEST.and(Watches::RESPONSE) } else { Watches::NOTHING }
    }

    fn decode_data(
        &mut self,
        _request: &mut HeaderMap,
        part: BodyPart<'_>,
        stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        let Some(call) = &mut self.call else { return DataVerdict::Continue };
        let messages = call.requests.inspect(part.data);
        if messages > 0 {
            call.count("request_message_count", messages);
            call.note(&self.settings, stream);
        }
        if part.end_stream {
            call.begun = Some(Instant::now());
        }
        DataVerdict::Continue
    }

    fn decode_trailers(
        &mut self,
        _request: &mut HeaderMap,
        _trailers: &mut HeaderMap,
        _stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        if let Some(call) = &mut self.call {
            call.begun = Some(Instant::now());
        }
        TrailersVerdict::Continue
    }

    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        response: &mut HeaderMap,
        end_stream: bool,
        _stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let Some(call) = &mut self.call else { return HeadersVerdict::Continue };
        call.answered = is_grpc_response(response, end_stream);
        call.charge(response);
        if end_stream {
            call.record_time(&self.settings);
        }
        HeadersVerdict::Continue
    }

    fn encode_data(
        &mut self,
        _response: &mut HeaderMap,
        part: BodyPart<'_>,
        stream: &mut FilterStream<'_>,
    ) -> DataVerdict {
        if let Some(call) = self.call.as_mut().filter(|call| call.answered) {
            let messages = call.responses.inspect(part.data);
            if messages > 0 {
                call.count("response_message_count", messages);
                call.note(&self.settings, stream);
            }
        }
        DataVerdict::Continue
    }

    fn encode_trailers(
        &mut self,
        _request: &HeaderMap,
        _response: &mut HeaderMap,
        trailers: &mut HeaderMap,
        _stream: &mut FilterStream<'_>,
    ) -> TrailersVerdict {
        if let Some(call) = &mut self.call {
            call.charge(trailers);
            call.record_time(&self.settings);
        }
        TrailersVerdict::Continue
    }

    fn renew(&mut self) -> bool {
        self.call = None;
        true
    }
}

impl Call {
    fn count(&self, what: &str, number: u64) {
        if let Some((scope, name)) = &self.counted {
            scope.counter(format!("grpc.{name}{what}")).add(number);
        }
    }

    /// Counts the outcome, if this head or these trailers have it.
    fn charge(&self, headers: &HeaderMap) {
        let Some(status) = headers.get_known(KnownHeader::GrpcStatus) else { return };
        let code = String::from_utf8_lossy(status);
        self.count(&code, 1);
        self.count(if status == b"0" { "success" } else { "failure" }, 1);
        self.count("total", 1);
    }

    fn record_time(&self, settings: &Settings) {
        if let (true, Some(begun), Some((scope, name))) = (settings.times_upstream, self.begun, &self.counted)
        {
            let histogram = scope.histogram(format!("grpc.{name}upstream_rq_time"), Unit::Milliseconds);
            histogram.record(begun.elapsed().as_millis() as u64);
        }
    }

    /// Leaves the numbers of messages in the filter state.
    fn note(&self, settings: &Settings, stream: &mut FilterStream<'_>) {
        if settings.emits_filter_state {
            let counts =
                MessageCounts { requests: self.requests.messages(), responses: self.responses.messages() };
            stream.info.filter_state.set(STATE_KEY, FilterStateValue::Object(Rc::new(counts)));
        }
    }
}

/// Numbers of messages, as format strings see them.
struct MessageCounts {
    requests: u64,
    responses: u64,
}

impl FilterStateObject for MessageCounts {
    fn append_text(&self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(format!("{},{}", self.requests, self.responses).as_bytes());
        true
    }

    fn append_json(&self, out: &mut Vec<u8>) -> bool {
        let Self { requests, responses } = self;
        // 64-bit numbers are texts in the JSON form of messages, and those that are zero are left out.
        let field = |name: &str, number: u64| (number > 0).then(|| format!("\"{name}\":\"{number}\""));
        let fields = [field("requestMessageCount", *requests), field("responseMessageCount", *responses)];
        let fields: Vec<_> = fields.into_iter().flatten().collect();
        out.extend_from_slice(format!("{{{}}}", fields.join(",")).as_bytes());
        true
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind =
        headers.get_known(KnownHeader::ContentType).and_then(|kind| kind.strip_prefix(b"application/grpc"));
    matches!(kind, Some([] | [b'+', ..]))
}

fn is_grpc_response(response: &HeaderMap, end_stream: bool) -> bool {
    if end_stream {
        // An answer that is over with its head is gRPC's when it brings the outcome.
        return response.contains_known(KnownHeader::GrpcStatus);
    }
    response.status() == Some(200) && is_grpc(response)
}
