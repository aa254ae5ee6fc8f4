//! The route configuration, changed and compiled as the tool does.

use std::path::Path;

use dhow_base::{ConfigError, FieldPath, Rng, Uuid};
use dhow_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use dhow_proto::envoy::config::route::v3::{
    Route, RouteConfiguration, route, route_action::ClusterSpecifier,
};
use dhow_proto::{Deprecated, LoadOptions};
use dhow_routing::{CompileOptions, RouteTable};

/// A compiled table beside the configuration that it was made of.
pub(crate) struct Table {
    pub(crate) config: RouteConfiguration,
    pub(crate) routes: RouteTable,
}

impl Table {
    pub(crate) fn load(path: &Path, allow_deprecated: bool) -> Result<Self, ConfigError> {
        let deprecated =
            if allow_deprecated { Deprecated::Decided(|_, _| true) } else { Deprecated::ByDefault };
        let options = LoadOptions { deprecated, ..LoadOptions::default() };
        let mut config: RouteConfiguration = crate::read(path, &options)?;
        let mut rng = Rng::from_entropy();
        for route in config.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
            // Names tell routes apart in the report on coverage.
            route.name = format!("{}-{}", route.name, Uuid::random(&mut rng));
            put_fraction_under_control(route);
        }
        let options = CompileOptions { read_source: &read_source, ..CompileOptions::lenient() };
        let routes = RouteTable::compile(&config, &FieldPath::root(), &options, &mut Vec::new())?;
        Ok(Self { config, routes })
    }

    /// How many routes there are to cover: each weighted cluster of a route counts, and so do routes behind a matcher.
    pub(crate) fn route_count(&self) -> usize {
        let hosts = self.config.virtual_hosts.iter().zip(self.routes.virtual_hosts());
        hosts
            .map(|(config, compiled)| match &config.matcher {
                Some(_) => compiled.routes().len(),
                None => config.routes.iter().map(weight_of).sum(),
            })
            .sum()
    }
}

/// A fraction of zero is meant to be raised by the runtime: it lets one value through when its key is on. A fraction
/// without a key can never be on.
fn put_fraction_under_control(route: &mut Route) {
    let Some(fraction) = route.r#match.as_mut().and_then(|matched| matched.runtime_fraction.as_mut()) else {
        return;
    };
    let can_be_on = !fraction.runtime_key.is_empty();
    let default = fraction.default_value.get_or_insert_default();
    if !can_be_on {
        default.numerator = 0;
    } else if default.numerator == 0 {
        default.numerator = 1;
    }
}

fn weight_of(route: &Route) -> usize {
    match &route.action {
        Some(route::Action::Route(action)) => match &action.cluster_specifier {
            Some(ClusterSpecifier::WeightedClusters(weighted)) => weighted.clusters.len(),
            _ => 1,
        },
        _ => 1,
    }
}

fn read_source(source: &DataSource, path: &FieldPath) -> Result<Vec<u8>, ConfigError> {
    match &source.specifier {
        Some(Specifier::Filename(name)) => std::fs::read(name).map_err(|error| {
            ConfigError::new(path.clone(), format!("unable to read file: {name} ({error})"))
        }),
        Some(Specifier::EnvironmentVariable(name)) => {
            std::env::var(name).map(String::into_bytes).map_err(|_| {
                ConfigError::new(path.clone(), format!("environment variable doesn't exist: {name}"))
            })
        }
        Some(Specifier::InlineString(text)) => Ok(text.clone().into_bytes()),
        Some(Specifier::InlineBytes(bytes)) => Ok(bytes.clone()),
        None => Err(ConfigError::new(path.clone(), "value is required")),
    }
}
