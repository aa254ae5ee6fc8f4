//! Tables of ten thousand virtual hosts and ten thousand routes: what a selection looks at.

use std::cell::Cell;

use super::*;
use crate::virtual_host::{RouteSearch, VirtualHost};

const MANY: usize = 10_000;

/// The route that the search finds, and how many routes it compared with the request.
fn search(host: &VirtualHost, path: &str) -> (Option<usize>, usize) {
    let headers = request("h", path, &[]);
    let compared = Cell::new(0);
    let matches = |entry: &crate::RouteEntry| {
        compared.set(compared.get() + 1);
        entry.matched.check(&headers, headers.path(), &RouteInput::new(0)).is_ok()
    };
    let found = host.first_match(&headers, headers.path(), &RouteInput::new(0), matches);
    let at = found.and_then(|found| host.routes().iter().position(|route| std::ptr::eq(&**route, &**found)));
    (at, compared.get())
}

fn large_host(routes: Vec<route::Route>) -> std::sync::Arc<VirtualHost> {
    let table = compile(&config(vec![host(&["*"], routes)]));
    let host = table.virtual_hosts()[0].clone();
    assert!(matches!(host.search, RouteSearch::Indexed(_)));
    host
}

#[test]
fn ten_thousand_routes_are_not_compared_one_by_one() {
    let routes = (0..MANY).map(|at| match at % 2 {
        0 => forward(exact(&format!("/exact/{at}")), to("u")),
        _ => forward(prefix(&format!("/prefix/{at}/")), to("u")),
    });
    let host = large_host(routes.chain([forward(prefix("/"), to("rest"))]).collect());
    for at in [0, 5_000, 9_998] {
        assert_eq!(search(&host, &format!("/exact/{at}")), (Some(at), 1));
        assert_eq!(search(&host, &format!("/prefix/{}/x", at + 1)), (Some(at + 1), 1));
    }
    assert_eq!(search(&host, "/none"), (Some(MANY), 1));
}

#[test]
fn prefixes_of_many_lengths_are_found_among_few() {
    // A hundred lengths, more than are looked up one by one.
    let text = |at: usize| format!("/{at:05}{}", "x".repeat(at % 100));
    let host = large_host((0..MANY).map(|at| forward(prefix(&text(at)), to("u"))).collect());
    for at in (0..MANY).step_by(37) {
        let (found, compared) = search(&host, &format!("{}/y", text(at)));
        assert_eq!(found, Some(at));
        assert!(compared <= 4, "{compared} comparisons for route {at}");
    }
    assert_eq!(search(&host, "/nothing/like/it"), (None, 0));
}

#[test]
fn ten_thousand_virtual_hosts_are_found_by_their_domains() {
    let routes = |at: usize| vec![forward(prefix("/"), to(&at.to_string()))];
    let hosts = (0..MANY).map(|at| match at % 4 {
        0 | 1 => host(&[&format!("h{at}.test")], routes(at)),
        2 => host(&[&format!("*.s{at}.test")], routes(at)),
        _ => host(&[&format!("p{at}.*")], routes(at)),
    });
    let table = compile(&config(hosts.chain([host(&["*"], routes(MANY))]).collect()));
    for (authority, expected) in [
        ("h0.test", 0),
        ("H9997.TEST", 9_997),
        ("a.s9998.test", 9_998),
        ("a.b.s2.test", 2),
        ("p9999.anything", 9_999),
        // The wildcard stands for one character at least.
        (".s9998.test", MANY),
        ("p9999.", MANY),
        ("h0.tes", MANY),
    ] {
        assert_eq!(cluster_of(&table, &request(authority, "/", &[]), 0), expected.to_string(), "{authority}");
    }
}

#[test]
fn a_large_host_selects_what_a_search_in_order_selects() {
    for seed in 1..=20u64 {
        let mut rng = dhow_base::Rng::seeded(seed);
        // Few letters, so that prefixes overlap; many lengths, so that some are filed together.
        let mut path = |longest: u64| {
            let length = rng.below(longest);
            (0..length).fold("/".to_owned(), |path, _| path + ["a", "b", "/"][rng.index(3)])
        };
        let routes = (0..400).map(|at| {
            let text = path(60);
            let separated = text.trim_end_matches('/');
            forward(
                match at % 3 {
                    0 => exact(&text),
                    1 if separated.len() > 1 => route::RouteMatch {
                        path_specifier: Some(PathSpecifier::PathSeparatedPrefix(separated.to_owned())),
                        ..Default::default()
                    },
                    _ => prefix(&text),
                },
                to(&at.to_string()),
            )
        });
        // Routes for every path would hide those behind them.
        let routes: Vec<_> = routes.filter(|route| !matches!(&route.r#match.as_ref().unwrap().path_specifier, Some(PathSpecifier::Prefix(text)) if text.len() < 3)).collect();
        let host = large_host(routes.clone());
        let asked =
            routes.iter().filter_map(|route| match route.r#match.as_ref()?.path_specifier.as_ref()? {
                PathSpecifier::Prefix(text) | PathSpecifier::PathSeparatedPrefix(text) => {
                    Some(format!("{text}/b"))
                }
                PathSpecifier::Path(text) => Some(text.clone()),
                _ => None,
            });
        for text in asked.chain((0..100).map(|_| path(8))) {
            let headers = request("h", &text, &[]);
            let in_order = host
                .routes()
                .iter()
                .position(|route| route.matched.check(&headers, headers.path(), &RouteInput::new(0)).is_ok());
            assert_eq!(search(&host, &text).0, in_order, "seed {seed}, path {text}");
        }
    }
}
