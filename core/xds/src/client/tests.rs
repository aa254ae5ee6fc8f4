use std::time::{Duration, Instant};

use dhow_base::Rng;

use super::{ClientConfig, ClientEvent, ClientSession};
use crate::fixtures::{body, delta_request, delta_response, names, node, sotw_request, sotw_response, wire};
use crate::messages::{DeltaDiscoveryResponse, WireResource};
use crate::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE};
use crate::{Interest, Response, Variant};

const TIMEOUT: Option<Duration> = Some(Duration::from_secs(15));

fn session(variant: Variant) -> ClientSession {
    ClientSession::new(ClientConfig::new(variant, node()), Rng::seeded(1))
}

fn opened(variant: Variant, interests: &[(&str, Interest)]) -> (ClientSession, Instant) {
    let mut session = session(variant);
    let now = Instant::now();
    for (type_url, interest) in interests {
        session.set_interest(type_url, interest.clone(), TIMEOUT, now);
    }
    assert!(session.poll_request().is_none(), "nothing can be sent before there is a stream");
    assert!(session.wants_connection(now));
    session.connecting();
    assert!(!session.wants_connection(now));
    session.stream_opened();
    (session, now)
}

fn accept_next(session: &mut ClientSession, response: Response) -> crate::Update {
    let delivery = session.handle_response(response).expect("something to apply");
    session.accept(delivery.receipt);
    delivery.update
}

fn reopen(session: &mut ClientSession, now: Instant) {
    session.stream_closed(now);
    session.connecting();
    session.stream_opened();
}

#[test]
fn first_requests_go_out_in_order_with_the_node_and_without_nonce() {
    let (mut session, _) = opened(
        Variant::StateOfTheWorld,
        &[
            (ROUTE, Interest::names(["r"])),
            (LISTENER, Interest::Wildcard),
            (ENDPOINT, Interest::names(["b", "a"])),
            (CLUSTER, Interest::Wildcard),
        ],
    );
    for (type_url, expected) in
        [(CLUSTER, &[][..]), (ENDPOINT, &["a", "b"]), (LISTENER, &[]), (ROUTE, &["r"])]
    {
        let request = sotw_request(session.poll_request());
        assert_eq!(request.type_url, type_url);
        assert_eq!(request.resource_names, names(expected));
        assert_eq!(request.node, Some(node()));
        assert_eq!((request.version_info.as_str(), request.response_nonce.as_str()), ("", ""));
    }
    assert_eq!(session.poll_request(), None);
}

#[test]
fn the_node_can_be_limited_to_the_first_message_of_each_stream() {
    let mut config = ClientConfig::new(Variant::Delta, node());
    config.set_node_on_first_message_only = true;
    let mut session = ClientSession::new(config, Rng::seeded(1));
    let now = Instant::now();
    session.set_interest(CLUSTER, Interest::Wildcard, None, now);
    session.set_interest(LISTENER, Interest::Wildcard, None, now);
    session.stream_opened();
    for _ in 0..2 {
        assert!(delta_request(session.poll_request()).node.is_some());
        assert!(delta_request(session.poll_request()).node.is_none());
        reopen(&mut session, now);
    }
}

#[test]
fn sotw_acknowledges_with_the_new_version_and_refuses_with_the_previous_one() {
    let (mut session, _) = opened(Variant::StateOfTheWorld, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();

    let update = accept_next(&mut session, sotw_response(CLUSTER, "v1", "n1", &["a", "b"]));
    assert!(update.is_state_of_the_world && update.removed.is_empty());
    assert_eq!(update.added[1].name, "b");
    let ack = sotw_request(session.poll_request());
    assert_eq!((ack.version_info.as_str(), ack.response_nonce.as_str()), ("v1", "n1"));
    assert_eq!(ack.error_detail, None);

    let delivery = session.handle_response(sotw_response(CLUSTER, "v2", "n2", &["a"])).expect("to apply");
    assert_eq!(delivery.update.removed, ["b"], "absence deletes");
    session.refuse(delivery.receipt, "no good");
    let nack = sotw_request(session.poll_request());
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("v1", "n2"));
    let error = nack.error_detail.expect("a refusal says why");
    assert_eq!((error.code, error.message.as_str()), (13, "no good"));
    assert_eq!(session.poll_request(), None);

    let update = accept_next(&mut session, sotw_response(CLUSTER, "v3", "n3", &[]));
    assert_eq!(update.removed, ["a", "b"], "the refused removal is repeated");
    assert_eq!(sotw_request(session.poll_request()).error_detail, None);
}

#[test]
fn absence_does_not_delete_endpoints_and_unasked_names_are_ignored() {
    let (mut session, _) = opened(Variant::StateOfTheWorld, &[(ENDPOINT, Interest::names(["a", "b"]))]);
    session.poll_request();
    accept_next(&mut session, sotw_response(ENDPOINT, "v1", "n1", &["a", "b"]));
    let update = accept_next(&mut session, sotw_response(ENDPOINT, "v2", "n2", &["b", "other"]));
    assert!(update.removed.is_empty());
    assert_eq!(update.added.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["b"]);
    session.poll_request();

    assert!(session.handle_response(sotw_response(ENDPOINT, "v3", "n3", &["other"])).is_none());
    let ack = sotw_request(session.poll_request());
    assert_eq!(
        (ack.version_info.as_str(), ack.response_nonce.as_str()),
        ("v3", "n3"),
        "acknowledged all the same"
    );
}

#[test]
fn sotw_says_star_once_names_were_listed_and_stays_silent_without_interest() {
    let (mut session, now) = opened(Variant::StateOfTheWorld, &[(CLUSTER, Interest::Wildcard)]);
    assert!(sotw_request(session.poll_request()).resource_names.is_empty());
    let both = Interest::WildcardAnd(["on-demand".to_owned()].into());
    session.set_interest(CLUSTER, both, TIMEOUT, now);
    assert_eq!(sotw_request(session.poll_request()).resource_names, ["*", "on-demand"]);
    session.set_interest(CLUSTER, Interest::Wildcard, TIMEOUT, now);
    assert_eq!(
        sotw_request(session.poll_request()).resource_names,
        ["*"],
        "an empty list would mean none by now"
    );

    session.set_interest(ENDPOINT, Interest::names([""; 0]), TIMEOUT, now);
    assert_eq!(session.poll_request(), None, "an empty first request would ask for everything");
}

#[test]
fn after_a_reconnection_sotw_repeats_its_version_without_nonce() {
    let (mut session, now) = opened(Variant::StateOfTheWorld, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    accept_next(&mut session, sotw_response(CLUSTER, "v1", "n1", &["a"]));
    reopen(&mut session, now);
    let request = sotw_request(session.poll_request());
    assert_eq!((request.version_info.as_str(), request.response_nonce.as_str()), ("v1", ""));
    let update = accept_next(&mut session, sotw_response(CLUSTER, "v2", "n1", &["b"]));
    assert_eq!(update.removed, ["a"], "what is held is remembered across streams");
}

#[test]
fn delta_sends_differences_and_answers_each_response() {
    let (mut session, now) = opened(Variant::Delta, &[(ENDPOINT, Interest::names(["a", "b"]))]);
    let first = delta_request(session.poll_request());
    assert_eq!(first.resource_names_subscribe, ["a", "b"]);
    assert!(first.initial_resource_versions.is_empty() && first.response_nonce.is_empty());

    accept_next(&mut session, delta_response(ENDPOINT, "n1", &[("a", "1")], &[]));
    let delivery =
        session.handle_response(delta_response(ENDPOINT, "n2", &[("b", "1")], &["a"])).expect("to apply");
    assert_eq!(delivery.update.removed, ["a"]);
    session.refuse(delivery.receipt, "no good");
    session.set_interest(ENDPOINT, Interest::names(["b", "c"]), TIMEOUT, now);

    let ack = delta_request(session.poll_request());
    assert_eq!((ack.response_nonce.as_str(), &ack.error_detail), ("n1", &None));
    assert_eq!(
        (ack.resource_names_subscribe, ack.resource_names_unsubscribe),
        (names(&["c"]), names(&["a"]))
    );
    let nack = delta_request(session.poll_request());
    assert_eq!(nack.response_nonce, "n2");
    assert_eq!(nack.error_detail.expect("a refusal says why").code, 13);
    assert_eq!(session.poll_request(), None);
}

#[test]
fn delta_tells_a_new_stream_what_it_holds() {
    let (mut session, now) = opened(
        Variant::Delta,
        &[(CLUSTER, Interest::Wildcard), (ENDPOINT, Interest::names(["a", "b", "c"]))],
    );
    accept_next(&mut session, delta_response(CLUSTER, "n1", &[("x", "7"), ("y", "8")], &[]));
    accept_next(&mut session, delta_response(CLUSTER, "n2", &[], &["y"]));
    accept_next(&mut session, delta_response(ENDPOINT, "n3", &[("a", "1"), ("b", "2")], &["c"]));
    session.set_interest(ENDPOINT, Interest::names(["b", "c"]), TIMEOUT, now);
    reopen(&mut session, now);

    let clusters = delta_request(session.poll_request());
    assert!(clusters.resource_names_subscribe.is_empty(), "an empty first request asks for everything");
    assert_eq!(clusters.initial_resource_versions, [("x".to_owned(), "7".to_owned())].into());
    let endpoints = delta_request(session.poll_request());
    assert_eq!(endpoints.resource_names_subscribe, ["b", "c"]);
    assert_eq!(endpoints.initial_resource_versions, [("b".to_owned(), "2".to_owned())].into());
    assert!(endpoints.resource_names_unsubscribe.is_empty() && endpoints.response_nonce.is_empty());
}

#[test]
fn delta_does_not_know_what_is_held_after_refused_clusters_but_does_after_refused_endpoints() {
    let (mut session, now) =
        opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard), (ENDPOINT, Interest::names(["a"]))]);
    for type_url in [CLUSTER, ENDPOINT] {
        accept_next(&mut session, delta_response(type_url, "n1", &[("a", "1")], &[]));
        let delivery =
            session.handle_response(delta_response(type_url, "n2", &[("a", "2")], &[])).expect("to apply");
        session.refuse(delivery.receipt, "no good");
    }
    reopen(&mut session, now);
    let versions =
        |request: crate::messages::DeltaDiscoveryRequest| request.initial_resource_versions["a"].clone();
    assert_eq!(versions(delta_request(session.poll_request())), "", "clusters are applied one by one");
    assert_eq!(versions(delta_request(session.poll_request())), "1", "endpoints are applied as a unit");
}

#[test]
fn a_name_taken_up_again_before_the_request_left_is_subscribed_to() {
    let (mut session, now) = opened(Variant::Delta, &[(ENDPOINT, Interest::names(["a", "b"]))]);
    session.poll_request();
    session.set_interest(ENDPOINT, Interest::names(["b"]), TIMEOUT, now);
    session.set_interest(ENDPOINT, Interest::names(["a", "b"]), TIMEOUT, now);
    let request = delta_request(session.poll_request());
    assert_eq!(
        (request.resource_names_subscribe, request.resource_names_unsubscribe),
        (names(&["a"]), vec![])
    );
}

#[test]
fn delta_gives_up_and_takes_up_everything_with_a_star() {
    let (mut session, now) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    session.set_interest(CLUSTER, Interest::names(["a"]), TIMEOUT, now);
    let request = delta_request(session.poll_request());
    assert_eq!(request.resource_names_subscribe, ["a"]);
    assert_eq!(request.resource_names_unsubscribe, ["*"]);
    session.set_interest(CLUSTER, Interest::WildcardAnd(["a".to_owned()].into()), TIMEOUT, now);
    assert_eq!(delta_request(session.poll_request()).resource_names_subscribe, ["*"]);
    reopen(&mut session, now);
    assert_eq!(delta_request(session.poll_request()).resource_names_subscribe, ["*", "a"]);
}

#[test]
fn a_refresh_asks_again_for_what_is_subscribed_to_already() {
    let (mut session, now) = opened(Variant::Delta, &[(ENDPOINT, Interest::names(["a", "b"]))]);
    session.poll_request();
    session.refresh(ENDPOINT, "a", TIMEOUT, now);
    session.refresh(ENDPOINT, "unknown", TIMEOUT, now);
    assert_eq!(delta_request(session.poll_request()).resource_names_subscribe, ["a"]);
    assert_eq!(session.poll_request(), None);
}

#[test]
fn requests_wait_while_an_update_they_depend_on_is_applied() {
    let (mut session, now) =
        opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard), (ENDPOINT, Interest::None)]);
    session.poll_request();
    let delivery =
        session.handle_response(delta_response(CLUSTER, "n1", &[("a", "1")], &[])).expect("to apply");
    session.set_interest(ENDPOINT, Interest::names(["a"]), TIMEOUT, now);
    session.set_interest(LISTENER, Interest::Wildcard, TIMEOUT, now);
    assert_eq!(
        delta_request(session.poll_request()).type_url,
        LISTENER,
        "listeners do not depend on clusters"
    );
    assert_eq!(session.poll_request(), None, "endpoints wait while clusters are applied");
    session.accept(delivery.receipt);
    assert_eq!(delta_request(session.poll_request()).type_url, ENDPOINT, "before the acknowledgement");
    let ack = delta_request(session.poll_request());
    assert_eq!((ack.type_url.as_str(), ack.response_nonce.as_str()), (CLUSTER, "n1"));
}

#[test]
fn a_paused_type_sends_nothing_until_resumed() {
    let (mut session, _) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    session.pause(CLUSTER);
    session.pause(CLUSTER);
    session.resume(CLUSTER);
    assert_eq!(session.poll_request(), None);
    session.resume(CLUSTER);
    assert!(session.poll_request().is_some());
}

#[test]
fn malformed_responses_are_refused_without_being_handed_out() {
    let (mut session, _) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    let of = |resources: Vec<WireResource>| {
        Response::Delta(DeltaDiscoveryResponse {
            resources,
            type_url: CLUSTER.to_owned(),
            nonce: "n".to_owned(),
            ..DeltaDiscoveryResponse::default()
        })
    };
    let bodyless = WireResource { name: "a".to_owned(), version: "1".to_owned(), ..WireResource::default() };
    for (response, text) in [
        (of(vec![wire(CLUSTER, "a", "1"), wire(CLUSTER, "a", "2")]), "duplicate name a"),
        (of(vec![wire(LISTENER, "a", "1")]), "does not match the message-wide type URL"),
        (of(vec![bodyless]), "no body"),
        (delta_response(CLUSTER, "n", &[("a", "1")], &["a"]), "union of added+removed"),
    ] {
        assert!(session.handle_response(response).is_none());
        let nack = delta_request(session.poll_request());
        let error = nack.error_detail.expect("a refusal says why").message;
        assert!(error.contains(text), "{error}");
        assert!(
            matches!(session.poll_event(), Some(ClientEvent::Malformed { message, .. }) if message == error)
        );
    }

    let (mut session, _) = opened(Variant::StateOfTheWorld, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    assert!(session.handle_response(sotw_response(CLUSTER, "v", "n", &["a", "a"])).is_none());
    let nack = sotw_request(session.poll_request());
    assert_eq!((nack.version_info.as_str(), nack.response_nonce.as_str()), ("", "n"));
    assert!(nack.error_detail.is_some());
}

#[test]
fn responses_of_unknown_types_are_ignored_without_an_answer() {
    let (mut session, _) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    assert!(session.handle_response(delta_response(LISTENER, "n", &[("a", "1")], &[])).is_none());
    assert_eq!(session.poll_request(), None);
    assert!(matches!(session.poll_event(), Some(ClientEvent::Warning(_))));
}

#[test]
fn times_to_live_are_warned_about_and_signs_of_life_are_acknowledged() {
    let (mut session, _) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    let with_ttl = |body: bool| {
        let mut resource = wire(CLUSTER, "a", "1");
        resource.ttl = Some(Default::default());
        if !body {
            resource.resource = None;
        }
        Response::Delta(DeltaDiscoveryResponse {
            resources: vec![resource],
            type_url: CLUSTER.to_owned(),
            nonce: "n".to_owned(),
            ..DeltaDiscoveryResponse::default()
        })
    };
    accept_next(&mut session, with_ttl(true));
    assert!(matches!(session.poll_event(), Some(ClientEvent::Warning(text)) if text.contains("ttl")));
    let update = accept_next(&mut session, with_ttl(false));
    assert!(update.added.is_empty());
}

#[test]
fn wrapped_sotw_resources_are_unwrapped() {
    let (mut session, _) = opened(Variant::StateOfTheWorld, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    let wrapper = prost::Message::encode_to_vec(&wire(CLUSTER, "a", "1"));
    let response = crate::messages::DiscoveryResponse {
        version_info: "v".to_owned(),
        resources: vec![crate::messages::Any {
            type_url: crate::type_url::WRAPPER.to_owned(),
            value: wrapper,
        }],
        type_url: CLUSTER.to_owned(),
        ..Default::default()
    };
    let update = accept_next(&mut session, Response::StateOfTheWorld(response));
    assert_eq!((update.added[0].name.as_str(), &update.added[0].body), ("a", &body(CLUSTER, "a", "1")));
}

#[test]
fn waiting_for_a_first_answer_ends() {
    let (mut session, now) =
        opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard), (ENDPOINT, Interest::names(["a", "b"]))]);
    session.set_interest(LISTENER, Interest::Wildcard, None, now);
    assert_eq!(session.next_deadline(), Some(now + Duration::from_secs(15)));
    accept_next(&mut session, delta_response(CLUSTER, "n1", &[], &[]));
    accept_next(&mut session, delta_response(ENDPOINT, "n2", &[("a", "1")], &[]));
    session.set_interest(ENDPOINT, Interest::names(["a", "b"]), TIMEOUT, now + Duration::from_secs(5));
    session.handle_deadline(now + Duration::from_secs(14));
    assert_eq!(session.poll_event(), None);
    session.handle_deadline(now + Duration::from_secs(15));
    let expected = ClientEvent::FetchTimeout { type_url: ENDPOINT.to_owned(), name: Some("b".to_owned()) };
    assert_eq!(session.poll_event(), Some(expected));
    assert_eq!(session.poll_event(), None);
    assert_eq!(session.next_deadline(), None, "listeners wait for ever");
}

#[test]
fn reconnections_back_off_until_a_response_arrives() {
    let (mut session, now) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    let mut longest = Duration::ZERO;
    for _ in 0..40 {
        let retry_at = session.stream_closed(now);
        assert!(!session.wants_connection(now) || retry_at == now);
        assert!(session.wants_connection(retry_at));
        longest = longest.max(retry_at - now);
        session.connecting();
    }
    assert!((Duration::from_secs(15)..Duration::from_secs(30)).contains(&longest), "{longest:?}");
    session.stream_opened();
    session.poll_request();
    accept_next(&mut session, delta_response(CLUSTER, "n1", &[], &[]));
    assert!(session.stream_closed(now) - now < Duration::from_millis(500));
}

#[test]
fn an_update_of_an_older_stream_is_not_answered_on_the_next() {
    let (mut session, now) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    let delivery =
        session.handle_response(delta_response(CLUSTER, "n1", &[("a", "1")], &[])).expect("to apply");
    reopen(&mut session, now);
    assert_eq!(session.poll_request(), None, "its own type waits");
    session.accept(delivery.receipt);
    let first = delta_request(session.poll_request());
    assert_eq!(first.initial_resource_versions.len(), 1, "but it counts as held");
    assert_eq!(session.poll_request(), None);
}

#[test]
fn the_control_plane_names_itself_once() {
    let (mut session, _) = opened(Variant::StateOfTheWorld, &[(CLUSTER, Interest::Wildcard)]);
    for nonce in ["1", "2"] {
        accept_next(&mut session, sotw_response(CLUSTER, "v", nonce, &[]));
    }
    assert_eq!(session.poll_event(), Some(ClientEvent::ControlPlane("test".to_owned())));
    assert_eq!(session.poll_event(), None);
}

#[test]
fn long_refusals_are_cut() {
    let (mut session, _) = opened(Variant::Delta, &[(CLUSTER, Interest::Wildcard)]);
    session.poll_request();
    let delivery =
        session.handle_response(delta_response(CLUSTER, "n1", &[("a", "1")], &[])).expect("to apply");
    session.refuse(delivery.receipt, "ä".repeat(4000));
    let message = delta_request(session.poll_request()).error_detail.expect("a refusal says why").message;
    assert!(message.len() < 4200 && message.ends_with("...(truncated)"), "{} bytes", message.len());
}
