//! Which routes the tests have asked about.

use std::io::{self, Write};

use dhow_proto::envoy::config::route::v3::Route;
use dhow_proto::message_to_text;
use dhow_routing::{RouteEntry, SelectedRoute};

use crate::table::Table;

/// A property of a route that a test has confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property {
    Cluster,
    VirtualCluster,
    VirtualHost,
    PathRewrite,
    HostRewrite,
    RedirectPath,
    RedirectCode,
}

/// How many properties of a route that forwards count, and how many of one that answers itself.
const FORWARDING: usize = 5;
const DIRECT: usize = 2;

/// The routes that were asked about, with the properties that were confirmed. The clusters of one route count apart.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    covered: Vec<Covered>,
}

#[derive(Debug)]
struct Covered {
    /// Identity of the compiled route, which outlives this.
    route: *const RouteEntry,
    name: String,
    cluster: String,
    countable: usize,
    properties: Vec<Property>,
}

impl Coverage {
    /// Notes that a property of a route is as expected; `cluster` is empty for a route that answers itself.
    pub(crate) fn confirm(&mut self, route: &SelectedRoute, cluster: &str, property: Property) {
        let identity = std::ptr::from_ref(route.entry());
        let known = self.covered.iter_mut().find(|known| known.route == identity && known.cluster == cluster);
        let properties = match known {
            Some(known) => &mut known.properties,
            None => {
                let is_direct = matches!(property, Property::RedirectPath | Property::RedirectCode);
                self.covered.push(Covered {
                    route: identity,
                    name: route.entry().name().to_owned(),
                    cluster: cluster.to_owned(),
                    countable: if is_direct { DIRECT } else { FORWARDING },
                    properties: Vec::new(),
                });
                let last = self.covered.len() - 1;
                &mut self.covered[last].properties
            }
        };
        if !properties.contains(&property) {
            properties.push(property);
        }
    }

    /// The part of the routes that is covered, in percent; when `comprehensive`, a route counts by how much of it was confirmed.
    pub(crate) fn percent(&self, table: &Table, comprehensive: bool) -> f64 {
        let part = |covered: &Covered| match comprehensive {
            true => covered.properties.len() as f64 / covered.countable as f64,
            false => 1.0,
        };
        let covered = self.covered.iter().map(part).fold(0.0, std::ops::Add::add);
        100.0 * covered / table.route_count() as f64
    }

    pub(crate) fn print_names_without_tests(&self, table: &Table, out: &mut dyn Write) -> io::Result<()> {
        self.without_tests(table).try_for_each(|(host, route)| {
            writeln!(out, "Missing test for host: {host}, route name: {}", route.name)
        })
    }

    pub(crate) fn print_matches_without_tests(&self, table: &Table, out: &mut dyn Write) -> io::Result<()> {
        self.without_tests(table).try_for_each(|(host, route)| {
            let text = route.r#match.as_ref().map(message_to_text).unwrap_or_default();
            writeln!(out, "Missing test for host: {host}, route: {text}")
        })
    }

    fn without_tests<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = (&'a str, &'a Route)> {
        let routes = table
            .config
            .virtual_hosts
            .iter()
            .flat_map(|host| host.routes.iter().map(|route| (host.name.as_str(), route)));
        routes.filter(|(_, route)| self.covered.iter().all(|covered| covered.name != route.name))
    }
}
