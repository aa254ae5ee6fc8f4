//! Indexes beside a search of every entry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dhow_base::{FieldPath, Rng};
use dhow_http::HeaderMap;
use dhow_matching::{Cidr, CidrSet, DomainIndex, DomainMatch};
use dhow_proto::envoy::config::core::v3::CidrRange;
use dhow_proto::envoy::config::route::v3::route_match::PathSpecifier;
use dhow_proto::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteConfiguration, RouteMatch, VirtualHost, route,
};
use dhow_proto::envoy::r#type::matcher::v3::RegexMatcher;
use dhow_proto::google::protobuf::{BoolValue, UInt32Value};
use dhow_routing::{Action, CompileOptions, RouteInput, RouteTable};

use super::Target;
use crate::input::{Input, noise};

/// Domains of virtual hosts.
pub const DOMAINS: Target = Target {
    name: "domains",
    about: "the index of domains finds what Envoy's order of precedence finds in a list",
    run: domains,
    generate: |rng: &mut Rng| noise(rng, 120),
};

/// Route tables.
pub const ROUTES: Target = Target {
    name: "routes",
    about: "a table of routes selects the first of its routes that alone selects itself",
    run: routes,
    generate: |rng: &mut Rng| noise(rng, 160),
};

/// Sets of address ranges.
pub const ADDRESSES: Target = Target {
    name: "addresses",
    about: "a set of address ranges contains what one of its ranges contains",
    run: addresses,
    generate: |rng: &mut Rng| noise(rng, 120),
};

fn domains(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut index = DomainIndex::default();
    let mut list: Vec<(String, usize)> = Vec::new();
    for number in 0..input.below(12) {
        let word = input.word(b"abA.", 5);
        let domain = match input.below(4) {
            0 => format!("*{word}"),
            1 => format!("{word}*"),
            _ => word,
        };
        let known = list.iter().any(|(other, _)| *other == domain.to_ascii_lowercase());
        assert_eq!(index.insert(&domain, number), !known, "{domain}");
        if !known {
            list.push((domain.to_ascii_lowercase(), number));
        }
    }
    for _ in 0..8 {
        let host = input.word(b"ab.", 7);
        let found = index.find(host.as_bytes()).map(|(number, kind)| (*number, kind));
        assert_eq!(found, searched(&list, &host), "{host} in {list:?}");
    }
}

/// Exact, then the longest `*suffix`, then the longest `prefix*`, then `*`; a wildcard stands for at least one character.
fn searched(list: &[(String, usize)], host: &str) -> Option<(usize, DomainMatch)> {
    let exact = list.iter().find(|(domain, _)| domain == host && !domain.contains('*'));
    let longest = |fits: &dyn Fn(&str) -> Option<usize>| {
        let fitting = list.iter().filter_map(|(domain, number)| Some((fits(domain)?, *number)));
        fitting.max_by_key(|(length, _)| *length).map(|(_, number)| number)
    };
    let suffix = longest(&|domain| {
        let suffix = domain.strip_prefix('*').filter(|_| domain != "*")?;
        (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len())
    });
    let prefix = longest(&|domain| {
        let prefix = domain.strip_suffix('*').filter(|_| !domain.starts_with('*'))?;
        (host.len() > prefix.len() && host.starts_with(prefix)).then_some(prefix.len())
    });
    let any = list.iter().find(|(domain, _)| domain == "*").map(|(_, number)| *number);
    exact
        .map(|(_, number)| (*number, DomainMatch::Exact))
        .or(suffix.map(|number| (number, DomainMatch::Suffix)))
        .or(prefix.map(|number| (number, DomainMatch::Prefix)))
        .or(any.map(|number| (number, DomainMatch::Any)))
}

fn routes(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let matches: Vec<RouteMatch> = (0..1 + input.below(24)).map(|_| route_match(&mut input)).collect();
    let Some(whole) = table(&matches) else { return };
    let alone: Vec<RouteTable> = matches
        .iter()
        .map(|one| table(std::slice::from_ref(one)).expect("a part of what compiles compiles"))
        .collect();
    for _ in 0..8 {
        let path = format!("/{}{}", input.word(b"abA/", 5), input.pick(&["", "", "?x", "?a=b", "#f", "/"]));
        let selected = status(&whole, &path);
        let first = alone.iter().position(|table| status(table, &path).is_some());
        let wanted = first.map(|at| 200 + at as u32);
        assert_eq!(selected, wanted, "{path} in {matches:#?}");
    }
}

fn route_match(input: &mut Input<'_>) -> RouteMatch {
    let path = format!("/{}", input.word(b"abA/", 4));
    let specifier = match input.below(6) {
        0 | 1 => PathSpecifier::Path(path),
        2 => PathSpecifier::PathSeparatedPrefix(path),
        3 => PathSpecifier::SafeRegex(RegexMatcher {
            regex: format!("{path}{}", input.pick(&[".*", "[ab]?", "(a|b/)*", ""])),
            ..RegexMatcher::default()
        }),
        _ => PathSpecifier::Prefix(path),
    };
    let case_sensitive = match input.below(4) {
        0 => Some(BoolValue { value: false }),
        1 => Some(BoolValue { value: true }),
        _ => None,
    };
    RouteMatch { path_specifier: Some(specifier), case_sensitive, ..RouteMatch::default() }
}

/// A table with these routes, each of which answers with its number above 200. `None` when one is refused.
fn table(matches: &[RouteMatch]) -> Option<RouteTable> {
    let routes = matches.iter().enumerate().map(|(at, one)| Route {
        r#match: Some(one.clone()),
        action: Some(route::Action::DirectResponse(DirectResponseAction {
            status: 200 + at as u32,
            ..DirectResponseAction::default()
        })),
        ..Route::default()
    });
    let host = VirtualHost {
        name: "all".to_owned(),
        domains: vec!["*".to_owned()],
        routes: routes.collect(),
        ..VirtualHost::default()
    };
    let message = RouteConfiguration { virtual_hosts: vec![host], ..RouteConfiguration::default() };
    RouteTable::compile(&message, &FieldPath::root(), &CompileOptions::lenient(), &mut Vec::new()).ok()
}

fn status(table: &RouteTable, path: &str) -> Option<u32> {
    let mut headers = HeaderMap::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)] {
        headers.append(name.as_bytes(), value.as_bytes());
    }
    let selected = table.select(&headers, &RouteInput::new(0)).selected()?;
    match selected.entry().action() {
        Action::DirectResponse(response) => Some(u32::from(response.status)),
        _ => None,
    }
}

fn addresses(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let ranges: Vec<CidrRange> = (0..input.below(10))
        .map(|_| {
            let address = address(&mut input);
            let most = if address.is_ipv4() { 33 } else { 129 };
            CidrRange {
                address_prefix: address.to_string(),
                prefix_len: Some(UInt32Value { value: input.below(most) as u32 }),
            }
        })
        .collect();
    let set = CidrSet::compile(&ranges, &FieldPath::root()).expect("every range is valid");
    let list: Vec<Cidr> = ranges
        .iter()
        .map(|range| Cidr::compile(range, &FieldPath::root()).expect("every range is valid"))
        .collect();
    assert_eq!(set.is_empty(), list.is_empty());
    for _ in 0..6 {
        let address = address(&mut input);
        let alone = list.iter().any(|range| range.contains(address));
        assert_eq!(set.contains(address), alone, "{address} in {ranges:?}");
        let plain = ranges.iter().any(|range| within(range, address));
        assert_eq!(alone, plain, "{address} in {ranges:?}");
    }
}

/// Of few different bytes, so that addresses share prefixes.
fn address(input: &mut Input<'_>) -> IpAddr {
    let bytes = [0, 1, 10, 127, 128, 255];
    match input.flag() {
        false => IpAddr::V4(Ipv4Addr::from([(); 4].map(|()| input.pick(&bytes)))),
        true => IpAddr::V6(Ipv6Addr::from([(); 16].map(|()| input.pick(&bytes)))),
    }
}

/// By bits.
fn within(range: &CidrRange, address: IpAddr) -> bool {
    let length = range.prefix_len.as_ref().map_or(0, |length| length.value);
    let same = |left: u128, right: u128, width: u32| {
        let shift = width - length;
        shift >= width || left >> shift == right >> shift
    };
    match (range.address_prefix.parse(), address) {
        (Ok(IpAddr::V4(prefix)), IpAddr::V4(ip)) => same(u32::from(prefix).into(), u32::from(ip).into(), 32),
        (Ok(IpAddr::V6(prefix)), IpAddr::V6(ip)) => same(prefix.into(), ip.into(), 128),
        _ => false,
    }
}
