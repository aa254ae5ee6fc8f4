//! Encoding: the same content gives the same bytes, and what is generated fulfils Envoy's validation rules.

use dhow_proto::{CheckOptions, Message, Name, check_message};

use super::{SERVICES, istio, sidecar};
use crate::resource;

fn text() -> String {
    let rule =
        istio("DestinationRule", "reviews", "{host: reviews, subsets: [{name: v2, labels: {version: v2}}]}");
    let routes = istio(
        "VirtualService",
        "reviews",
        "{hosts: [reviews], http: [{fault: {abort: {httpStatus: 500}}, corsPolicy: {allowOrigins: [{exact: a}]}, route: [{destination: {host: reviews}}]}]}",
    );
    format!("{SERVICES}{rule}{routes}")
}

#[test]
fn equal_content_has_equal_bytes_whatever_the_order_of_its_maps() {
    let text = text();
    let (one, two) = (sidecar(&text), sidecar(&text));
    let digests = |dump: &super::Dump| -> Vec<String> {
        let clusters = dump.0.clusters.iter().map(|message| resource(&message.name, message));
        let routes = dump.0.routes.iter().map(|message| resource(&message.name, message));
        clusters.chain(routes).map(|resource| resource.version.to_string()).collect()
    };
    // Each map is given a hashing key of its own, so twenty rounds would show a difference.
    for _ in 0..20 {
        assert_eq!(digests(&one), digests(&two));
    }
}

#[test]
fn the_encoding_is_still_the_message() {
    let dump = sidecar(&text());
    for message in &dump.0.clusters {
        let encoded = resource(&message.name, message);
        let decoded = Message::decode(encoded.body.value.as_slice()).unwrap();
        assert_eq!(*message, decoded);
    }
}

fn check<M: Message + Name>(messages: &[M]) {
    for message in messages {
        let outcome = check_message(&M::full_name(), &message.encode_to_vec(), &CheckOptions::default());
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}

#[test]
fn everything_generated_fulfils_the_published_rules() {
    let dump = sidecar(&text());
    check(&dump.0.clusters);
    check(&dump.0.endpoints);
    check(&dump.0.listeners);
    check(&dump.0.routes);
}
