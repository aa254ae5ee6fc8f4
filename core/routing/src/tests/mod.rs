//! Route tables on the cases that Envoy 1.40 was asked.

mod from_yaml;
mod policies;
mod rate_limits;
mod rewriting;
mod scale;
mod selection;
mod trees;

use dhow_base::{ConfigError, ConfigWarning, FieldPath};
use dhow_expr::EmptyContext;
use dhow_http::{HeaderMap, KnownHeader};

use crate::pb::core::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction};
use crate::pb::matcher::{RegexMatchAndSubstitute, RegexMatcher};
use crate::pb::protobuf::UInt32Value;
use crate::pb::route::redirect_action::{PathRewriteSpecifier, SchemeRewriteSpecifier};
use crate::pb::route::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use crate::pb::route::route_match::PathSpecifier;
use crate::pb::route::weighted_cluster::ClusterWeight;
use crate::pb::route::{
    self, DirectResponseAction, RedirectAction, RouteAction, RouteConfiguration, WeightedCluster,
};
use crate::{
    Action, ClientCertificate, CompileOptions, Decision, Mismatch, RetryOn, RouteInput, RouteTable,
    SelectedRoute,
};

fn request(authority: &str, path: &str, lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    let head = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
        ("x-forwarded-proto", "http"),
    ];
    for (name, value) in head.iter().chain(lines) {
        map.append(name.as_bytes(), value.as_bytes());
    }
    map
}

fn prefix(prefix: &str) -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(PathSpecifier::Prefix(prefix.to_owned())), ..Default::default() }
}

fn exact(path: &str) -> route::RouteMatch {
    route::RouteMatch { path_specifier: Some(PathSpecifier::Path(path.to_owned())), ..Default::default() }
}

fn to(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    }
}

fn forward(matched: route::RouteMatch, action: RouteAction) -> route::Route {
    route::Route {
        r#match: Some(matched),
        action: Some(route::route::Action::Route(action)),
        ..Default::default()
    }
}

fn host(domains: &[&str], routes: Vec<route::Route>) -> route::VirtualHost {
    route::VirtualHost {
        name: domains[0].to_owned(),
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
        routes,
        ..Default::default()
    }
}

fn config(virtual_hosts: Vec<route::VirtualHost>) -> RouteConfiguration {
    RouteConfiguration { name: "rc".to_owned(), virtual_hosts, ..Default::default() }
}

fn try_compile(message: &RouteConfiguration) -> Result<(RouteTable, Vec<ConfigWarning>), ConfigError> {
    let mut warnings = Vec::new();
    let options = CompileOptions {
        validate_clusters_by_default: true,
        cluster_exists: &|name| name != "nope",
        ..CompileOptions::lenient()
    };
    RouteTable::compile(message, &FieldPath::root(), &options, &mut warnings).map(|table| (table, warnings))
}

fn compile(message: &RouteConfiguration) -> RouteTable {
    try_compile(message).unwrap_or_else(|error| panic!("{error}")).0
}

fn one_route(route: route::Route) -> RouteTable {
    compile(&config(vec![host(&["*"], vec![route])]))
}

fn selected(table: &RouteTable, headers: &HeaderMap) -> SelectedRoute {
    table.select(headers, &RouteInput::new(0)).selected().expect("a route is selected")
}

fn cluster_of(table: &RouteTable, headers: &HeaderMap, random: u64) -> String {
    match table.select(headers, &RouteInput::new(random)) {
        Decision::Selected(route) => route.cluster(headers).unwrap_or("?").to_owned(),
        Decision::NotFound { virtual_host } => format!("404 {}", virtual_host.map_or("", |_| "in host")),
    }
}

fn adds(key: &str, value: &str, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned(), raw_value: vec![] }),
        append_action: action as i32,
        ..Default::default()
    }
}

fn add(key: &str, value: &str) -> HeaderValueOption {
    adds(key, value, HeaderAppendAction::AppendIfExistsOrAdd)
}

fn lines(map: &HeaderMap) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    map.iter().map(|(_, name, value)| format!("{}: {}", text(name), text(value))).collect()
}

fn weight(name: &str, weight: u32) -> ClusterWeight {
    ClusterWeight { name: name.to_owned(), weight: Some(UInt32Value { value: weight }), ..Default::default() }
}

fn weighted(clusters: Vec<ClusterWeight>) -> RouteAction {
    let weighted = WeightedCluster { clusters, ..Default::default() };
    RouteAction {
        cluster_specifier: Some(ClusterSpecifier::WeightedClusters(weighted)),
        ..Default::default()
    }
}
