use std::net::SocketAddr;
use std::rc::Rc;

use dhow_proxy_api::ConnectionHandler;
use dhow_proxy_runtime::Worker;

use super::*;

/// A filter that these tests never start.
#[derive(Debug)]
struct Unused;

impl NetworkFilter for Unused {
    fn on_worker(&self, _: &Rc<Worker>) -> Rc<dyn ConnectionHandler> {
        unreachable!("choosing a chain starts nothing")
    }
}

fn chain(name: &str, matches: FilterChainMatch) -> Arc<FilterChain> {
    Arc::new(FilterChain {
        in_front: Box::default(),
        metadata: None,
        name: name.into(),
        encoded: Bytes::new(),
        matches,
        tls: None,
        handshake_timeout: None,
        filter: Arc::new(Unused),
    })
}

fn cidrs(texts: &[&str]) -> Vec<Cidr> {
    let split = texts.iter().map(|text| text.split_once('/').unwrap());
    split.map(|(ip, length)| Cidr::new(ip.parse().unwrap(), length.parse().unwrap())).collect()
}

fn names(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn address(text: &str) -> &'static StreamAddress {
    Box::leak(Box::new(
        text.parse::<SocketAddr>().map_or(StreamAddress::Pipe(text.into()), StreamAddress::Ip),
    ))
}

fn any() -> FilterChainMatch {
    FilterChainMatch::default()
}

/// A TLS connection from elsewhere.
fn facts<'a>() -> ConnectionFacts<'a> {
    ConnectionFacts {
        record: None,
        destination: address("10.0.0.1:443"),
        source: address("192.0.2.7:5000"),
        direct_source: address("192.0.2.7:5000"),
        server_name: None,
        transport_protocol: "tls",
        application_protocols: &[],
    }
}

/// The name of the chosen chain: `default` stands for the default chain, an empty text for none.
fn chosen(chains: &[(&str, FilterChainMatch)], default: bool, facts: &ConnectionFacts<'_>) -> String {
    let chains = chains.iter().map(|(name, matches)| chain(name, matches.clone())).collect();
    let chains = FilterChains::new(chains, default.then(|| chain("default", any())));
    chains.choose(facts).map(|chain| chain.name.to_string()).unwrap_or_default()
}

#[test]
fn every_stage_prefers_the_closer_match_and_falls_back_to_not_asking() {
    let h2 = names(&["h2"]);
    let with = |change: fn(&mut FilterChainMatch)| {
        let mut matches = any();
        change(&mut matches);
        matches
    };
    let offers_h2 = ConnectionFacts { application_protocols: &h2, ..facts() };
    let table: [(&str, FilterChainMatch, ConnectionFacts<'_>, ConnectionFacts<'_>); 9] = [
        (
            "destination_port",
            with(|m| m.destination_port = Some(443)),
            facts(),
            ConnectionFacts { destination: address("10.0.0.1:80"), ..facts() },
        ),
        (
            "prefix_ranges",
            with(|m| m.destination = cidrs(&["10.0.0.0/8"])),
            facts(),
            ConnectionFacts { destination: address("11.0.0.1:443"), ..facts() },
        ),
        (
            "server_names",
            with(|m| m.server_names = names(&["a.test"])),
            ConnectionFacts { server_name: Some("a.test"), ..facts() },
            ConnectionFacts { server_name: Some("b.test"), ..facts() },
        ),
        (
            "transport_protocol",
            with(|m| m.transport_protocol = "tls".into()),
            facts(),
            ConnectionFacts { transport_protocol: "raw_buffer", ..facts() },
        ),
        ("application_protocols", with(|m| m.application_protocols = names(&["h2"])), offers_h2, facts()),
        (
            "direct_source_prefix_ranges",
            with(|m| m.direct_source = cidrs(&["192.0.2.0/24"])),
            ConnectionFacts { source: address("198.51.100.1:5000"), ..facts() },
            ConnectionFacts { direct_source: address("198.51.100.1:5000"), ..facts() },
        ),
        (
            "source_type",
            with(|m| m.source_type = SourceType::External),
            facts(),
            ConnectionFacts { source: address("127.0.0.1:5000"), ..facts() },
        ),
        (
            "source_prefix_ranges",
            with(|m| m.source = cidrs(&["192.0.2.0/24"])),
            facts(),
            ConnectionFacts { source: address("198.51.100.1:5000"), ..facts() },
        ),
        (
            "source_ports",
            with(|m| m.source_ports = vec![5000]),
            facts(),
            ConnectionFacts { source: address("192.0.2.7:5001"), ..facts() },
        ),
    ];
    for (stage, matches, hit, miss) in table {
        let chains = [("any", any()), ("asks", matches.clone())];
        assert_eq!(chosen(&chains, false, &hit), "asks", "{stage}");
        assert_eq!(chosen(&chains, false, &miss), "any", "{stage}");
        let only = [("asks", matches)];
        assert_eq!(chosen(&only, false, &miss), "", "{stage}");
        assert_eq!(chosen(&only, true, &miss), "default", "{stage}");
    }
}

#[test]
fn there_is_no_way_back_to_an_earlier_stage() {
    let port = FilterChainMatch { destination_port: Some(443), ..any() };
    let chains = [
        ("port and name", FilterChainMatch { server_names: names(&["a.test"]), ..port.clone() }),
        ("any", any()),
    ];
    let other_name = ConnectionFacts { server_name: Some("b.test"), ..facts() };
    // The port decides first; that its only chain wants another name does not bring the other chain back.
    assert_eq!(chosen(&chains, false, &other_name), "");
    assert_eq!(chosen(&chains, true, &other_name), "default");
    let other_port = ConnectionFacts { destination: address("10.0.0.1:80"), ..other_name };
    assert_eq!(chosen(&chains, false, &other_port), "any");

    let chains = [
        (
            "exact name, h2",
            FilterChainMatch {
                server_names: names(&["a.b.test"]),
                application_protocols: names(&["h2"]),
                ..any()
            },
        ),
        ("suffix", FilterChainMatch { server_names: names(&["*.b.test"]), ..any() }),
    ];
    let without_h2 = ConnectionFacts { server_name: Some("a.b.test"), ..facts() };
    assert_eq!(chosen(&chains, true, &without_h2), "default");
}

#[test]
fn server_names_match_exactly_then_by_the_longest_suffix() {
    let chains = [
        ("star", FilterChainMatch { server_names: names(&["*"]), ..any() }),
        ("short suffix", FilterChainMatch { server_names: names(&["*.test"]), ..any() }),
        ("long suffix", FilterChainMatch { server_names: names(&["*.b.test", "other.example"]), ..any() }),
        ("exact", FilterChainMatch { server_names: names(&["a.b.test"]), ..any() }),
        ("none", any()),
    ];
    let table = [
        (Some("a.b.test"), "exact"),
        (Some("c.b.test"), "long suffix"),
        (Some("d.c.b.test"), "long suffix"),
        (Some("other.example"), "long suffix"),
        (Some("b.test"), "short suffix"),
        (Some("x.example"), "star"),
        (None, "none"),
    ];
    for (name, expected) in table {
        assert_eq!(
            chosen(&chains, false, &ConnectionFacts { server_name: name, ..facts() }),
            expected,
            "{name:?}"
        );
    }
}

#[test]
fn the_longest_prefix_wins() {
    let to = |ranges: &[&str]| FilterChainMatch { destination: cidrs(ranges), ..any() };
    let chains = [
        ("wide", to(&["10.0.0.0/8"])),
        ("narrow", to(&["172.16.0.0/12", "10.0.0.0/24"])),
        ("last", to(&["255.255.255.255/32"])),
        ("any", any()),
    ];
    let table = [
        ("10.0.0.1:1", "narrow"),
        ("10.1.0.1:1", "wide"),
        ("172.16.0.1:1", "narrow"),
        ("192.0.2.1:1", "any"),
        ("/socket", "last"),
    ];
    for (destination, expected) in table {
        let facts = ConnectionFacts { destination: address(destination), ..facts() };
        assert_eq!(chosen(&chains, false, &facts), expected, "{destination}");
    }
}

#[test]
fn source_types_tell_the_own_machine_from_others() {
    let of = |source_type| FilterChainMatch { source_type, ..any() };
    let chains = [("local", of(SourceType::SameIpOrLoopback)), ("external", of(SourceType::External))];
    let table = [
        ("127.0.0.1:9", "local"),
        ("[::1]:9", "local"),
        ("10.0.0.1:9", "local"),
        ("10.0.0.2:9", "external"),
        ("/socket", "local"),
    ];
    for (source, expected) in table {
        assert_eq!(
            chosen(&chains, false, &ConnectionFacts { source: address(source), ..facts() }),
            expected,
            "{source}"
        );
    }
}

#[test]
fn the_clients_first_protocol_that_a_chain_has_decides() {
    let speaks = |protocol: &str| FilterChainMatch { application_protocols: names(&[protocol]), ..any() };
    let chains = [("http/1.1", speaks("http/1.1")), ("h2", speaks("h2")), ("any", any())];
    for (offered, expected) in
        [(&["h2", "http/1.1"][..], "h2"), (&["x", "http/1.1", "h2"], "http/1.1"), (&["x"], "any")]
    {
        let offered = names(offered);
        let facts = ConnectionFacts { application_protocols: &offered, ..facts() };
        assert_eq!(chosen(&chains, false, &facts), expected, "{offered:?}");
    }
}
