//! Which headers of a request a service passes on with the calls that it makes for it.

use http::{HeaderMap, HeaderName};

/// Passed on by every service that calls another one: what tracing systems and sign-in need to see along the whole way.
const FORWARDED: &[&str] = &[
    "x-request-id",
    "x-ot-span-context",
    "x-datadog-trace-id",
    "x-datadog-parent-id",
    "x-datadog-sampling-priority",
    "traceparent",
    "tracestate",
    "x-cloud-trace-context",
    "grpc-trace-bin",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "sw8",
    "user-agent",
    "cookie",
    "authorization",
    "jwt",
];

/// The user on whose behalf a call is made; routing rules match on it.
pub(crate) const END_USER: HeaderName = HeaderName::from_static("end-user");

/// The headers of `incoming` that go on with a call.
pub(crate) fn forwarded(incoming: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in FORWARDED {
        for value in incoming.get_all(*name) {
            headers.append(HeaderName::from_static(name), value.clone());
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_listed_headers_go_on_and_repeated_ones_stay_repeated() {
        let mut incoming = HeaderMap::new();
        incoming.insert("x-request-id", HeaderValue::from_static("1"));
        incoming.append("cookie", HeaderValue::from_static("a=1"));
        incoming.append("cookie", HeaderValue::from_static("b=2"));
        incoming.insert("accept", HeaderValue::from_static("*/*"));
        incoming.insert(END_USER, HeaderValue::from_static("mallory"));
        let headers = forwarded(&incoming);
        assert_eq!(headers["x-request-id"], "1");
        assert_eq!(headers.get_all("cookie").iter().count(), 2);
        assert_eq!(headers.len(), 3);
    }
}
