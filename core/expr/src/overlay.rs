//! Contexts that show other headers than the context below them: what is being edited cannot be borrowed by it.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use dhow_base::ResponseFlags;
use dhow_http::HeaderMap;

use crate::address::Address;
use crate::context::{
    AddressFact, FilterStateObject, FormatContext, MetadataSource, NumberFact, TextFact, TimePoint,
};
use crate::pb::protobuf::Struct;

/// A context with these request headers, and everything else from the context below.
#[derive(Clone, Copy)]
pub struct WithRequestHeaders<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// All other facts.
    pub below: &'a dyn FormatContext,
}

/// A context with these response headers, and everything else from the context below.
#[derive(Clone, Copy)]
pub struct WithResponseHeaders<'a> {
    /// The headers.
    pub headers: &'a HeaderMap,
    /// All other facts.
    pub below: &'a dyn FormatContext,
}

macro_rules! delegate {
    ($type:ident: $own:ident, $other:ident) => {
        impl FormatContext for $type<'_> {
            fn $own(&self) -> Option<&HeaderMap> {
                Some(self.headers)
            }
            fn $other(&self) -> Option<&HeaderMap> {
                self.below.$other()
            }
            fn response_trailers(&self) -> Option<&HeaderMap> {
                self.below.response_trailers()
            }
            fn start_time(&self) -> Option<SystemTime> {
                self.below.start_time()
            }
            fn now(&self) -> Option<SystemTime> {
                self.below.now()
            }
            fn time(&self, point: TimePoint) -> Option<Duration> {
                self.below.time(point)
            }
            fn number(&self, fact: NumberFact) -> Option<u64> {
                self.below.number(fact)
            }
            fn text(&self, fact: TextFact) -> Option<Cow<'_, str>> {
                self.below.text(fact)
            }
            fn address(&self, fact: AddressFact) -> Option<Address<'_>> {
                self.below.address(fact)
            }
            fn address_text(&self, fact: AddressFact) -> Option<&str> {
                self.below.address_text(fact)
            }
            fn response_flags(&self) -> ResponseFlags {
                self.below.response_flags()
            }
            fn metadata(&self, source: MetadataSource, namespace: &str) -> Option<&Struct> {
                self.below.metadata(source, namespace)
            }
            fn filter_state(&self, upstream: bool, key: &str) -> Option<&dyn FilterStateObject> {
                self.below.filter_state(upstream, key)
            }
        }
    };
}

delegate!(WithRequestHeaders: request_headers, response_headers);
delegate!(WithResponseHeaders: response_headers, request_headers);
