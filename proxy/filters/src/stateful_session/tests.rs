//! What the filter does to single streams.

use std::time::Duration;

use dhow_http::HeaderMap;
use dhow_proto::envoy::extensions::filters::http::stateful_session::v3::StatefulSession;
use dhow_stats::Store;

use super::cookie;
use crate::fixtures::{Stream, configure, lines, request};

fn session(kind: &str, config: &str) -> String {
    let config_type = match kind {
        "header" => "header.v3.HeaderBasedSessionState",
        "envelope" => "envelope.v3.EnvelopeSessionState",
        _ => "cookie.v3.CookieBasedSessionState",
    };
    format!(
        "session_state: {{name: envoy.http.stateful_session.{kind}, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.http.stateful_session.{config_type}, {config}}}}}"
    )
}

#[test]
fn cookies_name_a_host_until_they_end() {
    let value = cookie::write("10.0.0.1:80", 100);
    let read = |second| cookie::read(value.as_bytes(), Duration::from_secs(second));
    assert_eq!(read(100).as_deref(), Some("10.0.0.1:80"));
    assert_eq!(read(101), None);
    assert_eq!(cookie::read(b"???", Duration::ZERO), None);
}

#[test]
fn an_envelope_is_opened_for_upstream_and_closed_for_the_client() {
    let factory =
        configure::<StatefulSession>(&session("envelope", "header: {name: x-app}"), &Store::new()).unwrap();
    let mut stream = Stream::new(0);
    let mut filter = stream.create(&*factory).unwrap();
    let mut head = request("/", &[("x-app", "MTAuMC4wLjE6ODA=;UV:dG9rZW4=")]);
    stream.decode(&mut *filter, &mut head);
    assert!(lines(&head).contains(&"x-app: token".to_owned()));
    assert_eq!(&*stream.info.override_host.as_ref().unwrap().address, "10.0.0.1:80");
    stream.info.upstream.host = Some("10.0.0.1:80".into());
    let mut response = HeaderMap::new();
    response.append(b"x-app", b"token");
    stream.encode(&mut *filter, &head, &mut response);
    assert_eq!(lines(&response), ["x-app: MTAuMC4wLjE6ODA=;UV:dG9rZW4="]);
}

#[test]
fn states_are_found_by_name() {
    let yaml = session("other", "cookie: {name: a}");
    let error = configure::<StatefulSession>(&yaml, &Store::new()).unwrap_err();
    assert!(error.reason.contains("Didn't find a registered implementation"), "{error}");
}
