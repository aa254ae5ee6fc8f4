use std::time::{Duration, Instant};

use super::{Push, RequestError, ServerConfig, ServerEvent, ServerSession, SyncState};
use crate::fixtures::{names, node, pushes, resource};
use crate::messages::{DeltaDiscoveryRequest, DiscoveryRequest, Status};
use crate::type_url::{CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET};
use crate::{Request, Resource, Response, Variant};

fn session(variant: Variant) -> (ServerSession, Instant) {
    (ServerSession::new(ServerConfig::new(variant)), Instant::now())
}

fn delta(type_url: &str, subscribe: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        node: Some(node()),
        type_url: type_url.to_owned(),
        resource_names_subscribe: names(subscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

fn sotw(type_url: &str, names_wanted: &[&str], nonce: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(node()),
        type_url: type_url.to_owned(),
        resource_names: names(names_wanted),
        response_nonce: nonce.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn send(server: &mut ServerSession, request: DeltaDiscoveryRequest) {
    server.handle_request(Request::Delta(request)).expect("a valid request");
}

fn send_sotw(server: &mut ServerSession, request: DiscoveryRequest) {
    server.handle_request(Request::StateOfTheWorld(request)).expect("a valid request");
}

fn ack(server: &mut ServerSession, push: &Push) {
    let request =
        DeltaDiscoveryRequest { response_nonce: push.nonce().to_owned(), ..delta(push.type_url(), &[]) };
    send(server, request);
}

fn nack(server: &mut ServerSession, push: &Push, message: &str) {
    let error_detail = Some(Status { code: 13, message: message.to_owned(), details: vec![] });
    let request = DeltaDiscoveryRequest {
        response_nonce: push.nonce().to_owned(),
        error_detail,
        ..delta(push.type_url(), &[])
    };
    send(server, request);
}

fn sent(push: &Push) -> Vec<&str> {
    push.resources().iter().map(|resource| &*resource.name).collect()
}

fn removed(push: &Push) -> Vec<&str> {
    push.removed().iter().map(|name| &**name).collect()
}

/// The only push that is due.
#[track_caller]
fn only(server: &mut ServerSession, world: &[Resource], now: Instant) -> Push {
    let mut pushes = pushes(server, world, now);
    assert_eq!(pushes.len(), 1, "{pushes:?}");
    pushes.remove(0)
}

#[test]
fn streams_without_node_or_type_are_refused() {
    let (mut server, _) = session(Variant::Delta);
    let anonymous = DeltaDiscoveryRequest { node: None, ..delta(CLUSTER, &[]) };
    assert_eq!(server.handle_request(Request::Delta(anonymous.clone())), Err(RequestError::NoNode));
    send(&mut server, delta(CLUSTER, &[]));
    assert_eq!(server.handle_request(Request::Delta(anonymous)), Ok(()), "later requests need no node");
    assert_eq!(server.handle_request(Request::Delta(delta("", &[]))), Err(RequestError::NoType));
    let other = Request::StateOfTheWorld(sotw(CLUSTER, &[], ""));
    assert_eq!(server.handle_request(other), Err(RequestError::WrongVariant));

    let config = ServerConfig { only_type: Some(CLUSTER.into()), ..ServerConfig::new(Variant::Delta) };
    let mut server = ServerSession::new(config);
    send(&mut server, delta("", &[]));
    let wrong = server.handle_request(Request::Delta(delta(LISTENER, &[])));
    assert_eq!(wrong, Err(RequestError::WrongType(LISTENER.to_owned())));
}

#[test]
fn the_first_request_is_answered_even_with_nothing() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let (mut server, now) = session(variant);
        match variant {
            Variant::Delta => send(&mut server, delta(CLUSTER, &[])),
            Variant::StateOfTheWorld => send_sotw(&mut server, sotw(CLUSTER, &[], "")),
        }
        assert!(only(&mut server, &[], now).resources().is_empty());
        server.snapshot_published();
        assert!(pushes(&mut server, &[], now).is_empty());
    }
}

#[test]
fn delta_pushes_what_changed_and_what_is_gone() {
    let (mut server, now) = session(Variant::Delta);
    send(&mut server, delta(CLUSTER, &[]));
    let mut world = vec![resource(CLUSTER, "a", "1"), resource(CLUSTER, "b", "1")];
    let push = only(&mut server, &world, now);
    assert_eq!(sent(&push), ["a", "b"]);
    ack(&mut server, &push);
    assert!(pushes(&mut server, &world, now).is_empty());

    world[0] = resource(CLUSTER, "a", "2");
    world.remove(1);
    server.snapshot_published();
    let push = only(&mut server, &world, now);
    assert_eq!((sent(&push), removed(&push)), (vec!["a"], vec!["b"]));
}

#[test]
fn at_most_one_push_per_type_is_unanswered() {
    let (mut server, now) = session(Variant::Delta);
    send(&mut server, delta(CLUSTER, &[]));
    let first = only(&mut server, &[resource(CLUSTER, "a", "1")], now);
    for version in ["2", "3"] {
        server.snapshot_published();
        assert!(pushes(&mut server, &[resource(CLUSTER, "a", version)], now).is_empty());
    }
    ack(&mut server, &first);
    let push = only(&mut server, &[resource(CLUSTER, "a", "3")], now);
    assert_eq!(&*push.resources()[0].version, "3", "changes meanwhile are sent as one");
}

#[test]
fn initial_versions_spare_what_the_client_holds() {
    let (mut server, now) = session(Variant::Delta);
    let held =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let mut request = delta(CLUSTER, &[]);
    request.initial_resource_versions = held(&[("same", "1"), ("old", "1"), ("gone", "1"), ("unsure", "")]);
    send(&mut server, request);
    let mut request = delta(ENDPOINT, &["same", "old", "new", "missing"]);
    request.initial_resource_versions = held(&[("same", "1"), ("old", "1")]);
    send(&mut server, request);
    let world = [
        resource(CLUSTER, "same", "1"),
        resource(CLUSTER, "old", "2"),
        resource(CLUSTER, "unsure", "1"),
        resource(ENDPOINT, "same", "1"),
        resource(ENDPOINT, "old", "2"),
        resource(ENDPOINT, "new", "1"),
    ];
    let pushes = pushes(&mut server, &world, now);
    assert_eq!((sent(&pushes[0]), removed(&pushes[0])), (vec!["old", "unsure"], vec!["gone"]));
    assert_eq!(sent(&pushes[1]), ["old", "new"]);
    assert_eq!(removed(&pushes[1]), ["missing"], "asked for and does not exist");
}

#[test]
fn a_name_subscribed_to_again_is_answered_although_unchanged() {
    let (mut server, now) = session(Variant::Delta);
    let world = [resource(ENDPOINT, "a", "1"), resource(ENDPOINT, "b", "1")];
    send(&mut server, delta(ENDPOINT, &["a", "b"]));
    let push = only(&mut server, &world, now);
    ack(&mut server, &push);
    send(&mut server, delta(ENDPOINT, &["b"]));
    assert_eq!(sent(&only(&mut server, &world, now)), ["b"]);
}

#[test]
fn unsubscribed_names_are_no_longer_pushed() {
    let (mut server, now) = session(Variant::Delta);
    send(&mut server, delta(ENDPOINT, &["a", "b"]));
    let push = only(&mut server, &[resource(ENDPOINT, "a", "1"), resource(ENDPOINT, "b", "1")], now);
    ack(&mut server, &push);
    send(
        &mut server,
        DeltaDiscoveryRequest { resource_names_unsubscribe: names(&["a"]), ..delta(ENDPOINT, &[]) },
    );
    server.snapshot_published();
    assert!(
        pushes(&mut server, &[resource(ENDPOINT, "a", "2"), resource(ENDPOINT, "b", "1")], now).is_empty()
    );
}

#[test]
fn the_star_is_subscribed_to_and_unsubscribed_from() {
    let (mut server, now) = session(Variant::Delta);
    let world = [resource(CLUSTER, "a", "1"), resource(CLUSTER, "b", "1")];
    send(&mut server, delta(CLUSTER, &["a"]));
    let push = only(&mut server, &world, now);
    assert_eq!(sent(&push), ["a"], "a first request with names is not about everything");
    ack(&mut server, &push);
    send(&mut server, delta(CLUSTER, &["*"]));
    let push = only(&mut server, &world, now);
    assert_eq!(sent(&push), ["b"]);
    ack(&mut server, &push);

    let both = names(&["a", "*"]);
    send(
        &mut server,
        DeltaDiscoveryRequest { resource_names_unsubscribe: both[..1].to_vec(), ..delta(CLUSTER, &[]) },
    );
    let push = only(&mut server, &world, now);
    assert_eq!(sent(&push), ["a"], "the client cannot know that everything includes it");
    ack(&mut server, &push);
    send(
        &mut server,
        DeltaDiscoveryRequest { resource_names_unsubscribe: both[1..].to_vec(), ..delta(CLUSTER, &[]) },
    );
    server.snapshot_published();
    assert!(pushes(&mut server, &[resource(CLUSTER, "a", "2")], now).is_empty());
}

#[test]
fn stale_answers_are_reported_and_do_not_release_the_type() {
    let (mut server, now) = session(Variant::Delta);
    send(&mut server, delta(ENDPOINT, &["a"]));
    let push = only(&mut server, &[resource(ENDPOINT, "a", "1")], now);
    send(&mut server, DeltaDiscoveryRequest { response_nonce: "old".to_owned(), ..delta(ENDPOINT, &["b"]) });
    assert_eq!(server.poll_event(), Some(ServerEvent::StaleNonce { type_url: ENDPOINT.into() }));
    let world = [resource(ENDPOINT, "a", "1"), resource(ENDPOINT, "b", "1")];
    assert!(pushes(&mut server, &world, now).is_empty());
    ack(&mut server, &push);
    assert_eq!(sent(&only(&mut server, &world, now)), ["b"], "its subscriptions count all the same");
}

#[test]
fn a_refused_push_is_not_repeated_until_one_of_its_resources_changed() {
    let (mut server, now) = session(Variant::Delta);
    send(&mut server, delta(ROUTE, &["bad", "good"]));
    let world = |bad: &str, other: &str| {
        [resource(ROUTE, "bad", bad), resource(ROUTE, "good", "1"), resource(ROUTE, "other", other)]
    };
    let push = only(&mut server, &world("1", "1")[..2], now);
    nack(&mut server, &push, "no good");
    let expected = ServerEvent::Nacked {
        type_url: ROUTE.into(),
        nonce: push.nonce().to_owned(),
        message: "no good".to_owned(),
    };
    assert_eq!(server.poll_event(), Some(expected));
    let status = server.status().next().expect("one type");
    assert_eq!((status.state, status.refusal.as_deref()), (SyncState::Stale, Some("no good")));

    server.snapshot_published();
    assert!(pushes(&mut server, &world("1", "1")[..2], now).is_empty());
    send(&mut server, delta(ROUTE, &["other"]));
    let push = only(&mut server, &world("1", "2"), now);
    assert_eq!(sent(&push), ["other"], "the rest goes on without it");
    ack(&mut server, &push);
    server.snapshot_published();
    let push = only(&mut server, &world("2", "2"), now);
    assert_eq!(sent(&push), ["bad", "good"], "what was refused along with it comes again");
    ack(&mut server, &push);
    let status = server.status().next().expect("one type");
    assert_eq!((status.state, status.refusal), (SyncState::Synced, None));
}

#[test]
fn pushes_leave_in_order_and_routes_wait_for_clusters_and_endpoints() {
    let (mut server, now) = session(Variant::Delta);
    for (type_url, wanted) in
        [(SECRET, &["s"][..]), (ROUTE, &["r"]), (LISTENER, &[]), (ENDPOINT, &["c"]), (CLUSTER, &[])]
    {
        send(&mut server, delta(type_url, wanted));
    }
    let world = |version: &str| {
        [(CLUSTER, "c"), (ENDPOINT, "c"), (LISTENER, "l"), (ROUTE, "r"), (SECRET, "s")]
            .map(|(type_url, name)| resource(type_url, name, version))
    };
    let types = |pushes: &[Push]| pushes.iter().map(|push| push.type_url().to_string()).collect::<Vec<_>>();
    let first = pushes(&mut server, &world("1"), now);
    assert_eq!(types(&first), [CLUSTER, ENDPOINT, SECRET]);
    let deadline = server.next_deadline().expect("listeners wait");
    assert_eq!(deadline, now + Duration::from_millis(500));
    ack(&mut server, &first[0]);
    assert!(pushes(&mut server, &world("1"), now).is_empty());
    ack(&mut server, &first[1]);
    assert_eq!(types(&pushes(&mut server, &world("1"), now)), [LISTENER, ROUTE]);
    assert_eq!(server.next_deadline(), None);

    let (mut server, _) = session(Variant::Delta);
    send(&mut server, delta(CLUSTER, &[]));
    send(&mut server, delta(LISTENER, &[]));
    assert_eq!(types(&pushes(&mut server, &world("1"), now)), [CLUSTER]);
    let late = pushes(&mut server, &world("1"), now + Duration::from_millis(500));
    assert_eq!(types(&late), [LISTENER], "but not for ever");
}

#[test]
fn clusters_are_removed_after_the_routes_that_pointed_at_them() {
    let (mut server, now) = session(Variant::Delta);
    let before = [resource(CLUSTER, "old", "1"), resource(ROUTE, "r", "old")];
    let after = [resource(CLUSTER, "new", "1"), resource(ROUTE, "r", "new")];
    send(&mut server, delta(CLUSTER, &[]));
    send(&mut server, delta(ROUTE, &["r"]));
    for _ in 0..2 {
        for push in pushes(&mut server, &before, now) {
            ack(&mut server, &push);
        }
    }
    server.snapshot_published();
    let push = only(&mut server, &after, now);
    assert_eq!((&**push.type_url(), sent(&push), removed(&push)), (CLUSTER, vec!["new"], vec![]));
    ack(&mut server, &push);
    let push = only(&mut server, &after, now);
    assert_eq!(&**push.type_url(), ROUTE);
    assert!(!server.is_idle());
    ack(&mut server, &push);
    let push = only(&mut server, &after, now);
    assert_eq!((sent(&push), removed(&push)), (vec![], vec!["old"]));
    ack(&mut server, &push);
    assert!(pushes(&mut server, &after, now).is_empty() && server.is_idle());
}

#[test]
fn sotw_repeats_old_clusters_until_the_routes_have_left_them() {
    let (mut server, now) = session(Variant::StateOfTheWorld);
    let before = [resource(CLUSTER, "old", "1"), resource(ROUTE, "r", "old")];
    let after = [resource(CLUSTER, "new", "1"), resource(ROUTE, "r", "new")];
    let answer = |server: &mut ServerSession, push: &Push| {
        let wanted: &[&str] = if **push.type_url() == *CLUSTER { &[] } else { &["r"] };
        send_sotw(server, sotw(push.type_url(), wanted, push.nonce()));
    };
    send_sotw(&mut server, sotw(CLUSTER, &[], ""));
    send_sotw(&mut server, sotw(ROUTE, &["r"], ""));
    for _ in 0..2 {
        for push in pushes(&mut server, &before, now) {
            answer(&mut server, &push);
        }
    }
    server.snapshot_published();
    let both = only(&mut server, &after, now);
    assert_eq!((&**both.type_url(), sent(&both)), (CLUSTER, vec!["new", "old"]));
    answer(&mut server, &both);
    let push = only(&mut server, &after, now);
    assert_eq!(&**push.type_url(), ROUTE);
    answer(&mut server, &push);
    let last = only(&mut server, &after, now);
    assert_eq!(sent(&last), ["new"]);
    assert_ne!(last.version(), both.version());
    answer(&mut server, &last);
    assert!(pushes(&mut server, &after, now).is_empty() && server.is_idle());
}

#[test]
fn changed_clusters_bring_their_endpoints_along() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let (mut server, now) = session(variant);
        let world = |version: &str| {
            [resource(CLUSTER, "a", version), resource(ENDPOINT, "a", "1"), resource(ENDPOINT, "b", "1")]
        };
        let answer = |server: &mut ServerSession, push: &Push| match variant {
            Variant::Delta => ack(server, push),
            Variant::StateOfTheWorld => {
                let wanted: &[&str] = if **push.type_url() == *CLUSTER { &[] } else { &["a", "b"] };
                send_sotw(server, sotw(push.type_url(), wanted, push.nonce()));
            }
        };
        match variant {
            Variant::Delta => {
                send(&mut server, delta(CLUSTER, &[]));
                send(&mut server, delta(ENDPOINT, &["a", "b"]));
            }
            Variant::StateOfTheWorld => {
                send_sotw(&mut server, sotw(CLUSTER, &[], ""));
                send_sotw(&mut server, sotw(ENDPOINT, &["a", "b"], ""));
            }
        }
        for push in pushes(&mut server, &world("1"), now) {
            answer(&mut server, &push);
        }
        server.snapshot_published();
        let pushes = pushes(&mut server, &world("2"), now);
        assert_eq!((sent(&pushes[0]), sent(&pushes[1])), (vec!["a"], vec!["a"]), "{variant:?}");
    }
}

#[test]
fn sotw_sends_full_sets_of_clusters_and_changes_of_endpoints() {
    let (mut server, now) = session(Variant::StateOfTheWorld);
    send_sotw(&mut server, sotw(LISTENER, &[], ""));
    send_sotw(&mut server, sotw(ENDPOINT, &["a", "b", "missing"], ""));
    let mut world = vec![
        resource(LISTENER, "x", "1"),
        resource(LISTENER, "y", "1"),
        resource(ENDPOINT, "a", "1"),
        resource(ENDPOINT, "b", "1"),
    ];
    let first: Vec<Push> = (0..2)
        .flat_map(|_| {
            let pushes = pushes(&mut server, &world, now);
            for push in &pushes {
                let wanted: &[&str] =
                    if **push.type_url() == *LISTENER { &[] } else { &["a", "b", "missing"] };
                send_sotw(&mut server, sotw(push.type_url(), wanted, push.nonce()));
            }
            pushes
        })
        .collect();
    assert_eq!(first.iter().map(sent).collect::<Vec<_>>(), [["a", "b"], ["x", "y"]]);

    world[0] = resource(LISTENER, "x", "2");
    world[3] = resource(ENDPOINT, "b", "2");
    server.snapshot_published();
    let endpoints = only(&mut server, &world, now);
    assert_eq!(sent(&endpoints), ["b"]);
    send_sotw(&mut server, sotw(ENDPOINT, &["a", "b"], endpoints.nonce()));
    let listeners = only(&mut server, &world, now);
    assert_eq!(sent(&listeners), ["x", "y"]);
    assert_ne!(listeners.version(), first[1].version());
    send_sotw(&mut server, sotw(LISTENER, &[], listeners.nonce()));

    world.remove(1);
    world.remove(1);
    server.snapshot_published();
    let push = only(&mut server, &world, now);
    assert_eq!((&**push.type_url(), sent(&push)), (LISTENER, vec!["x"]), "absence deletes listeners only");
}

#[test]
fn sotw_answers_new_names_but_not_fewer_or_the_same() {
    let (mut server, now) = session(Variant::StateOfTheWorld);
    let world = ["a", "b", "c"].map(|name| resource(ENDPOINT, name, "1"));
    send_sotw(&mut server, sotw(ENDPOINT, &["a", "b"], ""));
    let push = only(&mut server, &world, now);
    send_sotw(&mut server, sotw(ENDPOINT, &["a", "b"], push.nonce()));
    send_sotw(&mut server, sotw(ENDPOINT, &["a"], push.nonce()));
    send_sotw(&mut server, sotw(ENDPOINT, &["a"], push.nonce()));
    assert!(pushes(&mut server, &world, now).is_empty());
    send_sotw(&mut server, sotw(ENDPOINT, &["a", "b", "c"], push.nonce()));
    assert_eq!(
        sent(&only(&mut server, &world, now)),
        ["b", "c"],
        "given up and taken up again counts as new"
    );
}

#[test]
fn stale_sotw_requests_are_ignored_as_a_whole() {
    let (mut server, now) = session(Variant::StateOfTheWorld);
    let world = ["a", "b"].map(|name| resource(ENDPOINT, name, "1"));
    send_sotw(&mut server, sotw(ENDPOINT, &["a"], ""));
    let first = only(&mut server, &world, now);
    send_sotw(&mut server, sotw(ENDPOINT, &["a"], first.nonce()));
    server.snapshot_published();
    let second = only(&mut server, &[resource(ENDPOINT, "a", "2")], now);
    send_sotw(&mut server, sotw(ENDPOINT, &["a", "b"], first.nonce()));
    assert!(matches!(server.poll_event(), Some(ServerEvent::Acked { .. })));
    assert!(matches!(server.poll_event(), Some(ServerEvent::StaleNonce { .. })));
    send_sotw(&mut server, sotw(ENDPOINT, &["a", "b"], second.nonce()));
    let world = [resource(ENDPOINT, "a", "2"), resource(ENDPOINT, "b", "1")];
    assert_eq!(sent(&only(&mut server, &world, now)), ["b"]);
}

#[test]
fn an_empty_sotw_list_means_everything_only_until_names_were_listed() {
    let (mut server, now) = session(Variant::StateOfTheWorld);
    let world = ["a", "b"].map(|name| resource(CLUSTER, name, "1"));
    send_sotw(&mut server, sotw(CLUSTER, &[], ""));
    let push = only(&mut server, &world, now);
    assert_eq!(sent(&push), ["a", "b"]);
    send_sotw(&mut server, sotw(CLUSTER, &["a"], push.nonce()));
    let push = only(&mut server, &world, now);
    send_sotw(&mut server, sotw(CLUSTER, &[], push.nonce()));
    server.snapshot_published();
    assert!(pushes(&mut server, &world, now).iter().all(|push| push.resources().is_empty()));

    let (mut server, _) = session(Variant::StateOfTheWorld);
    send_sotw(&mut server, sotw(ROUTE, &[], ""));
    assert!(only(&mut server, &[resource(ROUTE, "r", "1")], now).resources().is_empty(), "routes need names");
}

#[test]
fn the_version_of_a_set_does_not_depend_on_its_order() {
    let [a, b] = [resource(CLUSTER, "a", "1"), resource(CLUSTER, "b", "2")];
    let forwards = super::digest(&[a.clone(), b.clone()]);
    assert_eq!(forwards, super::digest(&[b.clone(), a.clone()]));
    assert_ne!(forwards, super::digest(&[a]));
    let [ab, c] = [resource(CLUSTER, "ab", "c"), resource(CLUSTER, "a", "bc")];
    assert_ne!(super::digest(&[ab]), super::digest(&[c]));
}

#[test]
fn the_shared_encoding_is_that_of_the_messages() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let config = ServerConfig { control_plane: Some("dhowd".into()), ..ServerConfig::new(variant) };
        let mut server = ServerSession::new(config);
        let now = Instant::now();
        match variant {
            Variant::Delta => send(&mut server, delta(ENDPOINT, &["a", "b", "missing", "also missing"])),
            Variant::StateOfTheWorld => send_sotw(&mut server, sotw(ENDPOINT, &["a", "b"], "")),
        }
        let world = [resource(ENDPOINT, "a", &"x".repeat(300)), resource(ENDPOINT, "b", "")];
        let push = only(&mut server, &world, now);
        let mut bytes = Vec::new();
        push.encode(&mut bytes);
        assert_eq!(bytes.len(), push.encoded_len());
        assert_eq!(Response::decode(variant, bytes.as_slice()).expect("well formed"), push.to_response());
        assert_eq!(push.resources().len(), 2);
    }
}
