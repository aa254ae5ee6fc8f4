//! Copies the values.

use std::borrow::Cow;
use std::sync::Arc;

use dhow_base::{base64, parse_double};
use dhow_http::{HeaderMap, HeaderName};
use dhow_matching::cookie_value;
use dhow_proto::Message;
use dhow_proto::envoy::extensions::filters::http::header_to_metadata::v3::config::ValueType;
use dhow_proto::google::protobuf::{Value, value::Kind};
use dhow_proxy_api::{DynamicMetadata, FilterStream, HeadersVerdict, HttpFilter, HttpFilterFactory};
use dhow_routing::FilterOverride;
use dhow_stats::Store;

use super::config::{Rule, Rules, Source, Target};
use crate::route_config::route_configs;

/// Values of this size are not copied any more.
const MAX_VALUE_BYTES: usize = 8 * 1024;

dhow_stats::stat_group! {
    /// `http_filter_name.<stat_prefix>.*`.
    pub(super) struct HeaderToMetadataStats {
        counters {
            base64_decode_failed, header_value_too_long, regex_substitution_failed, request_header_not_found,
            request_metadata_added, request_rules_processed, response_header_not_found,
            response_metadata_added, response_rules_processed,
        }
    }
}

/// The configured filter.
#[derive(Debug)]
pub(super) struct Factory {
    rules: Arc<Rules>,
    store: Store,
}

impl Factory {
    /// The filter of a configuration.
    pub(super) fn new(rules: Rules, store: &Store) -> Self {
        stats_of(&rules, store);
        Self { rules: Arc::new(rules), store: store.clone() }
    }
}

/// Rules count by themselves: a route's own rules without `stat_prefix` count nothing.
fn stats_of<'a>(rules: &'a Rules, store: &Store) -> Option<&'a HeaderToMetadataStats> {
    let name = || format!("http_filter_name.{}", rules.stat_prefix);
    (!rules.stat_prefix.is_empty()).then(|| rules.stats.get_or_init(|| store.scope(&name()).group()))
}

impl HttpFilterFactory for Factory {
    fn create(&self, levels: &[FilterOverride]) -> Option<Box<dyn HttpFilter>> {
        let rules: Arc<Rules> = route_configs(levels).next().unwrap_or_else(|| self.rules.clone());
        if rules.request.is_empty() && rules.response.is_empty() {
            return None;
        }
        let stats = stats_of(&rules, &self.store).cloned();
        Some(Box::new(Filter { rules, stats }))
    }
}

/// The filter of one stream.
struct Filter {
    rules: Arc<Rules>,
    stats: Option<HeaderToMetadataStats>,
}

impl HttpFilter for Filter {
    fn decode_headers(
        &mut self,
        request: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let metadata = &mut stream.info.dynamic_metadata;
        for rule in &self.rules.request {
            let (missing, applied) = rule.apply(request, metadata);
            if let Some(stats) = &self.stats {
                stats.request_rules_processed().inc();
                if missing {
                    stats.request_header_not_found().inc();
                }
                match applied {
                    Applied::Added => stats.request_metadata_added().inc(),
                    other => count(stats, other),
                }
            }
        }
        HeadersVerdict::Continue
    }

    fn encode_headers(
        &mut self,
        _request: &HeaderMap,
        response: &mut HeaderMap,
        _end_stream: bool,
        stream: &mut FilterStream<'_>,
    ) -> HeadersVerdict {
        let metadata = &mut stream.info.dynamic_metadata;
        for rule in &self.rules.response {
            let (missing, applied) = rule.apply(response, metadata);
            if let Some(stats) = &self.stats {
                stats.response_rules_processed().inc();
                if missing {
                    stats.response_header_not_found().inc();
                }
                match applied {
                    Applied::Added => stats.response_metadata_added().inc(),
                    other => count(stats, other),
                }
            }
        }
        HeadersVerdict::Continue
    }
}

fn count(stats: &HeaderToMetadataStats, applied: Applied) {
    match applied {
        Applied::NotBase64 => stats.base64_decode_failed().inc(),
        Applied::TooLong => stats.header_value_too_long().inc(),
        Applied::Added | Applied::Nothing => {}
    }
}

/// What a rule did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Applied {
    Added,
    NotBase64,
    TooLong,
    Nothing,
}

impl Rule {
    /// Whether the header was missing and something was to be done about it, and what was done.
    fn apply(&self, headers: &mut HeaderMap, metadata: &mut DynamicMetadata) -> (bool, Applied) {
        let value = match &self.source {
            Source::Header(name) => joined(headers, name),
            Source::Cookie(name) => {
                cookie_value(headers, name.as_bytes()).filter(|value| !value.is_empty()).map(Cow::Borrowed)
            }
        };
        let Some(value) = value else {
            return match &self.on_missing {
                Some(target) => (true, target.set(b"", metadata)),
                None => (false, Applied::Nothing),
            };
        };
        let applied =
            self.on_present.as_ref().map_or(Applied::Nothing, |target| target.set(&value, metadata));
        if let (Source::Header(name), true) = (&self.source, self.removes && self.on_present.is_some()) {
            headers.remove(name);
        }
        (false, applied)
    }
}

/// All values of a header, with commas between them.
fn joined<'a>(headers: &'a HeaderMap, name: &'a HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name);
    let mut all = Cow::Borrowed(values.next()?);
    for value in values {
        let all = all.to_mut();
        all.push(b',');
        all.extend_from_slice(value);
    }
    Some(all)
}

impl Target {
    /// Sets the value of a header, or the configured one instead.
    fn set(&self, found: &[u8], metadata: &mut DynamicMetadata) -> Applied {
        let mut value = Cow::Borrowed(if self.value.is_empty() { found } else { self.value.as_bytes() });
        if let (Some(rewrite), true) = (&self.rewrite, self.value.is_empty()) {
            value = Cow::Owned(rewrite.apply(&value));
        }
        if value.is_empty() {
            return Applied::Nothing;
        }
        if value.len() >= MAX_VALUE_BYTES {
            return Applied::TooLong;
        }
        if self.is_base64 {
            let decoded = std::str::from_utf8(&value).ok().and_then(base64::decode_standard);
            let Some(decoded) = decoded.filter(|bytes| !bytes.is_empty()) else { return Applied::NotBase64 };
            value = Cow::Owned(decoded);
        }
        let kind = match self.kind {
            ValueType::String => Some(Kind::StringValue(String::from_utf8_lossy(&value).into_owned())),
            ValueType::Number => {
                std::str::from_utf8(&value).ok().and_then(parse_double).map(Kind::NumberValue)
            }
            ValueType::ProtobufValue => Value::decode(&*value).ok().and_then(|value| value.kind),
        };
        let Some(kind) = kind else { return Applied::Nothing };
        metadata.set(&self.namespace, &self.key, Value { kind: Some(kind) });
        Applied::Added
    }
}
